// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
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
