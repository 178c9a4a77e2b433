// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"math"
	"slices"

	"github.com/orb8/orb8/internal/event"
)

// Standing is what is known of an address at a time.
type Standing uint8

// Nobody: it has had no holder that is remembered. Held: it had one then, who
// has it still. Past: it had one then. Between: it has holders, and none of them
// had it then, or it cannot be told which of two.
const (
	Nobody Standing = iota
	Held
	Past
	Between
)

// Address is what is known of one. All of it may be asked of nil: nothing is
// known. It is good until the next Apply or Sweep.
type Address struct {
	// The oldest first; most addresses have one, which is in this object itself.
	spans            []span
	first            [1]span
	fronts, backends doors
}

// At gives what is known of an address.
func (m *Map) At(ip event.IP) *Address { return m.addresses[ip] }

// Holder tells who had an address at a time, Unix nanoseconds. A pod that has
// its node's addresses is never told: those are the node's. It allocates
// nothing but an identity that is asked for for the first time.
//
// Times of the cluster are whole seconds by other clocks. An old holder had the
// address for certain up to the second in which it ended, and not beyond that
// second nor beyond the moment when its end was told. The new one had it from
// when its network was there, had it perhaps since it was made, and not before
// the old one had ended: the network may well be up before its state says so.
// What both may claim, and what neither does, is Between. Nobody but a former
// holder takes anything from one that lives, so that a clock that jumps leaves
// it its name.
func (m *Map) Holder(a *Address, at int64) (*event.Identity, Standing) {
	if a == nil || len(a.spans) == 0 {
		return nil, Nobody
	}
	for i := len(a.spans) - 1; i >= 0; i-- {
		s := &a.spans[i]
		switch {
		case at < s.begin || at >= s.stop:
		case s.stop != forever:
			return m.identity(s.owner), Past
		default:
			if s.identity == nil {
				s.identity = m.identity(s.owner)
			}
			return s.identity, Held
		}
	}
	return nil, Between
}

// Now tells who has an address, nil where nobody does any more.
func (m *Map) Now(ip event.IP) *event.Identity {
	a := m.addresses[ip]
	if a == nil || len(a.spans) == 0 {
		return nil
	}
	if last := &a.spans[len(a.spans)-1]; last.stop == forever {
		return m.identity(last.owner)
	}
	return nil
}

const (
	forever = math.MaxInt64
	second  = int64(1e9)
	// Holders of one address that are remembered.
	maxHolders = 8
)

// span is a holder of an address, and the time in which it is the one who had
// it: from begin on, and before stop.
type span struct {
	owner       *owner
	identity    *event.Identity // the owner's, near at hand, once it was asked for
	begin, stop int64
}

// owner is a pod or a node, and what is known of the time in which it has its
// addresses.
type owner struct {
	pod  *Pod
	node *Node
	// Made when it is asked for.
	identity *event.Identity
	ips      []event.IP
	// When it was told, by this machine's clock, that it has addresses, that it
	// has ended and that it is gone; 0 is not told.
	told, ended, gone int64
	// It had them from then on; it was made.
	from, made int64
	// It had them until then for certain, and at the most.
	sure, end int64
	// The pod lives on, without these addresses.
	lost bool

	in         *queue
	prev, next *owner
}

// time reads its times off what was told. That it has its addresses was told
// after it got them, and that it ended after it did, whatever the clocks say.
func (o *owner) time() {
	o.from, o.made, o.sure, o.end = o.told, 0, 0, forever
	if o.pod != nil {
		if o.pod.Created > 0 && o.pod.Created <= o.told {
			o.made = o.pod.Created
			o.from = o.made
		}
		if o.pod.Networked > 0 {
			o.from = min(o.pod.Networked, o.told)
		}
	}
	for _, told := range [...]int64{o.ended, o.gone} {
		if told != 0 {
			o.end = min(o.end, told)
		}
	}
	if o.end != forever && o.pod != nil && o.pod.Ended > 0 {
		o.sure = min(o.pod.Ended, o.end)
		o.end = min(o.pod.Ended+second, o.end)
	}
}

// rewind: the machine's clock went back. Nothing was told later than now, or who
// is told of from now on would wait for its address until then.
func (m *Map) rewind(now int64) {
	back := func(o *owner) {
		for _, told := range [...]*int64{&o.told, &o.ended, &o.gone} {
			*told = min(*told, now)
		}
		o.time()
	}
	for _, o := range m.pods {
		back(o)
	}
	for _, o := range m.nodes {
		back(o)
	}
	for _, q := range [...]*queue{&m.gone, &m.ended, &m.past} {
		for o := q.first; o != nil; o = o.next {
			back(o)
		}
	}
	for _, a := range m.addresses {
		divide(a.spans)
	}
}

