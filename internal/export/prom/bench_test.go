// SPDX-License-Identifier: Apache-2.0

package prom

import (
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/export/meter"
)

// reference is a histogram of the library's with the same buckets.
func reference() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "x", Help: "x", Buckets: meter.Bounds[:], NativeHistogramBucketFactor: 1.19})
}

// crowd has counted 100,000 connections of 500 pods, which are of 100 workloads,
// with ten others each, their look-ups and drops.
func crowd() (*meter.Meter, []*event.Flow) {
	const pods, each = 500, 200
	m := meter.New(meter.Config{Start: time.Unix(1000, 0)})
	ids := make([]*event.Identity, pods)
	for i := range ids {
		ids[i] = podOf(fmt.Sprint("namespace-", i/5%20), fmt.Sprint("workload-", i/5), fmt.Sprint("workload-", i/5, "-", i))
		m.Drop(ids[i], &event.Drop{Reason: "NO_SOCKET", Amount: event.Counter{Packets: 3}})
		m.Lookup(ids[i], &event.Lookup{Role: event.RoleClient, Tries: 2, Asked: 1e9, Answered: 1e9 + 3e6}, "NOERROR")
		m.Lookup(ids[i], &event.Lookup{Role: event.RoleClient, Tries: 2, Asked: 1e9, Answered: 1e9 + 5e6}, "NXDOMAIN")
	}
	outside := &event.Identity{Class: event.ClassExternal}
	flows := make([]*event.Flow, 0, pods*each)
	moved := event.Traffic{TxBytes: 123_456_789, TxPackets: 100_000, RxBytes: 1_234_567_890, RxPackets: 1_000_000}
	for i, id := range ids {
		for j := range each {
			f := flowOf(id, ids[(i+j%10*5)%pods])
			if j%11 == 10 {
				f.Remote = outside
			}
			f.Health.RTT, f.Health.SYNACK = uint32(20+i*j%100_000), f.Health.SYN+uint32(30+i*j%50_000)
			flows = append(flows, f)
			m.Flow(f, &moved, traffic|1<<event.KindOpened)
		}
	}
	return m, flows
}

// BenchmarkScrape is one of 100,000 connections of 500 pods, from the snapshot to
// the last byte.
func BenchmarkScrape(b *testing.B) {
	m, flows := crowd()
	h := Handler(func() (*meter.Snapshot, error) {
		s := m.Snapshot(func(visit func(*event.Flow)) {
			for _, f := range flows {
				visit(f)
			}
		})
		s.Self = self()
		return s, nil
	})
	for _, c := range []struct{ name, accept, encoding string }{
		{"text", "", ""}, {"text-gzip", "", "gzip"}, {"openmetrics", "application/openmetrics-text; version=1.0.0", ""}, {"protobuf", protobuf, ""},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			size := 0
			for b.Loop() {
				req := httptest.NewRequest("GET", "/metrics", nil)
				req.Header.Set("Accept", c.accept)
				req.Header.Set("Accept-Encoding", c.encoding)
				rec := httptest.NewRecorder()
				h.ServeHTTP(rec, req)
				size = rec.Body.Len()
			}
			b.ReportMetric(float64(size), "bytes")
		})
	}
}

// BenchmarkGPUs is a scrape of 64 instances that 200 pods have, under both names.
func BenchmarkGPUs(b *testing.B) {
	v := crowded()
	for _, dcgm := range []bool{false, true} {
		b.Run(fmt.Sprint("dcgm=", dcgm), func(b *testing.B) {
			b.ReportAllocs()
			h := Handler(func() (*meter.Snapshot, error) { return &meter.Snapshot{GPU: v, DCGMNames: dcgm, Node: "n1"}, nil })
			size := 0
			for b.Loop() {
				rec := httptest.NewRecorder()
				h.ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
				size = rec.Body.Len()
			}
			b.ReportMetric(float64(size), "bytes")
		})
	}
}
