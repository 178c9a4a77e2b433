// SPDX-License-Identifier: Apache-2.0

// Package pair holds which records of two answers to Flows are the two ends of
// one connection, and what was lost between them. It never asks, and knows
// nothing of how a pair looks. The command line reads it.
//
// Nodes read their counters at different moments, so what one end has sent and
// the other has not received may be on its way, or not be read yet. Therefore
// the question is put twice: what was sent when the first answer was complete,
// and has not been received when the second is asked for a moment later, is
// lost. Of a connection that moves meanwhile that is a lower bound; of one that
// does not it is exact. No clock of a node is compared with another's for it.
package pair

import (
	"cmp"
	"net/netip"
	"slices"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
)

const (
	// slack is how far clocks of nodes may be apart, nanoseconds.
	slack = 1e9
	// together: ends that were first seen within that time, nanoseconds, saw the
	// same beginning. A record that expired and came again is later.
	together = 10e9
	// attaching is how long after its start an agent may not be everywhere yet.
	attaching = 2e9
)

// Pair is a connection. One of its ends may not have been seen.
type Pair struct {
	// From opened it, or, where that is not known, has the higher port.
	From, To *Side
	// Segments that From sent and To did not receive, and the other way; nil where
	// that cannot be told.
	LostThere, LostBack *uint64
	// It moved between the two answers: the losses are lower bounds.
	Moving bool
}

// Lost is what is known to be lost, both ways.
func (p *Pair) Lost() (n uint64) {
	for _, l := range []*uint64{p.LostThere, p.LostBack} {
		if l != nil {
			n += *l
		}
	}
	return n
}

// Either is an end that was seen.
func (p *Pair) Either() *Side {
	if p.From != nil {
		return p.From
	}
	return p.To
}

// Side is what one end saw.
type Side struct {
	// Of the interface that moved most.
	*pb.FlowRecord
	// Of all interfaces that the connection was on.
	Total *pb.Traffic
	// As of the first answer.
	before pb.Traffic
	// Different sockets, or namespaces, claim to be this end.
	doubtful bool
	syn      bool
	first    int64
	last     int64
}

// key names a record in two answers.
type key struct {
	id, netns, instance uint64
	node, ip            string
	ifindex, port       uint32
	first               int64
}

func keyOf(f *pb.FlowRecord) key {
	return key{
		f.GetConnectionId(), f.GetTap().GetNetns(), f.GetAgentInstance(), f.GetNode(), f.GetLocal().GetIp(),
		f.GetTap().GetIfindex(), f.GetLocal().GetPort(), f.GetFirstSeenNs(),
	}
}

// Ends collects the records of two answers.
type Ends struct {
	before map[key]counts
	// By connection, in the order of the second answer.
	groups map[uint64][]*pb.FlowRecord
	order  []uint64
}

type counts struct{ tx, rx uint64 }

// New makes one for a question.
func New() *Ends {
	return &Ends{before: map[key]counts{}, groups: map[uint64][]*pb.FlowRecord{}}
}

// Before takes a record of the first answer.
func (e *Ends) Before(f *pb.FlowRecord) {
	e.before[keyOf(f)] = counts{f.GetTotal().GetTxPackets(), f.GetTotal().GetRxPackets()}
}

// Add takes a record of the second. What is sent to a group has not two ends,
// and is left out.
func (e *Ends) Add(f *pb.FlowRecord) {
	if group(f.GetLocal()) || group(f.GetRemote()) {
		return
	}
	id := f.GetConnectionId()
	if e.groups[id] == nil {
		e.order = append(e.order, id)
	}
	e.groups[id] = append(e.groups[id], f)
}

// group tells whether an address is nobody's own.
func group(e *pb.End) bool {
	ip, err := netip.ParseAddr(e.GetIp())
	return err == nil && (ip.IsMulticast() || ip.IsUnspecified() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}))
}

// Pairs gives the connections in the order of the second answer. since is from
// when on all nodes count, Unix nanoseconds.
func (e *Ends) Pairs(since int64) []Pair {
	var all []Pair
	for _, id := range e.order {
		for _, records := range apart(e.groups[id]) {
			all = append(all, e.pair(records, since)...)
		}
	}
	return all
}

// apart divides the records of a tuple, which may be used again, into those of
// times that overlap.
func apart(records []*pb.FlowRecord) (groups [][]*pb.FlowRecord) {
	sorted := slices.SortedStableFunc(slices.Values(records), func(a, b *pb.FlowRecord) int {
		return cmp.Compare(a.GetFirstSeenNs(), b.GetFirstSeenNs())
	})
	var end int64
	for _, f := range sorted {
		if len(groups) == 0 || f.GetFirstSeenNs() > end+slack {
			groups = append(groups, nil)
			end = 0
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], f)
		end = max(end, f.GetLastSeenNs())
	}
	return groups
}

