// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"time"

	"github.com/orb8/orb8/internal/event"
)

// Snapshot is what was counted up to a moment. It does not change, but for the
// labels it shares nothing with the meter, and labels of one series are at one
// address as long as it is there.
type Snapshot struct {
	Level     Level
	MaxSeries int
	Start     time.Time

	// The last of each is what is beyond the cap.
	Pairs   []Pair
	Ends    []End
	Timings []Timing
	Active  []Active

	// Series that there are, and increments that had none of their own.
	Series [Metrics]int
	Beyond [Metrics]uint64
	// All that Pairs hold, and what was counted for no pair.
	Total, Apart event.Traffic

	Self Self

	// nil: there are no GPUs and no RDMA devices, or they are not known yet.
	GPU *event.GPUView
	// Tell of GPUs under dcgm-exporter's names, too; there they have their node's.
	DCGMNames bool
	Node      string
}

// Active is how many connections an end has.
type Active struct {
	Own   *Own
	Flows int
}

// Snapshot copies the numbers; each visits the connections that there are.
func (m *Meter) Snapshot(each func(visit func(*event.Flow))) *Snapshot {
	s := &Snapshot{
		Level: m.cfg.Level, MaxSeries: m.cfg.MaxSeries, Start: m.cfg.Start,
		Pairs:   make([]Pair, 0, len(m.pairs)+1),
		Ends:    make([]End, 0, len(m.ends)+1),
		Timings: make([]Timing, 0, len(m.timings)+1),
		Series:  m.series, Beyond: m.beyond, Total: m.total, Apart: m.apart,
	}
	for _, p := range m.pairs {
		s.Pairs = append(s.Pairs, *p)
	}
	for _, e := range m.ends {
		s.Ends = append(s.Ends, e.clone())
	}
	for _, t := range m.timings {
		s.Timings = append(s.Timings, t.clone())
	}
	s.Pairs = append(s.Pairs, m.otherPair)
	s.Ends = append(s.Ends, m.otherEnd.clone())
	s.Timings = append(s.Timings, m.otherTiming.clone())
	s.Active = m.active(each)
	return s
}

// active counts connections by their local ends. Most neighbours in the table
// have one in common.
func (m *Meter) active(each func(visit func(*event.Flow))) []Active {
	counts := map[*event.Identity]*int{}
	var last *event.Identity
	n := new(int)
	each(func(f *event.Flow) {
		if f.Local != last {
			last = f.Local
			if n = counts[last]; n == nil {
				n = new(int)
				counts[last] = n
			}
		}
		*n++
	})
	owns := map[Own]int{}
	for id, n := range counts {
		o := m.cfg.Level.own(id)
		if _, known := owns[o]; !known && len(owns) >= m.cfg.MaxSeries {
			o = *m.otherEnd.Own
		}
		owns[o] += *n
	}
	list := make([]Active, 0, len(owns))
	for o, n := range owns {
		list = append(list, Active{&o, n})
	}
	return list
}

// Full lists the metrics that have no room for another set of labels.
func (m *Meter) Full() (full []Metric) {
	for of := range Metrics {
		need := 1
		switch of {
		case Network:
			need = 2
		case RTT, Handshake, DNSLatency:
			need = HistogramSeries
		}
		if m.beyond[of] > 0 && m.series[of]+need > m.cfg.MaxSeries {
			full = append(full, of)
		}
	}
	return full
}

var metricNames = [...]string{
	Network: "orb8_network_bytes_total", Failed: "orb8_connections_failed_total", RTT: "orb8_tcp_rtt_seconds",
	Handshake: "orb8_tcp_handshake_seconds", Drops: "orb8_drops_total", Queries: "orb8_dns_queries_total",
	Responses: "orb8_dns_responses_total", DNSLatency: "orb8_dns_latency_seconds",
}

func (m Metric) String() string { return metricNames[m] }
