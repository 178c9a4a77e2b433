// SPDX-License-Identifier: Apache-2.0

// Package observer answers questions over one node: the Observer service, and
// the original's OrbitAgentService over the same answers. It reads and filters
// through a Node, and never sees the kernel or the table itself. The agent
// serves it.
package observer

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/filter"
	"github.com/orb8/orb8/internal/store"
	"github.com/orb8/orb8/internal/wire"
)

// Node is what one agent knows. Its answers hold everything up to the moment
// they give as their end.
type Node interface {
	Source() wire.Source
	Flows(context.Context, store.Query) (Snapshot, error)
	Status(context.Context) (Status, error)
	// Pods gives the pods of this node, and those that are gone and whose traffic
	// is still known, in any order. What they point to does not change.
	Pods(context.Context) (Pods, error)
	// Sockets gives the namespaces that are wanted, those that are ill first.
	Sockets(context.Context, SocketsQuery) (Sockets, error)
	// Drops gives what was dropped, the most packets first.
	Drops(context.Context, filter.Filter, int) (Drops, error)
	// Dns gives what was asked of the DNS by (RoleClient) or of (RoleServer) what is
	// on this node, the most queries first.
	Dns(context.Context, filter.Filter, []event.Role, int) (Lookups, error)
	// GPUs gives who has which device and what these do, as of the last second; never
	// nil.
	GPUs(context.Context) (*event.GPUView, error)
	// GPUDriver closes the GPU driver, or opens it, and tells whether it is open. An
	// error says why it is not as it should be, or, with a status, that it may not be.
	GPUDriver(ctx context.Context, release bool) (open bool, err error)
	// Follow starts to listen; Leave ends it.
	Follow(context.Context, store.Wish) (*store.Follower, error)
	Leave(*store.Follower)
	// Capture copies packets until it ends, and tells of them meanwhile.
	Capture(context.Context, CaptureWish, CaptureReader) (CaptureEnd, error)
}

// Snapshot is the answer to a query, and what surrounds it.
type Snapshot struct {
	store.Answer
	Known      int
	Interfaces []store.InterfaceAudit
	Start, End time.Time
	Losses     []event.Loss
}

// Pods is what a node knows of its pods.
type Pods struct {
	Pods   []wire.Pod
	Losses []event.Loss
}

// SocketsQuery asks for the namespaces of some pods.
type SocketsQuery struct {
	Filter filter.Pods
	Limit  int
}

// Sockets is what a node knows of the sockets of its namespaces.
type Sockets struct {
	Sockets []wire.Sockets
	// Before the limit, and of all.
	Matched, Known int
	Losses         []event.Loss
}

// Status is how a node does.
type Status struct {
	Version       string
	Healthy       bool
	HealthMessage string
	Uptime        time.Duration
	Table         store.Stats
	Interfaces    []store.InterfaceAudit
	Namespaces    []event.Namespace
	GPUs          *event.GPUView
	Losses        []event.Loss
	Notes         []string
	Pods          int
	CPUSeconds    float64
	ResidentBytes uint64
	KernelBytes   uint64
}

// Dropped is the sum of all loss counters.
func (s *Status) Dropped() (n uint64) {
	for _, l := range s.Losses {
		n += l.Count
	}
	return n
}

// Bounds on what one question may ask for.
const defaultLimit = 100

// limit applies the default and the most an agent gives.
func limit(asked uint32, most int) int {
	if asked == 0 {
		asked = defaultLimit
	}
	return min(int(asked), most)
}

// fault gives the status of an error of a Node.
func fault(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	case errors.Is(err, store.ErrTooManyFollowers):
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	return status.Error(codes.Unavailable, err.Error())
}

// goingAway ends a stream whose agent stops.
func goingAway() error { return status.Error(codes.Unavailable, "the agent is shutting down") }
