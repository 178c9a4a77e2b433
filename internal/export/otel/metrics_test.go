// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/export/meter"
	"github.com/orb8/orb8/internal/store"
)

var began = time.Unix(1_700_000_000, 0)

// counted is a meter that has counted a connection, a drop and a look-up.
func counted() *meter.Meter {
	m := meter.New(meter.Config{Start: began})
	m.Begin(began.Add(time.Minute))
	e := closed(1)
	m.Flow(&e.Flow, &e.Flow.Total, store.Happened(1<<event.KindOpened|1<<event.KindTraffic))
	m.Drop(localPod, &event.Drop{Reason: "NO_SOCKET", Amount: event.Counter{Packets: 3}})
	l := lookup("a.example").Lookup
	l.Asked, l.Answered = 0, int64(3*time.Millisecond)
	l.Asked = 1
	m.Lookup(localPod, l, "NOERROR")
	return m
}

func snapshot(m *meter.Meter) *meter.Snapshot {
	s := m.Snapshot(func(visit func(*event.Flow)) { e := closed(1); visit(&e.Flow) })
	s.Self = meter.Self{Processed: 7, User: time.Second, System: 2 * time.Second, Resident: 5 << 20, Dropped: []event.Loss{{Stage: "otlp", Count: 2}, {Stage: "otlp", Count: 3}}}
	return s
}

// words are a point's attributes, less one metric's own: "a=b c=d".
func words(attrs []*common.KeyValue) map[string]string {
	w := map[string]string{}
	for _, kv := range attrs {
		w[kv.Key] = kv.Value.GetStringValue()
	}
	return w
}

// number is the value of the point with an attribute; "" is of the first.
func number(m *metrics.Metric, key, value string) float64 {
	points := m.GetSum().GetDataPoints()
	if m.GetSum() == nil {
		points = m.GetGauge().GetDataPoints()
	}
	for _, p := range points {
		w := words(p.Attributes)
		if w["orb8.workload.name"] != meter.Other && w[key] == value {
			return float64(p.GetAsInt()) + p.GetAsDouble()
		}
	}
	return math.NaN()
}

func TestMetricsArrive(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, overGRPC bool) {
		server, files := authority(t)
		r := newReceiver(t, overGRPC, server)
		variables := r.variables(files, map[string]string{"OTEL_METRIC_EXPORT_INTERVAL": "100", "OTEL_LOGS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=a"})
		snap := snapshot(counted())
		e, err := Open(t.Context(), Config{
			Getenv: func(k string) string { return variables[k] }, Version: "1.2.3", Host: "host-a", Node: "node-a",
			Metrics: func(context.Context) (*meter.Snapshot, error) { return snap, nil }, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil || e.Kinds() != nil {
			t.Fatal(err, e.Kinds())
		}
		defer e.Close()
		bpftest.Eventually(t, "metrics", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.metrics) > 0 })
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, c := range []struct {
			name, unit, key, value string
			want                   float64
		}{
			{"orb8.network.io", "By", "network.io.direction", "transmit", 4711},
			{"orb8.network.io", "By", "network.io.direction", "receive", 123456},
			{"orb8.network.packets", "{packet}", "network.io.direction", "receive", 99},
			{"orb8.connections.opened", "{connection}", "orb8.peer.workload.name", "payment", 1},
			{"orb8.connections.active", "{connection}", "k8s.namespace.name", "shop", 1},
			{"orb8.drop.packets", "{packet}", "orb8.drop.reason", "NO_SOCKET", 3},
			{"orb8.dns.responses", "{response}", "orb8.dns.rcode", "NOERROR", 1},
			{"orb8.agent.events.processed", "{event}", "", "", 7},
			{"orb8.agent.events.dropped", "{event}", "orb8.stage", "otlp", 5},
			{"process.cpu.time", "s", "cpu.mode", "system", 2},
			{"process.memory.usage", "By", "", "", 5 << 20},
		} {
			if m := r.metrics[c.name]; m == nil || m.Unit != c.unit || m.Description == "" || number(m, c.key, c.value) != c.want {
				t.Errorf("%s %s=%s: want %v %s, got %v", c.name, c.key, c.value, c.want, c.unit, m)
			}
		}
		for name, count := range map[string]uint64{"orb8.tcp.rtt": 1, "orb8.dns.lookup.duration": 1} {
			for _, p := range r.metrics[name].GetHistogram().GetDataPoints() {
				if words(p.Attributes)["orb8.workload.name"] == "cart" && p.Count != count {
					t.Errorf("%s: %v", name, p)
				}
			}
		}
		io := r.metrics["orb8.network.io"].GetSum()
		if !io.IsMonotonic || io.AggregationTemporality != metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE || io.DataPoints[0].StartTimeUnixNano == 0 {
			t.Errorf("%v", io)
		}
		if r.headers["x-tenant"]+r.headers["X-Tenant"] != "a" && !overGRPC {
			t.Errorf("headers %v", r.headers)
		}
	})
}

// A value lies within the bounds of the bucket that counts it, in both sorts.
func TestHistogramsHaveTheirValues(t *testing.T) {
	s := snapshot(counted())
	const rtt = 321e-6
	for _, exponential := range []bool{false, true} {
		found := false
		for _, m := range render(s, began.Add(time.Hour), exponential) {
			if m.Name != "orb8.tcp.rtt" {
				continue
			}
			found = true
			checkRTT(t, m.Data, rtt)
		}
		if !found {
			t.Errorf("exponential %v: no RTT", exponential)
		}
	}
}

// Without an answer the receiver's state is said once, and the line is not told.
func TestMetricsWithoutAReceiver(t *testing.T) {
	t.Parallel()
	said := &line{}
	var asked atomic.Int64
	variables := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_METRIC_EXPORT_INTERVAL": "50", "OTEL_LOGS_EXPORTER": "none"}
	snap := snapshot(counted())
	e, err := Open(t.Context(), Config{
		Getenv: func(k string) string { return variables[k] }, Log: slog.New(slog.NewTextHandler(said, nil)),
		Metrics: func(context.Context) (*meter.Snapshot, error) {
			if asked.Add(1)%2 == 0 {
				return nil, errors.New("the agent is busy")
			}
			return snap, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	bpftest.Eventually(t, "some tries", func() bool { return asked.Load() > 5 })
	if notes := e.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "metrics are not taken by 127.0.0.1:1") {
		t.Errorf("%q", notes)
	}
	e.Close()
	if said.count("not taken") != 1 {
		t.Error(said.buf.String())
	}
}

func checkRTT(t *testing.T, data metricdata.Aggregation, want float64) {
	t.Helper()
	switch h := data.(type) {
	case metricdata.Histogram[float64]:
		for _, p := range h.DataPoints {
			for i, n := range p.BucketCounts {
				if n > 0 && (i > 0 && want <= p.Bounds[i-1] || i < len(p.Bounds) && want > p.Bounds[i]) {
					t.Errorf("classic bucket %d of %v", i, p.Bounds)
				}
			}
		}
	case metricdata.ExponentialHistogram[float64]:
		for _, p := range h.DataPoints {
			base := math.Pow(2, math.Pow(2, -float64(p.Scale)))
			for i, n := range p.PositiveBucket.Counts {
				low := math.Pow(base, float64(i)+float64(p.PositiveBucket.Offset))
				if n > 0 && (want <= low || want > low*base) {
					t.Errorf("exponential bucket from %v", low)
				}
			}
		}
	default:
		t.Errorf("%T", data)
	}
}
