// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/orb8/orb8/internal/cluster"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/export/meter"
	"github.com/orb8/orb8/internal/export/prom"
	"github.com/orb8/orb8/internal/probe/stats"
	"github.com/orb8/orb8/internal/store"
)

// metrics is what is told of the pipeline in numbers. It has a lock of its own:
// who asks waits here, and not in the pipeline's way.
type metrics struct {
	// What the kernel's programs cost; nil unless it is asked for.
	programs *stats.Stats

	mu   sync.Mutex
	last *meter.Snapshot
	at   time.Time
	// What was told of what only grows.
	dropped         map[string]uint64
	ingress, egress event.Counter
}

// newMeter counts what the settings say.
func newMeter(cfg *Config, start time.Time) *meter.Meter {
	level, _ := meter.ParseLevel(cfg.MetricsLevel) // finish has looked
	return meter.New(meter.Config{Level: level, MaxSeries: cfg.MetricsMaxSeries, Grace: cfg.MetricsGrace, Start: start})
}

// openStats has the kernel count the cost of its programs, where that is wanted.
// It comes before they are loaded.
func (a *Agent) openStats() {
	if !a.cfg.BPFStats {
		return
	}
	var err error
	if a.programs, err = stats.Open(); err != nil {
		a.programs = nil
		a.cfg.Log.Warn("the cost of kernel programs is not known", "error", err)
		a.problems = append(a.problems, fmt.Sprintf("the cost of kernel programs is not known: %v", err))
	}
}

// watchPrograms tells it of what is loaded once.
func (a *Agent) watchPrograms() {
	if a.programs == nil {
		return
	}
	if a.connects != nil {
		a.connects.probe.Programs(a.programs.Add)
	}
	if a.drops != nil {
		a.drops.probe.Programs(a.programs.Add)
	}
	if a.who.socks != nil {
		a.who.socks.Programs(a.programs.Add)
	}
	if a.spaces != nil && a.spaces.process != nil {
		a.spaces.process.Programs(a.programs.Add)
	}
}

// metricsTime bounds how long an answer waits for the pipeline.
const metricsTime = 5 * time.Second

// metricsHandler answers for Prometheus.
func (a *Agent) metricsHandler(ctx context.Context) http.Handler {
	return prom.Handler(func() (*meter.Snapshot, error) {
		ctx, cancel := context.WithTimeout(ctx, metricsTime)
		defer cancel()
		return a.node.Metrics(ctx)
	})
}

// Metrics gives what was counted up to the last epoch. Who asks often is given
// the same again: anybody may ask.
func (n *node) Metrics(ctx context.Context) (*meter.Snapshot, error) {
	m := &n.metrics
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last != nil && time.Since(m.at) < minSwap {
		return m.last, nil
	}
	var snap *meter.Snapshot
	var losses []event.Loss
	err := n.visit(ctx, false, func() {
		snap = n.meter.Snapshot(n.flows.Each)
		losses = append(n.losses(), n.lookups.unread()...)
		n.describe(snap)
	})
	if err != nil {
		return nil, err
	}
	if n.gpus != nil {
		snap.GPU, snap.DCGMNames, snap.Node = n.gpus.view.Load(), n.cfg.DCGMNames, n.cfg.Node
	}
	s := &snap.Self
	s.Version, s.Uptime = n.cfg.Version, time.Since(n.start)
	s.User, s.System = cpuTimes()
	s.Resident = residentBytes()
	s.Kernel = n.tap.KernelMemory() + n.drops.memory() + n.connects.memory()
	for _, p := range m.programs.Read() {
		s.Programs = append(s.Programs, meter.Program(p))
	}
	s.Dropped = m.rise(losses)
	grow(&m.ingress, &s.Ingress.Device)
	grow(&m.egress, &s.Egress.Device)
	m.last, m.at = snap, time.Now()
	return snap, nil
}

