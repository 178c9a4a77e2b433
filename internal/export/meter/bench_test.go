// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"fmt"
	"testing"

	"github.com/orb8/orb8/internal/event"
)

// crowd is 100,000 connections of 500 pods, which are of 100 workloads, with pods
// of ten others each, and the outside.
func crowd() []*event.Flow {
	const pods, each = 500, 200
	ids := make([]*event.Identity, pods)
	for i := range ids {
		ids[i] = podOf(fmt.Sprint("namespace-", i/5%20), "Deployment", fmt.Sprint("workload-", i/5), fmt.Sprint("workload-", i/5, "-", i))
	}
	outside := &event.Identity{Class: event.ClassExternal}
	flows := make([]*event.Flow, 0, pods*each)
	for i, id := range ids {
		for j := range each {
			f := flowOf(id, ids[(i+j%10*5)%pods])
			if j%11 == 10 {
				f.Remote = outside
			}
			f.HasSocket, f.Health.RTT = true, uint32(20+i*j%100_000)
			flows = append(flows, f)
		}
	}
	return flows
}

func TestFlowAllocatesNothing(t *testing.T) {
	m := New(Config{Start: start})
	f := flowOf(podOf("shop", "Deployment", "web", "web-1"), podOf("data", "StatefulSet", "db", "db-0"))
	f.HasSocket, f.Health.RTT = true, 300
	m.Flow(f, &moved, traffic)
	if n := testing.AllocsPerRun(100, func() { m.Flow(f, &moved, traffic) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkFlow is one update of one of 100,000 connections, its RTT included.
func BenchmarkFlow(b *testing.B) {
	m := New(Config{Start: start})
	flows := crowd()
	for _, f := range flows {
		m.Flow(f, &moved, traffic)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		m.Flow(flows[i], &moved, traffic)
		if i++; i == len(flows) {
			i = 0
		}
	}
}

// BenchmarkSnapshot is the part of a scrape that holds up the pipeline.
func BenchmarkSnapshot(b *testing.B) {
	m := New(Config{Start: start})
	flows := crowd()
	for _, f := range flows {
		m.Flow(f, &moved, traffic)
	}
	b.ReportAllocs()
	for b.Loop() {
		snapshot(m, flows...)
	}
}

// BenchmarkNewLink is an update of two ends that were not met before.
func BenchmarkNewLink(b *testing.B) {
	m := New(Config{Start: start})
	web := podOf("shop", "Deployment", "web", "web-1")
	b.ReportAllocs()
	for b.Loop() {
		id := *web
		m.Flow(flowOf(&id, web), &moved, traffic)
	}
}
