// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"slices"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/filter"
)

// Sort is an order, the largest first.
type Sort uint8

// The orders.
const (
	SortBytes Sort = iota
	SortPackets
	SortRTT
	SortRetransmits
	SortLast
	// SortOneWay is by the bytes of the busier direction.
	SortOneWay
)

func (s Sort) key(f *event.Flow) uint64 {
	switch s {
	case SortPackets:
		return f.Total.Packets()
	case SortRTT:
		return uint64(f.Health.RTT)
	case SortRetransmits:
		return uint64(f.Health.Retransmits)
	case SortLast:
		return uint64(f.Last)
	case SortOneWay:
		return max(f.Total.TxBytes, f.Total.RxBytes)
	}
	return f.Total.Bytes()
}

// Query asks for the first Limit flows in an order.
type Query struct {
	Filter filter.Filter
	// A further condition; nil means none.
	Where func(*event.Flow) bool
	Sort  Sort
	Limit int
}

// Answer to a query: copies, so that the table can go on.
type Answer struct {
	Flows []event.Flow
	// Before the limit.
	Matched        int
	MatchedTraffic event.Traffic
}

// Query looks at every flow once and keeps the best in a heap, so its cost is
// that of one pass and its memory that of the answer.
func (s *Flows) Query(q Query) Answer {
	var a Answer
	top := heap{limit: q.Limit}
	for i := range s.used {
		f := s.at(i)
		if f.Epoch == 0 || f.Carried || !q.Filter.Match(f) || q.Where != nil && !q.Where(f) {
			continue
		}
		a.Matched++
		a.MatchedTraffic.Add(f.Total)
		top.offer(ranked{q.Sort.key(f), f})
	}
	slices.SortFunc(top.items, func(x, y ranked) int { return y.compare(x) })
	a.Flows = make([]event.Flow, len(top.items))
	for i, r := range top.items {
		a.Flows[i] = *r.flow
	}
	return a
}

// ranked is a flow and its place in an order.
type ranked struct {
	key  uint64
	flow *event.Flow
}

// compare orders from the least; what is equal comes by last change, then the
// older first.
func (r ranked) compare(o ranked) int {
	return cmp.Or(
		cmp.Compare(r.key, o.key),
		cmp.Compare(r.flow.Last, o.flow.Last),
		cmp.Compare(o.flow.First, r.flow.First),
	)
}

func (r ranked) before(o ranked) bool { return r.compare(o) < 0 }

// heap keeps the limit greatest of what it is offered; the least is its root.
type heap struct {
	limit int
	items []ranked
}

func (h *heap) offer(r ranked) {
	switch {
	case len(h.items) < h.limit:
		h.items = append(h.items, r)
		h.up(len(h.items) - 1)
	case h.limit > 0 && h.items[0].before(r):
		h.items[0] = r
		h.down(0)
	}
}

func (h *heap) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !h.items[i].before(h.items[parent]) {
			return
		}
		h.items[i], h.items[parent] = h.items[parent], h.items[i]
		i = parent
	}
}

func (h *heap) down(i int) {
	for {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(h.items); c++ {
			if h.items[c].before(h.items[least]) {
				least = c
			}
		}
		if least == i {
			return
		}
		h.items[i], h.items[least] = h.items[least], h.items[i]
		i = least
	}
}
