// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/orb8/orb8/internal/export/meter"
)

// self is how the agent does and what it costs.
func (r *rendering) self(s *meter.Snapshot) {
	a := &s.Self
	r.one("orb8.agent.events.processed", "{event}", "Updates of connections, drops and look-ups that were read.", a.Processed)
	lost := points{r: r}
	byStage := map[string]uint64{}
	for _, l := range a.Dropped {
		byStage[l.Stage] += l.Count
	}
	for stage, n := range byStage {
		lost.add(r.start, n, attribute.String("orb8.stage", stage))
	}
	lost.sum("orb8.agent.events.dropped", "{event}", "What was not delivered, or not told apart, by where it happened.")
	r.level("orb8.agent.pods", "{pod}", "Pods of this node that are known.", uint64(a.Pods))
	r.level("process.memory.usage", "By", "Memory of the agent's process.", a.Resident)
	r.level("orb8.agent.kernel.memory", "By", "Memory of the kernel's maps.", a.Kernel)
	r.level("orb8.agent.series.limit", "{series}", "Series that a metric may have.", uint64(s.MaxSeries))
	r.seconds("process.uptime", "Time since the agent began to count.", point{a.Uptime, nil})
	r.seconds("process.cpu.time", "CPU time of the agent's process.",
		point{a.User, []attribute.KeyValue{semconv.CPUModeUser}}, point{a.System, []attribute.KeyValue{semconv.CPUModeSystem}})
	r.beyond(s)
	r.taps(a)
	r.tables(a)
}

func (r *rendering) one(name, unit, help string, n uint64) {
	p := points{r: r}
	p.add(r.start, n)
	p.sum(name, unit, help)
}

func (r *rendering) level(name, unit, help string, n uint64) {
	p := points{r: r}
	p.add(r.start, n)
	p.gauge(name, unit, help)
}

type point struct {
	value time.Duration
	attrs []attribute.KeyValue
}

func (r *rendering) seconds(name, help string, all ...point) {
	var list []metricdata.DataPoint[float64]
	for _, p := range all {
		list = append(list, metricdata.DataPoint[float64]{
			Attributes: attribute.NewSet(p.attrs...), StartTime: r.start, Time: r.now, Value: p.value.Seconds(),
		})
	}
	r.put(name, "s", help, metricdata.Sum[float64]{DataPoints: list, Temporality: metricdata.CumulativeTemporality, IsMonotonic: true})
}

// beyond says of which metrics the cap has bitten.
func (r *rendering) beyond(s *meter.Snapshot) {
	series, beyond := points{r: r}, points{r: r}
	for m := range meter.Metrics {
		name := attribute.String("orb8.metric", m.String())
		series.add(r.start, uint64(s.Series[m]), name)
		beyond.add(r.start, s.Beyond[m], name)
	}
	series.gauge("orb8.agent.series", "{series}", "Series that there are, by the metric's name in Prometheus.")
	beyond.sum("orb8.agent.series.beyond", "{increment}", "Increments that were counted under __other__, for want of room.")
}

func (r *rendering) taps(a *meter.Self) {
	bytes, packets := points{r: r}, points{r: r}
	for _, side := range []struct {
		tap  *meter.Tap
		attr attribute.KeyValue
	}{{&a.Egress, semconv.NetworkIODirectionTransmit}, {&a.Ingress, semconv.NetworkIODirectionReceive}} {
		bytes.add(r.start, side.tap.Unaccounted.Bytes, side.attr)
		packets.add(r.start, side.tap.Unaccounted.Packets, side.attr)
	}
	bytes.gauge("orb8.tap.unaccounted.io", "By", "What the interfaces counted and the tap did not, or the other way round, as of the last audit.")
	packets.gauge("orb8.tap.unaccounted.packets", "{packet}", "What the interfaces counted and the tap did not, or the other way round, as of the last audit.")
}

func (r *rendering) tables(a *meter.Self) {
	entries, room, runs := points{r: r}, points{r: r}, points{r: r}
	var cost []point
	for _, t := range a.Tables {
		name := attribute.String("orb8.table", t.Name)
		entries.add(r.start, uint64(t.Entries), name)
		room.add(r.start, uint64(t.Room), name)
	}
	for _, p := range a.Programs {
		name := attribute.String("orb8.program", p.Name)
		runs.add(r.start, p.Runs, name)
		cost = append(cost, point{p.Time, []attribute.KeyValue{name}})
	}
	entries.gauge("orb8.agent.table.entries", "{entry}", "Entries of the agent's and the kernel's tables.")
	room.gauge("orb8.agent.table.limit", "{entry}", "Entries that there is room for.")
	runs.sum("orb8.agent.program.runs", "{run}", "Runs of the kernel programs, where the kernel counts them.")
	if len(cost) > 0 {
		r.seconds("orb8.agent.program.time", "Time in the kernel programs, where the kernel counts it.", cost...)
	}
}
