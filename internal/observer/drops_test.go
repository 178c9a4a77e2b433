// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/store"
)

func theDrop() *event.Drop {
	return &event.Drop{
		Conn: delta(40000).Conn, Reason: "NETFILTER_DROP", Hint: "a rule", Location: "nft_do_chain+0x3e8",
		Amount: event.Counter{Packets: 3, Bytes: 300}, First: 100, Last: 200,
	}
}

func TestDrops(t *testing.T) {
	n := newFakeNode()
	n.drops = store.NewDrops(0)
	n.drops.Add(&event.Identity{Class: event.ClassPod, Namespace: "shop", Pod: "web-0", PodUID: "u", Node: "n1"}, theDrop())
	c := pb.NewObserverClient(dial(t, n))
	for _, q := range []*pb.DropsRequest{{}, {Include: &pb.Filter{Pods: []string{"web-0"}}}, {Include: &pb.Filter{Pods: []string{"db"}}}} {
		stream, err := c.Drops(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		matched := uint64(0)
		if q.GetInclude().GetPods() == nil || q.GetInclude().GetPods()[0] == "web-0" {
			matched = 3
			d := m.GetDrop()
			if d.GetReason() != "NETFILTER_DROP" || d.GetHint() != "a rule" || d.GetPackets() != 3 || d.GetBytes() != 300 || d.GetNode() != "n1" ||
				d.GetAt().GetPod() != "web-0" || d.GetFirstNs() != 100 || d.GetLastNs() != 200 || d.GetLocation() == "" {
				t.Errorf("%v", d)
			}
			if tap := d.GetTap(); tap.GetNetns() != 7 || tap.GetNamespace() != "blue" || tap.GetIfindex() != 0 || tap.GetInterface() != "" {
				t.Errorf("a row is of a namespace: %v", tap)
			}
			if m, err = stream.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		s := m.GetSummary()
		if s.GetMatchedPackets() != matched || s.GetKnownPackets() != 3 || len(s.GetNodes()) != 1 || len(s.GetLosses()) != 1 || s.GetStartNs() != 100e9 || s.GetEndNs() != 200e9 {
			t.Errorf("%v", s)
		}
	}
}

// Nothing dropped, and nothing known of drops, are two answers.
func TestDropsThatAreNotTold(t *testing.T) {
	stream, err := pb.NewObserverClient(dial(t, newFakeNode())).Drops(t.Context(), &pb.DropsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = stream.Recv(); status.Code(err) != codes.FailedPrecondition {
		t.Error(err)
	}
	for _, c := range []struct {
		kinds []pb.EventKind
		want  codes.Code
	}{
		{[]pb.EventKind{pb.EventKind_EVENT_KIND_DROP}, codes.FailedPrecondition},
		{[]pb.EventKind{pb.EventKind_EVENT_KIND_DROP, pb.EventKind_EVENT_KIND_OPENED}, codes.OK},
		{nil, codes.OK},
	} {
		events, err := pb.NewObserverClient(dial(t, newFakeNode())).Events(t.Context(), &pb.EventsRequest{Kinds: c.kinds})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = events.Recv(); status.Code(err) != c.want {
			t.Errorf("%v: %v", c.kinds, err)
		}
	}
}

func TestDropEvents(t *testing.T) {
	n := newFakeNode()
	n.drops = store.NewDrops(0)
	c := pb.NewObserverClient(dial(t, n))
	stream, err := c.Events(t.Context(), &pb.EventsRequest{Kinds: []pb.EventKind{pb.EventKind_EVENT_KIND_DROP}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil { // it listens
		t.Fatal(err)
	}
	nobody := &event.Identity{Class: event.ClassUnknown}
	f := *n.apply(delta(40000))
	n.publish(1<<event.KindDrop, &event.Event{Flow: f, Drop: theDrop()}, 1)
	n.publish(1<<event.KindDrop, &event.Event{Flow: event.Flow{Local: nobody, Remote: nobody}, Drop: &event.Drop{Reason: "NOMEM", Last: 7}}, 1)

	m, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	e := m.GetEvent()
	if e.GetKind() != pb.EventKind_EVENT_KIND_DROP || e.GetTimeNs() != 200 || e.GetDrop().GetPackets() != 3 || e.GetDrop().GetTap().GetInterface() != "eth0" ||
		e.GetFlow().GetLocal().GetPort() != 40000 || e.GetFlow().GetDelta() != nil {
		t.Errorf("%v", e)
	}
	if m, err = stream.Recv(); err != nil {
		t.Fatal(err)
	}
	e = m.GetEvent()
	if e.GetTimeNs() != 7 || e.GetFlow().GetLocal().GetIp() != "" || e.GetFlow().GetConnectionId() != 0 || e.GetDrop().GetReason() != "NOMEM" {
		t.Errorf("of anybody: %v", e)
	}
}
