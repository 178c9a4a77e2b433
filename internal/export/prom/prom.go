// SPDX-License-Identifier: Apache-2.0

// Package prom tells what was counted to Prometheus: it renders snapshots of
// the meter, by the official library, as text, OpenMetrics or protobuf. It
// counts nothing itself and says nothing that is not in a snapshot. The agent
// serves it at /metrics.
package prom

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/export/meter"
)

// maxScrapes bounds those that are answered at one time.
const maxScrapes = 4

// Handler serves what take gives.
func Handler(take func() (*meter.Snapshot, error)) http.Handler {
	return promhttp.HandlerFor(NewGatherer(take), promhttp.HandlerOpts{
		EnableOpenMetrics:   true,
		MaxRequestsInFlight: maxScrapes,
	})
}

// Gatherer turns snapshots into metric families.
//
// A series begins with 0: that is what it is when it is shown for the first
// time. What a counter had counted when it was first scraped is not part of any
// increase that Prometheus computes.
type Gatherer struct {
	take func() (*meter.Snapshot, error)

	mu sync.Mutex
	// Series that were shown, and in which round last.
	shown map[key]*series
	round uint64
	// What was last told of GPUs' accounts, and of RDMA ports.
	told   map[account]*event.GPUAccount
	wires  map[wire]told
	xids   map[string]heard
	speeds map[string]speed
}

// key is what makes a series one and not another: its labels' address in
// snapshots, and what comes to them.
type key struct {
	of   any
	kind kind
	sub  string
}

type kind uint8

const (
	whole kind = iota
	ingress
	egress
	failed
	dropped
	queries // of a client, and of a server
	_
	responses
	_
	times
	joule
	linked
	throttled
	xid
	rdmaBytes
	rdmaPackets
	rdmaCounter
	dcgmJoule
)

type series struct {
	labels []*dto.LabelPair
	round  uint64
	// It is shown for the first time.
	fresh bool
	// Of what several sources may feed.
	total float64
}

// NewGatherer makes one that has shown nothing.
func NewGatherer(take func() (*meter.Snapshot, error)) *Gatherer {
	return &Gatherer{take: take, shown: map[key]*series{}, wires: map[wire]told{}, xids: map[string]heard{}}
}

// Gather makes it a prometheus.Gatherer.
func (g *Gatherer) Gather() ([]*dto.MetricFamily, error) {
	s, err := g.take()
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.round++
	x := &exposition{Gatherer: g, Snapshot: s}
	x.network()
	x.connections()
	x.ends()
	x.times()
	x.self()
	x.tap()
	x.caps()
	x.gpu()
	for k, one := range g.shown {
		if one.round != g.round {
			delete(g.shown, k)
		}
	}
	return x.families(), nil
}

// series is one that a snapshot has; label is asked for its labels once.
func (g *Gatherer) series(k key, label func() []*dto.LabelPair) *series {
	one := g.shown[k]
	switch {
	case one == nil:
		one = &series{labels: label(), fresh: true}
		g.shown[k] = one
	case one.round != g.round:
		one.fresh = false
	}
	one.round = g.round
	return one
}

// exposition is one answer.
type exposition struct {
	*Gatherer
	*meter.Snapshot
	all []*family
	// Under dcgm-exporter's name; nil without.
	joules *rising
}

func (x *exposition) families() []*dto.MetricFamily {
	out := make([]*dto.MetricFamily, 0, len(x.all))
	for _, f := range x.all {
		if len(f.Metric) > 0 {
			out = append(out, f.MetricFamily)
		}
	}
	slices.SortFunc(out, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return out
}

func (x *exposition) family(t dto.MetricType, name, help string) *family {
	f := &family{MetricFamily: &dto.MetricFamily{Name: &name, Help: &help, Type: &t}}
	x.all = append(x.all, f)
	return f
}

func (x *exposition) counter(name, help string) *family {
	return x.family(dto.MetricType_COUNTER, name, help)
}

func (x *exposition) gauge(name, help string) *family {
	return x.family(dto.MetricType_GAUGE, name, help)
}
