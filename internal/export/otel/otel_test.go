// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	collog "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

// line is a log that may be read while it is written.
type line struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *line) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *line) count(word string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), word)
}

// subject is an exporter that is fed by hand.
type subject struct {
	*Exporter
	t      *testing.T
	log    *line
	events chan []event.Event
	done   chan struct{}
	put    int
}

func feed(t *testing.T, variables map[string]string) *subject {
	t.Helper()
	return linger(t, variables, 10*time.Second)
}

func linger(t *testing.T, variables map[string]string, after time.Duration) *subject {
	t.Helper()
	s := &subject{t: t, log: &line{}, events: make(chan []event.Event, 100), done: make(chan struct{})}
	var err error
	s.Exporter, err = Open(t.Context(), Config{
		Getenv: func(k string) string { return variables[k] },
		Flows:  FlowsInterval, Quiet: 30 * time.Second, MaxFlows: 1000,
		Version: "1.2.3", Host: "host-a", Node: "node-a", Kubernetes: true,
		Log: slog.New(slog.NewTextHandler(s.log, nil)), Linger: after,
	})
	if err != nil || s.Exporter == nil {
		t.Fatal(err)
	}
	events := s.events
	go func() {
		defer close(s.done)
		s.Consume(events)
	}()
	t.Cleanup(s.end)
	return s
}

func (s *subject) end() {
	if s.events == nil {
		return
	}
	close(s.events)
	s.events = nil
	<-s.done
	s.Close()
}

// ask feeds n look-ups, each of a name of its own.
func (s *subject) ask(n int) {
	for n > 0 {
		var batch []event.Event
		for ; n > 0 && len(batch) < 64; n-- {
			batch = append(batch, lookup(fmt.Sprintf("n%d.example", s.put)))
			s.put++
		}
		s.events <- batch
	}
}

func lookup(name string) event.Event {
	now := time.Now().UnixNano()
	conn := event.Conn{
		Local: event.IPFrom(netip.MustParseAddr("10.1.2.3")), Remote: event.IPFrom(netip.MustParseAddr("10.96.0.10")),
		LocalPort: 40000, RemotePort: 53, Protocol: event.UDP,
	}
	l := &event.Lookup{Conn: conn, Role: event.RoleClient, Name: name, Type: 1, Asked: now - 2e6, Answered: now, Tries: 1}
	return event.Event{Kind: event.KindDNS, Time: now, Lookup: l, Flow: event.Flow{
		Conn: conn, OpenedBy: event.OpenerLocal, First: now, Last: now,
		Local:  &event.Identity{Class: event.ClassPod, Namespace: "shop", Pod: "cart-1", Workload: event.Workload{Kind: "Deployment", Name: "cart"}},
		Remote: &event.Identity{Class: event.ClassPod, Namespace: "kube-system", Pod: "coredns-1", Service: "kube-system/kube-dns"},
	}}
}

// settled waits until every record was sent or dropped.
func (s *subject) settled() {
	s.t.Helper()
	bpftest.Eventually(s.t, "each record is sent or dropped", func() bool {
		return s.sender.sent.Load()+s.sender.dropped() == uint64(s.put)
	})
}

func (s *subject) balanced(r *receiver) {
	s.t.Helper()
	s.settled()
	if got := r.count(); uint64(got)+s.sender.dropped() != uint64(s.put) {
		s.t.Errorf("of %d records %d arrived and %d are counted as dropped", s.put, got, s.sender.dropped())
	}
}

func both(t *testing.T, test func(t *testing.T, overGRPC bool)) {
	for name, overGRPC := range map[string]bool{"grpc": true, "http": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, overGRPC)
		})
	}
}

const secret = "Bearer s3cret=,"

