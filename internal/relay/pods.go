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
	return func(yield func(*pb.PodsResponse, error) bool) {
		caller := ctx
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		parts := ask(ctx, r, func(ctx context.Context, o Observer) iter.Seq2[*pb.PodsResponse, error] { return o.Pods(ctx, q) })
		s := &podsSummary{&pb.PodsSummary{}}
		m := merged[*pb.PodsResponse]{
			isRecord: func(m *pb.PodsResponse) bool { return m.GetPod() != nil },
			compare:  func(a, b *pb.PodsResponse) int { return comparePods(a.GetPod(), b.GetPod()) },
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
		yield(&pb.PodsResponse{Message: &pb.PodsResponse_Summary{Summary: s.PodsSummary}}, nil)
	}
}

func comparePods(a, b *pb.PodRecord) int {
	return cmp.Or(
		cmp.Compare(a.GetNamespace(), b.GetNamespace()),
		cmp.Compare(a.GetName(), b.GetName()),
		cmp.Compare(a.GetCreatedNs(), b.GetCreatedNs()),
		cmp.Compare(a.GetUid(), b.GetUid()),
	)
}

// podsSummary adds up those of the nodes.
type podsSummary struct{ *pb.PodsSummary }

func (s *podsSummary) hear(m *pb.PodsResponse) bool {
	switch {
	case m.GetNode() != nil:
		s.Nodes = append(s.Nodes, m.GetNode())
	case m.GetLoss() != nil:
		s.Losses = addLoss(s.Losses, m.GetLoss())
	case m.GetSummary() != nil:
		s.Matched += m.GetSummary().GetMatched()
		s.Known += m.GetSummary().GetKnown()
		s.Nodes = append(s.Nodes, m.GetSummary().GetNodes()...)
		for _, l := range m.GetSummary().GetLosses() {
			s.Losses = addLoss(s.Losses, l)
		}
	}
	return m.GetSummary() != nil
}
