// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/store"
)

func query(t *testing.T, c pb.ObserverClient, req *pb.FlowsRequest) (flows []*pb.FlowRecord, sum *pb.Summary, err error) {
	t.Helper()
	stream, err := c.Flows(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return flows, sum, nil
		}
		if err != nil {
			return nil, nil, err
		}
		if sum != nil {
			t.Fatal("the summary is not the last message")
		}
		if f := m.GetFlow(); f != nil {
			flows = append(flows, f)
		}
		sum = m.GetSummary()
	}
}

func TestFlowsEndWithASummary(t *testing.T) {
	n := newFakeNode()
	n.flows.Begin()
	for i := range 3 {
		n.apply(delta(uint16(1000 + i)))
	}
	flows, sum, err := query(t, pb.NewObserverClient(dial(t, n)), &pb.FlowsRequest{Limit: 2, Include: &pb.Filter{DstPorts: []uint32{443}}})
	if err != nil || len(flows) != 2 {
		t.Fatalf("%d flows, %v", len(flows), err)
	}
	f := flows[0]
	if f.Node != "n1" || f.AgentInstance != 42 || f.Tap.Interface != "eth0" || f.Tap.Namespace != "blue" || f.Protocol != 6 || f.OpenedBy != pb.Opener_OPENER_LOCAL ||
		f.Total.TxBytes != 300 || f.Health.RttUs != 150 || f.Health.Retransmits != 1 || f.State != "established" ||
		f.Local.SocketCookie != 5 || f.Local.CgroupId != 6 || f.Local.Class != "host" || f.Remote.Class != "external" || f.Delta != nil {
		t.Errorf("record: %v", f)
	}
	if sum.MatchedFlows != 3 || sum.Matched.TxBytes != 900 || sum.KnownFlows != 3 {
		t.Errorf("totals must be those before the limit: %v", sum)
	}
	if sum.Unaccounted.TxBytes != 77 || sum.Unaccounted.RxBytes != 0 || sum.Overflow.RxBytes != 9 || len(sum.Losses) != 1 {
		t.Errorf("losses: %v", sum)
	}
	if sum.StartNs != 100e9 || sum.EndNs != 200e9 || len(sum.Nodes) != 1 || !sum.Nodes[0].Answered {
		t.Errorf("coverage: %v", sum)
	}
}

func TestQuestionsThatMeanNothing(t *testing.T) {
	c := pb.NewObserverClient(dial(t, newFakeNode()))
	for name, req := range map[string]*pb.FlowsRequest{
		"port":      {Include: &pb.Filter{Ports: []uint32{65536}}},
		"protocol":  {Exclude: &pb.Filter{Protocols: []uint32{256}}},
		"address":   {Include: &pb.Filter{Ips: []string{"10.0.0.300"}}},
		"prefix":    {Include: &pb.Filter{SrcIps: []string{"10.0.0.0/33"}}},
		"direction": {Include: &pb.Filter{Directions: []string{"up"}}},
		"too many":  {Include: &pb.Filter{Pods: make([]string, 1001)}},
		"sort":      {Sort: 99},
		"label":     {Include: &pb.Filter{Labels: []string{"a in (b)"}}},
		"kept not":  {Include: &pb.Filter{From: &pb.EndFilter{Labels: []string{"weird!=b"}}}},
		"end":       {Exclude: &pb.Filter{To: &pb.EndFilter{Labels: []string{"=b"}}}},
	} {
		if _, _, err := query(t, c, req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	stream, err := c.Events(t.Context(), &pb.EventsRequest{Kinds: []pb.EventKind{77}})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("kind: %v", err)
	}
}

func TestEventsTellWhatWasLost(t *testing.T) {
	n := newFakeNode()
	n.flows.Begin()
	f := n.apply(delta(1))
	stream, err := pb.NewObserverClient(dial(t, n)).Events(t.Context(), &pb.EventsRequest{Kinds: []pb.EventKind{pb.EventKind_EVENT_KIND_OPENED}})
	if err != nil {
		t.Fatal(err)
	}
	<-n.followed
	// A queue of one batch, and a reader that has not begun.
	n.publish(store.Happened(1<<event.KindOpened|1<<event.KindTraffic), &event.Event{Flow: *f}, 640)
	hello, err := stream.Recv()
	if err != nil || hello.GetNode().GetNode() != "n1" {
		t.Fatalf("a stream begins with its node: %v, %v", hello, err)
	}
	events, lost := uint64(0), uint64(0)
	for events+lost < 640 {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if e := m.GetEvent(); e != nil {
			events++
			if e.Kind != pb.EventKind_EVENT_KIND_OPENED || e.Flow.GetDelta() == nil {
				t.Fatalf("event %v", e)
			}
		}
		lost += m.GetLoss().GetCount()
	}
	if lost == 0 {
		t.Error("nothing was lost: the test does not test")
	}
	n.close()
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the end of the agent must end the stream: %v", err)
	}
	<-n.left
}
