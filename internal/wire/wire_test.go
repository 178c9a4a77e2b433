// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"testing"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
)

// TestRecordSaysWhatIsNotKnown by leaving it out.
func TestRecordSaysWhatIsNotKnown(t *testing.T) {
	s := Source{}
	r := s.Flow(&event.Flow{Conn: event.Conn{Protocol: event.UDP}})
	if r.Health != nil || r.Delta != nil || r.State != "" || r.Local.Class != "unknown" || r.OpenedBy != pb.Opener_OPENER_UNKNOWN {
		t.Errorf("record %v", r)
	}
	noted := s.Flow(&event.Flow{Local: &event.Identity{
		Class: event.ClassContainer, Container: "0123", Unit: "a.service", Process: "nginx", PID: 7,
	}, Cgroup: 9})
	if l := noted.Local; l.Class != "container" || l.Container != "0123" || l.Unit != "a.service" || l.Process != "nginx" || l.Pid != 7 || l.CgroupId != 9 {
		t.Errorf("local end %v", l)
	}
	echo := s.Flow(&event.Flow{Conn: event.Conn{Protocol: event.ICMP, Kind: event.ConnEchoOpenedLocal, LocalPort: 7}})
	if echo.Local.Port != 0 {
		t.Error("an echo id is not a port")
	}
	if f := s.Flow(&event.Flow{Conn: event.Conn{Protocol: event.UDP, Kind: event.ConnFragment}}); !f.Fragments {
		t.Error("fragments are not marked")
	}
}

// TestEventSaysWhatItsEpochLost, since its connection's packets may be there.
func TestEventSaysWhatItsEpochLost(t *testing.T) {
	s := Source{}
	if e := s.Event(&event.Event{}); e.Flow.Loss != nil {
		t.Errorf("nothing was lost, but %v", e.Flow.Loss)
	}
	if e := s.Event(&event.Event{Overflow: 3}); e.Flow.Loss.GetCount() != 3 || e.Flow.Loss.GetStage() != "table_full" {
		t.Errorf("loss %v", e.Flow.Loss)
	}
}

// TestKindsAndStatesMatchTheirMessages: the numbers are converted by value.
func TestKindsAndStatesMatchTheirMessages(t *testing.T) {
	for k, want := range map[event.Kind]pb.EventKind{
		event.KindTraffic: pb.EventKind_EVENT_KIND_TRAFFIC,
		event.KindOpened:  pb.EventKind_EVENT_KIND_OPENED,
		event.KindClosed:  pb.EventKind_EVENT_KIND_CLOSED,
		event.KindRefused: pb.EventKind_EVENT_KIND_REFUSED,
		event.KindReset:   pb.EventKind_EVENT_KIND_RESET,
	} {
		if pb.EventKind(k) != want {
			t.Errorf("%v is %v on the wire", k, pb.EventKind(k))
		}
	}
	for o, want := range map[event.Opener]pb.Opener{
		event.OpenerUnknown: pb.Opener_OPENER_UNKNOWN,
		event.OpenerLocal:   pb.Opener_OPENER_LOCAL,
		event.OpenerRemote:  pb.Opener_OPENER_REMOTE,
	} {
		if pb.Opener(o) != want {
			t.Errorf("%v is %v on the wire", o, pb.Opener(o))
		}
	}
}
