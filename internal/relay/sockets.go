// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"cmp"
	"context"
	"iter"

	pb "github.com/orb8/orb8/api/orb8/v1"
)

// Sockets gives the namespaces of all nodes, those that are ill first, then one
// summary.
func (r *Relay) Sockets(ctx context.Context, q *pb.SocketsRequest) iter.Seq2[*pb.SocketsResponse, error] {
	return once[*pb.SocketsRequest, *pb.SocketsResponse, *pb.SocketsRecord, *pb.SocketsSummary]{
		ask:     Observer.Sockets,
		record:  (*pb.SocketsResponse).GetSockets,
		summary: (*pb.SocketsResponse).GetSummary,
		compare: compareSockets,
		sum: func(of []*pb.SocketsSummary, nodes []*pb.NodeState, losses []*pb.Loss) *pb.SocketsResponse {
			s := &pb.SocketsSummary{Nodes: nodes, Losses: losses}
			for _, o := range of {
				s.Matched += o.GetMatched()
				s.Known += o.GetKnown()
			}
			return &pb.SocketsResponse{Message: &pb.SocketsResponse_Summary{Summary: s}}
		},
	}.of(ctx, r, q)
}

// compareSockets is the order of a node's own answers: what goes wrong now
// first, then what did since an agent saw it, then the rest; of equals by whose they are.
func compareSockets(a, b *pb.SocketsRecord) int {
	return cmp.Or(
		cmp.Compare(illness(b), illness(a)),
		cmp.Compare(a.GetOwner().GetNamespace(), b.GetOwner().GetNamespace()),
		cmp.Compare(a.GetOwner().GetPod(), b.GetOwner().GetPod()),
		cmp.Compare(a.GetNode(), b.GetNode()),
		cmp.Compare(a.GetNetns(), b.GetNetns()),
	)
}

func illness(s *pb.SocketsRecord) int {
	worst := 0
	for _, f := range s.GetFindings() {
		if f.GetCurrent() {
			return 2
		}
		if f.GetSinceSeen() > 0 {
			worst = 1
		}
	}
	return worst
}
