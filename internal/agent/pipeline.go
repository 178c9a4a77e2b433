// SPDX-License-Identifier: Apache-2.0

// Package agent assembles the agent: the line from the kernel to the answers
// is this file, top to bottom. The rest of the package is settings, listeners
// and shutdown. cmd/orb8-agent runs it, and `orb8 --standalone` runs the same
// line inside the command.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/orb8/orb8/internal/cluster"
	"github.com/orb8/orb8/internal/enrich"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/export/meter"
	"github.com/orb8/orb8/internal/probe/flow"
	"github.com/orb8/orb8/internal/sandbox"
	"github.com/orb8/orb8/internal/store"
	"github.com/orb8/orb8/internal/wire"
)

// minSwap bounds how often questions may swap the kernel's tables.
const minSwap = 100 * time.Millisecond

// maxIdle bounds how many epochs in a row may be skipped on a quiet machine:
// connections still expire, and drops behind the tap are still read.
const maxIdle = 9

// errStopped answers questions that come after the end.
var errStopped = errors.New("the agent is shutting down")

// pipeline owns the flow table and the feed: only its goroutine touches them.
type pipeline struct {
	cfg   Config
	log   *slog.Logger
	tap   *flow.Tap
	who   *enrich.Enricher
	flows *store.Flows
	feed  *store.Feed
	// What is told of the cluster, and what is known of it; nil outside of Kubernetes.
	inbox   *cluster.Inbox
	cluster *cluster.Map
	// Which connects have failed; nil where the kernel does not tell.
	connects *connects
	visits   chan visit
	done     chan struct{}
	// What the kernel threw away; nil where it does not tell.
	drops *drops
	// What is asked of the DNS, and the names that come of it.
	lookups *lookups
	// What GPUs and RDMA devices do, and whose they are; nil where nobody looks.
	gpus *gpus
	// Whose network namespaces are; nil outside of Kubernetes.
	boxes *sandbox.Sandboxes
	// All of it in numbers, and when what has gone was last left out.
	meter *meter.Meter
	swept time.Time

	start, last time.Time
	// Why the last epoch could not be read; nil when it could.
	failed  error
	expired time.Time
	event   event.Event
	// Epochs in a row that were not read, because nothing had moved.
	idle int
	// What the tap counted against what the interfaces counted, as of audited.
	audits    []store.InterfaceAudit
	audited   time.Time
	auditCost time.Duration
	// Names of interfaces for records, as of then, for any goroutine.
	names atomic.Pointer[map[event.Iface]wire.Place]

	restraint restraint
}

// visit is a question to the owner of the table.
type visit struct {
	do   func()
	done chan struct{}
	// The answer must hold everything up to now, audit included.
	fresh bool
}

// auditShare bounds what audits may cost by themselves: 0.2 % of a core. A
// question has its own.
const auditShare = 500

// maxUnaudited bounds how long there is none where the machine is so busy that one
// takes long: what is unaccounted is a metric, too.
const maxUnaudited = time.Minute

func newPipeline(cfg Config, tap *flow.Tap, who *enrich.Enricher, flows *store.Flows) *pipeline {
	now := time.Now()
	return &pipeline{
		cfg:     cfg,
		log:     cfg.Log,
		tap:     tap,
		who:     who,
		flows:   flows,
		feed:    store.NewFeed(store.FeedConfig{Queue: cfg.FollowerQueue}),
		visits:  make(chan visit),
		done:    make(chan struct{}),
		meter:   newMeter(&cfg, now),
		start:   now,
		last:    now,
		expired: now,

		restraint: newRestraint(&cfg),
	}
}

// Run reads an epoch each interval and serves visitors in between.
func (p *pipeline) Run(ctx context.Context) error {
	defer close(p.done)
	defer p.feed.Close()
	tick := time.NewTicker(p.cfg.Epoch)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if !p.due() {
				continue
			}
			p.learn()
			p.who.Again(p.flows.Get)
			if p.idle < maxIdle && p.tap.Quiet() && !p.connects.pending() && !p.drops.pending() && !p.lookups.pending() {
				p.idle++
				p.settle(cpuTime())
			} else {
				p.epoch(time.Since(p.audited) >= min(auditShare*p.auditCost, maxUnaudited))
			}
			p.devices()
		case v := <-p.visits:
			p.learn()
			if p.audited.IsZero() || v.fresh && time.Since(p.last) >= p.restraint.swap() {
				p.epoch(true)
			}
			v.do()
			close(v.done)
		}
	}
}

