// SPDX-License-Identifier: Apache-2.0

package prom

import (
	"runtime"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/export/meter"
)

func (x *exposition) self() {
	s := &x.Self
	x.gauge("orb8_build_info", "1, with the version as a label.").set(1, labels("version", s.Version, "goversion", runtime.Version())...)
	x.gauge("orb8_agent_uptime_seconds", "Since the agent began to count.").set(s.Uptime.Seconds())
	x.counter("orb8_events_processed_total", "Updates of connections that were read from the kernel.").set(float64(s.Processed))
	lost := x.counter("orb8_events_dropped_total", "What was not delivered or not told apart, by stage.")
	for _, l := range s.Dropped {
		lost.set(float64(l.Count), label("stage", l.Stage))
	}
	x.gauge("orb8_pods_tracked", "Pods that the agent knows.").set(float64(s.Pods))
	cpu := x.counter("orb8_agent_cpu_seconds_total", "Processor time of the agent, without that of its kernel programs.")
	cpu.set(s.System.Seconds(), label("mode", "system"))
	cpu.set(s.User.Seconds(), label("mode", "user"))
	x.gauge("orb8_agent_resident_memory_bytes", "Memory of the agent that is resident.").set(float64(s.Resident))
	x.gauge("orb8_agent_kernel_maps_bytes", "Memory that the kernel holds for the agent's maps.").set(float64(s.Kernel))
	used := x.gauge("orb8_table_entries", "Entries of a table: kernel is the one that was read last, flows the agent's own.")
	room := x.gauge("orb8_table_max_entries", "Entries that a table has room for.")
	for _, t := range s.Tables {
		used.set(float64(t.Entries), label("table", t.Name))
		room.set(float64(t.Room), label("table", t.Name))
	}
	runs := x.counter("orb8_bpf_program_runs_total", "Runs of the agent's kernel programs, while the kernel counts them.")
	seconds := x.counter("orb8_bpf_program_seconds_total", "Processor time of the agent's kernel programs, while the kernel counts it.")
	for _, p := range s.Programs {
		runs.set(float64(p.Runs), label("program", p.Name))
		seconds.set(p.Time.Seconds(), label("program", p.Name))
	}
}

// tap tells how all that passed the interfaces was counted.
func (x *exposition) tap() {
	bytes := x.counter("orb8_tap_bytes_total", "Bytes that the tap counted, by what became of them; class flows is what the series of orb8_network_bytes_total hold.")
	packets := x.counter("orb8_tap_packets_total", "Packets that the tap counted, by what became of them.")
	deviceBytes := x.counter("orb8_interface_bytes_total", "Bytes that the tapped interfaces counted themselves.")
	devicePackets := x.counter("orb8_interface_packets_total", "Packets that the tapped interfaces counted themselves.")
	lostBytes := x.gauge("orb8_tap_unaccounted_bytes", "Bytes that the interfaces counted and the tap did not, or the other way round.")
	lostPackets := x.gauge("orb8_tap_unaccounted_packets", "Packets that the interfaces counted and the tap did not, or the other way round.")
	for _, d := range [...]struct {
		name string
		tap  *meter.Tap
	}{{"egress", &x.Self.Egress}, {"ingress", &x.Self.Ingress}} {
		t := d.tap
		for _, c := range [...]struct {
			name string
			n    event.Counter
		}{
			{"carried", t.Carried},
			{"flows", t.Flows},
			{"forwarded", t.Forwarded},
			{"malformed", t.Malformed},
			{"not_ip", t.NotIP},
			{"overflow", t.Overflow},
			{"unplaced", t.Unplaced},
		} {
			l := labels("class", c.name, "direction", d.name)
			bytes.set(float64(c.n.Bytes), l...)
			packets.set(float64(c.n.Packets), l...)
		}
		l := label("direction", d.name)
		deviceBytes.set(float64(t.Device.Bytes), l)
		devicePackets.set(float64(t.Device.Packets), l)
		lostBytes.set(float64(t.Unaccounted.Bytes), l)
		lostPackets.set(float64(t.Unaccounted.Packets), l)
	}
}

// caps tells how near the metrics are to their bound.
func (x *exposition) caps() {
	n := x.gauge("orb8_metrics_series", "Series of a metric, of which there are orb8_metrics_max_series at the most.")
	beyond := x.counter("orb8_metrics_beyond_total", "Updates that were counted under "+meter.Other+", for want of a series of their own.")
	x.gauge("orb8_metrics_max_series", "Series that a metric may have.").set(float64(x.MaxSeries))
	for m := range meter.Metrics {
		l := label("metric", m.String())
		n.set(float64(x.Series[m]), l)
		beyond.set(float64(x.Beyond[m]), l)
	}
}
