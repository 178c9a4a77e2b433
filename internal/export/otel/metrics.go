// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/sdk/instrumentation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/orb8/orb8/internal/export/meter"
)

// openMetrics leaves it to the SDK's reader when to send; what, the meter has
// added up already.
func (e *Exporter) openMetrics(ctx context.Context, s *settings, who *resource.Resource) error {
	out, err := s.metrics.metrics(ctx)
	if err != nil {
		return err
	}
	st := &state{log: e.cfg.Log, what: "metrics are", host: s.metrics.host, lost: func() uint64 { return 0 }}
	reader := sdkmetric.NewPeriodicReader(&told{out, st},
		sdkmetric.WithInterval(s.interval),
		// A receiver that is away is asked again at the next interval, with all that
		// was counted since: nothing is lost by that.
		sdkmetric.WithTimeout(min(s.interval, keepBatch)),
		sdkmetric.WithProducer(&producer{e.cfg.Metrics, e.cfg.Version, s.exponential}),
	)
	e.meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithResource(who))
	e.states = append(e.states, st)
	e.targets = append(e.targets, "metrics", s.metrics.host)
	return nil
}

// told is an exporter that says how it goes.
type told struct {
	sdkmetric.Exporter
	state *state
}

func (t *told) Export(ctx context.Context, rm *metricdata.ResourceMetrics) error {
	err := t.Exporter.Export(ctx, rm)
	if err == nil {
		t.state.good()
		return nil
	}
	t.state.bad(err)
	return err
}

// producer renders snapshots as the SDK's metrics.
type producer struct {
	snapshot    func(context.Context) (*meter.Snapshot, error)
	version     string
	exponential bool
}

func (p *producer) Produce(ctx context.Context) ([]metricdata.ScopeMetrics, error) {
	s, err := p.snapshot(ctx)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return []metricdata.ScopeMetrics{{
		Scope:   instrumentation.Scope{Name: scope, Version: p.version},
		Metrics: render(s, time.Now(), p.exponential),
	}}, nil
}