// learn takes in what has been told of the cluster, for the connections that
// are known and those that come.
func (p *pipeline) learn() {
	if p.inbox != nil {
		changes, synced := p.inbox.Take()
		p.who.Update(changes, synced, time.Now())
	}
}

// epoch is the line: kernel → decode → enrich → store → followers.
func (p *pipeline) epoch(audit bool) {
	defer p.settle(cpuTime())
	p.idle = 0
	p.flows.Begin()
	start := p.last
	p.last = time.Now()
	p.event.DeltaStart, p.event.DeltaEnd = start.UnixNano(), p.last.UnixNano()
	p.meter.Begin(p.last)
	p.connects.take(p.tap.Taps) // what they sent is in this epoch
	p.drops.take()
	p.lookups.take(p.who)
	err := p.tap.Epoch(audit, p.take)
	p.flows.Release(p.apply)
	if err == nil {
		p.event.Delta, p.event.Overflow = event.Traffic{}, 0
		p.connects.tell(p.flows, p.announce)
	}
	if (err == nil) != (p.failed == nil) {
		if err != nil {
			p.log.Error("epoch not read, will try again", "error", err)
		} else {
			p.log.Info("epochs are read again")
		}
	}
	p.failed = err
	p.dropped()
	p.lookedUp()
	p.feed.Flush()
	if p.last.Sub(p.expired) >= p.cfg.ExpirationInterval {
		p.expire()
	}
	if audit {
		p.audit()
	}
}

// audit compares what the tap counted with what the interfaces counted.
func (p *pipeline) audit() {
	interfaces := p.tap.Interfaces()
	p.audits = make([]store.InterfaceAudit, len(interfaces)) // the old ones may still be read
	names := make(map[event.Iface]wire.Place, len(interfaces))
	start := time.Now()
	for i, it := range interfaces {
		p.audits[i] = p.flows.Audit(it)
		names[it.Iface] = wire.Place{Name: it.Name, Namespace: it.Namespace}
		names[event.Iface{Netns: it.Iface.Netns}] = wire.Place{Namespace: it.Namespace} // what is told of the whole
	}
	p.names.Store(&names)
	p.audited = time.Now()
	p.auditCost = p.tap.AuditCost() + p.audited.Sub(start)
}

// expire forgets connections that are idle, and interfaces that are gone and
// have none left.
func (p *pipeline) expire() {
	p.flows.Expire(p.last)
	p.lookups.expire(p.who, p.last)
	p.sweep()
	p.expired = p.last
	into := p.tap.Folded()
	err := p.tap.Fold(0, func(i event.Iface) bool { return p.flows.Fold(i, into) })
	if err != nil {
		p.log.Warn("accounts of interfaces that are gone", "error", err)
	}
}

// take applies what a connection did, answers after what they answer.
func (p *pipeline) take(d *event.Delta) {
	if !p.flows.Hold(d) {
		p.apply(d)
	}
}

func (p *pipeline) apply(d *event.Delta) {
	f, happened, identify := p.flows.Apply(d)
	if f == nil {
		p.meter.Apart(&d.Traffic)
		return
	}
	p.event.Delta, p.event.Overflow = d.Traffic, d.Overflow
	p.announce(f, happened, identify)
}

// announce names the ends of a connection and passes on what happened to it.
func (p *pipeline) announce(f *event.Flow, happened store.Happened, identify bool) {
	if identify {
		p.lookups.meet(f)
		if p.who.Identify(f); f.Carried {
			p.meter.Apart(&p.event.Delta)
			return
		}
	}
	p.meter.Flow(f, &p.event.Delta, happened)
	p.gpus.moved(f, &p.event.Delta, happened)
	if p.feed.Wanted(happened) {
		p.event.Flow = *f
		p.feed.Publish(happened, &p.event)
	}
}

// visit runs do on the pipeline's goroutine.
func (p *pipeline) visit(ctx context.Context, fresh bool, do func()) error {
	v := visit{do: do, done: make(chan struct{}), fresh: fresh}
	select {
	case p.visits <- v:
		<-v.done
		return nil
	case <-p.done:
		return errStopped
	case <-ctx.Done():
		return fmt.Errorf("the agent is busy: %w", ctx.Err())
	}
}
