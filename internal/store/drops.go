// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"slices"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/filter"
)

// Drops is what the kernel dropped since the start, by whom it met, reason and
// place. Rows that make room for others go into a remainder, so that the sum of
// all never shrinks. It has the owner of Flows.
type Drops struct {
	limit int
	rows  map[dropKey]*DropRow
	past  event.Counter
	// Packets whose connection had no room in the kernel, and rows that made room.
	folded, evicted uint64
}

// DropRow is what was dropped of one party for one reason at one place. Of its
// connection only the namespace counts; the interface is the first.
type DropRow struct {
	At *event.Identity
	event.Drop
}

// dropKey is what makes a row one and not another. Of a process it has no
// number: it may have been started again.
type dropKey struct {
	netns            uint32
	uid              string
	class            event.Class
	unit, process    string
	reason, location string
}

// NewDrops makes an empty table for so many rows; 0 means 4,096.
func NewDrops(limit int) *Drops {
	if limit <= 0 {
		limit = 4096
	}
	return &Drops{limit: limit, rows: map[dropKey]*DropRow{}}
}

// Add counts a drop that met a party.
func (s *Drops) Add(at *event.Identity, d *event.Drop) {
	if d.Folded {
		s.folded += d.Amount.Packets
	}
	k := dropKey{netns: d.Conn.Netns, uid: at.PodUID, class: at.Class, unit: at.Unit, process: at.Process, reason: d.Reason, location: d.Location}
	if at.Class == event.ClassPod {
		k.unit, k.process = "", ""
	}
	row := s.rows[k]
	if row == nil {
		if len(s.rows) >= s.limit {
			s.evict()
		}
		row = &DropRow{Drop: *d}
		row.Conn = event.Conn{Netns: d.Conn.Netns, Ifindex: d.Conn.Ifindex}
		row.Amount = event.Counter{}
		s.rows[k] = row
	}
	// A name that has been told since is better, and none takes one away.
	if row.At == nil || row.At.Pod == "" || at.Pod != "" {
		row.At = at
	}
	row.Amount.Add(d.Amount)
	row.First, row.Last = min(row.First, d.First), max(row.Last, d.Last)
}

// evict makes room by the row to which nothing has happened for the longest time.
func (s *Drops) evict() {
	var oldest dropKey
	last := int64(0)
	for k, row := range s.rows {
		if last == 0 || row.Last < last {
			oldest, last = k, row.Last
		}
	}
	s.past.Add(s.rows[oldest].Amount)
	delete(s.rows, oldest)
	s.evicted++
}

// DropAnswer is the first rows of those that match, the most packets first.
type DropAnswer struct {
	Rows []DropRow
	// Packets before the limit, and of all rows and those that are past.
	Matched, Known uint64
}

// Query looks at every row once.
func (s *Drops) Query(f *filter.Filter, limit int) DropAnswer {
	a := DropAnswer{Known: s.past.Packets}
	flow := event.Flow{Remote: &event.Identity{Class: event.ClassUnknown}}
	for _, row := range s.rows {
		a.Known += row.Amount.Packets
		// Filters see what a row tells: who, and nothing of a connection.
		if flow.Local = row.At; f.Match(&flow) {
			a.Matched += row.Amount.Packets
			a.Rows = append(a.Rows, *row)
		}
	}
	slices.SortFunc(a.Rows, func(x, y DropRow) int {
		return cmp.Or(cmp.Compare(y.Amount.Packets, x.Amount.Packets), cmp.Compare(y.Last, x.Last), cmp.Compare(x.First, y.First))
	})
	a.Rows = slices.Clip(a.Rows[:min(limit, len(a.Rows))])
	return a
}

// Stats tells what has no detail: packets without their connection, and rows
// that made room for others.
func (s *Drops) Stats() (folded, evicted uint64) { return s.folded, s.evicted }
