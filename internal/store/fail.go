// SPDX-License-Identifier: Apache-2.0

package store

import "github.com/orb8/orb8/internal/event"

// Fail ends the connections whose connects have failed, as the kernel tells, and
// tells what happened to each, and whether its ends must be looked up. Packets of
// before must have been applied. One that never sent a packet is a connection,
// too, without traffic.
func (s *Flows) Fail(failed []event.FailedConnect, tell func(f *event.Flow, h Happened, identify bool)) {
	missing := map[event.Conn]*event.FailedConnect{}
	byCookie := map[uint64]*event.FailedConnect{}
	for i := range failed {
		x := &failed[i]
		if f := s.Get(x.Conn); f != nil {
			s.fail(f, x, tell)
			continue
		}
		missing[anywhere(x.Conn)] = x
		if x.Cookie != 0 {
			byCookie[x.Cookie] = x
		}
	}
	if len(missing) == 0 {
		return
	}
	found := map[*event.FailedConnect]bool{}
	s.Each(func(f *event.Flow) {
		if f.Conn.Protocol != event.TCP || f.State == event.StateEstablished || f.State == event.StateClosed {
			return // the most
		}
		// The tap may be on another interface than the socket knows, or have another
		// tuple, where the host translates it.
		x := missing[anywhere(f.Conn)]
		if x == nil {
			x = byCookie[f.Cookie]
		}
		if x != nil && x.Conn.Netns == f.Conn.Netns && !found[x] {
			found[x] = true
			s.fail(f, x, tell)
		}
	})
	for i := range failed {
		if x := &failed[i]; missing[anywhere(x.Conn)] == x && !found[x] {
			s.failUnseen(x, tell)
		}
	}
}

// anywhere is a connection on whatever interface.
func anywhere(c event.Conn) event.Conn {
	c.Ifindex = 0
	return c
}

// fail ends a connection, unless its packets have told of its end already.
func (s *Flows) fail(f *event.Flow, x *event.FailedConnect, tell func(*event.Flow, Happened, bool)) {
	h := &f.Health
	switch {
	// What came after the process had given up, or while it did.
	case f.State == event.StateReset && h.Failure == event.FailureReset:
		h.Failure = x.Failure
		return
	// Another connection of that tuple, or one that has ended.
	case f.State != event.StateSynSent && f.State != event.StateNone:
		return
	}
	f.Last, f.Epoch = max(f.Last, x.Time), s.epoch
	h.Resent = max(h.Retransmits, x.Retransmits) - h.Retransmits
	h.Retransmits += h.Resent
	h.Failure = x.Failure
	if x.Failure == event.FailureGivenUp && noWay(f) {
		h.Failure = event.FailureUnreachable
	}
	switch x.Failure {
	case event.FailureRefused:
		f.State = event.StateRefused
	case event.FailureReset:
		f.State = event.StateReset
	default:
		f.State = event.StateFailed
	}
	var happened Happened
	happened.end(f.State)
	tell(f, happened, f.Local == nil)
}

// failUnseen makes a connection of a connect that no packet was seen of.
func (s *Flows) failUnseen(x *event.FailedConnect, tell func(*event.Flow, Happened, bool)) {
	if _, carried := s.index[x.Conn]; carried {
		return
	}
	f := s.insert(&event.Delta{Conn: x.Conn, First: x.Time, Last: x.Time})
	if f == nil {
		s.evicted++
		return
	}
	f.OpenedBy = event.OpenerLocal
	f.Cookie, f.Cgroup = x.Cookie, x.Cgroup
	s.fail(f, x, tell)
}

// noWay: the last ICMP error said that the host or the network is not reached.
func noWay(f *event.Flow) bool {
	const unreachable4, unreachable6 = 3, 1
	want := uint8(unreachable6)
	if f.Conn.Local.Addr().Is4() {
		want = unreachable4
	}
	return f.Health.ICMPErrors > 0 && f.Health.ICMPType == want
}

// patience is how much longer than others a connection is remembered while it
// moves nothing: TCP waits twice as long each time before it asks again.
func patience(f *event.Flow) int64 {
	if f.State != event.StateSynSent {
		return 0
	}
	return f.Last - f.First
}
