// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"container/heap"
	"context"
	"iter"
	"time"

	pb "github.com/orb8/orb8/api/orb8/v1"
)

// ahead is how many messages a node may be ahead of the merged answer. With
// more, its stream waits: the memory of an answer does not grow with the limit.
const ahead = 64

// part is one node's share of an answer, as it comes.
type part[M any] struct {
	node     string
	messages chan M
	// Why the node failed; to be read when messages is closed.
	failure string

	head M
	// head holds a record.
	ready bool
	// The summary has come.
	complete bool
}

// ask puts the question to every node at once.
func ask[M any](ctx context.Context, r *Relay, question func(context.Context, Observer) iter.Seq2[M, error]) []*part[M] {
	parts := make([]*part[M], len(r.cfg.Nodes))
	for i, n := range r.cfg.Nodes {
		p := &part[M]{node: n.Name, messages: make(chan M, ahead)}
		parts[i] = p
		go func() {
			defer close(p.messages)
			p.failure = p.receive(ctx, r, func(ctx context.Context) iter.Seq2[M, error] { return question(ctx, n.Observer) })
		}()
	}
	return parts
}

// receive takes the messages of one node until it is done, and says why it
// failed. Only the node's own silence counts against it: while it waits for the
// slowest of the others, the clock stands still.
func (p *part[M]) receive(ctx context.Context, r *Relay, question func(context.Context) iter.Seq2[M, error]) string {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(r.cfg.Patience, func() { cancel(errLate) })
	defer late.Stop()
	for m, err := range question(ctx) {
		late.Stop()
		if err != nil {
			return r.reason(ctx, err)
		}
		select {
		case p.messages <- m:
		case <-ctx.Done():
			return r.reason(ctx, ctx.Err())
		}
		late.Reset(r.cfg.Patience)
	}
	if ctx.Err() != nil {
		return r.reason(ctx, ctx.Err())
	}
	return ""
}

// next waits for the next record of the node, handing everything else to aside.
func (p *part[M]) next(isRecord func(M) bool, aside func(M) bool) {
	p.ready = false
	for m := range p.messages {
		if isRecord(m) {
			p.head, p.ready = m, true
			return
		}
		if aside(m) {
			p.complete = true
		}
	}
}

// merged is how an answer of many nodes is put together.
type merged[M any] struct {
	// The order of records; what is no record goes to aside, which tells whether
	// it is the summary.
	isRecord func(M) bool
	compare  func(a, b M) int
	aside    func(M) bool
	limit    int
}

// run hands on the first records of all, in order, and then hears every node to
// its end. It gives false when the reader has seen enough.
func (m *merged[M]) run(parts []*part[M], yield func(M, error) bool) bool {
	h := &heads[M]{compare: m.compare}
	for _, p := range parts {
		if p.next(m.isRecord, m.aside); p.ready {
			h.parts = append(h.parts, p)
		}
	}
	heap.Init(h)
	for range m.limit {
		if len(h.parts) == 0 {
			break
		}
		first := h.parts[0]
		if !yield(first.head, nil) {
			return false
		}
		if first.next(m.isRecord, m.aside); first.ready {
			heap.Fix(h, 0)
		} else {
			heap.Pop(h)
		}
	}
	for _, p := range parts {
		for p.ready {
			p.next(m.isRecord, m.aside)
		}
	}
	return true
}

// heads is a heap of the parts that have a record, by that record.
type heads[M any] struct {
	parts   []*part[M]
	compare func(a, b M) int
}

func (h *heads[M]) Len() int           { return len(h.parts) }
func (h *heads[M]) Less(i, j int) bool { return h.compare(h.parts[i].head, h.parts[j].head) < 0 }
func (h *heads[M]) Swap(i, j int)      { h.parts[i], h.parts[j] = h.parts[j], h.parts[i] }
func (h *heads[M]) Push(p any)         { h.parts = append(h.parts, p.(*part[M])) }

func (h *heads[M]) Pop() any {
	last := h.parts[len(h.parts)-1]
	h.parts = h.parts[:len(h.parts)-1]
	return last
}

// failures are the nodes that did not answer, or not to the end.
func failures[M any](parts []*part[M]) (list []*pb.NodeState) {
	for _, p := range parts {
		switch {
		case p.failure != "":
			list = append(list, failed(p.node, p.failure))
		case !p.complete:
			list = append(list, failed(p.node, "its answer has no end"))
		}
	}
	return list
}
