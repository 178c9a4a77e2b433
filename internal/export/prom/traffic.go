// SPDX-License-Identifier: Apache-2.0

package prom

import (
	dto "github.com/prometheus/client_model/go"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/export/meter"
)

func (x *exposition) network() {
	bytes := x.counter("orb8_network_bytes_total", "Bytes on the wire, Ethernet header included, that the local end sent (egress) and received (ingress).")
	packets := x.counter("orb8_network_packets_total", "Segments that the local end sent (egress) and received (ingress).")
	for i := range x.Pairs {
		p := &x.Pairs[i]
		if p.Unused() {
			continue
		}
		for _, d := range [...]struct {
			kind  kind
			name  string
			moved *event.Counter
		}{{ingress, "ingress", &p.Rx}, {egress, "egress", &p.Tx}} {
			one := x.series(key{p.Labels, d.kind, ""}, func() []*dto.LabelPair {
				return ofPair(p.Labels, "protocol", p.Labels.Protocol, "direction", d.name)
			})
			bytes.count(one, d.moved.Bytes)
			packets.count(one, d.moved.Packets)
		}
	}
}

func (x *exposition) connections() {
	opened := x.counter("orb8_connections_opened_total", "Connections that were opened, by either end.")
	fails := x.counter("orb8_connections_failed_total", "Connections that were never open, by reason: refused, timed_out, unreachable, reset, given_up.")
	resent := x.counter("orb8_tcp_retransmits_total", "TCP segments that the local end sent again.")
	for i := range x.Pairs {
		p := &x.Pairs[i]
		if p.Unused() {
			continue
		}
		one := x.series(key{p.Labels, whole, ""}, func() []*dto.LabelPair { return ofPair(p.Labels, "protocol", p.Labels.Protocol) })
		opened.count(one, p.Opened)
		if p.TCP {
			resent.count(one, p.Resent)
		}
		for why, n := range p.Failed {
			if n == 0 {
				continue
			}
			reason := event.Failure(why).String()
			one := x.series(key{p.Labels, failed, reason}, func() []*dto.LabelPair {
				return ofPair(p.Labels, "protocol", p.Labels.Protocol, "reason", reason)
			})
			fails.count(one, n)
		}
	}
	active := x.gauge("orb8_active_flows", "Connections in the agent's table.")
	for _, a := range x.Active {
		active.set(float64(a.Flows), ofOwn(a.Own)...)
	}
}

func (x *exposition) ends() {
	drops := x.counter("orb8_drops_total", "Packets that the kernel dropped, by its reason.")
	asked := x.counter("orb8_dns_queries_total", "Questions to the DNS, those included that were sent again. Role tells whether the end asked or was asked.")
	answers := x.counter("orb8_dns_responses_total", "Answers of the DNS, by response code.")
	timeouts := x.counter("orb8_dns_timeouts_total", "Look-ups that nobody answered.")
	waste := x.counter("orb8_dns_search_waste_total", "Look-ups of names that do not exist, made for a search list alone.")
	for i := range x.Ends {
		e := &x.Ends[i]
		for _, d := range e.Drops {
			one := x.series(key{e.Own, dropped, d.Name}, func() []*dto.LabelPair { return ofOwn(e.Own, "reason", d.Name) })
			drops.count(one, d.Count)
		}
		for side, d := range e.DNS {
			if d == nil {
				continue
			}
			role := meter.Roles[side]
			one := x.series(key{e.Own, queries + kind(side), ""}, func() []*dto.LabelPair { return ofOwn(e.Own, "role", role) })
			asked.count(one, d.Queries)
			timeouts.count(one, d.Timeouts)
			waste.count(one, d.Waste)
			for _, r := range d.Responses {
				one := x.series(key{e.Own, responses + kind(side), r.Name}, func() []*dto.LabelPair {
					return ofOwn(e.Own, "role", role, "rcode", r.Name)
				})
				answers.count(one, r.Count)
			}
		}
	}
}

func (x *exposition) times() {
	const histogram = dto.MetricType_HISTOGRAM
	rtt := x.family(histogram, "orb8_tcp_rtt_seconds", "Smoothed round-trip time of a TCP connection, once for each epoch in which it sent.")
	handshake := x.family(histogram, "orb8_tcp_handshake_seconds", "From the first SYN that the local end sent to its answer.")
	lookup := x.family(histogram, "orb8_dns_latency_seconds", "From the first question to the answer.")
	for i := range x.Timings {
		t := &x.Timings[i]
		for _, of := range [...]struct {
			*family
			h *meter.Histogram
		}{{rtt, t.RTT}, {handshake, t.Handshake}} {
			if of.h != nil {
				of.histogram(x.series(key{t.Own, times, of.GetName()}, func() []*dto.LabelPair { return ofOwn(t.Own) }), of.h)
			}
		}
		for side, h := range t.DNS {
			if h == nil {
				continue
			}
			role := meter.Roles[side]
			one := x.series(key{t.Own, times, role}, func() []*dto.LabelPair { return ofOwn(t.Own, "role", role) })
			lookup.histogram(one, h)
		}
	}
}
