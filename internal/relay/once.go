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

// once is a question whose answer has an end: records R in an order, then one
// summary S, all of them messages M.
type once[Q interface{ GetLimit() uint32 }, M message, R comparable, S summary] struct {
	ask     func(Observer, context.Context, Q) iter.Seq2[M, error]
	record  func(M) R
	summary func(M) S
	// The order of a node's own answers.
	compare func(a, b R) int
	// sum makes one summary of those of the nodes that answered.
	sum func(of []S, nodes []*pb.NodeState, losses []*pb.Loss) M
}

// message is what all answers may hold besides records and summary.
type message interface {
	GetNode() *pb.NodeState
	GetLoss() *pb.Loss
}

// summary is what all summaries hold.
type summary interface {
	comparable
	GetNodes() []*pb.NodeState
	GetLosses() []*pb.Loss
}

// of gives the first records of all nodes in their order, then one summary.
func (o once[Q, M, R, S]) of(ctx context.Context, r *Relay, q Q) iter.Seq2[M, error] {
	return func(yield func(M, error) bool) {
		caller := ctx
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		parts := ask(ctx, r, func(ctx context.Context, node Observer) iter.Seq2[M, error] { return o.ask(node, ctx, q) })
		var none R
		heard := aside[M, S]{summary: o.summary}
		m := merged[M]{
			isRecord: func(m M) bool { return o.record(m) != none },
			compare:  func(a, b M) int { return o.compare(o.record(a), o.record(b)) },
			aside:    heard.hear,
			limit:    int(cmp.Or(q.GetLimit(), defaultLimit)),
		}
		if !m.run(parts, yield) {
			return
		}
		if caller.Err() != nil {
			var nothing M
			yield(nothing, caller.Err())
			return
		}
		yield(o.sum(heard.summaries, append(heard.nodes, failures(parts)...), heard.losses), nil)
	}
}

// aside collects what the nodes say beside their records.
type aside[M message, S summary] struct {
	summary   func(M) S
	summaries []S
	nodes     []*pb.NodeState
	losses    []*pb.Loss
}

// hear tells whether it was the summary.
func (a *aside[M, S]) hear(m M) bool {
	var none S
	if n := m.GetNode(); n != nil {
		a.nodes = append(a.nodes, n)
	}
	if l := m.GetLoss(); l != nil {
		a.losses = addLoss(a.losses, l)
	}
	s := a.summary(m)
	if s == none {
		return false
	}
	a.summaries = append(a.summaries, s)
	a.nodes = append(a.nodes, s.GetNodes()...)
	for _, l := range s.GetLosses() {
		a.losses = addLoss(a.losses, l)
	}
	return true
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

// covered is the time that all cover: from the latest start to the earliest end.
func covered[S interface {
	GetStartNs() int64
	GetEndNs() int64
}](of []S) (start, end int64) {
	for _, s := range of {
		start = max(start, s.GetStartNs())
		if end == 0 || s.GetEndNs() != 0 && s.GetEndNs() < end {
			end = s.GetEndNs()
		}
	}
	return start, end
}
