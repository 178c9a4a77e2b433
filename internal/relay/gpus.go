// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"cmp"
	"context"
	"iter"
	"sync"

	pb "github.com/orb8/orb8/api/orb8/v1"
)

// Gpus gives who has which GPU on all nodes, then the devices, then the RDMA
// devices, then one summary.
func (r *Relay) Gpus(ctx context.Context, q *pb.GpusRequest) iter.Seq2[*pb.GpusResponse, error] {
	return once[*pb.GpusRequest, *pb.GpusResponse, *pb.GpuRecord, *pb.GpusSummary]{
		ask:     Observer.Gpus,
		record:  (*pb.GpusResponse).GetRecord,
		summary: (*pb.GpusResponse).GetSummary,
		compare: compareGpus,
		sum: func(of []*pb.GpusSummary, nodes []*pb.NodeState, losses []*pb.Loss) *pb.GpusResponse {
			s := &pb.GpusSummary{Nodes: nodes, Losses: losses}
			for _, o := range of {
				s.Matched += o.GetMatched()
				s.Known += o.GetKnown()
			}
			return &pb.GpusResponse{Message: &pb.GpusResponse_Summary{Summary: s}}
		},
	}.of(ctx, r, q)
}

// compareGpus is the order of a node's own answers: pods, what is no pod, what
// nobody is known to have; devices, and RDMA devices.
func compareGpus(a, b *pb.GpuRecord) int {
	x, y := a.GetHolder().GetHolder(), b.GetHolder().GetHolder()
	return cmp.Or(
		cmp.Compare(gpuRank(a), gpuRank(b)),
		cmp.Compare(x.GetNamespace(), y.GetNamespace()),
		cmp.Compare(x.GetPod(), y.GetPod()),
		cmp.Compare(a.GetNode(), b.GetNode()),
		cmp.Compare(x.GetUnit(), y.GetUnit()),
		cmp.Compare(x.GetContainer(), y.GetContainer()),
		cmp.Compare(x.GetProcess(), y.GetProcess()),
		cmp.Compare(x.GetPid(), y.GetPid()),
		cmp.Compare(a.GetDevice().GetIndex(), b.GetDevice().GetIndex()),
		cmp.Compare(a.GetDevice().GetParent(), b.GetDevice().GetParent()), // a GPU before its instances
		cmp.Compare(a.GetDevice().GetInstance(), b.GetDevice().GetInstance()),
		cmp.Compare(a.GetRdma().GetName(), b.GetRdma().GetName()),
		cmp.Compare(a.GetRdma().GetNetns(), b.GetRdma().GetNetns()),
	)
}

func gpuRank(r *pb.GpuRecord) int {
	switch class := r.GetHolder().GetHolder().GetClass(); {
	case r.GetRdma() != nil:
		return 4
	case r.GetDevice() != nil:
		return 3
	case class == "pod":
		return 0
	case class == "unknown":
		return 2
	}
	return 1
}

// GpuDriver tells the node that is named, or every node, to release its GPUs'
// driver or to take it up again. One that fails has its name and the error.
func (r *Relay) GpuDriver(ctx context.Context, q *pb.GpuDriverRequest) (*pb.GpuDriverResponse, error) {
	var asked []Node
	for _, n := range r.cfg.Nodes {
		if q.GetNode() == "" || q.GetNode() == n.Name {
			asked = append(asked, n)
		}
	}
	if len(asked) == 0 && q.GetNode() != "" {
		return &pb.GpuDriverResponse{Nodes: []*pb.GpuDriverState{{Node: q.GetNode(), Error: "no agent is known on this node"}}}, nil
	}
	answers := make([][]*pb.GpuDriverState, len(asked))
	var wg sync.WaitGroup
	for i, n := range asked {
		wg.Go(func() {
			ctx, cancel := context.WithTimeoutCause(ctx, r.cfg.Patience, errLate)
			defer cancel()
			answer, err := n.GpuDriver(ctx, q)
			if err != nil {
				answers[i] = []*pb.GpuDriverState{{Node: n.Name, Error: r.reason(ctx, err)}}
				return
			}
			answers[i] = answer.GetNodes()
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	all := &pb.GpuDriverResponse{}
	for _, nodes := range answers {
		all.Nodes = append(all.Nodes, nodes...)
	}
	return all, nil
}
