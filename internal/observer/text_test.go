// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"context"
	"testing"
	"time"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/store"
	"github.com/orb8/orb8/internal/wire"
)

// hostile is a name that anybody may choose and protobuf refuses, and how it is
// sent.
const hostile, marked = "e\xffx", "e\uFFFDx"

// hostileNode has hostile names wherever it has names.
type hostileNode struct{ *fakeNode }

func (hostileNode) Source() wire.Source {
	return wire.Source{Node: hostile, Interfaces: map[event.Iface]wire.Place{{Netns: 7, Index: 2}: {Name: hostile, Namespace: hostile}}}
}

func (n hostileNode) Flows(ctx context.Context, q store.Query) (Snapshot, error) {
	snap, err := n.fakeNode.Flows(ctx, q)
	snap.Losses = []event.Loss{{Stage: hostile, Count: 1, Hint: hostile}}
	return snap, err
}

func (n hostileNode) Status(context.Context) (Status, error) {
	return Status{
		Version: hostile, HealthMessage: hostile, Notes: []string{hostile},
		Losses:     []event.Loss{{Stage: hostile, Count: 1, Hint: hostile}},
		Namespaces: []event.Namespace{{Name: hostile, Problem: hostile}},
		Interfaces: []store.InterfaceAudit{{Interface: event.Interface{Name: hostile, Namespace: hostile, Problem: hostile, Note: hostile}}},
	}, nil
}

// TestHostileNamesDoNotSilenceANode: any user can name an interface so, in a
// user namespace of theirs, and every call must answer nevertheless.
func TestHostileNamesDoNotSilenceANode(t *testing.T) {
	n := hostileNode{newFakeNode()}
	n.flows.Begin()
	f := n.apply(delta(40000))
	f.Local.Process, f.Local.Namespace, f.Local.Pod = hostile, hostile, hostile
	kept := *f
	conn := dial(t, n)
	c, old := pb.NewObserverClient(conn), pb.NewOrbitAgentServiceClient(conn)

	flows, sum, err := query(t, c, &pb.FlowsRequest{})
	if err != nil || len(flows) != 1 || flows[0].Tap.Namespace != marked || flows[0].Node != marked || flows[0].Local.Process != marked || sum.Nodes[0].Node != marked {
		t.Errorf("Flows: %v, %v, %v", flows, sum, err)
	}
	st, err := c.Status(t.Context(), &pb.StatusRequest{})
	if err != nil || st.Nodes[0].HealthMessage != marked || st.Nodes[0].Interfaces[0].Tap.Interface != marked || st.Nodes[0].Notes[0] != marked {
		t.Errorf("Status: %v, %v", st, err)
	}
	rows, err := old.QueryFlows(t.Context(), &pb.QueryFlowsRequest{Namespaces: []string{marked}})
	if err != nil || len(rows.Flows) != 2 || rows.Flows[0].PodName != marked {
		t.Errorf("QueryFlows: %v, %v", rows, err)
	}
	if st, err := old.GetStatus(t.Context(), &pb.GetStatusRequest{}); err != nil || st.NodeName != marked || st.Version != marked {
		t.Errorf("GetStatus: %v, %v", st, err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	events, err := c.Events(ctx, &pb.EventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	hello, err := events.Recv()
	if err != nil || hello.GetNode().GetNode() != marked {
		t.Fatalf("Events: %v, %v", hello, err)
	}
	oldEvents, err := old.StreamEvents(ctx, &pb.StreamEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	<-n.followed
	<-n.followed
	n.publish(store.Happened(1<<event.KindTraffic), &event.Event{Flow: kept, Delta: kept.Total}, 1)
	if e, err := events.Recv(); err != nil || e.GetEvent().GetFlow().GetTap().GetInterface() != marked {
		t.Errorf("Events: %v, %v", e, err)
	}
	if e, err := oldEvents.Recv(); err != nil || e.PodName != marked {
		t.Errorf("StreamEvents: %v, %v", e, err)
	}
}