func TestRecordsArriveOverTLS(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, overGRPC bool) {
		server, files := authority(t)
		r := newReceiver(t, overGRPC, server)
		s := feed(t, r.variables(files, map[string]string{
			"OTEL_EXPORTER_OTLP_HEADERS":     "authorization=Bearer%20s3cret%3D%2C,x-tenant=a",
			"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
		}))
		s.ask(2000)
		s.balanced(r)
		if s.sender.dropped() != 0 {
			t.Errorf("%v", s.Losses())
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		auth := r.headers["authorization"] + r.headers["Authorization"]
		if auth != secret {
			t.Errorf("authorization is %q", auth)
		}
		if !overGRPC && !r.zipped {
			t.Error("it is not compressed")
		}
		rec := r.records["n7.example"]
		for key, want := range map[string]string{
			"source.address": "10.1.2.3", "destination.address": "10.96.0.10", "network.transport": "udp", "network.type": "ipv4",
			"k8s.namespace.name": "shop", "k8s.pod.name": "cart-1", "k8s.deployment.name": "cart",
			"orb8.peer.service": "kube-system/kube-dns", "orb8.dns.rcode": "NOERROR", "orb8.dns.question.type": "A",
		} {
			if got := value(rec, key); got != want {
				t.Errorf("%s is %q, want %q", key, got, want)
			}
		}
		if rec.EventName != "orb8.dns.lookup" || rec.SeverityText != "INFO" || rec.TimeUnixNano == 0 {
			t.Errorf("%v", rec)
		}
		who := map[string]string{}
		for _, kv := range r.resource.Attributes {
			who[kv.Key] = kv.Value.GetStringValue()
		}
		if who["service.name"] != "orb8-agent" || who["k8s.node.name"] != "node-a" || who["host.name"] != "host-a" || len(who["service.instance.id"]) != 36 {
			t.Errorf("%v", who)
		}
	})
}

// A client that does not know the CA must not send a thing.
func TestUnknownAuthority(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, overGRPC bool) {
		server, _ := authority(t)
		r := newReceiver(t, overGRPC, server)
		_, others := authority(t)
		s := linger(t, r.variables(others, map[string]string{"OTEL_EXPORTER_OTLP_TIMEOUT": "500", "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20s3cret"}), time.Millisecond)
		s.ask(1)
		bpftest.Eventually(t, "a note", func() bool { return len(s.Notes()) == 1 })
		if note := s.Notes()[0]; r.count() != 0 || strings.Contains(note, "s3cret") || !strings.Contains(note, "certificate") {
			t.Errorf("%d records, note %q", r.count(), note)
		}
	})
}

func TestKilledAndRestarted(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, overGRPC bool) {
		server, files := authority(t)
		r := newReceiver(t, overGRPC, server)
		s := feed(t, r.variables(files, map[string]string{
			"OTEL_BLRP_MAX_QUEUE_SIZE": "500", "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "50", "OTEL_EXPORTER_OTLP_TIMEOUT": "2000",
		}))
		s.ask(200)
		s.settled()
		r.stop()
		s.ask(3000)
		bpftest.Eventually(t, "the queue overflows", func() bool { return s.sender.full.Load() > 2000 })
		bpftest.Eventually(t, "it is said", func() bool { return len(s.Notes()) == 1 })
		r.start(r.address)
		bpftest.Eventually(t, "records arrive again", func() bool { return s.sender.sent.Load() > 200 })
		s.ask(100)
		s.balanced(r)
		if s.sender.failed.Load() != 0 || len(s.Notes()) != 0 {
			t.Errorf("%v, %v", s.Losses(), s.Notes())
		}
		if bad, good := s.log.count("not taken"), s.log.count("taken again"); bad != 1 || good != 1 {
			t.Errorf("said %d and %d times", bad, good)
		}
	})
}

func TestReceiverHangs(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, overGRPC bool) {
		r := newReceiver(t, overGRPC, nil)
		r.set(func(ctx context.Context, _ int) (*collog.ExportLogsPartialSuccess, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		s := feed(t, r.variables(map[string]string{
			"OTEL_BLRP_MAX_QUEUE_SIZE": "100", "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "10", "OTEL_EXPORTER_OTLP_TIMEOUT": "300",
		}))
		s.ask(5000) // the queue holds nobody up
		bpftest.Eventually(t, "it is said", func() bool { return len(s.Notes()) == 1 })
		if full := s.sender.full.Load(); full < 4000 {
			bpftest.Eventually(t, "the rest is dropped", func() bool { return s.sender.full.Load() >= 4000 })
		}
		r.set(nil)
		s.balanced(r)
		if s.sender.failed.Load() != 0 || s.log.count("not taken") != 1 {
			t.Errorf("%v", s.Losses())
		}
	})
}

