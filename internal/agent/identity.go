// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/enrich"
	"github.com/orb8/orb8/internal/netns"
	"github.com/orb8/orb8/internal/probe/socket"
	"github.com/orb8/orb8/internal/sandbox"
	"github.com/orb8/orb8/internal/store"
)

// cgroupNone switches the notes of who makes sockets off.
const cgroupNone = "none"

// identity is what the machine knows of its processes. What cannot be had is
// nil, and a note says so.
type identity struct {
	log    *slog.Logger
	groups *cgroup.Resolver
	socks  *socket.Probe
	notes  []string
}

func (i *identity) note(what string, err error) {
	i.notes = append(i.notes, fmt.Sprintf("%s: %v", what, err))
	i.log.Warn(what, "error", err)
}

// openIdentity opens what it can: first the cgroups, which tell what the rest
// may look at.
func openIdentity(cfg *Config) *identity {
	i := &identity{log: cfg.Log}
	var err error
	if i.groups, err = cgroup.Open(cgroup.Config{}); err != nil {
		i.groups = nil
		i.note("containers and units have no names", err)
	}
	return i
}

// openSockets opens what knows who holds them. spaces is nil when no other
// namespace can be entered, boxes outside of Kubernetes.
func (i *identity) openSockets(cfg *Config, spaces *namespaces, boxes *sandbox.Sandboxes) {
	sockets := socket.Config{Cgroup: cfg.Cgroup, Log: cfg.Log}
	node := "/"
	if boxes != nil {
		node = boxes.NodeRoot()
		sockets.AllProcesses = boxes.AllProcesses()
	}
	switch {
	case cfg.Cgroup == cgroupNone:
		sockets.Cgroup = ""
	case cfg.Cgroup == "" && i.groups != nil:
		sockets.Cgroup = i.groups.Path(node)
	}
	if spaces != nil {
		sockets.Enter = func(inode uint32, fn func() error) error {
			err := spaces.watcher.Enter(inode, fn)
			if errors.Is(err, netns.ErrGone) {
				return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
			}
			return err
		}
	}
	var err error
	if i.socks, err = socket.Open(sockets); err != nil {
		i.socks = nil
		i.note("processes have no names", err)
	}
}

// enricher says who is who from what there is.
func (a *Agent) enricher(flows *store.Flows) *enrich.Enricher {
	i := a.who
	cfg := enrich.Config{Node: a.cfg.Node, Netns: a.tap.Own(), Own: a.tap.OwnAddress, Flows: flows, Names: a.lookups}
	a.kube.join(&cfg)
	if i.groups != nil { // an interface that holds a nil pointer is not nil
		cfg.Cgroups = i.groups
	}
	if i.socks != nil {
		cfg.Sockets = i.socks
	}
	return enrich.New(cfg)
}

func (i *identity) Run(ctx context.Context) error {
	if i.socks == nil {
		return nil
	}
	return i.socks.Run(ctx)
}

func (i *identity) problems() []string {
	out := i.notes[:len(i.notes):len(i.notes)]
	if i.groups != nil {
		out = append(out, i.groups.Problems()...)
	}
	if i.socks != nil {
		out = append(out, i.socks.Problems()...)
	}
	return out
}

func (i *identity) Close() (err error) {
	if i.socks != nil {
		err = i.socks.Close()
	}
	if i.groups != nil {
		err = errors.Join(err, i.groups.Close())
	}
	return err
}
