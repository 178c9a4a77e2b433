// SPDX-License-Identifier: Apache-2.0

package store

import (
	"testing"
	"time"

	"github.com/orb8/orb8/internal/event"
)

// TestLimitForgetsOverSeveralEpochs: those that rest first, without losing a
// byte, and then the slots are given back.
func TestLimitForgetsOverSeveralEpochs(t *testing.T) {
	const all, busy, limit = 100_000, 1000, 2000
	s := NewFlows(Limits{Flows: all})
	var want event.Traffic
	touch := func(n int) {
		s.Begin()
		for i := range n {
			d := moved(conn(i), 1, 2)
			want.Add(d.Traffic)
			apply(s, d)
		}
	}
	touch(all)
	touch(busy)
	s.Limit(limit)
	epochs, before := 0, s.Stats().Flows
	for ; s.Stats().Flows > limit; epochs++ {
		touch(busy)
		now := s.Stats().Flows
		if now >= before || epochs > 20 {
			t.Fatalf("epoch %d: from %d to %d flows", epochs, before, now)
		}
		before = now
	}
	if epochs < 3 {
		t.Errorf("forgotten in %d epochs: too much at once", epochs)
	}
	checkTotals(t, s, want)
	for i := range busy {
		if _, ok := s.index[conn(i)]; !ok {
			t.Fatalf("flow %d moves, and was forgotten before those that rest", i)
		}
	}
	if n := s.Stats(); n.Evicted != all-limit || n.MaxFlows != limit {
		t.Errorf("stats are %+v", n)
	}
	if len(s.slab) > 2*limit/chunk+1 {
		t.Errorf("%d chunks hold %d flows", len(s.slab), limit)
	}
	// The limit holds, and goes up again.
	touch(3 * limit)
	if n := s.Stats().Flows; n != limit {
		t.Errorf("%d flows, the limit is %d", n, limit)
	}
	s.Limit(all)
	touch(3 * limit)
	if n := s.Stats().Flows; n != 3*limit {
		t.Errorf("%d flows of %d are known again", n, 3*limit)
	}
	checkTotals(t, s, want)
}

// TestHalvedLimitGivesMemoryBack: exactly half of the slots are empty then.
func TestHalvedLimitGivesMemoryBack(t *testing.T) {
	const all = 64 * chunk
	s := NewFlows(Limits{Flows: all})
	s.Begin()
	for i := range all {
		apply(s, moved(conn(i), 1, 2))
	}
	s.Limit(all / 2)
	for s.shrinking {
		s.Begin()
	}
	if n := s.Stats().Flows; n != all/2 || len(s.slab) != all/2/chunk {
		t.Errorf("%d flows in %d chunks", n, len(s.slab))
	}
}

// TestExpiredFlowsGiveMemoryBack: after many connections few chunks are left,
// and those that live on are whole.
func TestExpiredFlowsGiveMemoryBack(t *testing.T) {
	const all, living = 64 * chunk, 100
	s := NewFlows(Limits{Flows: all, Timeout: time.Second})
	start := time.Unix(1_700_000_000, 0)
	var want event.Traffic
	touch := func(n int, at time.Time) {
		s.Begin()
		for i := range n {
			d := moved(conn(all-1-i), 1, 2)
			d.First, d.Last = at.UnixNano(), at.UnixNano()
			want.Add(d.Traffic)
			apply(s, d)
		}
	}
	touch(all, start)
	touch(living, start.Add(time.Minute))
	s.Expire(start.Add(time.Minute))
	if n := s.Stats().Flows; n != living || len(s.slab) != 1 {
		t.Errorf("%d flows in %d chunks", n, len(s.slab))
	}
	for i := range living {
		if f := s.Get(conn(all - 1 - i)); f == nil || f.Conn != conn(all-1-i) || f.Total.TxPackets != 2 {
			t.Fatalf("flow %d is %v", i, f)
		}
	}
	touch(all, start.Add(time.Minute))
	checkTotals(t, s, want)
	// A few empty ones are kept.
	s.Expire(start.Add(time.Minute))
	if chunks := len(s.slab); chunks != 64 {
		t.Errorf("%d chunks", chunks)
	}
}

// TestLimitBelowWhatMoves: also connections that move are forgotten, those of
// other places with them.
func TestLimitBelowWhatMoves(t *testing.T) {
	s := NewFlows(Limits{})
	s.Begin()
	for i := range 3000 {
		d := moved(conn(i), 1, 0)
		if i%3 == 0 {
			d.Place = event.PlaceCarried
		}
		applyAny(s, d)
	}
	s.Limit(10)
	s.Begin()
	if n := len(s.index); n != 10 || s.carried+s.Stats().Flows != 10 || len(s.slab) != 1 {
		t.Errorf("%d flows in %d chunks, %d of them carried, %+v", n, len(s.slab), s.carried, s.Stats())
	}
	// Compaction keeps what is known.
	for c, i := range s.index {
		if s.at(i).Conn != c || s.at(i).Total.TxPackets != 1 {
			t.Errorf("%v is at the place of %v", c, s.at(i))
		}
	}
	s.Limit(0)
	s.Begin()
	if n := s.Stats().MaxFlows; n != 1 {
		t.Errorf("a limit of %d", n)
	}
}

// TestMoreThanTheTableHolds: in an epoch that moves several times the limit,
// the search for room is not made again for each.
func TestMoreThanTheTableHolds(t *testing.T) {
	const limit = 50_000
	s := NewFlows(Limits{Flows: limit})
	start := time.Now()
	var want event.Traffic
	for range 2 {
		s.Begin()
		for i := range 4 * limit {
			d := moved(conn(i), 1, 0)
			want.Add(d.Traffic)
			applyAny(s, d)
		}
	}
	if took := time.Since(start); took > 5*time.Second { // a hundred times as long, with a search each
		t.Errorf("took %v", took)
	}
	checkTotals(t, s, want)
	if n := s.Stats(); n.Flows != limit || n.Evicted < 6*limit {
		t.Errorf("stats are %+v", n)
	}
}

// applyAny also takes what is not of this place.
func applyAny(s *Flows, d *event.Delta) {
	if f, _, identify := s.Apply(d); identify && f != nil {
		f.Local, f.Remote = &event.Identity{}, &event.Identity{}
	}
}
