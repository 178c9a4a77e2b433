// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/orb8/orb8/internal/cluster"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/netstat"
	"github.com/orb8/orb8/internal/observer"
	"github.com/orb8/orb8/internal/store"
	"github.com/orb8/orb8/internal/wire"
)

// node answers the services' questions by visiting the pipeline.
type node struct {
	*pipeline
	instance uint64
	kube     *kubernetes // nil outside of Kubernetes
	sockets  *netstat.Sampler
	captures captures
	metrics  metrics
	notes    func() []string
	// What was lost on the way to finding namespaces.
	lost func() []event.Loss
}

var _ observer.Node = (*node)(nil)

// Source tells where this node's flows are seen.
func (n *node) Source() wire.Source {
	s := wire.Source{Node: n.cfg.Node, Instance: n.instance}
	if names := n.names.Load(); names != nil {
		s.Interfaces = *names
	}
	return s
}

// hostAnswers is how long the host is given to say who serves a Service: it
// takes microseconds, but for what it has not heard of.
const hostAnswers = 20 * time.Millisecond

// Flows answers with everything up to now, and with who serves what has just
// been asked for.
func (n *node) Flows(ctx context.Context, q store.Query) (snap observer.Snapshot, err error) {
	asking := false
	if err = n.visit(ctx, true, func() { asking = n.who.Asking() }); err != nil {
		return snap, err
	}
	if asking {
		time.Sleep(hostAnswers)
	}
	err = n.visit(ctx, false, func() {
		snap.Answer = n.flows.Query(q)
		snap.Known = n.flows.Stats().Flows
		snap.Interfaces = n.audits
		snap.Start, snap.End = n.start, n.last
		snap.Losses = n.losses()
	})
	return snap, err
}

// Pods gives this node's, and how many connections each has.
func (n *node) Pods(ctx context.Context) (pods observer.Pods, err error) {
	if n.kube == nil {
		return pods, nil
	}
	err = n.visit(ctx, true, func() {
		flows := map[string]int{}
		n.flows.Each(func(f *event.Flow) { flows[f.Local.PodUID]++ })
		n.kube.names.Pods(func(p *cluster.Pod, gone int64) bool {
			if p.Node != n.cfg.Node {
				return true
			}
			inode, _ := n.kube.boxes.Netns(p.UID)
			zone := ""
			if id := n.kube.names.NodeIdentity(p.Node); id != nil {
				zone = id.Zone
			}
			pods.Pods = append(pods.Pods, wire.Pod{Pod: p, Zone: zone, Netns: uint64(inode), Deleted: gone, Flows: flows[p.UID]})
			return true
		})
		pods.Losses = n.kube.names.Losses()
	})
	return pods, err
}

// Follow starts to listen.
func (n *node) Follow(ctx context.Context, w store.Wish) (fo *store.Follower, err error) {
	visited := n.visit(ctx, false, func() {
		fo, err = n.feed.Follow(w)
	})
	if visited != nil {
		return nil, visited
	}
	return fo, err
}

// Leave ends it.
func (n *node) Leave(fo *store.Follower) {
	// After the end there is nothing left to leave.
	_ = n.visit(context.Background(), false, func() { n.feed.Leave(fo) })
}

// losses lists what was not delivered or not told apart, where it happened, up to
// the last epoch: an audit may be older.
func (n *node) losses() []event.Loss {
	overflow := n.overflowed()
	_, follower := n.feed.Stats()
	var losses []event.Loss
	budget := n.restraint.loss(overflow)
	for _, l := range []event.Loss{
		budget,
		{Stage: "table_full", Count: overflow - budget.Count, Hint: "packets counted without their connection: raise ORB8_TABLE_ENTRIES"},
		{Stage: "flows_evicted", Count: n.flows.Stats().Evicted, Hint: "connections forgotten early, their traffic is in the remainder: raise ORB8_MAX_FLOWS, or ORB8_MAX_MEMORY where status says so"},
		{Stage: "follower", Count: follower, Hint: "events that a slow reader missed: narrow its filter, or raise ORB8_BROADCAST_CHANNEL_SIZE"},
	} {
		if l.Count > 0 {
			losses = append(losses, l)
		}
	}
	losses = append(losses, n.drops.losses()...)
	if n.gpus != nil {
		losses = append(losses, n.gpus.view.Load().Losses...)
	}
	return append(append(losses, n.who.Losses()...), n.lost()...)
}

// Status tells how the node does.
func (n *node) Status(ctx context.Context) (st observer.Status, err error) {
	err = n.visit(ctx, true, func() {
		st.Interfaces = n.audits
		st.Table = n.flows.Stats()
		st.Losses = n.losses()
		st.HealthMessage = n.problem(st.Interfaces)
		st.Namespaces = n.tap.Namespaces()
		st.Notes = append(n.restraint.notes(), n.capped()...)
		if n.kube != nil {
			st.Pods = n.kube.names.Len()
		}
	})
	st.GPUs = n.gpus.last()
	st.Healthy = st.HealthMessage == ""
	st.Version = n.cfg.Version
	st.Uptime = time.Since(n.start)
	st.Notes = append(st.Notes, n.notes()...)
	st.CPUSeconds, st.ResidentBytes = ownCost()
	st.KernelBytes = n.tap.KernelMemory() + n.drops.memory() + n.connects.memory()
	return st, err
}

// problem says in one line what is wrong, or nothing.
func (n *node) problem(interfaces []store.InterfaceAudit) string {
	if n.failed != nil {
		return fmt.Sprintf("the kernel's tables cannot be read: %v", n.failed)
	}
	attached, wanted := 0, 0
	problem := ""
	for _, i := range interfaces {
		switch {
		case i.How != "":
			attached++
			wanted++
		case !i.Left:
			wanted++
			problem = i.Name + ": " + i.Problem
		}
	}
	if wanted > 0 && attached == 0 {
		return "no interface is tapped; " + problem
	}
	return ""
}

// Ready tells whether the agent counts packets.
func (n *node) Ready(ctx context.Context) error {
	var problem string
	if err := n.visit(ctx, false, func() { problem = n.problem(n.audits) }); err != nil {
		return err
	}
	if problem != "" {
		return fmt.Errorf("%s", problem)
	}
	return nil
}