// before orders the holders of an address: who still has it is the last.
func (o *owner) before(p *owner) int {
	return cmp.Or(
		cmp.Compare(o.rank(), p.rank()),
		cmp.Compare(o.from, p.from),
		cmp.Compare(o.end, p.end),
		cmp.Compare(o.made, p.made),
		cmp.Compare(o.key(), p.key()),
	)
}

// rank: a node that is there has its address, whoever else claims it.
func (o *owner) rank() int {
	switch {
	case o.end != forever:
		return 0
	case o.node == nil:
		return 1
	}
	return 2
}

func (o *owner) key() string {
	if o.pod != nil {
		return o.pod.UID
	}
	return o.node.Name
}

// divide gives each of the holders of an address its time.
func divide(spans []span) {
	for i := range spans {
		s := &spans[i]
		s.identity = nil
		o := s.owner
		s.begin, s.stop = math.MinInt64, o.end
		if i > 0 {
			s.begin = o.from
			if old := spans[i-1].owner; old.end != forever {
				s.begin = max(old.end, o.made)
			}
		}
		if i+1 < len(spans) {
			s.stop = max(o.sure, min(o.end, spans[i+1].owner.from))
		}
	}
}

// index puts an owner where its addresses are, and takes it from where it was.
func (m *Map) index(o *owner, ips []event.IP) {
	for _, ip := range o.ips {
		if slices.Contains(ips, ip) {
			continue
		}
		m.touched.address(ip)
		if a := m.addresses[ip]; a != nil {
			a.spans = slices.DeleteFunc(a.spans, func(s span) bool { return s.owner == o })
			divide(a.spans)
			m.tidy(ip, a)
		}
	}
	for _, ip := range ips {
		m.touched.address(ip)
		a := m.address(ip)
		if !slices.ContainsFunc(a.spans, func(s span) bool { return s.owner == o }) {
			a.spans = append(a.spans, span{owner: o})
		}
		slices.SortStableFunc(a.spans, func(x, y span) int { return x.owner.before(y.owner) })
		if len(a.spans) > maxHolders {
			a.spans = slices.Delete(a.spans, 0, 1)
		}
		divide(a.spans)
	}
	o.ips = ips
}

func (m *Map) address(ip event.IP) *Address {
	a := m.addresses[ip]
	if a == nil {
		a = &Address{}
		a.spans = a.first[:0]
		m.addresses[ip] = a
	}
	return a
}

// tidy forgets an address of which nothing is left to know.
func (m *Map) tidy(ip event.IP, a *Address) {
	if len(a.spans) == 0 && len(a.fronts) == 0 && len(a.backends) == 0 {
		delete(m.addresses, ip)
	}
}

// identity of a pod or node, made once: many connections share it.
func (m *Map) identity(o *owner) *event.Identity {
	if o.identity != nil {
		return o.identity
	}
	if p := o.pod; p != nil {
		o.identity = &event.Identity{
			Class: event.ClassPod, Namespace: p.Namespace, Pod: p.Name, PodUID: p.UID,
			Workload: p.Workload, Labels: p.Labels, Node: p.Node,
		}
		if n := m.nodes[p.Node]; n != nil {
			o.identity.Zone = n.node.Zone
		}
		return o.identity
	}
	o.identity = &event.Identity{Class: event.ClassNode, Node: o.node.Name, Zone: o.node.Zone}
	return o.identity
}

// queue is owners in the order in which they came; each is in one at most.
type queue struct {
	first, last *owner
	len         int
}

func (q *queue) push(o *owner) {
	o.in.drop(o)
	o.in, o.prev = q, q.last
	if q.last == nil {
		q.first = o
	} else {
		q.last.next = o
	}
	q.last = o
	q.len++
}

// drop takes an owner out; that it is in none is no error.
func (q *queue) drop(o *owner) {
	if q == nil {
		return
	}
	if o.prev == nil {
		q.first = o.next
	} else {
		o.prev.next = o.next
	}
	if o.next == nil {
		q.last = o.prev
	} else {
		o.next.prev = o.prev
	}
	o.in, o.prev, o.next = nil, nil, nil
	q.len--
}
