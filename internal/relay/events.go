// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	pb "github.com/orb8/orb8/api/orb8/v1"
)

// A node that is lost is asked again after the shortest time, then after twice
// as long each time, up to the longest.
const shortest, longest = time.Second, 15 * time.Second

// Events gives those of all nodes as they come. That a node is lost, and that it
// is back, is told in between; what it remembers of the time between comes
// then. The answer ends with an error only if no node answers at the start.
func (r *Relay) Events(ctx context.Context, q *pb.EventsRequest) iter.Seq2[*pb.EventsResponse, error] {
	return func(yield func(*pb.EventsResponse, error) bool) {
		if len(r.cfg.Nodes) == 0 {
			yield(nil, ErrNoneAnswered)
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		told := make(chan *pb.EventsResponse, ahead)
		for _, n := range r.cfg.Nodes {
			f := &follower{relay: r, node: n, told: told, question: q, since: q.GetSinceNs()}
			go f.run(ctx)
		}
		answered, silent := false, 0
		for {
			var m *pb.EventsResponse
			select {
			case <-ctx.Done():
				return
			case m = <-told:
			}
			if state := m.GetNode(); state != nil && !answered {
				answered = state.GetAnswered()
				if !answered {
					silent++
				}
			}
			if silent == len(r.cfg.Nodes) && !answered {
				yield(nil, fmt.Errorf("%w: node %s: %s", ErrNoneAnswered, m.GetNode().GetNode(), m.GetNode().GetError()))
				return
			}
			if !yield(m, nil) {
				return
			}
		}
	}
}

// follower follows one node through its losses.
type follower struct {
	relay *Relay
	node  Node
	told  chan<- *pb.EventsResponse

	question *pb.EventsRequest
	since    int64
	// Time of the last event, and whether the node is heard.
	last  int64
	heard bool
}

func (f *follower) run(ctx context.Context) {
	wait := shortest
	for first := true; ; first = false {
		reason := f.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if f.heard {
			wait = shortest
		}
		// Told once, not with each time that it is asked in vain.
		if first || f.heard {
			f.heard = false
			if !f.tell(ctx, &pb.EventsResponse{Message: &pb.EventsResponse_Node{Node: failed(f.node.Name, reason)}}) {
				return
			}
			f.resume()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, longest)
	}
}

// resume sets from when the node is asked to tell what it remembers: just after
// the last event that it told.
func (f *follower) resume() {
	switch {
	case f.last != 0:
		f.since = f.last + 1
	case f.since == 0:
		f.since = time.Now().UnixNano()
	}
}

// follow passes on what one stream brings and says why it ended.
func (f *follower) follow(ctx context.Context) string {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// A node says at once that it listens; from then on it may be quiet.
	late := time.AfterFunc(f.relay.cfg.Patience, func() { cancel(errLate) })
	defer late.Stop()
	q := &pb.EventsRequest{
		Include: f.question.GetInclude(), Exclude: f.question.GetExclude(), Kinds: f.question.GetKinds(), SinceNs: f.since,
		IncludeDns: f.question.GetIncludeDns(), ExcludeDns: f.question.GetExcludeDns(),
		Gpus: f.question.GetGpus(),
	}
	err := errors.New("it ended the stream")
	for m, failure := range f.node.Events(ctx, q) {
		late.Stop()
		if failure != nil {
			err = failure
			break
		}
		f.heard = true
		f.last = max(f.last, m.GetEvent().GetTimeNs())
		if !f.tell(ctx, m) {
			break
		}
	}
	return f.relay.reason(ctx, err)
}

func (f *follower) tell(ctx context.Context, m *pb.EventsResponse) bool {
	select {
	case f.told <- m:
		return true
	case <-ctx.Done():
		return false
	}
}
