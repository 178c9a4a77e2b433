// SPDX-License-Identifier: Apache-2.0

// Package store holds what the agent remembers: the table of connections with
// their totals, the recent events, and the followers of live ones. One
// goroutine owns a Flows and a Feed and is the only one to touch them, so no
// update waits for a reader; readers are visitors of that goroutine. Nothing
// here asks who an end is or talks to the kernel.
package store

import (
	"time"

	"github.com/orb8/orb8/internal/event"
)

// Limits of a table of connections. The zero value works.
type Limits struct {
	// Connections remembered; 0 means 100,000.
	Flows int
	// A connection that moved nothing for so long is forgotten; 0 means 30 s.
	Timeout time.Duration
}

// chunk is how many flows are allocated together: memory follows use, and a
// pointer to a flow stays good while the flow is known.
const chunk = 1024

// Flows is the table of connections. What leaves it goes into a remainder, so
// that live + remainder is all that was ever applied.
type Flows struct {
	limits Limits
	index  map[event.Conn]uint32
	// By the tuple that it receives under, where that is another.
	replies map[event.Conn]uint32
	slab    []*[chunk]event.Flow
	free    []uint32
	used    uint32 // slots ever used
	hand    uint32 // where eviction looks next
	none    uint64 // evictOne found nothing from before this epoch
	ifaces  map[event.Iface]*Sums
	// The last interface asked for: most deltas of an epoch share it.
	lastIface event.Iface
	lastSums  *Sums
	epoch     uint64
	applied   uint64
	evicted   uint64
	carried   int // of those in the index
	shrinking bool
	retired   uint16 // the last of those that were
	held      []event.Delta
	unplaced  event.Traffic
}

// Sums are the totals of one interface.
type Sums struct {
	// Connections in the table, those that left it, and those that are not of
	// this place.
	Live, Remainder, Carried event.Traffic
	// Part of both: what segmentation offload adds over what the device saw.
	Segmentation event.Traffic
}

// NewFlows makes an empty table.
func NewFlows(l Limits) *Flows {
	if l.Flows <= 0 {
		l.Flows = 100_000
	}
	if l.Timeout <= 0 {
		l.Timeout = 30 * time.Second
	}
	return &Flows{
		limits:  l,
		index:   make(map[event.Conn]uint32),
		replies: make(map[event.Conn]uint32),
		ifaces:  make(map[event.Iface]*Sums),
	}
}

// Begin starts an epoch; epochs count up from 1.
func (s *Flows) Begin() uint64 {
	if s.shrinking {
		s.shrink()
	}
	s.epoch++
	return s.epoch
}

// Apply adds what a connection did in this epoch. It returns the connection,
// good until the next Apply, what happened to it, and whether its ends must be
// looked up: it is new, or the owner of its socket is known only now. Of one
// that is not of this place there is nothing to tell: nil.
func (s *Flows) Apply(d *event.Delta) (f *event.Flow, happened Happened, identify bool) {
	s.applied++
	sums := s.sums(d.Conn.Iface())
	sums.Segmentation.Add(d.Segmentation)
	f = s.find(d)
	if f == nil {
		if f = s.insert(d); f == nil {
			// Every flow moved in this epoch: there is none to evict.
			s.evicted++
			if d.Place == event.PlaceCarried {
				sums.Carried.Add(d.Traffic)
			} else {
				sums.Remainder.Add(d.Traffic)
				s.unplaced.Add(d.Traffic)
			}
			return nil, 0, false
		}
		identify = true
		f.OpenedBy = opener(d, s.epoch == 1)
	}
	identify = identify || f.Cgroup == 0 && d.Cgroup != 0
	f.Total.Add(d.Traffic)
	f.Last = max(f.Last, d.Last)
	apart := f.Conn != d.Conn && f.Epoch == s.epoch
	f.Epoch = s.epoch
	if f.Carried {
		sums.Carried.Add(d.Traffic)
		return nil, 0, false
	}
	sums.Live.Add(d.Traffic)
	if d.Cookie != 0 {
		f.Cookie, f.Cgroup = d.Cookie, d.Cgroup
	}
	happened = live(f, d)
	if apart {
		unsort(f, d)
	}
	return f, happened, identify
}

// Get returns the flow of a connection, good until the next Apply, or nil.
func (s *Flows) Get(c event.Conn) *event.Flow {
	if i, ok := s.index[c]; ok && !s.at(i).Carried {
		return s.at(i)
	}
	return nil
}

// Unplaced is the traffic of connections of this place that were never in the
// table, for want of room. It is part of the remainder.
func (s *Flows) Unplaced() event.Traffic { return s.unplaced }

