// SPDX-License-Identifier: Apache-2.0

// Package otel sends what the agent tells to an OpenTelemetry receiver, over OTLP:
// records of connections, drops and look-ups as log records, and the metrics. It
// holds what has not been told of connections that live (ledger.go), a bounded
// queue of records (sender.go), and how they are written (record.go, ends.go,
// encode.go). It
// never holds up whoever tells it something: what finds no room is dropped and
// counted. The agent runs it as a follower of its feed; docs/opentelemetry.md is
// its reference.
package otel

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/export/meter"
)

// Config of an exporter. How and where it sends, the standard's variables say.
type Config struct {
	Getenv func(string) string
	// Which records connections give, when one has gone quiet, and how many are
	// held.
	Flows    Flows
	Quiet    time.Duration
	MaxFlows int
	// Metrics as of now; nil for none.
	Metrics func(context.Context) (*meter.Snapshot, error)
	// Who tells.
	Version, Host, Node string
	Kubernetes          bool
	Log                 *slog.Logger
	// What may be sent after the end.
	Linger time.Duration
}

// Exporter sends to one receiver of logs, one of metrics, or both.
type Exporter struct {
	cfg     Config
	ledger  *ledger
	sender  *sender                  // nil where logs are not sent
	meter   *sdkmetric.MeterProvider // nil where metrics are not sent
	states  []*state
	targets []any
}

const scope = "github.com/orb8/orb8"

// Open gives nil where the variables name no receiver.
func Open(ctx context.Context, cfg Config) (*Exporter, error) {
	s, err := environment(cfg.Getenv).settings()
	if err != nil {
		return nil, fmt.Errorf("OpenTelemetry: %w", err)
	}
	if s.logs == nil && (s.metrics == nil || cfg.Metrics == nil) {
		return nil, nil
	}
	who, err := resources(ctx, &cfg)
	if err != nil {
		return nil, fmt.Errorf("OpenTelemetry: %w", err)
	}
	// The libraries' own log is of the process, prints to standard error, and prints
	// settings.
	otel.SetLogger(logr.Discard())
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		cfg.Log.Debug("OpenTelemetry", "error", brief(err))
	}))
	e := &Exporter{cfg: cfg, ledger: newLedger(cfg.Flows, cfg.Quiet, cfg.MaxFlows)}
	if s.logs != nil {
		err = e.openLogs(&s, who)
	}
	if s.metrics != nil && cfg.Metrics != nil && err == nil {
		err = e.openMetrics(ctx, &s, who)
	}
	if err != nil {
		e.Close()
		return nil, fmt.Errorf("OpenTelemetry: %w", err)
	}
	return e, nil
}

func (e *Exporter) openLogs(s *settings, who *resource.Resource) error {
	out, err := s.logs.logs(e.cfg.Version)
	if err != nil {
		return err
	}
	st := &state{log: e.cfg.Log, what: "log records are", host: s.logs.host}
	e.sender = newSender(out, s.batching, s.logs.timeout, st)
	e.sender.envelope = newEnvelope(who, e.cfg.Version)
	st.lost = e.sender.dropped
	e.ledger.tell = e.sender.put
	e.states = append(e.states, st)
	e.targets = append(e.targets, "logs", s.logs.host)
	return nil
}

// Kinds of events that Consume is to be given; none where logs are not sent.
func (e *Exporter) Kinds() []event.Kind {
	if e == nil || e.sender == nil {
		return nil
	}
	return append(e.ledger.kinds(), event.KindDrop, event.KindDNS)
}

// sweepEvery is how often connections that went quiet are looked for.
const sweepEvery = 5 * time.Second

// Consume sends events until their queue is closed, and lingers for what was not
// sent then. Without logs it is not called.
func (e *Exporter) Consume(events <-chan []event.Event) {
	ctx, cut := context.WithCancel(context.Background())
	defer cut()
	var sending sync.WaitGroup
	sending.Go(func() { e.sender.run(ctx) })
	e.take(events)
	stop := time.AfterFunc(e.cfg.Linger, cut)
	defer stop.Stop()
	e.ledger.tell = func(r *record) { e.sender.wait(ctx, r) }
	e.ledger.end()
	close(e.sender.queue)
	sending.Wait()
}

func (e *Exporter) take(events <-chan []event.Event) {
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	var r record
	for {
		select {
		case batch, more := <-events:
			if !more {
				return
			}
			for i := range batch {
				switch ev := &batch[i]; {
				case ev.Drop != nil:
					r = record{flow: ev.Flow, at: ev.Time, drop: ev.Drop}
					e.sender.put(&r)
				case ev.Lookup != nil:
					r = record{flow: ev.Flow, at: ev.Time, lookup: ev.Lookup}
					e.sender.put(&r)
				default:
					e.ledger.add(ev)
				}
			}
		case now := <-sweep.C:
			e.ledger.sweep(now)
		}
	}
}

// Losses is what was to be sent and was not.
func (e *Exporter) Losses() []event.Loss {
	if e == nil || e.sender == nil || e.sender.dropped() == 0 {
		return nil
	}
	return []event.Loss{{
		Stage: "otlp", Count: e.sender.dropped(),
		Hint: "log records for which the queue had no room (OTEL_BLRP_MAX_QUEUE_SIZE), or that the OpenTelemetry receiver refused or did not take within a minute: the agent's log says why",
	}}
}

// Notes say what is not taken.
func (e *Exporter) Notes() (notes []string) {
	if e == nil {
		return nil
	}
	for _, s := range e.states {
		if note := s.note(); note != "" {
			notes = append(notes, note)
		}
	}
	return notes
}

// Targets are for the log: logs and metrics, each with its receiver.
func (e *Exporter) Targets() []any { return e.targets }

// Close ends the connections. Whoever is asked for metrics may have ended already:
// they are not sent once more.
func (e *Exporter) Close() {
	if e == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if e.meter != nil {
		_ = e.meter.Shutdown(ctx)
	}
	if e.sender != nil {
		e.sender.out.close()
	}
}
