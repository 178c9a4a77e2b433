// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/orb8/orb8/internal/enrich"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/store"
)

func testPipeline(t testing.TB) *pipeline {
	t.Helper()
	cfg := Defaults()
	cfg.Node = "n1"
	if err := cfg.finish(); err != nil {
		t.Fatal(err)
	}
	flows := store.NewFlows(store.Limits{})
	p := newPipeline(cfg, nil, enrich.New(enrich.Config{Node: "n1", Flows: flows}), flows)
	p.lookups = &lookups{}
	return p
}

func someDeltas(n int) []event.Delta {
	deltas := make([]event.Delta, n)
	for i := range deltas {
		deltas[i] = event.Delta{
			Conn: event.Conn{
				Local:     event.IPFrom(netip.MustParseAddr("10.0.0.1")),
				Remote:    event.IPFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})),
				LocalPort: uint16(i >> 16), RemotePort: 443, Netns: 7, Ifindex: 2, Protocol: event.TCP,
			},
			Traffic: event.Traffic{TxBytes: 100, TxPackets: 1}, HasSocket: true, Cookie: uint64(i + 1), Cgroup: 1,
		}
		deltas[i].Health.FlagsTx = event.FlagACK
	}
	return deltas
}

// TestUpdateAllocatesNothing, also with a follower that wants none of it.
func TestUpdateAllocatesNothing(t *testing.T) {
	p := testPipeline(t)
	d := someDeltas(1)
	p.flows.Begin()
	p.apply(&d[0])
	if n := testing.AllocsPerRun(100, func() { p.apply(&d[0]) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if _, err := p.feed.Follow(store.Wish{Kinds: []event.Kind{event.KindReset}}); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { p.apply(&d[0]) }); n != 0 {
		t.Errorf("%v allocations with a follower", n)
	}
}

func TestVisitAfterTheEnd(t *testing.T) {
	p := testPipeline(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.visit(ctx, false, func() {}); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody serves, and the caller gave up: %v", err)
	}
	close(p.done)
	if err := p.visit(t.Context(), false, func() {}); !errors.Is(err, errStopped) {
		t.Errorf("after the end: %v", err)
	}
}

// BenchmarkUpdate is enrich and store of one flow update, over 100,000 flows;
// decode is measured beside the tap.
func BenchmarkUpdate(b *testing.B) {
	p := testPipeline(b)
	deltas := someDeltas(100_000)
	p.flows.Begin()
	for i := range deltas {
		p.apply(&deltas[i])
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		p.apply(&deltas[i])
		if i++; i == len(deltas) {
			i = 0
		}
	}
}

// BenchmarkQuery is the first ten of 100,000 flows.
func BenchmarkQuery(b *testing.B) {
	p := testPipeline(b)
	deltas := someDeltas(100_000)
	p.flows.Begin()
	for i := range deltas {
		p.apply(&deltas[i])
	}
	for b.Loop() {
		p.flows.Query(store.Query{Limit: 10})
	}
}
