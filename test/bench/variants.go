// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/vishvananda/netlink"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/probe/flow"
)

const tableEntries = 100_000

// baselines are the programs that the tap is compared with.
type baselines struct {
	objs               baselineObjects
	events             *ringbuf.Reader
	drained            chan struct{}
	empty, plain, ring *variant
}

func newBaselines() (*baselines, error) {
	b := &baselines{drained: make(chan struct{})}
	if err := loadBaselineObjects(&b.objs, nil); err != nil {
		return nil, fmt.Errorf("load baselines: %w", err)
	}
	var err error
	if b.events, err = ringbuf.NewReader(b.objs.BenchEvents); err != nil {
		return nil, errors.Join(fmt.Errorf("load baselines: %w", err), b.objs.Close())
	}
	go b.drain()
	both := func(name string, p *ebpf.Program) *variant {
		return &variant{name: name, ingress: p, egress: p}
	}
	b.empty = both("empty", b.objs.BenchEmpty)
	b.ring = both("ring", b.objs.BenchRing)
	b.plain = both("plain", b.objs.BenchPlain)
	b.plain.forget = func() error { return deleteAll(b.objs.BenchTable) }
	return b, nil
}

// drain does what an agent must do at least: take each event off the ring.
func (b *baselines) drain() {
	defer close(b.drained)
	var rec ringbuf.Record
	for b.events.ReadInto(&rec) == nil {
	}
}

func (b *baselines) close() {
	_ = b.events.Close()
	<-b.drained
	_ = b.objs.Close()
}

// tap is the tap itself, opened as the agent does, in a namespace where
// nothing moves. Its programs are found there and attached where they are
// measured, so that each variant is attached in the same way.
type tap struct {
	variant
	flow *flow.Tap
	ns   namespace
}

func newTap() (*tap, error) {
	t := &tap{variant: variant{name: "tap"}}
	var err error
	if t.ns, err = newNamespace(); err != nil {
		return nil, err
	}
	err = t.ns.do(func() error {
		still := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "still0"}, PeerName: "still1"}
		if err := netlink.LinkAdd(still); err != nil {
			return fmt.Errorf("veth: %w", err)
		}
		if t.flow, err = flow.Open(flow.Config{TableEntries: tableEntries, Attach: flow.AttachTCX}); err != nil {
			return err
		}
		if err := t.flow.Sync(); err != nil {
			return err
		}
		l, err := netlink.LinkByName("still0")
		if err != nil {
			return err
		}
		if t.ingress, err = attached(l.Attrs().Index, ebpf.AttachTCXIngress); err != nil {
			return err
		}
		t.egress, err = attached(l.Attrs().Index, ebpf.AttachTCXEgress)
		return err
	})
	if err != nil {
		t.close()
		return nil, fmt.Errorf("tap: %w", err)
	}
	t.forget = t.epoch
	return t, nil
}

// attached finds the program that is on an interface.
func attached(dev int, at ebpf.AttachType) (*ebpf.Program, error) {
	got, err := link.QueryPrograms(link.QueryOptions{Target: dev, Attach: at})
	if err != nil {
		return nil, err
	}
	if len(got.Programs) != 1 {
		return nil, fmt.Errorf("%d programs on the interface, not 1", len(got.Programs))
	}
	return ebpf.NewProgramFromID(got.Programs[0].ID)
}

func (t *tap) epoch() error {
	return t.ns.do(func() error { return t.flow.Epoch(true, func(*event.Delta) {}) })
}

// everySecond makes epochs as the agent does, until stop is called.
func (t *tap) everySecond() (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				done <- nil
				return
			case <-tick.C:
				if err := t.epoch(); err != nil {
					done <- err
					return
				}
			}
		}
	}()
	return func() error {
		cancel()
		return <-done
	}
}

func (t *tap) close() {
	for _, p := range []*ebpf.Program{t.ingress, t.egress} {
		if p != nil {
			_ = p.Close()
		}
	}
	if t.flow != nil {
		_ = t.flow.Close()
	}
	t.ns.close()
}
