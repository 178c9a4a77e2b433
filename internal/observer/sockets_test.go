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
	"github.com/orb8/orb8/internal/netstat"
	"github.com/orb8/orb8/internal/wire"
)

func sockets(t *testing.T, c pb.ObserverClient, req *pb.SocketsRequest) (list []*pb.SocketsRecord, sum *pb.SocketsSummary, err error) {
	t.Helper()
	stream, err := c.Sockets(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return list, sum, nil
		}
		if err != nil {
			return nil, nil, err
		}
		if s := m.GetSockets(); s != nil {
			list = append(list, s)
		}
		sum = m.GetSummary()
	}
}

func TestSockets(t *testing.T) {
	n := newFakeNode()
	grown := netstat.Growth{Total: 5, Seen: 4, Minute: 3}
	n.sockets = Sockets{Matched: 3, Known: 9, Losses: []event.Loss{{Stage: "sockets", Count: 2}}, Sockets: []wire.Sockets{{
		Netns: 7, Name: hostile, Problem: hostile,
		Owner: &event.Identity{Class: event.ClassPod, Namespace: "shop", Pod: "web-0"},
		Report: netstat.Report{
			TCP: 1, TimeWait: 2, UDP: 3,
			Counters: []netstat.Counter{{Name: "A", Growth: grown}},
			Findings: []netstat.Finding{{Counter: "A", Growth: grown, Meaning: "m"}, {Counter: "B", Growth: netstat.Growth{Total: 1}}},
		},
		Buffers: netstat.Buffers{Bytes: 100, Orphans: 4},
	}}}
	c := pb.NewObserverClient(dial(t, n))
	list, sum, err := sockets(t, c, &pb.SocketsRequest{Include: &pb.EndFilter{Pods: []string{"web-0"}}, Limit: 1000})
	if err != nil || len(list) != 1 || sum.GetMatched() != 3 || sum.GetKnown() != 9 || len(sum.GetLosses()) != 1 || !sum.GetNodes()[0].GetAnswered() {
		t.Fatalf("%v, %v, %v", list, sum, err)
	}
	if n.askedSockets.Limit != 50 || len(n.askedSockets.Filter.Include.Pods) != 1 {
		t.Errorf("the node was asked for %+v", n.askedSockets)
	}
	s := list[0]
	if s.GetNode() != "n1" || s.GetNetns() != 7 || s.GetName() != marked || s.GetProblem() != marked || s.GetOwner().GetPod() != "web-0" || s.GetOwner().GetIp() != "" {
		t.Errorf("%v", s)
	}
	if s.GetTcpInUse() != 1 || s.GetTcpTimeWait() != 2 || s.GetUdpInUse() != 3 || s.GetTcpOrphans() != 4 || s.GetMemoryBytes() != 100 {
		t.Errorf("%v", s)
	}
	if c := s.GetCounters(); len(c) != 1 || c[0].GetCount() != 5 || c[0].GetSinceSeen() != 4 || c[0].GetLastMinute() != 3 {
		t.Errorf("%v", c)
	}
	if f := s.GetFindings(); len(f) != 2 || !f[0].GetCurrent() || f[0].GetSinceSeen() != 4 || f[1].GetCurrent() || f[1].GetCount() != 1 {
		t.Errorf("%v", f)
	}
	for _, req := range []*pb.SocketsRequest{{Include: &pb.EndFilter{Services: []string{"web"}}}, {Exclude: &pb.EndFilter{Labels: []string{"weird"}}}} {
		if _, _, err := sockets(t, c, req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", req, err)
		}
	}
}
