// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/netns"
	"github.com/orb8/orb8/internal/netstat"
	"github.com/orb8/orb8/internal/probe/flow"
	"github.com/orb8/orb8/internal/probe/process"
	"github.com/orb8/orb8/internal/sandbox"
)

// namespaces finds the network namespaces of the machine and gives them to the
// tap, which tells when one has died.
type namespaces struct {
	log     *slog.Logger
	own     uint32
	watcher *netns.Watcher
	process *process.Probe // nil where it cannot be loaded
	// nil outside of Kubernetes. Else only what is this node's is tapped.
	boxes *sandbox.Sandboxes
	tap   *flow.Tap
	// nil where namespaces are not entered.
	sockets *netstat.Sampler
	lookups *lookups
	notes   []string
	start   time.Time
}

// newNamespaces prepares to look; the tap comes later, by open.
func newNamespaces(cfg *Config, boxes *sandbox.Sandboxes) (*namespaces, error) {
	own, err := netns.Own()
	if err != nil {
		return nil, err
	}
	n := &namespaces{log: cfg.Log, own: own, boxes: boxes, start: time.Now()}
	// Who may not enter namespaces may mostly not look at processes either, and
	// those of pods have files.
	watch := netns.Config{Found: n.found, Log: cfg.Log, FilesOnly: cfg.Netns == netnsEnds}
	if boxes != nil {
		watch.Wanted = boxes.Mine
	}
	n.watcher = netns.New(watch)
	return n, nil
}

// follow makes the tap hear of namespaces.
func (n *namespaces) follow(cfg *flow.Config) {
	cfg.Enter = n.watcher.Enter
	cfg.Stranger = n.watcher.Look
	cfg.Gone = func(inode uint32) {
		// In this order: the next namespace may have the same number at once.
		if n.boxes != nil {
			n.boxes.Forget(inode)
		}
		if n.process != nil {
			_ = n.process.Forget(inode) // an exec there is told once more, no harm
		}
		if n.sockets != nil {
			n.sockets.Forget(inode)
		}
		n.lookups.forget(inode)
		n.watcher.Forget(inode)
	}
}

// open loads what tells of processes in namespaces that are not known. Without
// it they are found by their names, and by a sweep.
func (n *namespaces) open(tap *flow.Tap, groups *cgroup.Resolver) {
	n.tap = tap
	cfg := process.Config{Log: n.log, NewNetns: n.exec}
	if groups != nil {
		cfg.NewCgroup = func(id uint64, path string) { groups.Remember(id, path) }
	}
	if n.boxes != nil && groups != nil {
		cfg.Node.ID, cfg.Node.Level = n.boxes.NodeGroup()
		cfg.NewCgroup = func(id uint64, path string) {
			if path = groups.Remember(id, path); path != "" {
				n.boxes.Made(path)
			}
		}
	}
	p, err := process.Open(cfg)
	if err != nil {
		n.notes = append(n.notes, "namespaces without a name are found late: "+err.Error())
		n.log.Warn("namespaces without a name are found late", "error", err)
		return
	}
	n.process = p
	n.know(n.own)
}

func (n *namespaces) know(inode uint32) {
	if n.process == nil {
		return
	}
	if err := n.process.Know(inode); err != nil {
		n.log.Debug("namespace not noted", "netns", inode, "error", err)
	}
}

// exec is called for each process that execs where that is not known yet.
func (n *namespaces) exec(e process.Exec) {
	if e.PID != 0 {
		n.watcher.Hint(e.PID)
	}
	// A pod's namespace is found before its first process is in it: that one
	// tells whose it is.
	if n.boxes != nil && n.boxes.Exec(e.Netns, e.Cgroup) {
		n.know(e.Netns)
	}
}

// found is called by the watcher for each namespace. Packets of those that are
// older than the agent count from its start.
func (n *namespaces) found(ns netns.Namespace) {
	if n.boxes == nil {
		n.know(ns.Inode)
	}
	since := ns.Since
	if since.Before(n.start) {
		since = n.start
	}
	if ns.Inode == n.own {
		return
	}
	if !n.tap.Add(ns.Inode, ns.Name, since) {
		n.watcher.Forget(ns.Inode) // the next sweep finds it again
		return
	}
	if n.sockets != nil {
		n.sockets.Add(ns.Inode)
	}
}

func (n *namespaces) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.watcher.Run(ctx) })
	if n.process != nil {
		g.Go(func() error { return n.process.Run(ctx) })
	}
	return g.Wait()
}

// problems is what keeps namespaces from being found.
func (n *namespaces) problems() []string {
	out := append(n.notes[:len(n.notes):len(n.notes)], n.watcher.Problems()...)
	if n.process != nil {
		out = append(out, n.process.Problems()...)
	}
	return out
}

// losses is what was told of and found no room; the sweep finds it later.
func (n *namespaces) losses() (losses []event.Loss) {
	st := n.watcher.Stats()
	late := st.HintsDropped + st.Dropped
	if n.process != nil {
		late += n.process.Lost()
	}
	if late > 0 {
		losses = append(losses, event.Loss{
			Stage: "namespaces", Count: late,
			Hint: "processes and cgroups began faster than they were noted: a namespace may be tapped late, a short container unnamed",
		})
	}
	return losses
}

func (n *namespaces) Close() error {
	if n.process == nil {
		return nil
	}
	return n.process.Close()
}
