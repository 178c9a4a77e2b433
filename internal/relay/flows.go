// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"cmp"
	"context"
	"iter"

	pb "github.com/orb8/orb8/api/orb8/v1"
)

// defaultLimit is what a limit of 0 means, here as on a node.
const defaultLimit = 100

func limit(asked uint32) int { return int(cmp.Or(asked, defaultLimit)) }

// Flows gives the first records of all nodes in the order that was asked for,
// then one summary.
func (r *Relay) Flows(ctx context.Context, q *pb.FlowsRequest) iter.Seq2[*pb.FlowsResponse, error] {
	return func(yield func(*pb.FlowsResponse, error) bool) {
		caller := ctx
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		parts := ask(ctx, r, func(ctx context.Context, o Observer) iter.Seq2[*pb.FlowsResponse, error] { return o.Flows(ctx, q) })
		s := &summary{Summary: &pb.Summary{}}
		m := merged[*pb.FlowsResponse]{
			isRecord: func(m *pb.FlowsResponse) bool { return m.GetFlow() != nil },
			compare:  func(a, b *pb.FlowsResponse) int { return compareFlows(q.GetSort(), a.GetFlow(), b.GetFlow()) },
			aside:    s.hear,
			limit:    limit(q.GetLimit()),
		}
		if !m.run(parts, yield) {
			return
		}
		if caller.Err() != nil {
			yield(nil, caller.Err())
			return
		}
		s.Nodes = append(s.Nodes, failures(parts)...)
		yield(&pb.FlowsResponse{Message: &pb.FlowsResponse_Summary{Summary: s.Summary}}, nil)
	}
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

// summary adds up those of the nodes.
type summary struct{ *pb.Summary }

func (s *summary) hear(m *pb.FlowsResponse) bool {
	switch {
	case m.GetNode() != nil:
		s.Nodes = append(s.Nodes, m.GetNode())
	case m.GetLoss() != nil:
		s.Losses = addLoss(s.Losses, m.GetLoss())
	case m.GetSummary() != nil:
		s.add(m.GetSummary())
	}
	return m.GetSummary() != nil
}

func (s *summary) add(o *pb.Summary) {
	s.MatchedFlows += o.GetMatchedFlows()
	s.KnownFlows += o.GetKnownFlows()
	for _, t := range []struct {
		to   **pb.Traffic
		from *pb.Traffic
	}{{&s.Matched, o.GetMatched()}, {&s.Remainder, o.GetRemainder()}, {&s.Overflow, o.GetOverflow()}, {&s.Unaccounted, o.GetUnaccounted()}} {
		addTraffic(t.to, t.from)
	}
	s.Nodes = append(s.Nodes, o.GetNodes()...)
	s.Gaps = append(s.Gaps, o.GetGaps()...)
	for _, l := range o.GetLosses() {
		s.Losses = addLoss(s.Losses, l)
	}
	// What all cover: from the latest start to the earliest end.
	s.StartNs = max(s.StartNs, o.GetStartNs())
	if s.EndNs == 0 || o.GetEndNs() != 0 && o.GetEndNs() < s.EndNs {
		s.EndNs = o.GetEndNs()
	}
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

// addLoss adds what was lost at one stage of different nodes.
func addLoss(list []*pb.Loss, l *pb.Loss) []*pb.Loss {
	for _, known := range list {
		if known.GetStage() == l.GetStage() {
			known.Count += l.GetCount()
			return list
		}
	}
	return append(list, &pb.Loss{Stage: l.GetStage(), Count: l.GetCount(), Hint: l.GetHint()})
}
