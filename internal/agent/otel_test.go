// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	collog "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	colmetric "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/grpc"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/bpftest"
)

// telemetry is an OpenTelemetry receiver.
type telemetry struct {
	collog.UnimplementedLogsServiceServer
	mu      sync.Mutex
	records []*logs.LogRecord
	metrics map[string]bool
}

func (r *telemetry) Export(_ context.Context, req *collog.ExportLogsServiceRequest) (*collog.ExportLogsServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rl := range req.ResourceLogs {
		for _, sl := range rl.ScopeLogs {
			r.records = append(r.records, sl.LogRecords...)
		}
	}
	return &collog.ExportLogsServiceResponse{}, nil
}

type telemetryMetrics struct {
	colmetric.UnimplementedMetricsServiceServer
	r *telemetry
}

func (m telemetryMetrics) Export(_ context.Context, req *colmetric.ExportMetricsServiceRequest) (*colmetric.ExportMetricsServiceResponse, error) {
	m.r.mu.Lock()
	defer m.r.mu.Unlock()
	for _, rm := range req.ResourceMetrics {
		for _, sm := range rm.ScopeMetrics {
			for _, one := range sm.Metrics {
				m.r.metrics[one.Name] = true
			}
		}
	}
	return &colmetric.ExportMetricsServiceResponse{}, nil
}

// of gives the numbers of records of connections to a port.
func (r *telemetry) of(port int64) (whys []string, sent, received int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range r.records {
		words, numbers := map[string]string{}, map[string]int64{}
		for _, kv := range rec.Attributes {
			words[kv.Key], numbers[kv.Key] = kv.Value.GetStringValue(), kv.Value.GetIntValue()
		}
		if numbers["destination.port"] == port && rec.EventName == "orb8.flow" {
			whys = append(whys, words["orb8.flow.event"])
			sent += numbers["orb8.flow.transmit.bytes"]
			received += numbers["orb8.flow.receive.bytes"]
		}
	}
	return whys, sent, received
}

// What is sent is what the table holds, and the agent that has no receiver any
// more answers and ends as always.
func TestOpenTelemetry(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p := bpftest.NewPair(t)
	r := &telemetry{metrics: map[string]bool{}}
	server := grpc.NewServer()
	collog.RegisterLogsServiceServer(server, r)
	colmetric.RegisterMetricsServiceServer(server, telemetryMetrics{r: r})
	p.A.Do(func() {
		lis, err := net.Listen("tcp", "127.0.0.1:4317")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = server.Serve(lis) }()
	})
	t.Cleanup(server.Stop)
	a := start(t, p.A.Netns, "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
		"OTEL_METRIC_EXPORT_INTERVAL=500", "OTEL_BLRP_SCHEDULE_DELAY=100", "ORB8_OTEL_FLOWS=all")
	to := p.B.ListenTCP(false, bpftest.ServeDiscard)
	c := p.A.DialTCP(to)
	if _, err := c.Write(make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	port := uint32(to.Port())
	bpftest.Eventually(t, "the connection is closed, and told in full", func() bool {
		whys, sent, received := r.of(int64(port))
		flows, _ := a.flows(&pb.FlowsRequest{Include: &pb.Filter{DstPorts: []uint32{port}}})
		return strings.Contains(strings.Join(whys, " "), "closed") && len(flows) == 1 && sent > 100_000 &&
			uint64(sent) == flows[0].Total.TxBytes && uint64(received) == flows[0].Total.RxBytes
	})
	bpftest.Eventually(t, "metrics", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.metrics["orb8.network.io"] && r.metrics["orb8.connections.opened"] && r.metrics["process.cpu.time"]
	})
	server.Stop()
	for range 3 {
		_ = p.A.DialTCP(to).Close()
	}
	bpftest.Eventually(t, "the status says that nobody takes it", func() bool {
		return strings.Contains(strings.Join(a.status().Notes, "\n"), "OTLP: log records are not taken by 127.0.0.1:4317")
	})
}
