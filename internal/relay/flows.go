// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"cmp"
	"context"
	"iter"

	pb "github.com/orb8/orb8/api/orb8/v1"
)

// Flows gives the first records of all nodes in the order that was asked for,
// then one summary.
func (r *Relay) Flows(ctx context.Context, q *pb.FlowsRequest) iter.Seq2[*pb.FlowsResponse, error] {
	return once[*pb.FlowsRequest, *pb.FlowsResponse, *pb.FlowRecord, *pb.Summary]{
		ask:     Observer.Flows,
		record:  (*pb.FlowsResponse).GetFlow,
		summary: (*pb.FlowsResponse).GetSummary,
		compare: func(a, b *pb.FlowRecord) int { return compareFlows(q.GetSort(), a, b) },
		sum: func(of []*pb.Summary, nodes []*pb.NodeState, losses []*pb.Loss) *pb.FlowsResponse {
			s := &pb.Summary{Nodes: nodes, Losses: losses}
			for _, o := range of {
				addFlows(s, o)
			}
			s.StartNs, s.EndNs = covered(of)
			return &pb.FlowsResponse{Message: &pb.FlowsResponse_Summary{Summary: s}}
		},
	}.of(ctx, r, q)
}

// compareFlows is the order of a node's own answers: the largest first, of
// equals the one that changed last, then the older.
func compareFlows(by pb.Sort, a, b *pb.FlowRecord) int {
	return cmp.Or(
		cmp.Compare(sortKey(by, b), sortKey(by, a)),
		cmp.Compare(b.GetLastSeenNs(), a.GetLastSeenNs()),
		cmp.Compare(a.GetFirstSeenNs(), b.GetFirstSeenNs()),
	)
}

func sortKey(by pb.Sort, f *pb.FlowRecord) uint64 {
	t := f.GetTotal()
	switch by {
	case pb.Sort_SORT_PACKETS:
		return t.GetTxPackets() + t.GetRxPackets()
	case pb.Sort_SORT_RTT:
		return uint64(f.GetHealth().GetRttUs())
	case pb.Sort_SORT_RETRANSMITS:
		return f.GetHealth().GetRetransmits()
	case pb.Sort_SORT_LAST:
		return uint64(f.GetLastSeenNs())
	}
	return t.GetTxBytes() + t.GetRxBytes()
}

// addFlows adds the summary of a node.
func addFlows(s, o *pb.Summary) {
	s.MatchedFlows += o.GetMatchedFlows()
	s.KnownFlows += o.GetKnownFlows()
	for _, t := range []struct {
		to   **pb.Traffic
		from *pb.Traffic
	}{{&s.Matched, o.GetMatched()}, {&s.Remainder, o.GetRemainder()}, {&s.Overflow, o.GetOverflow()}, {&s.Unaccounted, o.GetUnaccounted()}} {
		addTraffic(t.to, t.from)
	}
	s.Gaps = append(s.Gaps, o.GetGaps()...)
}

func addTraffic(to **pb.Traffic, t *pb.Traffic) {
	if t == nil {
		return
	}
	if *to == nil {
		*to = &pb.Traffic{}
	}
	(*to).TxBytes += t.GetTxBytes()
	(*to).TxPackets += t.GetTxPackets()
	(*to).RxBytes += t.GetRxBytes()
	(*to).RxPackets += t.GetRxPackets()
}