// place is the address and port of an end on the wire.
type place struct {
	ip   string
	port uint32
}

func localOf(f *pb.FlowRecord) place {
	e := f.GetLocal()
	if t := f.GetTranslatedLocal(); t != nil {
		e = t
	}
	return place{e.GetIp(), e.GetPort()}
}

// pair makes one connection of records of one tuple; more where they are not two
// ends.
func (e *Ends) pair(records []*pb.FlowRecord, since int64) []Pair {
	var sides []*Side
	at := map[place]*Side{}
	for _, f := range records {
		s := at[localOf(f)]
		if s == nil {
			s = &Side{FlowRecord: f, Total: &pb.Traffic{}, first: f.GetFirstSeenNs()}
			at[localOf(f)] = s
			sides = append(sides, s)
		}
		e.join(s, f)
	}
	if len(sides) != 2 {
		var alone []Pair
		for _, s := range sides {
			alone = append(alone, Pair{From: s, Moving: s.moved()})
		}
		for i := range alone {
			alone[i].turn()
		}
		return alone // loopback, or what claims to be three ends
	}
	p := Pair{From: sides[0], To: sides[1]}
	p.turn()
	p.compare(since)
	return []Pair{p}
}

// join adds a record to its side: a connection may be on several interfaces.
func (e *Ends) join(s *Side, f *pb.FlowRecord) {
	h := f.GetHealth()
	if s.GetNode() != f.GetNode() || s.GetTap().GetNetns() != f.GetTap().GetNetns() {
		s.doubtful = true
	}
	if packets(f.GetTotal()) > packets(s.FlowRecord.GetTotal()) {
		s.FlowRecord = f
	}
	add(s.Total, f.GetTotal())
	was := e.before[keyOf(f)]
	s.before.TxPackets += was.tx
	s.before.RxPackets += was.rx
	s.syn = s.syn || (h.GetTcpFlagsTx()|h.GetTcpFlagsRx())&uint32(event.FlagSYN) != 0
	s.first = min(s.first, f.GetFirstSeenNs())
	s.last = max(s.last, f.GetLastSeenNs())
}

func packets(t *pb.Traffic) uint64 { return t.GetTxPackets() + t.GetRxPackets() }

func add(to, t *pb.Traffic) {
	to.TxBytes += t.GetTxBytes()
	to.TxPackets += t.GetTxPackets()
	to.RxBytes += t.GetRxBytes()
	to.RxPackets += t.GetRxPackets()
}

// turn puts the opener first.
func (p *Pair) turn() {
	from, to := p.From, p.To
	switch {
	case opened(from, pb.Opener_OPENER_LOCAL), opened(to, pb.Opener_OPENER_REMOTE):
	case opened(from, pb.Opener_OPENER_REMOTE), opened(to, pb.Opener_OPENER_LOCAL):
		p.From, p.To = to, from
	case p.Either().GetLocal().GetPort() < p.Either().GetRemote().GetPort():
		p.From, p.To = to, from
	}
}

func opened(s *Side, by pb.Opener) bool { return s != nil && s.GetOpenedBy() == by }

// compare tells what was lost, where both ends were seen from their beginning.
func (p *Pair) compare(since int64) {
	a, b := p.From, p.To
	p.Moving = a.moved() || b.moved()
	if a.doubtful || b.doubtful || !begun(a, b, since) {
		return
	}
	there, back := missing(a, b), missing(b, a)
	p.LostThere, p.LostBack = &there, &back
}

func (s *Side) moved() bool {
	return s.before.GetTxPackets() != s.Total.GetTxPackets() || s.before.GetRxPackets() != s.Total.GetRxPackets()
}

// begun tells whether both ends counted from the connection's first packet on.
func begun(a, b *Side, since int64) bool {
	if event.Protocol(a.GetProtocol()) == event.TCP {
		return a.syn && b.syn
	}
	return min(a.first, b.first) >= since+attaching && max(a.first, b.first)-min(a.first, b.first) < together
}

// missing is what one end had sent when the first answer was complete, and the
// other had not received by the second.
func missing(from, to *Side) uint64 {
	sent, received := from.before.GetTxPackets(), to.Total.GetRxPackets()
	return sent - min(sent, received)
}
