// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"cmp"
	"context"
	"iter"

	pb "github.com/orb8/orb8/api/orb8/v1"
)

// Drops gives what all nodes dropped, the most first, then one summary.
func (r *Relay) Drops(ctx context.Context, q *pb.DropsRequest) iter.Seq2[*pb.DropsResponse, error] {
	return once[*pb.DropsRequest, *pb.DropsResponse, *pb.DropRecord, *pb.DropsSummary]{
		ask:     Observer.Drops,
		record:  (*pb.DropsResponse).GetDrop,
		summary: (*pb.DropsResponse).GetSummary,
		compare: compareDrops,
		sum: func(of []*pb.DropsSummary, nodes []*pb.NodeState, losses []*pb.Loss) *pb.DropsResponse {
			s := &pb.DropsSummary{Nodes: nodes, Losses: losses}
			for _, o := range of {
				s.MatchedPackets += o.GetMatchedPackets()
				s.KnownPackets += o.GetKnownPackets()
			}
			s.StartNs, s.EndNs = covered(of)
			return &pb.DropsResponse{Message: &pb.DropsResponse_Summary{Summary: s}}
		},
	}.of(ctx, r, q)
}

// compareDrops is the order of a node's own answers: the most packets first, of
// equals the last that happened, then the first.
func compareDrops(a, b *pb.DropRecord) int {
	return cmp.Or(
		cmp.Compare(b.GetPackets(), a.GetPackets()),
		cmp.Compare(b.GetLastNs(), a.GetLastNs()),
		cmp.Compare(a.GetFirstNs(), b.GetFirstNs()),
	)
}
