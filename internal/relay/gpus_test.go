// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	pb "github.com/orb8/orb8/api/orb8/v1"
)

func (f *fake) GpuDriver(ctx context.Context, q *pb.GpuDriverRequest) (*pb.GpuDriverResponse, error) {
	f.driver = append(f.driver, q)
	if f.hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &pb.GpuDriverResponse{Nodes: []*pb.GpuDriverState{{Node: f.status.GetNodes()[0].GetNode(), Open: !q.GetRelease()}}}, f.err
}

func gpus(node string, records ...*pb.GpuRecord) []*pb.GpusResponse {
	var list []*pb.GpusResponse
	for _, r := range records {
		r.Node = node
		list = append(list, &pb.GpusResponse{Message: &pb.GpusResponse_Record{Record: r}})
	}
	return append(list, &pb.GpusResponse{Message: &pb.GpusResponse_Summary{Summary: &pb.GpusSummary{
		Matched: 3, Known: 5, Nodes: []*pb.NodeState{{Node: node, Answered: true}}, Losses: []*pb.Loss{{Stage: "a", Count: 2}},
	}}})
}

func holder(e *pb.End) *pb.GpuRecord {
	return &pb.GpuRecord{Of: &pb.GpuRecord_Holder{Holder: &pb.GpuHolder{Holder: e}}}
}

func device(index uint32, parent string, instance uint32) *pb.GpuRecord {
	return &pb.GpuRecord{Of: &pb.GpuRecord_Device{Device: &pb.GpuDevice{Index: index, Parent: parent, Instance: instance}}}
}

func rdma(name string) *pb.GpuRecord {
	return &pb.GpuRecord{Of: &pb.GpuRecord_Rdma{Rdma: &pb.RdmaDevice{Name: name}}}
}

// Pods first, then what is no pod, then what nobody has; then devices, a GPU before
// its instances; then RDMA.
func TestGpus(t *testing.T) {
	pod := func(namespace, name string) *pb.GpuRecord {
		return holder(&pb.End{Class: "pod", Namespace: namespace, Pod: name, PodUid: "z"})
	}
	nobody := &pb.End{Class: "unknown"}
	r := relay(map[string]*fake{
		"n1": {gpus: gpus("n1", pod("a", "x"), pod("c", "x"), holder(&pb.End{Class: "host", Process: "python"}), holder(nobody), device(0, "", 0), device(0, "G", 3), device(1, "", 0), rdma("mlx5_0"))},
		"n2": {gpus: gpus("n2", pod("a", "w"), pod("b", "z"), holder(&pb.End{Class: "host", Process: "Xorg"}), holder(nobody), device(0, "", 0), rdma("mlx5_0"), rdma("mlx5_1"))},
		"n3": {err: errors.New("refused")},
	})
	all, err := collect(t, r.Gpus(t.Context(), &pb.GpusRequest{}))
	if err != nil || len(all) != 16 {
		t.Fatalf("%d messages, %v", len(all), err)
	}
	var order []string
	for _, m := range all[:15] {
		g := m.GetRecord()
		e := g.GetHolder().GetHolder()
		order = append(order, g.GetNode()+e.GetNamespace()+e.GetPod()+e.GetProcess()+g.GetDevice().GetParent()+g.GetRdma().GetName())
	}
	want := "n2aw n1ax n2bz n1cx n1python n2Xorg n1 n2 n1 n1G n1 n2 n1mlx5_0 n2mlx5_0 n2mlx5_1"
	if got := strings.Join(order, " "); got != want {
		t.Errorf("order is\n%s, want\n%s", got, want)
	}
	if s := all[15].GetSummary(); s.GetMatched() != 6 || s.GetKnown() != 10 || len(s.GetNodes()) != 3 || s.GetNodes()[2].GetError() != "refused" || s.GetLosses()[0].GetCount() != 4 {
		t.Errorf("summary %v", s)
	}
	if all, err = collect(t, r.Gpus(t.Context(), &pb.GpusRequest{Limit: 2})); err != nil || len(all) != 3 || all[2].GetSummary().GetMatched() != 6 {
		t.Errorf("limited: %d, %v", len(all), err)
	}
}

// One node, or all; who fails or is silent is told.
func TestGpuDriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		named := func(name string) *pb.StatusResponse {
			return &pb.StatusResponse{Nodes: []*pb.NodeStatus{{Node: name}}}
		}
		nodes := map[string]*fake{"n1": {status: named("n1")}, "n2": {status: named("n2"), err: errors.New("refused")}, "n3": {status: named("n3"), hangs: true}}
		r := relay(nodes)
		answer := func(q *pb.GpuDriverRequest) (said []string) {
			got, err := r.GpuDriver(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range got.GetNodes() {
				state := " closed"
				if n.GetOpen() {
					state = " open"
				}
				said = append(said, strings.TrimSuffix(n.GetNode()+state+" "+n.GetError(), " "))
			}
			return said
		}
		if got := answer(&pb.GpuDriverRequest{Node: "n1"}); !slices.Equal(got, []string{"n1 open"}) {
			t.Errorf("one: %q", got)
		}
		if len(nodes["n2"].driver)+len(nodes["n3"].driver) != 0 || nodes["n1"].driver[0].GetNode() != "n1" {
			t.Error("others were asked")
		}
		if got := answer(&pb.GpuDriverRequest{Release: true}); !slices.Equal(got, []string{"n1 closed", "n2 closed refused", "n3 closed it said nothing for 10s"}) {
			t.Errorf("all: %q", got)
		}
		if got := answer(&pb.GpuDriverRequest{Node: "n9"}); !slices.Equal(got, []string{"n9 closed no agent is known on this node"}) {
			t.Errorf("nobody: %q", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.GpuDriver(ctx, &pb.GpuDriverRequest{Node: "n3"}); !errors.Is(err, context.Canceled) {
			t.Errorf("interrupted: %v", err)
		}
	})
}
