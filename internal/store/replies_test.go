// SPDX-License-Identifier: Apache-2.0

package store

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/event"
)

// A host's connection to a Service behind a bridge: what is on the wire, what
// the socket has, and what it receives under.
func masqueraded(n int) (wire event.Conn, t *event.Translation, received event.Conn) {
	wire = conn(n)
	wire.Local, wire.LocalPort = event.IPFrom(netip.MustParseAddr("10.9.0.1")), uint16(20000+n)
	t = &event.Translation{
		Local: event.IPFrom(netip.MustParseAddr("192.0.2.1")), LocalPort: uint16(40000 + n),
		Remote: event.IPFrom(netip.MustParseAddr("10.96.0.1")), RemotePort: 80, OfSocket: true,
	}
	received = wire
	received.Local, received.LocalPort = t.Local, t.LocalPort
	return wire, t, received
}

// answered is what a connection has received, and nothing sent.
func answered(c event.Conn, rx uint64) *event.Delta {
	d := moved(c, 0, rx)
	d.FirstTx, d.Place = false, event.PlaceUndecided
	return d
}

// tcp is a whole connection in one epoch, as the two tuples have it.
func tcp(sent, received event.Conn) (tx, rx *event.Delta) {
	sent.Protocol, received.Protocol = event.TCP, event.TCP
	tx, rx = moved(sent, 3, 0), answered(received, 2)
	tx.Health.FlagsTx = event.FlagSYN | event.FlagACK | event.FlagFIN
	rx.Health.FlagsRx, rx.FirstAnswers = event.FlagSYN|event.FlagACK|event.FlagFIN, true
	tx.First, tx.Last, rx.First, rx.Last = base, base+30, base+10, base+40
	tx.Health.SYN, rx.Health.SYNACK = 100, 150
	tx.Health.ClosedBy, rx.Health.ClosedBy = event.SideLocal, event.SideRemote
	return tx, rx
}

// epoch plays the pipeline: the translation, if any, is known as soon as what
// was sent is met.
func epoch(s *Flows, t *event.Translation, deltas ...*event.Delta) (happened []Happened) {
	s.Begin()
	take := func(d *event.Delta) {
		f, h, identify := s.Apply(d)
		if identify && t != nil && d.Traffic.TxPackets > 0 {
			s.Translate(f, t)
		}
		happened = append(happened, h)
	}
	for _, d := range deltas {
		if !s.Hold(d) {
			take(d)
		}
	}
	s.Release(take)
	return happened
}

// Whatever comes first, it is one connection.
func TestRepliesUnderAnotherTuple(t *testing.T) {
	wire, nat, received := masqueraded(1)
	tx, rx := tcp(wire, received)
	for name, do := range map[string]func(s *Flows) []Happened{
		"sent first":     func(s *Flows) []Happened { return epoch(s, nat, tx, rx) },
		"received first": func(s *Flows) []Happened { return epoch(s, nat, rx, tx) },
		"known later": func(s *Flows) []Happened {
			epoch(s, nil, rx, tx)
			if n := s.Stats().Flows; n != 2 {
				t.Errorf("%d connections before it is known", n)
			}
			s.Translate(s.Get(tx.Conn), nat)
			return nil
		},
	} {
		s := NewFlows(Limits{})
		happened := do(s)
		f := s.Get(tx.Conn)
		if f == nil || s.Stats().Flows != 1 || s.Get(rx.Conn) != nil {
			t.Fatalf("%s: %d connections, %+v", name, s.Stats().Flows, f)
		}
		if f.Total != (event.Traffic{TxBytes: 300, TxPackets: 3, RxBytes: 120, RxPackets: 2}) || f.State != event.StateClosed ||
			f.OpenedBy != event.OpenerLocal || f.First != base || f.Last != base+40 || f.NAT != nat {
			t.Errorf("%s: %+v", name, f)
		}
		if h := &f.Health; h.SYN != 100 || h.SYNACK != 150 || h.ClosedBy != event.SideUnknown {
			t.Errorf("%s: its health is %+v", name, h)
		}
		all := f.Total
		if happened != nil && (len(happened) != 2 || !happened[1].Has(event.KindOpened) || !happened[1].Has(event.KindClosed)) {
			t.Errorf("%s: happened %b", name, happened)
		}
		checkTotals(t, s, all)
		s.Expire(time.Unix(0, base).Add(time.Hour))
		if checkTotals(t, s, all); len(s.replies) != 0 {
			t.Errorf("%s: %d tuples of nobody", name, len(s.replies))
		}
	}
}

