// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net/netip"
	"testing"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/cluster"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/filter"
)

func ip(s string) event.IP { return event.IPFrom(netip.MustParseAddr(s)) }

// TestBothEndsOfAServiceAgree on the connection, and each shows its socket's
// tuple, wherever the translation was seen from.
func TestBothEndsOfAServiceAgree(t *testing.T) {
	s := Source{}
	client, backend, service := ip("10.1.0.5"), ip("10.1.1.7"), ip("10.96.0.10")
	asked := event.Conn{Local: client, Remote: service, LocalPort: 40000, RemotePort: 80, Protocol: event.TCP}
	sent := event.Conn{Local: client, Remote: backend, LocalPort: 40000, RemotePort: 8080, Protocol: event.TCP}
	inPod := s.Flow(&event.Flow{Conn: asked, NAT: &event.Translation{Local: client, LocalPort: 40000, Remote: backend, RemotePort: 8080}})
	inHost := s.Flow(&event.Flow{Conn: sent, NAT: &event.Translation{Local: client, LocalPort: 40000, Remote: service, RemotePort: 80, OfSocket: true}})
	for name, r := range map[string]*pb.FlowRecord{"in the pod": inPod, "in the host": inHost} {
		if r.Remote.Ip != "10.96.0.10" || r.Remote.Port != 80 || r.TranslatedRemote.GetIp() != "10.1.1.7" || r.TranslatedRemote.GetPort() != 8080 ||
			r.Local.Ip != "10.1.0.5" || r.TranslatedLocal.GetPort() != 40000 || r.TranslatedRemote.Class != "" {
			t.Errorf("%s: %v", name, r)
		}
	}
	server := s.Flow(&event.Flow{Conn: event.Conn{Local: backend, Remote: client, LocalPort: 8080, RemotePort: 40000, Protocol: event.TCP}})
	if inPod.ConnectionId != server.ConnectionId || inHost.ConnectionId != server.ConnectionId || server.TranslatedLocal != nil {
		t.Errorf("ids %x, %x and %x", inPod.ConnectionId, inHost.ConnectionId, server.ConnectionId)
	}
}

func TestLabels(t *testing.T) {
	for in, want := range map[string]filter.Label{
		"app":            {Key: "app"},
		"app=web":        {Key: "app", Value: "web", Wanted: filter.LabelSame},
		"app==web":       {Key: "app", Value: "web", Wanted: filter.LabelSame},
		"app=":           {Key: "app", Wanted: filter.LabelSame},
		"k8s.io/app!=db": {Key: "k8s.io/app", Value: "db", Wanted: filter.LabelOther},
		"app!=":          {Key: "app", Wanted: filter.LabelOther},
	} {
		if got, err := label(in); err != nil || got != want {
			t.Errorf("%q is %+v, %v", in, got, err)
		}
	}
	for _, bad := range []string{"", "=", "=web", "!=web", "!app", "a b", "app in (x)", "app=a=b", "app!==b", "app===b"} {
		if got, err := label(bad); err == nil {
			t.Errorf("%q is %+v", bad, got)
		}
	}
}

func TestPod(t *testing.T) {
	s := Source{Node: "n1"}
	r := s.Pod(&Pod{Pod: &cluster.Pod{
		UID: "u", Namespace: "shop", Name: "web\xff", Node: "n1", IPs: []event.IP{ip("10.1.0.5"), ip("fd00::5")},
		Containers: []cluster.Container{{Name: "main", ID: "0123"}}, Created: 1, Networked: 2, Deleting: 3,
	}, Netns: 9, Deleted: 4, Flows: 5})
	if r.SeenBy != "n1" || r.Name != "web\uFFFD" || len(r.Ips) != 2 || r.Ips[1] != "fd00::5" || r.Containers[0].Id != "0123" ||
		r.Workload != nil || r.CreatedNs != 1 || r.StartedNs != 2 || r.DeletingNs != 3 || r.DeletedNs != 4 || r.Netns != 9 || r.Flows != 5 {
		t.Errorf("record %v", r)
	}
}

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
