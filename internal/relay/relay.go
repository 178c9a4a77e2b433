// SPDX-License-Identifier: Apache-2.0

// Package relay asks several Observers at once and makes one answer of theirs.
// A node that fails, or is silent for too long, is a word in the answer, never
// the end of it. It keeps nothing between questions and knows nothing of how a
// node is reached. The client reads it where there is no server, and the server
// does.
package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	pb "github.com/orb8/orb8/api/orb8/v1"
)

// Observer is whom to ask: one node, or a relay again. An error comes last in
// an answer. Every question ends when its context does.
type Observer interface {
	Flows(context.Context, *pb.FlowsRequest) iter.Seq2[*pb.FlowsResponse, error]
	Events(context.Context, *pb.EventsRequest) iter.Seq2[*pb.EventsResponse, error]
	Pods(context.Context, *pb.PodsRequest) iter.Seq2[*pb.PodsResponse, error]
	Drops(context.Context, *pb.DropsRequest) iter.Seq2[*pb.DropsResponse, error]
	Dns(context.Context, *pb.DnsRequest) iter.Seq2[*pb.DnsResponse, error]
	Sockets(context.Context, *pb.SocketsRequest) iter.Seq2[*pb.SocketsResponse, error]
	Capture(context.Context, *pb.CaptureRequest) iter.Seq2[*pb.CaptureResponse, error]
	Gpus(context.Context, *pb.GpusRequest) iter.Seq2[*pb.GpusResponse, error]
	GpuDriver(context.Context, *pb.GpuDriverRequest) (*pb.GpuDriverResponse, error)
	Status(context.Context) (*pb.StatusResponse, error)
}

// Node is an Observer by the name of its node.
type Node struct {
	Name string
	Observer
}

// Config of a Relay.
type Config struct {
	Nodes []Node
	// How long a node may be silent in an answer; 0 means 10 seconds.
	Patience time.Duration
	// Reason puts the error of a node into one sentence; nil takes its words.
	Reason func(error) string
}

// Relay asks all of its nodes.
type Relay struct{ cfg Config }

// New makes a relay.
func New(cfg Config) *Relay {
	cfg.Patience = cmp.Or(cfg.Patience, 10*time.Second)
	if cfg.Reason == nil {
		cfg.Reason = error.Error
	}
	return &Relay{cfg}
}

var _ Observer = (*Relay)(nil)

// ErrNoneAnswered says that no node did.
var ErrNoneAnswered = errors.New("no node answered")

// errLate ends a question to a node that is silent for too long.
var errLate = errors.New("late")

// Status asks every node. One that fails has its name and the error.
func (r *Relay) Status(ctx context.Context) (*pb.StatusResponse, error) {
	answers := make([][]*pb.NodeStatus, len(r.cfg.Nodes))
	var wg sync.WaitGroup
	for i, n := range r.cfg.Nodes {
		wg.Go(func() {
			ctx, cancel := context.WithTimeoutCause(ctx, r.cfg.Patience, errLate)
			defer cancel()
			answer, err := n.Status(ctx)
			if err != nil {
				answers[i] = []*pb.NodeStatus{{Node: n.Name, Error: r.reason(ctx, err)}}
				return
			}
			answers[i] = answer.GetNodes()
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	all := &pb.StatusResponse{}
	for _, nodes := range answers {
		all.Nodes = append(all.Nodes, nodes...)
	}
	return all, nil
}

// reason says why a node did not answer; ctx is that of its question.
func (r *Relay) reason(ctx context.Context, err error) string {
	if errors.Is(context.Cause(ctx), errLate) {
		return fmt.Sprintf("it said nothing for %v", r.cfg.Patience)
	}
	return r.cfg.Reason(err)
}

// failed is the state of a node that did not answer.
func failed(node, reason string) *pb.NodeState { return &pb.NodeState{Node: node, Error: reason} }
