// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"cmp"
	"context"
	"iter"

	pb "github.com/orb8/orb8/api/orb8/v1"
)

// Pods gives the pods of all nodes by namespace and name, then one summary.
func (r *Relay) Pods(ctx context.Context, q *pb.PodsRequest) iter.Seq2[*pb.PodsResponse, error] {
	return once[*pb.PodsRequest, *pb.PodsResponse, *pb.PodRecord, *pb.PodsSummary]{
		ask:     Observer.Pods,
		record:  (*pb.PodsResponse).GetPod,
		summary: (*pb.PodsResponse).GetSummary,
		compare: comparePods,
		sum: func(of []*pb.PodsSummary, nodes []*pb.NodeState, losses []*pb.Loss) *pb.PodsResponse {
			s := &pb.PodsSummary{Nodes: nodes, Losses: losses}
			for _, o := range of {
				s.Matched += o.GetMatched()
				s.Known += o.GetKnown()
			}
			return &pb.PodsResponse{Message: &pb.PodsResponse_Summary{Summary: s}}
		},
	}.of(ctx, r, q)
}

func comparePods(a, b *pb.PodRecord) int {
	return cmp.Or(
		cmp.Compare(a.GetNamespace(), b.GetNamespace()),
		cmp.Compare(a.GetName(), b.GetName()),
		cmp.Compare(a.GetCreatedNs(), b.GetCreatedNs()),
		cmp.Compare(a.GetUid(), b.GetUid()),
	)
}
