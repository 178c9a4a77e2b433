// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	pb "github.com/orb8/orb8/api/orb8/v1"
)

const (
	// settling is how late a packet may come after one that is younger and still
	// be put before it.
	settling = 250 * time.Millisecond
	// maxSettling is how many packets wait for that, at the most.
	maxSettling = 1 << 16
	// noMatch is how a capture ends on a node that has nothing of what was asked
	// for.
	noMatch = "no match"
)

// Capture gives the packets of all nodes, in the order of their times as far as
// they come so, then one summary. A node that refuses is told of. The answer ends
// with an error only if no node captures.
func (r *Relay) Capture(ctx context.Context, q *pb.CaptureRequest) iter.Seq2[*pb.CaptureResponse, error] {
	return func(yield func(*pb.CaptureResponse, error) bool) {
		caller := ctx
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		told := make(chan capturedNews, ahead)
		for _, n := range r.cfg.Nodes {
			go r.capture(ctx, n, q, told)
		}
		tick := time.NewTicker(settling)
		defer tick.Stop()
		m := &captureMerge{yield: yield, left: len(r.cfg.Nodes), summary: &pb.CaptureSummary{}}
		for m.left > 0 && !m.enough {
			select {
			case <-ctx.Done():
				m.left = 0
			case <-tick.C:
				m.settle(m.newest)
				m.newest = m.last
			case n := <-told:
				m.hear(n)
			}
		}
		switch m.settle(m.last); {
		case m.enough:
		case caller.Err() != nil:
		case !m.began:
			yield(nil, fmt.Errorf("%w: %s", ErrNoneAnswered, m.why))
		default:
			yield(&pb.CaptureResponse{Message: &pb.CaptureResponse_Summary{Summary: m.summary}}, nil)
		}
	}
}

// capturedNews is a message of a node, or that it has ended, well or not.
type capturedNews struct {
	*pb.CaptureResponse
	node    string
	ended   bool
	failure string
}

// capture passes on what one node tells.
func (r *Relay) capture(ctx context.Context, n Node, q *pb.CaptureRequest, told chan<- capturedNews) {
	caller := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// A node says at once that it captures; from then on it may be quiet.
	late := time.AfterFunc(r.cfg.Patience, func() { cancel(errLate) })
	defer late.Stop()
	end := capturedNews{node: n.Name, ended: true, failure: "its answer has no end"}
	tell := func(m capturedNews) bool {
		select {
		case told <- m:
			return true
		case <-caller.Done():
			return false
		}
	}
	for m, err := range n.Capture(ctx, q) {
		late.Stop()
		if err != nil {
			end.failure = r.reason(ctx, err)
			break
		}
		if m.GetSummary() != nil {
			end.failure = ""
		}
		if !tell(capturedNews{CaptureResponse: m, node: n.Name}) {
			return
		}
	}
	tell(end)
}

// captureMerge makes one answer of several, for one goroutine.
type captureMerge struct {
	yield  func(*pb.CaptureResponse, error) bool
	enough bool // for the reader
	left   int  // nodes that capture
	began  bool // one has
	why    string
	// Packets that are not handed on yet, the time of the last of all, and what
	// that was one settling ago.
	waiting      []waitingPacket
	last, newest int64
	summary      *pb.CaptureSummary
}

type waitingPacket struct {
	node string
	*pb.CapturedPacket
}

func (m *captureMerge) hear(n capturedNews) {
	switch {
	case n.ended:
		m.left--
		if n.failure != "" {
			m.why = fmt.Sprintf("node %s: %s", n.node, n.failure)
			state := failed(n.node, n.failure)
			m.summary.Nodes = append(m.summary.Nodes, state)
			m.pass(&pb.CaptureResponse{Message: &pb.CaptureResponse_Node{Node: state}})
		}
	case n.GetPackets() != nil:
		for _, p := range n.GetPackets().GetPackets() {
			m.waiting = append(m.waiting, waitingPacket{n.GetPackets().GetNode(), p})
			m.last = max(m.last, p.GetTimeNs())
		}
		if len(m.waiting) > maxSettling {
			m.settle(m.last)
		}
	case n.GetSummary() != nil:
		m.add(n.GetSummary())
	default:
		m.began = m.began || n.GetBounds() != nil
		m.pass(n.CaptureResponse)
	}
}

// pass hands on a message that is not held back, once some node captures: a
// refusal of all is an error.
func (m *captureMerge) pass(r *pb.CaptureResponse) {
	if !m.enough {
		m.enough = !m.yield(r, nil)
	}
}

// settle hands on the packets up to a time, in order.
func (m *captureMerge) settle(until int64) {
	slices.SortStableFunc(m.waiting, func(a, b waitingPacket) int { return cmp.Compare(a.GetTimeNs(), b.GetTimeNs()) })
	n, _ := slices.BinarySearchFunc(m.waiting, until+1, func(p waitingPacket, t int64) int { return cmp.Compare(p.GetTimeNs(), t) })
	for from := 0; from < n; {
		batch := &pb.CapturePackets{Node: m.waiting[from].node}
		for ; from < n && m.waiting[from].node == batch.Node; from++ {
			batch.Packets = append(batch.Packets, m.waiting[from].CapturedPacket)
		}
		m.pass(&pb.CaptureResponse{Message: &pb.CaptureResponse_Packets{Packets: batch}})
	}
	m.waiting = slices.Delete(m.waiting, 0, n)
}

func (m *captureMerge) add(s *pb.CaptureSummary) {
	// What ended the others says more.
	if m.summary.EndedBy == "" || s.GetEndedBy() != noMatch {
		m.summary.EndedBy = s.GetEndedBy()
	}
	m.summary.Amounts = append(m.summary.Amounts, s.GetAmounts()...)
	m.summary.Nodes = append(m.summary.Nodes, s.GetNodes()...)
	for _, l := range s.GetLosses() {
		m.summary.Losses = addLoss(m.summary.Losses, l)
	}
}