// find returns the flow of d's connection, unless the tuple is being used for
// a new connection: then the old one's traffic joins the remainder. What was
// taken for a connection of this place and is carried becomes that, with all
// that it moved; the other way round it is a new one.
func (s *Flows) find(d *event.Delta) *event.Flow {
	i, ok := s.index[d.Conn]
	if !ok && d.Place == event.PlaceUndecided {
		i, ok = s.replies[d.Conn]
	}
	if !ok {
		return nil
	}
	f := s.at(i)
	// Under its other tuple it receives after it has sent, in the same epoch.
	answers := f.Conn != d.Conn && f.Epoch == s.epoch
	if f.State.Ended() && !answers && f.Conn.Protocol == event.TCP && d.Health.SYN != 0 {
		s.remove(i)
		return nil
	}
	switch {
	case d.Place == event.PlaceCarried && !f.Carried:
		s.carry(f)
		f.Cookie, f.Cgroup = 0, 0 // of whoever sent under its tuple before
	case returns(f, d):
		s.remove(i)
		return nil
	}
	return f
}

func (s *Flows) insert(d *event.Delta) *event.Flow {
	if len(s.index) >= s.limits.Flows && !s.evictOne(s.epoch) {
		return nil
	}
	i := s.slot()
	f := s.at(i)
	*f = event.Flow{Conn: d.Conn, First: d.First, Last: d.Last, Carried: d.Place == event.PlaceCarried}
	if f.Carried {
		s.carried++
	}
	s.index[d.Conn] = i
	return f
}

func (s *Flows) slot() uint32 {
	if n := len(s.free); n > 0 {
		i := s.free[n-1]
		s.free = s.free[:n-1]
		return i
	}
	i := s.used
	s.used++
	if int(i/chunk) == len(s.slab) {
		s.slab = append(s.slab, new([chunk]event.Flow))
	}
	return i
}

func (s *Flows) at(i uint32) *event.Flow { return &s.slab[i/chunk][i%chunk] }

// remove forgets a flow and keeps its traffic in the remainder.
func (s *Flows) remove(i uint32) {
	f := s.at(i)
	if f.Carried {
		s.carried--
	} else {
		if f.Total != (event.Traffic{}) { // a connect that failed may have no interface
			sums := s.sums(f.Conn.Iface())
			sums.Live.Sub(f.Total)
			sums.Remainder.Add(f.Total)
		}
	}
	s.forgetReplies(i)
	delete(s.index, f.Conn)
	*f = event.Flow{}
	s.free = append(s.free, i)
}

// evictOne makes room by forgetting a flow that did not move since an epoch. The
// hand goes round once at most, and goes on from where it was; when it found
// none it is not sent again, since what moves later is younger.
func (s *Flows) evictOne(since uint64) bool {
	if s.none == since {
		return false
	}
	for range s.used {
		i := s.hand
		s.hand = (s.hand + 1) % s.used
		if f := s.at(i); f.Epoch != 0 && f.Epoch < since {
			s.remove(i)
			s.evicted++
			return true
		}
	}
	s.none = since
	return false
}

// Expire forgets what moved nothing since the timeout. Pointers to flows are no
// longer good.
func (s *Flows) Expire(now time.Time) {
	before := now.Add(-s.limits.Timeout).UnixNano()
	for i := range s.used {
		if f := s.at(i); f.Epoch != 0 && f.Last+patience(f) < before {
			s.remove(i)
		}
	}
	s.giveBack()
}

func (s *Flows) sums(i event.Iface) *Sums {
	if s.lastSums != nil && s.lastIface == i {
		return s.lastSums
	}
	sums := s.ifaces[i]
	if sums == nil {
		sums = &Sums{}
		s.ifaces[i] = sums
	}
	s.lastIface, s.lastSums = i, sums
	return sums
}

// Sums returns the totals of one interface.
func (s *Flows) Sums(i event.Iface) Sums {
	if sums := s.ifaces[i]; sums != nil {
		return *sums
	}
	return Sums{}
}

// Fold adds the totals of an interface that is gone to those of another. An
// interface that still has flows stays until they expire, and Fold says no.
func (s *Flows) Fold(from, into event.Iface) bool {
	sums := s.ifaces[from]
	if sums == nil {
		return true
	}
	if sums.Live != (event.Traffic{}) {
		return false
	}
	s.lastSums = nil
	delete(s.ifaces, from)
	to := s.sums(into)
	to.Remainder.Add(sums.Remainder)
	to.Carried.Add(sums.Carried)
	to.Segmentation.Add(sums.Segmentation)
	return true
}

// Stats of the table.
type Stats struct {
	Flows, MaxFlows int
	Epoch           uint64
	// Updates applied; flows that made room for others, or found none.
	Applied, Evicted uint64
}

// Stats tells how full the table is.
func (s *Flows) Stats() Stats {
	return Stats{len(s.index) - s.carried, s.limits.Flows, s.epoch, s.applied, s.evicted}
}