// What was sent alone looks like less than it is, and is not told as that.
func TestRepliesAndTheStoryOfAConnection(t *testing.T) {
	const traffic, opened, reset, refused = 1 << event.KindTraffic, 1 << event.KindOpened, 1 << event.KindReset, 1 << event.KindRefused
	for name, c := range map[string]struct {
		tx, rx uint8
		want   [2]Happened
		state  event.State
	}{
		"goes on":               {event.FlagSYN | event.FlagACK, event.FlagSYN | event.FlagACK, [2]Happened{traffic, traffic | opened}, event.StateEstablished},
		"is reset by this side": {event.FlagSYN | event.FlagACK | event.FlagRST, event.FlagSYN | event.FlagACK, [2]Happened{traffic | reset, traffic | opened}, event.StateReset},
		"is reset by the other": {event.FlagSYN | event.FlagACK, event.FlagSYN | event.FlagACK | event.FlagRST, [2]Happened{traffic, traffic | opened | reset}, event.StateReset},
		"is refused":            {event.FlagSYN, event.FlagRST | event.FlagACK, [2]Happened{traffic, traffic | refused}, event.StateRefused},
	} {
		s := NewFlows(Limits{})
		wire, nat, received := masqueraded(1)
		tx, rx := tcp(wire, received)
		tx.Health.FlagsTx, rx.Health.FlagsRx = c.tx, c.rx
		happened := epoch(s, nat, rx, tx)
		if f := s.Get(tx.Conn); [2]Happened(happened) != c.want || f.State != c.state {
			t.Errorf("%s: happened %b, want %b; it is %s", name, happened, c.want, f.State)
		}
	}
}

// Who was the first is known where it was so in time.
func TestRepliesAndWhoCloses(t *testing.T) {
	s := NewFlows(Limits{})
	wire, nat, received := masqueraded(1)
	for i, fin := range []struct{ tx, rx uint8 }{{}, {0, event.FlagFIN}, {event.FlagFIN, 0}} {
		tx, rx := tcp(wire, received)
		flags := event.FlagACK
		if i == 0 {
			flags |= event.FlagSYN
		}
		tx.Health, rx.Health = event.Health{FlagsTx: flags | fin.tx}, event.Health{FlagsRx: flags | fin.rx}
		if fin.tx != 0 {
			tx.Health.ClosedBy = event.SideLocal
		}
		if fin.rx != 0 {
			rx.Health.ClosedBy = event.SideRemote
		}
		epoch(s, nat, rx, tx)
		if f := s.Get(tx.Conn); i == 2 && (f.Health.ClosedBy != event.SideRemote || f.State != event.StateClosed) {
			t.Errorf("closed by %s, %s", f.Health.ClosedBy, f.State)
		}
	}
}

// An open connection moves on, and its socket's port is used again.
func TestRepliesGoOn(t *testing.T) {
	s := NewFlows(Limits{Timeout: time.Hour})
	wire, nat, received := masqueraded(1)
	epoch(s, nat, answered(received, 1), moved(wire, 1, 0))
	for range 3 {
		epoch(s, nil, answered(received, 2), moved(wire, 1, 0))
	}
	old := s.Get(wire)
	if old.Total.RxPackets != 7 || old.Total.TxPackets != 4 || s.Stats().Flows != 1 {
		t.Errorf("%d connections: %+v", s.Stats().Flows, old)
	}
	// The masquerade gives another port.
	next := wire
	next.LocalPort++
	epoch(s, nat, answered(received, 5), moved(next, 1, 0))
	if f := s.Get(next); f.Total.RxPackets != 5 || old.Total.RxPackets != 7 {
		t.Errorf("the old one has %+v, the new one %+v", old.Total, f.Total)
	}
	// The old one's end takes nothing away from the new one.
	s.Retire(wire)
	epoch(s, nil, answered(received, 1))
	if f := s.Get(next); f.Total.RxPackets != 6 {
		t.Errorf("the new one has %+v", f.Total)
	}
	// What is retired has all that it had, and no more.
	s.Retire(next)
	epoch(s, nil, answered(received, 1))
	if f := s.Get(received); f == nil || f.Total.RxPackets != 1 {
		t.Errorf("what is received after has %+v", f)
	}
}

// Who sends under the tuple that another one receives under is not that one.
func TestRepliesOfSomebodyElse(t *testing.T) {
	s := NewFlows(Limits{})
	wire, nat, received := masqueraded(1)
	epoch(s, nil, moved(received, 1, 1))
	epoch(s, nat, moved(wire, 1, 0), answered(received, 1))
	epoch(s, nil, moved(received, 1, 0))
	if f, g := s.Get(wire), s.Get(received); f.Total.RxPackets != 0 || g == nil || g.Total.TxPackets != 2 || g.Total.RxPackets != 2 {
		t.Errorf("%+v, %+v", f, g)
	}
	// It comes later.
	s = NewFlows(Limits{})
	epoch(s, nat, moved(wire, 1, 0), answered(received, 1))
	epoch(s, nil, moved(received, 1, 1))
	if f, g := s.Get(wire), s.Get(received); f.Total.RxPackets != 1 || g == nil || g.Total.RxPackets != 1 {
		t.Errorf("%+v, %+v", f, g)
	}
	// Without a masquerade, and in a pod, there is one tuple.
	plain := *nat
	plain.Local, plain.LocalPort = wire.Local, wire.LocalPort
	inPod := *nat
	inPod.OfSocket = false
	for _, n := range []*event.Translation{&plain, &inPod} {
		s = NewFlows(Limits{})
		epoch(s, n, moved(wire, 1, 1))
		if len(s.replies) != 0 || s.Get(wire).NAT != n {
			t.Errorf("%d other tuples", len(s.replies))
		}
	}
	// One that is in no table keeps its translation.
	stray := &event.Flow{Conn: received}
	if s.Translate(stray, nat); stray.NAT != nat || len(s.replies) != 0 {
		t.Error("a connection without a place")
	}
}

