// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"
	"testing"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

func traffic(id, bytes uint64, at int64) *orb8v1.Event {
	return &orb8v1.Event{Kind: orb8v1.EventKind_EVENT_KIND_TRAFFIC, TimeNs: at, Flow: &orb8v1.FlowRecord{
		ConnectionId: id, Delta: &orb8v1.Traffic{TxBytes: bytes, TxPackets: 1}, DeltaStartNs: at - 1, DeltaEndNs: at,
	}}
}

// No byte is lost in the sums, however connections come, go and come again.
func TestSums(t *testing.T) {
	s := newSums(2)
	var got []*orb8v1.Event
	emit := func(e *orb8v1.Event) { got = append(got, e) }
	for _, e := range []*orb8v1.Event{
		traffic(1, 10, 1), traffic(2, 20, 1), traffic(1, 5, 2),
		// No room.
		traffic(3, 7, 2), traffic(3, 7, 3),
	} {
		if !s.take(e, emit) {
			t.Fatalf("not kept: %v", e)
		}
	}
	closed := traffic(1, 0, 4)
	closed.Kind = orb8v1.EventKind_EVENT_KIND_CLOSED
	if s.take(closed, emit) {
		t.Error("an end was kept")
	}
	// The same tuple again, after its end.
	s.take(traffic(1, 100, 5), emit)
	warning := s.flush(emit)

	type sum struct {
		id, bytes  uint64
		start, end int64
	}
	want := []sum{{1, 15, 0, 2}, {1, 100, 4, 5}, {2, 20, 0, 1}}
	if len(got) != len(want) {
		t.Fatalf("%d events, want %d: %v", len(got), len(want), got)
	}
	for i, e := range got {
		f := e.GetFlow()
		if g := (sum{f.GetConnectionId(), f.GetDelta().GetTxBytes(), f.GetDeltaStartNs(), f.GetDeltaEndNs()}); g != want[i] {
			t.Errorf("event %d: %+v, want %+v", i, g, want[i])
		}
	}
	if !strings.HasPrefix(warning, "2 reports (14B) not shown") {
		t.Errorf("warning: %q", warning)
	}
	if again := s.flush(emit); again != "" || len(got) != len(want) {
		t.Errorf("a second flush: %q, %d events", again, len(got))
	}
}
