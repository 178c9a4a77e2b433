// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/netns"
	"github.com/orb8/orb8/internal/netstat"
	"github.com/orb8/orb8/internal/observer"
	"github.com/orb8/orb8/internal/wire"
)

// buffersTime bounds how long the sockets of all namespaces of an answer are
// listed for.
const buffersTime = 3 * time.Second

var errFromOutside = errors.New("the agent may not enter network namespaces (ORB8_NETNS)")

// openSockets prepares to read what the kernel counts of sockets, in the
// namespaces that are tapped.
func (a *Agent) openSockets() error {
	own, err := netns.Own()
	if err != nil {
		return err
	}
	cfg := netstat.Config{Log: a.cfg.Log}
	inside := a.spaces != nil && a.cfg.Netns != netnsEnds
	if inside {
		cfg.Enter = a.spaces.watcher.Enter
	} else {
		cfg.Enter = func(inode uint32, fn func() error) error {
			if inode != own {
				return errFromOutside
			}
			return fn()
		}
	}
	a.sockets = netstat.New(cfg)
	a.sockets.Add(own)
	switch {
	case inside:
		a.spaces.sockets = a.sockets
	case a.spaces != nil:
		a.problems = append(a.problems, "orb8 health knows the node's own sockets only: those of pods are counted inside their namespaces (ORB8_NETNS)")
	}
	return nil
}

// Sockets reads the counters of the namespaces that are wanted, and what the
// sockets of those that are shown hold.
func (n *node) Sockets(ctx context.Context, q observer.SocketsQuery) (out observer.Sockets, err error) {
	var all []wire.Sockets
	if err = n.visit(ctx, false, func() { all = n.owners() }); err != nil {
		return out, err
	}
	out.Known, out.Losses = len(all), n.sockets.Losses()
	for _, s := range all {
		if !q.Filter.Match(s.Owner) {
			continue
		}
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		s.Report, err = n.sockets.Read(s.Netns)
		switch {
		case errors.Is(err, netns.ErrGone):
			continue
		case err != nil:
			s.Problem = err.Error()
		}
		out.Sockets = append(out.Sockets, s)
	}
	slices.SortFunc(out.Sockets, func(a, b wire.Sockets) int {
		return cmp.Or(cmp.Compare(b.Illness(), a.Illness()), cmp.Compare(a.Owner.Namespace, b.Owner.Namespace),
			cmp.Compare(a.Owner.Pod, b.Owner.Pod), cmp.Compare(a.Netns, b.Netns))
	})
	out.Matched = len(out.Sockets)
	out.Sockets = out.Sockets[:min(len(out.Sockets), q.Limit)]
	ctx, cancel := context.WithTimeout(ctx, buffersTime)
	defer cancel()
	for i := range out.Sockets {
		n.fill(ctx, &out.Sockets[i])
	}
	return out, nil
}

// fill adds what the sockets of a namespace hold.
func (n *node) fill(ctx context.Context, s *wire.Sockets) {
	if s.Problem != "" {
		return
	}
	var err error
	if s.Buffers, err = n.sockets.Buffers(ctx, s.Netns, &s.Report); err != nil {
		s.Problem = "memory and orphans are not known: " + err.Error()
		if errors.Is(err, context.DeadlineExceeded) {
			s.Problem = "memory and orphans are not known: there was no time to ask so many sockets; ask for fewer pods"
		}
		return
	}
	s.Hold(&s.Buffers)
}

// owners lists the namespaces with whose they are.
func (n *node) owners() (list []wire.Sockets) {
	for _, ns := range n.tap.Namespaces() {
		s := wire.Sockets{Netns: ns.Netns, Name: ns.Name, Owner: &event.Identity{Class: event.ClassUnknown, Node: n.cfg.Node}}
		switch {
		case ns.Own:
			s.Owner = &event.Identity{Class: event.ClassHost, Node: n.cfg.Node}
		case n.kube != nil:
			uid, ok := n.kube.boxes.Pod(ns.Netns)
			if !ok {
				break
			}
			if s.Owner = n.kube.names.Identity(uid); s.Owner == nil {
				s.Owner = &event.Identity{Class: event.ClassPod, PodUID: uid, Node: n.cfg.Node}
			}
		}
		list = append(list, s)
	}
	return list
}
