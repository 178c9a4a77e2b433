// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	collog "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/orb8/orb8/internal/event"
)

// A receiver in a process of its own, so that its time is not counted.
const receiverVariable = "ORB8_TEST_RECEIVER"

func TestMain(m *testing.M) {
	if os.Getenv(receiverVariable) != "" {
		serveAlone()
		return
	}
	os.Exit(m.Run())
}

func serveAlone() {
	r := &counter{}
	s := grpc.NewServer()
	collog.RegisterLogsServiceServer(s, r)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(lis.Addr())
	go func() { // until whoever started it ends
		_, _ = io.Copy(io.Discard, os.Stdin)
		s.Stop()
	}()
	_ = s.Serve(lis)
	fmt.Println(r.n)
}

type counter struct {
	collog.UnimplementedLogsServiceServer
	n int
}

func (c *counter) Export(_ context.Context, req *collog.ExportLogsServiceRequest) (*collog.ExportLogsServiceResponse, error) {
	for _, rl := range req.ResourceLogs {
		for _, sl := range rl.ScopeLogs {
			c.n += len(sl.LogRecords) // the sender has one batch under way
		}
	}
	return &collog.ExportLogsServiceResponse{}, nil
}

func cpu() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// closed is a connection between two pods at its end, with what is known of one.
func closed(i int) event.Event {
	now := time.Now().UnixNano()
	f := event.Flow{
		Conn: event.Conn{
			Local: event.IPFrom(netip.MustParseAddr("10.244.1.17")), Remote: event.IPFrom(netip.MustParseAddr("10.244.3.9")),
			LocalPort: uint16(i), RemotePort: 8080, Netns: uint32(i >> 16), Protocol: event.TCP,
		},
		Local: localPod, Remote: remotePod, First: now - 5e8, Last: now, OpenedBy: event.OpenerLocal, State: event.StateClosed,
		Total:     event.Traffic{TxBytes: 4711, TxPackets: 12, RxBytes: 123456, RxPackets: 99},
		Health:    event.Health{RTT: 321, Retransmits: 1},
		HasSocket: true,
	}
	return event.Event{Kind: event.KindClosed, Time: now, Flow: f, Delta: f.Total, DeltaStart: now - 1e9, DeltaEnd: now}
}

var (
	localPod = &event.Identity{
		Class: event.ClassPod, Namespace: "shop", Pod: "cart-7d65c8d9f-x2x7k", PodUID: "0b9ab1a5-9d5b-4d3e-8a39-3f6f1de3e1f0",
		Container: "cart", Workload: event.Workload{Kind: "Deployment", Name: "cart"}, Node: "node-a", Process: "cart", PID: 4242,
	}
	remotePod = &event.Identity{
		Class: event.ClassPod, Namespace: "shop", Pod: "payment-5b7c9d-8vqjz", PodUID: "c3a2c2f0-46c8-44c6-bf3b-8f7bb5e0a6c1",
		Workload: event.Workload{Kind: "Deployment", Name: "payment"}, Node: "node-b", Service: "shop/payment",
	}
)

// BenchmarkTenThousandASecond sends 10,000 records in each of its seconds, in
// bursts as epochs are, and says what part of a core that took: all of the process,
// gRPC and the collector of garbage included. The bar is 15.
func BenchmarkTenThousandASecond(b *testing.B) {
	for _, compression := range []string{"none", "gzip"} {
		b.Run(compression, func(b *testing.B) { tenThousand(b, compression) })
	}
}

func tenThousand(b *testing.B, compression string) {
	receiver := exec.Command(os.Args[0])
	receiver.Env = append(os.Environ(), receiverVariable+"=1")
	in, _ := receiver.StdinPipe()
	out, _ := receiver.StdoutPipe()
	if err := receiver.Start(); err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewReader(out)
	address, err := lines.ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	variables := map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + strings.TrimSpace(address), "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
		"OTEL_EXPORTER_OTLP_COMPRESSION": compression,
	}
	e, err := Open(b.Context(), Config{
		Getenv: func(k string) string { return variables[k] },
		Flows:  FlowsInterval, Quiet: 30 * time.Second, MaxFlows: 100_000, Linger: 10 * time.Second, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	events := make(chan []event.Event, 1000)
	done := make(chan struct{})
	go func() { defer close(done); e.Consume(events) }()
	const each = 10_000
	sent := 0
	before, start := cpu(), time.Now()
	for b.Loop() {
		next := time.Now().Add(time.Second)
		for range each / 50 {
			batch := make([]event.Event, 0, 50)
			for range 50 {
				batch = append(batch, closed(sent))
				sent++
			}
			events <- batch
		}
		time.Sleep(time.Until(next))
	}
	spent, took := cpu()-before, time.Since(start)
	close(events)
	<-done
	if e.sender.dropped() != 0 {
		b.Errorf("%v", e.Losses())
	}
	e.Close()
	_ = in.Close()
	if got, _ := lines.ReadString('\n'); strings.TrimSpace(got) != fmt.Sprint(sent) {
		b.Errorf("%d sent, %s arrived", sent, got)
	}
	_ = receiver.Wait()
	b.ReportMetric(100*spent.Seconds()/took.Seconds(), "%core")
	b.ReportMetric(float64(spent.Nanoseconds())/float64(sent), "ns/record")
}

// What one record costs to be written for the SDK.
func BenchmarkWrite(b *testing.B) {
	s := scribe{}
	ev := closed(1)
	r := record{why: "closed", flow: ev.Flow, moved: ev.Delta, at: ev.Time, since: ev.Time - 1e9}
	b.ReportAllocs()
	for b.Loop() {
		s.all = s.all[:0]
		s.write(&r)
	}
}

// What an update of a connection that lives costs: nothing is sent.
func BenchmarkLedger(b *testing.B) {
	l := newLedger(FlowsInterval, 30*time.Second, 100_000)
	l.tell = func(*record) {}
	const flows = 50_000
	events := make([]event.Event, flows)
	for i := range events {
		events[i] = closed(i)
		events[i].Kind, events[i].Flow.State = event.KindTraffic, event.StateEstablished
		l.add(&events[i])
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		l.add(&events[i%flows])
		i++
	}
}