// describe adds what only the pipeline's goroutine may look at.
func (n *node) describe(snap *meter.Snapshot) {
	s := &snap.Self
	table := n.flows.Stats()
	s.Processed = table.Applied
	entries, room := n.tap.Table()
	s.Tables = []meter.Table{{Name: "flows", Entries: table.Flows, Room: table.MaxFlows}, {Name: "kernel", Entries: entries, Room: room}}
	if n.kube != nil {
		s.Pods = n.kube.names.Len()
	}
	if n.drops != nil { // without anything to tell them by
		rest, _ := n.drops.probe.Lost()
		other := &snap.Ends[len(snap.Ends)-1]
		other.AddDrops(rest.Packets)
	}
	unplaced, carried := n.flows.Unplaced(), snap.Apart
	carried.Sub(unplaced)
	in, out := &s.Ingress, &s.Egress
	in.Flows, in.Carried, in.Unplaced = snap.Total.Rx(), carried.Rx(), unplaced.Rx()
	out.Flows, out.Carried, out.Unplaced = snap.Total.Tx(), carried.Tx(), unplaced.Tx()
	for _, i := range n.tap.Interfaces() {
		addAccount(in, &i.Ingress)
		addAccount(out, &i.Egress)
	}
	for i := range n.audits {
		addAudit(in, &n.audits[i].Ingress)
		addAudit(out, &n.audits[i].Egress)
	}
}

func addAccount(t *meter.Tap, a *event.Account) {
	t.Overflow.Add(a.Overflow)
	t.Forwarded.Add(a.Forwarded)
	t.NotIP.Add(a.NotIP)
	t.Malformed.Add(a.Malformed)
}

func addAudit(t *meter.Tap, a *store.Audit) {
	t.Device.Add(a.Device)
	t.Unaccounted.Add(event.Counter{Bytes: distance(a.UnaccountedBytes), Packets: distance(a.UnaccountedPackets)})
}

func distance(n int64) uint64 { return uint64(max(n, -n)) }

// rise sums what was lost by stage. What was told once is not taken back.
func (m *metrics) rise(losses []event.Loss) []event.Loss {
	now := map[string]uint64{}
	for _, l := range losses {
		now[l.Stage] += l.Count
	}
	if m.dropped == nil {
		m.dropped = map[string]uint64{}
	}
	for stage, n := range now {
		m.dropped[stage] = max(m.dropped[stage], n)
	}
	all := make([]event.Loss, 0, len(m.dropped))
	for stage, n := range m.dropped {
		all = append(all, event.Loss{Stage: stage, Count: n})
	}
	slices.SortFunc(all, func(a, b event.Loss) int { return strings.Compare(a.Stage, b.Stage) })
	return all
}

// grow makes now no less than was told before.
func grow(told, now *event.Counter) {
	now.Bytes, now.Packets = max(now.Bytes, told.Bytes), max(now.Packets, told.Packets)
	*told = *now
}

// sweep ends the series of pods that are gone. It looks at all pods of the
// cluster, so not in each epoch.
func (p *pipeline) sweep() {
	if p.last.Sub(p.swept) < p.cfg.MetricsGrace/5 {
		return
	}
	p.swept = p.last
	living := p.meter.Living()
	if p.cluster != nil {
		p.cluster.Pods(func(pod *cluster.Pod, gone int64) bool {
			if gone == 0 && pod.Ended == 0 && pod.Phase != "Succeeded" && pod.Phase != "Failed" {
				living.Add(identityOf(pod), pod.Node == p.cfg.Node)
			}
			return true
		})
	}
	p.meter.Sweep(p.last, living)
}

// capped is what status says of metrics.
func (p *pipeline) capped() []string {
	full := p.meter.Full()
	if len(full) == 0 {
		return nil
	}
	names := make([]string, len(full))
	for i, m := range full {
		names[i] = m.String()
	}
	return []string{fmt.Sprintf("%d series each, and no more, of %s: what is new is counted under %s (ORB8_METRICS_MAX_SERIES, ORB8_METRICS_LEVEL)",
		p.cfg.MetricsMaxSeries, strings.Join(names, ", "), meter.Other)}
}