func TestErrorsOfTheReceiver(t *testing.T) {
	t.Parallel()
	later, _ := status.New(codes.ResourceExhausted, "slower").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(10 * time.Millisecond)})
	for name, one := range map[string]struct {
		err  error
		lost bool
	}{
		"unavailable":        {status.Error(codes.Unavailable, "not now"), false},
		"exhausted":          {status.Error(codes.ResourceExhausted, "never"), true},
		"exhausted for now":  {later.Err(), false},
		"invalid":            {status.Error(codes.InvalidArgument, "what is this"), true},
		"not authenticated":  {status.Error(codes.Unauthenticated, "who are you"), true},
		"an unknown problem": {errors.New("out of ideas"), true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReceiver(t, true, nil)
			r.set(func(_ context.Context, asked int) (*collog.ExportLogsPartialSuccess, error) {
				if asked == 1 {
					return nil, one.err
				}
				return nil, nil
			})
			s := feed(t, r.variables())
			s.ask(10)
			s.balanced(r)
			if lost := s.sender.failed.Load() > 0; lost != one.lost {
				t.Errorf("lost %v", s.Losses())
			}
		})
	}
}

func TestStatusesOfTheReceiver(t *testing.T) {
	t.Parallel()
	for code, lost := range map[int]bool{
		http.StatusBadRequest: true, http.StatusUnauthorized: true, http.StatusInternalServerError: true,
		http.StatusTooManyRequests: false, http.StatusServiceUnavailable: false,
	} {
		t.Run(http.StatusText(code), func(t *testing.T) {
			r := newReceiver(t, false, nil)
			r.status = func(asked int) (int, map[string]string) {
				if asked == 1 {
					return code, map[string]string{"Retry-After": "0"}
				}
				return 0, nil
			}
			s := feed(t, r.variables())
			s.ask(10)
			s.balanced(r)
			if s.sender.failed.Load() > 0 != lost {
				t.Errorf("lost %v", s.Losses())
			}
		})
	}
}

func TestPartialSuccess(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, overGRPC bool) {
		r := newReceiver(t, overGRPC, nil)
		r.set(func(_ context.Context, asked int) (*collog.ExportLogsPartialSuccess, error) {
			if asked == 1 {
				return &collog.ExportLogsPartialSuccess{RejectedLogRecords: 3, ErrorMessage: "too old (9 logs rejected)\nnot liked"}, nil
			}
			return &collog.ExportLogsPartialSuccess{ErrorMessage: "this is only a warning"}, nil
		})
		s := feed(t, r.variables())
		s.ask(10)
		s.balanced(r)
		s.ask(10)
		s.balanced(r)
		if s.sender.rejected.Load() != 3 || s.sender.failed.Load() != 0 || len(s.Losses()) != 1 || s.Losses()[0].Count != 3 {
			t.Errorf("%v", s.Losses())
		}
		if len(s.Notes()) != 0 {
			t.Errorf("%q", s.Notes())
		}
	})
}

// What is left at the end is sent, and of what cannot be, nobody waits for.
func TestEnd(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, true, nil)
	s := feed(t, r.variables(map[string]string{"OTEL_BLRP_SCHEDULE_DELAY": "60000"}))
	s.ask(500)
	s.end()
	if r.count() != 500 || s.sender.dropped() != 0 {
		t.Errorf("%d arrived, %v", r.count(), s.Losses())
	}
	r.stop()
	s = linger(t, r.variables(), 10*time.Millisecond)
	s.ask(500)
	s.end()
	if s.sender.dropped() != 500 {
		t.Errorf("%v", s.Losses())
	}
}

func TestNothingWithoutAnEndpoint(t *testing.T) {
	t.Parallel()
	for name, variables := range map[string]map[string]string{
		"none":     {},
		"disabled": {"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
		"switched": {"OTEL_LOGS_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
	} {
		e, err := Open(t.Context(), Config{Getenv: func(k string) string { return variables[k] }, Log: slog.New(slog.DiscardHandler)})
		if e != nil || err != nil {
			t.Errorf("%s: %v, %v", name, e, err)
		}
		if e.Losses() != nil || e.Notes() != nil || e.Kinds() != nil {
			t.Errorf("%s: a nil one must do nothing", name)
		}
		e.Close()
	}
}