func TestHoldIsBounded(t *testing.T) {
	s := NewFlows(Limits{})
	s.Begin()
	held := 0
	for i := range maxHeld + 10 {
		if d := answered(conn(i), 1); s.Hold(d) {
			held++
		}
	}
	if s.Hold(moved(conn(1), 0, 1)) || held != maxHeld {
		t.Errorf("%d are held", held)
	}
	s.Release(func(*event.Delta) { held-- })
	s.Release(func(*event.Delta) { t.Error("handed over twice") })
	if held != 0 {
		t.Errorf("%d are not handed over", held)
	}
	d := answered(conn(1), 1)
	if n := testing.AllocsPerRun(100, func() { s.Hold(d); s.Release(func(*event.Delta) {}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestNothingIsLostWhenItIsJoined: whatever is translated, when, and what becomes
// of it then, the sum is what was applied, and each other tuple is a connection's.
func TestNothingIsLostWhenItIsJoined(t *testing.T) {
	s := NewFlows(Limits{Flows: 300, Timeout: 5 * time.Second})
	rng := rand.New(rand.NewPCG(5, 6))
	var want event.Traffic
	now := base
	met := 0
	for round := range 300 {
		s.Begin()
		now += int64(time.Second)
		take := func(d *event.Delta) {
			f, _, identify := s.Apply(d)
			if _, nat, _ := masqueraded(int(d.Conn.LocalPort) % 20000); identify && f != nil && d.Traffic.TxPackets > 0 && rng.IntN(2) == 0 {
				s.Translate(f, nat)
			}
		}
		for range rng.IntN(200) {
			wire, _, received := masqueraded(rng.IntN(400))
			tx, rx := moved(wire, 1+rng.Uint64N(9), rng.Uint64N(2)), answered(received, 1+rng.Uint64N(9))
			tx.Last, rx.Last = now, now
			tx.Place = []event.Place{event.PlaceOwn, event.PlaceOwn, event.PlaceOwn, event.PlaceCarried}[rng.IntN(4)]
			if rng.IntN(50) == 0 {
				rx.Traffic.TxBytes, rx.Traffic.TxPackets, rx.Place = 100, 1, event.PlaceOwn
			}
			for _, d := range []*event.Delta{tx, rx} {
				want.Add(d.Traffic)
				if !s.Hold(d) {
					take(d)
				}
			}
		}
		s.Release(take)
		s.Each(func(f *event.Flow) {
			switch rng.IntN(20) {
			case 0:
				s.Retire(f.Conn)
			case 1:
				s.Carry(f.Conn)
			case 2, 3:
				_, nat, _ := masqueraded(int(f.Conn.LocalPort) % 20000)
				s.Translate(f, nat)
			}
		})
		if rng.IntN(4) == 0 {
			s.Expire(time.Unix(0, now))
		}
		if round%50 == 49 {
			s.Limit(100 + rng.IntN(300))
		}
		if got := total(s); got != want {
			t.Fatalf("epoch %d: the sum is %+v, applied was %+v", round, got, want)
		}
		var live, sums event.Traffic
		s.Each(func(f *event.Flow) { live.Add(f.Total) })
		for i := uint32(1); i <= 3; i++ {
			sums.Add(s.Sums(event.Iface{Netns: 7, Index: i}).Live)
		}
		if live != sums {
			t.Fatalf("epoch %d: the connections hold %+v, the sums say %+v", round, live, sums)
		}
		for c, i := range s.replies {
			met++
			if own, other := replies(s.at(i)); !other || own != c || s.index[s.at(i).Conn] != i {
				t.Fatalf("epoch %d: %+v is at the place of %+v", round, c, s.at(i).Conn)
			}
		}
	}
	if met == 0 {
		t.Error("nothing was translated")
	}
}

// BenchmarkHold is what each connection costs that has received only.
func BenchmarkHold(b *testing.B) {
	s := benchmarkFlows(100_000)
	d := answered(conn(5), 1)
	b.ReportAllocs()
	for b.Loop() {
		s.Hold(d)
	}
}
