// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"cmp"
	"context"
	"iter"

	pb "github.com/orb8/orb8/api/orb8/v1"
)

// Dns gives what was asked of the DNS on all nodes, the most queries first, then
// one summary.
func (r *Relay) Dns(ctx context.Context, q *pb.DnsRequest) iter.Seq2[*pb.DnsResponse, error] {
	return once[*pb.DnsRequest, *pb.DnsResponse, *pb.DnsRecord, *pb.DnsSummary]{
		ask:     Observer.Dns,
		record:  (*pb.DnsResponse).GetDns,
		summary: (*pb.DnsResponse).GetSummary,
		compare: compareDns,
		sum: func(of []*pb.DnsSummary, nodes []*pb.NodeState, losses []*pb.Loss) *pb.DnsResponse {
			s := &pb.DnsSummary{Nodes: nodes, Losses: losses}
			for _, o := range of {
				s.Matched += o.GetMatched()
				s.Known += o.GetKnown()
			}
			s.StartNs, s.EndNs = covered(of)
			return &pb.DnsResponse{Message: &pb.DnsResponse_Summary{Summary: s}}
		},
	}.of(ctx, r, q)
}

// compareDns is the order of a node's own answers: the most queries first, of
// equals the last that was asked, then the first.
func compareDns(a, b *pb.DnsRecord) int {
	return cmp.Or(
		cmp.Compare(b.GetQueries(), a.GetQueries()),
		cmp.Compare(b.GetLastNs(), a.GetLastNs()),
		cmp.Compare(a.GetFirstNs(), b.GetFirstNs()),
	)
}
