// SPDX-License-Identifier: Apache-2.0

package store

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/event"
)

// total is all that an interface's connections moved, wherever it is counted.
func total(s *Flows) (sum event.Traffic) {
	for i := uint32(1); i <= 3; i++ {
		sums := s.Sums(event.Iface{Netns: 7, Index: i})
		sum.Add(sums.Live)
		sum.Add(sums.Remainder)
		sum.Add(sums.Carried)
	}
	return sum
}

func TestRetire(t *testing.T) {
	s := NewFlows(Limits{Timeout: time.Minute})
	c := conn(1)
	s.Begin()
	apply(s, moved(c, 1, 2))
	old := s.Get(c)
	old.Local = &event.Identity{Pod: "old"}
	s.Retire(c)
	if s.Get(c) != nil || old.Conn == c || old.Conn.ID() != c.ID() {
		t.Errorf("it is not of the past: %+v", old.Conn)
	}
	s.Retire(c) // there is none
	s.Begin()
	f, happened, identify := s.Apply(moved(c, 3, 4))
	if !identify || f.Total.TxPackets != 3 || f.Local != nil || !happened.Has(event.KindOpened) {
		t.Errorf("what moves from now on is no connection of its own: %+v", f)
	}
	if old.Total.TxPackets != 1 || old.Local.Pod != "old" || s.Get(old.Conn) != old || s.Stats().Flows != 2 {
		t.Errorf("the old one is %+v", old)
	}
	checkTotals(t, s, event.Traffic{TxBytes: 400, TxPackets: 4, RxBytes: 360, RxPackets: 6})
	n := 0
	s.Each(func(*event.Flow) { n++ })
	if n != 2 {
		t.Errorf("%d connections", n)
	}
	s.Expire(time.Unix(0, base).Add(time.Hour))
	if s.Stats().Flows != 0 {
		t.Error("the old one does not expire")
	}
	checkTotals(t, s, event.Traffic{TxBytes: 400, TxPackets: 4, RxBytes: 360, RxPackets: 6})
}

// Numbers that are taken are passed over, and 0 is never given.
func TestRetireManyTimes(t *testing.T) {
	s := NewFlows(Limits{})
	s.Begin()
	s.retired = 0xfffd
	apply(s, moved(conn(1), 1, 0))
	s.Retire(conn(1))
	s.retired = 0xfffd
	for range 4 {
		apply(s, moved(conn(1), 1, 0))
		s.Retire(conn(1))
	}
	apply(s, moved(conn(1), 1, 0))
	if s.Stats().Flows != 6 || s.Get(conn(1)) == nil {
		t.Errorf("%d connections", s.Stats().Flows)
	}
}

func TestCarry(t *testing.T) {
	s := NewFlows(Limits{})
	c := conn(1)
	d := moved(c, 1, 2)
	d.Cookie, d.Cgroup = 5, 6
	s.Begin()
	apply(s, d)
	s.Carry(c)
	s.Carry(c)
	carried := func() event.Traffic { return s.Sums(c.Iface()).Carried }
	if s.Get(c) != nil || s.Stats().Flows != 0 || carried() != d.Traffic {
		t.Errorf("carried are %+v", s.Sums(c.Iface()))
	}
	s.Each(func(f *event.Flow) { t.Errorf("shows %+v", f) })
	// The tap goes on to take it for one of this place.
	for range 2 {
		s.Begin()
		if f, happened, identify := s.Apply(d); f != nil || happened != 0 || identify {
			t.Errorf("it is back: %+v", f)
		}
		answer := moved(c, 0, 1)
		s.Apply(answer)
	}
	if got := carried(); got.TxPackets != 3 || got.RxPackets != 8 || total(s) != got {
		t.Errorf("carried are %+v of %+v", got, total(s))
	}
	s.Retire(c) // it is none of this place
	// Another socket has the tuple.
	d.Cookie = 9
	s.Begin()
	if f, _, identify := s.Apply(d); f == nil || !identify || s.Get(c) == nil {
		t.Error("a connection of another socket is not shown")
	}
	if got := carried(); got.TxPackets != 3 || total(s).TxPackets != 4 {
		t.Errorf("carried are %+v of %+v", got, total(s))
	}
}

// TestNothingIsLostWhenItIsRevised: whatever is retired or carried, expires, is
// evicted or comes back, the sum is what was applied.
func TestNothingIsLostWhenItIsRevised(t *testing.T) {
	s := NewFlows(Limits{Flows: 300, Timeout: 5 * time.Second})
	rng := rand.New(rand.NewPCG(3, 4))
	var want event.Traffic
	now := base
	for epoch := range 300 {
		s.Begin()
		now += int64(time.Second)
		for range rng.IntN(400) {
			d := moved(conn(rng.IntN(600)), uint64(rng.IntN(9)), uint64(rng.IntN(9)))
			d.First, d.Last, d.Cookie, d.Cgroup = now, now, uint64(rng.IntN(3)), 1
			d.Place = []event.Place{event.PlaceOwn, event.PlaceOwn, event.PlaceCarried, event.PlaceUndecided}[rng.IntN(4)]
			want.Add(d.Traffic)
			f, _, identify := s.Apply(d)
			if identify && f != nil && rng.IntN(4) == 0 {
				s.Carry(f.Conn)
			}
		}
		s.Each(func(f *event.Flow) {
			switch rng.IntN(20) {
			case 0:
				s.Retire(f.Conn)
			case 1:
				s.Carry(f.Conn)
			}
		})
		if rng.IntN(4) == 0 {
			s.Expire(time.Unix(0, now))
		}
		if epoch%50 == 49 {
			s.Limit(100 + rng.IntN(300))
		}
		if got := total(s); got != want {
			t.Fatalf("epoch %d: the sum is %+v, applied was %+v", epoch, got, want)
		}
		var live, sums event.Traffic
		n := 0
		s.Each(func(f *event.Flow) {
			live.Add(f.Total)
			n++
			if s.at(s.index[f.Conn]) != f {
				t.Fatalf("%+v is not found", f.Conn)
			}
		})
		for i := uint32(1); i <= 3; i++ {
			sums.Add(s.Sums(event.Iface{Netns: 7, Index: i}).Live)
		}
		if live != sums || n != s.Stats().Flows {
			t.Fatalf("%d connections hold %+v, the sums say %+v in %d", n, live, sums, s.Stats().Flows)
		}
	}
}

// benchmarkFlows is a full table.
func benchmarkFlows(n int) *Flows {
	s := NewFlows(Limits{Flows: n})
	s.Begin()
	for i := range n {
		apply(s, moved(conn(i), 1, 1))
	}
	return s
}

func BenchmarkEach(b *testing.B) {
	s := benchmarkFlows(100_000)
	touched := conn(5).Remote
	n := 0
	for b.Loop() {
		s.Each(func(f *event.Flow) {
			if f.Conn.Remote == touched {
				n++
			}
		})
	}
}
