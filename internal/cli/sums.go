// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/render"
)

// maxSums bounds the connections of one interval, to roughly 100 MB.
const maxSums = 1 << 16

// sums adds up the traffic of each connection over an interval. A nil *sums
// adds nothing up.
type sums struct {
	max    int
	byConn map[watched]*orb8v1.Event
	// In the order in which they first moved data; some may have ended since.
	order []watched
	// Reports that found no room, and their bytes.
	overReports, overBytes uint64
}

func newSums(max int) *sums { return &sums{max: max, byConn: map[watched]*orb8v1.Event{}} }

// take keeps traffic, and gives true. Of a connection that ends, what was kept
// is handed on first.
func (s *sums) take(e *orb8v1.Event, emit func(*orb8v1.Event)) bool {
	if s == nil {
		return false
	}
	key := watchKey(e.GetFlow())
	kept := s.byConn[key]
	switch {
	case e.GetKind() != orb8v1.EventKind_EVENT_KIND_TRAFFIC:
		if kept != nil {
			delete(s.byConn, key)
			emit(kept)
		}
		return false
	case kept != nil:
		addTo(e, kept)
	case len(s.byConn) >= s.max:
		d := e.GetFlow().GetDelta()
		s.overReports++
		s.overBytes += d.GetTxBytes() + d.GetRxBytes()
		return true
	default:
		s.order = append(s.order, key)
	}
	s.byConn[key] = e
	return true
}

// addTo makes the later of two reports one over both times.
func addTo(later, earlier *orb8v1.Event) {
	before, flow := earlier.GetFlow().GetDelta(), later.GetFlow()
	if flow.GetDelta() == nil {
		flow.Delta = &orb8v1.Traffic{}
	}
	flow.Delta.TxBytes += before.GetTxBytes()
	flow.Delta.TxPackets += before.GetTxPackets()
	flow.Delta.RxBytes += before.GetRxBytes()
	flow.Delta.RxPackets += before.GetRxPackets()
	flow.DeltaStartNs = earlier.GetFlow().GetDeltaStartNs()
}

// flush hands on what was kept and gives a warning if there was no room.
func (s *sums) flush(emit func(*orb8v1.Event)) (warning string) {
	if s == nil {
		return ""
	}
	for _, key := range s.order {
		if e := s.byConn[key]; e != nil {
			emit(e)
			delete(s.byConn, key)
		}
	}
	s.order = s.order[:0]
	if s.overReports > 0 {
		warning = fmt.Sprintf("%d reports (%s) not shown: more than %d connections in one interval; a filter or a shorter --interval shows them",
			s.overReports, render.Bytes(s.overBytes), s.max)
		s.overReports, s.overBytes = 0, 0
	}
	return warning
}
