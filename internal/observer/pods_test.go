// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/cluster"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/wire"
)

func pods(t *testing.T, c pb.ObserverClient, req *pb.PodsRequest) (names []string, sum *pb.PodsSummary, err error) {
	t.Helper()
	stream, err := c.Pods(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return names, sum, nil
		}
		if err != nil {
			return nil, nil, err
		}
		if p := m.GetPod(); p != nil {
			names = append(names, p.Namespace+"/"+p.Name)
		}
		sum = m.GetSummary()
	}
}

func TestPods(t *testing.T) {
	n := newFakeNode()
	for _, p := range []*cluster.Pod{
		{Namespace: "shop", Name: "web-1", Node: "n1", Labels: map[string]string{"app": "web"}},
		{Namespace: "shop", Name: "web-0", Node: "n1", Labels: map[string]string{"app": "web"}, Workload: event.Workload{Kind: "StatefulSet", Name: "web"}},
		{Namespace: "bank", Name: "web-0", Node: "n1"},
	} {
		n.pods = append(n.pods, wire.Pod{Pod: p})
	}
	c := pb.NewObserverClient(dial(t, n))
	for name, v := range map[string]struct {
		req     *pb.PodsRequest
		first   string
		n       int
		matched uint64
	}{
		"all, in order": {&pb.PodsRequest{}, "bank/web-0", 3, 3},
		"namespace":     {&pb.PodsRequest{Include: &pb.EndFilter{Namespaces: []string{"shop"}}}, "shop/web-0", 2, 2},
		"limit":         {&pb.PodsRequest{Include: &pb.EndFilter{Labels: []string{"app=web"}}, Limit: 1}, "shop/web-0", 1, 2},
		"left out":      {&pb.PodsRequest{Exclude: &pb.EndFilter{Workloads: []string{"web"}, Namespaces: []string{"bank"}}}, "shop/web-1", 1, 1},
	} {
		names, sum, err := pods(t, c, v.req)
		if err != nil || len(names) != v.n || names[0] != v.first || sum.GetMatched() != v.matched || sum.GetKnown() != 3 || !sum.GetNodes()[0].GetAnswered() || len(sum.GetLosses()) != 1 {
			t.Errorf("%s: %v, %v, %v", name, names, sum, err)
		}
	}
	for name, req := range map[string]*pb.PodsRequest{
		"service":  {Include: &pb.EndFilter{Services: []string{"web"}}},
		"label":    {Exclude: &pb.EndFilter{Labels: []string{"="}}},
		"kept not": {Include: &pb.EndFilter{Labels: []string{"weird"}}},
	} {
		if _, _, err := pods(t, c, req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	st, err := c.Status(t.Context(), &pb.StatusRequest{})
	if err != nil || st.Nodes[0].PodsTracked != 3 {
		t.Errorf("status %v, %v", st, err)
	}
}
