// SPDX-License-Identifier: Apache-2.0

package store

import "github.com/orb8/orb8/internal/event"

// maxHeld bounds what is kept back in an epoch, to about 1 MiB.
const maxHeld = 4096

// replies is the tuple under which a host's own connection to a Service receives,
// where that is another than the wire's: with br_netfilter the bridge has taken
// back the masquerade when the tap sees the packet, and the Service's address
// comes after it. So the local end is the socket's, and the remote end the wire's.
func replies(f *event.Flow) (c event.Conn, other bool) {
	if f.NAT == nil || !f.NAT.OfSocket {
		return c, false
	}
	c = f.Conn
	c.Local, c.LocalPort = f.NAT.Local, f.NAT.LocalPort
	return c, c != f.Conn
}

// Translate notes how the host translates a connection. What it has received
// under another tuple becomes its own, and what comes under that from now on; of
// several that receive under one, the last one has it.
func (s *Flows) Translate(f *event.Flow, t *event.Translation) {
	i, ok := s.index[f.Conn]
	if !ok || s.at(i) != f {
		f.NAT = t
		return
	}
	s.forgetReplies(i)
	f.NAT = t
	c, other := replies(f)
	if !other {
		return
	}
	s.replies[c] = i
	// Who has sent under that tuple is a connection by itself.
	if j, ok := s.index[c]; ok && !f.Carried && !s.at(j).Carried && s.at(j).Total.TxPackets == 0 {
		s.join(f, j)
	}
}

// join makes what one connection moved another one's, of the same interface. What
// that was in its life has been told already.
func (s *Flows) join(f *event.Flow, from uint32) {
	g := *s.at(from)
	s.sums(g.Conn.Iface()).Live.Sub(g.Total)
	s.free = append(s.free, from)
	*s.at(from) = event.Flow{}
	delete(s.index, g.Conn)

	s.sums(f.Conn.Iface()).Live.Add(g.Total)
	f.Total.Add(g.Total)
	f.First, f.Last = min(f.First, g.First), max(f.Last, g.Last)
	f.Epoch = max(f.Epoch, g.Epoch)
	d := event.Delta{Conn: f.Conn, First: g.First, Last: g.Last, Traffic: g.Total, Health: g.Health}
	live(f, &d)
	unsort(f, &d)
}

// unsort takes back who was the first to close or to reset, where d is what f has
// received and comes apart from what it has sent in that time: it may be either.
func unsort(f *event.Flow, d *event.Delta) {
	h := &f.Health
	both := h.FlagsTx & d.Health.FlagsRx
	if both&event.FlagFIN != 0 {
		h.ClosedBy = event.SideUnknown
	}
	if both&event.FlagRST != 0 {
		h.ResetBy = event.SideUnknown
	}
}

// forgetReplies takes the other tuple of a connection away.
func (s *Flows) forgetReplies(i uint32) {
	if c, other := replies(s.at(i)); other && s.replies[c] == i {
		delete(s.replies, c)
	}
}

// Hold keeps back what has only received, and is not known by its own tuple: who
// sent what it answers may come later in the epoch, and then it is that one's.
// false: there is no reason to, or no room. Release hands over what was held;
// call it when the epoch's other connections have been applied.
func (s *Flows) Hold(d *event.Delta) bool {
	if d.Place != event.PlaceUndecided || len(s.held) == maxHeld {
		return false
	}
	if _, known := s.index[d.Conn]; known {
		return false
	}
	s.held = append(s.held, *d)
	return true
}

// Release ends what Hold began.
func (s *Flows) Release(apply func(*event.Delta)) {
	for i := range s.held {
		apply(&s.held[i])
	}
	s.held = s.held[:0]
}
