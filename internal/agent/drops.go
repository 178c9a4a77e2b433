// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/filter"
	"github.com/orb8/orb8/internal/observer"
	"github.com/orb8/orb8/internal/probe/drop"
	"github.com/orb8/orb8/internal/store"
)

// drops is what the kernel threw away. A nil one knows of nothing. It belongs to
// the pipeline's goroutine.
type drops struct {
	log   *slog.Logger
	probe *drop.Probe
	table *store.Drops
	start time.Time
	// What the maps take.
	kernel uint64
	// Read, and not told yet.
	taken []event.Drop
	// Why they could not be read the last time.
	failed error
	// What happened where it is not known is told by this agent: the whole machine
	// is its node.
	strays bool
	// Namespaces that were tapped, and when that was last so: their last packets
	// are dropped as they go.
	tapped map[uint32]time.Time
}

// tappedFor is how long after a namespace's end its drops are still told of, and
// maxTapped how many are remembered.
const (
	tappedFor = 10 * time.Second
	maxTapped = 8192
)

// openDrops gives nil and a note where the kernel does not tell.
func (a *Agent) openDrops() *drops {
	cfg := drop.Config{Log: a.cfg.Log}
	if a.spaces == nil { // no other is tapped, and what happens there costs nothing
		cfg.Netns = a.tap.Own()
	}
	probe, err := drop.Open(cfg)
	if err != nil {
		a.cfg.Log.Warn("Not attached: drop probe", "error", err)
		a.problems = append(a.problems, fmt.Sprintf("dropped packets are not told: %v", err))
		return nil
	}
	boxes := a.kube.sandboxes()
	return &drops{
		log: a.cfg.Log, probe: probe, kernel: probe.KernelMemory(), table: store.NewDrops(0), start: time.Now(), tapped: map[uint32]time.Time{},
		strays: a.spaces != nil && (boxes == nil || boxes.NodeRoot() == "/"),
	}
}

func (d *drops) pending() bool { return d != nil && !d.probe.Quiet() }

// take reads what was dropped, before the connections: what the tap has seen
// before it was dropped is in this epoch.
func (d *drops) take() {
	if !d.pending() {
		return
	}
	var err error
	d.taken, err = d.probe.Take()
	if (err == nil) != (d.failed == nil) {
		if err != nil {
			d.log.Error("drops not read, will try again", "error", err)
		} else {
			d.log.Info("drops are read again")
		}
	}
	d.failed = err
}

// dropped tells of what was taken, after the connections: their names are known.
func (p *pipeline) dropped() {
	d := p.drops
	if d == nil || len(d.taken) == 0 {
		return
	}
	now := time.Now()
	for i := range d.taken {
		if one := &d.taken[i]; d.isHere(one.Conn.Netns, p.tap.Taps, now) {
			p.drop(one)
		}
	}
	d.taken = nil
}

func (p *pipeline) drop(d *event.Drop) {
	const happened = store.Happened(1 << event.KindDrop)
	f := p.who.Dropped(d)
	at := p.who.Met(&f)
	p.drops.table.Add(at, d)
	p.meter.Drop(at, d)
	if p.feed.Wanted(happened) {
		kept := *d
		p.feed.Publish(happened, &event.Event{Flow: f, Drop: &kept})
	}
}

// isHere tells whether a namespace is one that this agent tells of. Several nodes
// may share a kernel, and each hears of all.
func (d *drops) isHere(netns uint32, tapped func(uint32) bool, now time.Time) bool {
	if netns == 0 {
		return d.strays
	}
	last, known := d.tapped[netns]
	switch {
	case known && last.Equal(now):
		return true
	case tapped(netns):
		if !known && len(d.tapped) >= maxTapped {
			clear(d.tapped)
		}
		d.tapped[netns] = now
		return true
	case known && now.Sub(last) < tappedFor:
		return true
	}
	delete(d.tapped, netns)
	return false
}

// losses is what was dropped and has not all of its detail.
func (d *drops) losses() []event.Loss {
	if d == nil {
		return nil
	}
	rest, unseen := d.probe.Lost()
	folded, evicted := d.table.Stats()
	var losses []event.Loss
	for _, l := range []event.Loss{
		{Stage: "drops", Count: folded + rest.Packets, Hint: "packets were dropped of more connections in a second than there is room for: they are counted without their connection"},
		{Stage: "drops_unseen", Count: unseen, Hint: "packets were freed while the CPU was counting a drop: whether they were dropped, and why, is not known"},
		{Stage: "drops_evicted", Count: evicted, Hint: "pods and reasons of drops that made room for others: their packets are in the total alone"},
	} {
		if l.Count > 0 {
			losses = append(losses, l)
		}
	}
	return losses
}

func (d *drops) memory() uint64 {
	if d == nil {
		return 0
	}
	return d.kernel
}

func (d *drops) Close() error {
	if d == nil {
		return nil
	}
	return d.probe.Close()
}

// Drops answers with everything up to now.
func (n *node) Drops(ctx context.Context, f filter.Filter, limit int) (out observer.Drops, err error) {
	err = n.visit(ctx, true, func() {
		d := n.drops
		if d == nil {
			return
		}
		out.DropAnswer = d.table.Query(&f, limit)
		rest, _ := d.probe.Lost()
		out.Known += rest.Packets
		out.Start, out.End = d.start, n.last
		out.Losses = d.losses()
	})
	return out, err
}
