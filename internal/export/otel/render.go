// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"math"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/export/meter"
)

// rendering makes metrics of one snapshot. Those without a point are left out.
type rendering struct {
	now, start time.Time
	// Histograms with exponential buckets, else with the classic ones.
	exponential bool
	out         []metricdata.Metrics
}

func render(s *meter.Snapshot, now time.Time, exponential bool) []metricdata.Metrics {
	r := &rendering{now: now, start: s.Start, exponential: exponential}
	r.network(s)
	r.connections(s)
	r.ends(s)
	r.timings(s)
	r.self(s)
	return r.out
}

// points are of one metric.
type points struct {
	r    *rendering
	list []metricdata.DataPoint[int64]
}

func (p *points) add(since time.Time, n uint64, attrs ...attribute.KeyValue) {
	p.list = append(p.list, metricdata.DataPoint[int64]{
		Attributes: attribute.NewSet(attrs...), StartTime: since, Time: p.r.now, Value: int64(min(n, math.MaxInt64)),
	})
}

// sum is of what only grows.
func (p *points) sum(name, unit, help string) {
	if len(p.list) > 0 {
		p.r.put(name, unit, help, metricdata.Sum[int64]{DataPoints: p.list, Temporality: metricdata.CumulativeTemporality, IsMonotonic: true})
	}
}

func (p *points) gauge(name, unit, help string) {
	if len(p.list) > 0 {
		p.r.put(name, unit, help, metricdata.Gauge[int64]{DataPoints: p.list})
	}
}

func (r *rendering) put(name, unit, help string, data metricdata.Aggregation) {
	r.out = append(r.out, metricdata.Metrics{Name: name, Unit: unit, Description: help, Data: data})
}

func own(o *meter.Own) []attribute.KeyValue {
	return named(nil,
		semconv.K8SNamespaceNameKey.String(o.Namespace),
		semconv.K8SPodNameKey.String(o.Pod),
		attribute.String("orb8.workload.kind", o.Kind),
		attribute.String("orb8.workload.name", o.Workload),
	)
}

func pair(l *meter.Labels) []attribute.KeyValue {
	return named(own(&l.Own),
		attribute.String("orb8.peer.class", l.Peer.Class),
		attribute.String("orb8.peer.namespace", l.Peer.Namespace),
		attribute.String("orb8.peer.workload.name", l.Peer.Workload),
		attribute.String("orb8.peer.pod", l.Peer.Pod),
		attribute.String("orb8.peer.fqdn", l.Peer.FQDN),
		semconv.NetworkTransportKey.String(strings.ToLower(l.Protocol)),
	)
}

// named adds those that say something.
func named(to []attribute.KeyValue, all ...attribute.KeyValue) []attribute.KeyValue {
	for _, kv := range all {
		if kv.Value.AsString() != "" {
			to = append(to, kv)
		}
	}
	return to
}

// with is a copy with one more.
func with(attrs []attribute.KeyValue, more ...attribute.KeyValue) []attribute.KeyValue {
	return append(attrs[:len(attrs):len(attrs)], more...)
}

func (r *rendering) network(s *meter.Snapshot) {
	bytes, packets := points{r: r}, points{r: r}
	for i := range s.Pairs {
		p := &s.Pairs[i]
		attrs, since := pair(p.Labels), time.Unix(0, p.Since)
		tx, rx := with(attrs, semconv.NetworkIODirectionTransmit), with(attrs, semconv.NetworkIODirectionReceive)
		bytes.add(since, p.Tx.Bytes, tx...)
		bytes.add(since, p.Rx.Bytes, rx...)
		packets.add(since, p.Tx.Packets, tx...)
		packets.add(since, p.Rx.Packets, rx...)
	}
	bytes.sum("orb8.network.io", "By", "Bytes on the wire, as the local end sends and receives them.")
	packets.sum("orb8.network.packets", "{packet}", "Packets on the wire, as the local end sends and receives them.")
}

func (r *rendering) connections(s *meter.Snapshot) {
	opened, failed, resent, active := points{r: r}, points{r: r}, points{r: r}, points{r: r}
	for i := range s.Pairs {
		p := &s.Pairs[i]
		attrs, since := pair(p.Labels), time.Unix(0, p.Since)
		opened.add(since, p.Opened, attrs...)
		for why, n := range p.Failed {
			if n > 0 {
				failed.add(since, n, with(attrs, semconv.ErrorTypeKey.String(event.Failure(why).String()))...)
			}
		}
		if p.TCP {
			resent.add(since, p.Resent, attrs...)
		}
	}
	for _, a := range s.Active {
		active.add(r.start, uint64(a.Flows), own(a.Own)...)
	}
	opened.sum("orb8.connections.opened", "{connection}", "Connections that were opened, of either end.")
	failed.sum("orb8.connections.failed", "{connection}", "Connections that were never open, by why.")
	resent.sum("orb8.tcp.retransmits", "{segment}", "Segments that the local end sent again.")
	if len(active.list) > 0 {
		r.put("orb8.connections.active", "{connection}", "Connections that the agent knows.",
			metricdata.Sum[int64]{DataPoints: active.list, Temporality: metricdata.CumulativeTemporality})
	}
}

func role(side int) attribute.KeyValue { return attribute.String("orb8.dns.role", meter.Roles[side]) }

func (r *rendering) ends(s *meter.Snapshot) {
	drops, queries, responses, timeouts, waste := points{r: r}, points{r: r}, points{r: r}, points{r: r}, points{r: r}
	for i := range s.Ends {
		e := &s.Ends[i]
		attrs, since := own(e.Own), time.Unix(0, e.Since)
		for _, d := range e.Drops {
			drops.add(since, d.Count, with(attrs, attribute.String("orb8.drop.reason", d.Name))...)
		}
		for side, d := range e.DNS {
			if d == nil {
				continue
			}
			asked := with(attrs, role(side))
			queries.add(since, d.Queries, asked...)
			timeouts.add(since, d.Timeouts, asked...)
			waste.add(since, d.Waste, asked...)
			for _, code := range d.Responses {
				responses.add(since, code.Count, with(asked, attribute.String("orb8.dns.rcode", code.Name))...)
			}
		}
	}
	drops.sum("orb8.drop.packets", "{packet}", "Packets that the kernel dropped, by why.")
	queries.sum("orb8.dns.queries", "{query}", "Questions to the DNS, those included that were sent again.")
	responses.sum("orb8.dns.responses", "{response}", "Answers of the DNS, by response code.")
	timeouts.sum("orb8.dns.timeouts", "{lookup}", "Look-ups that nobody answered.")
	waste.sum("orb8.dns.search_waste", "{query}", "Names that do not exist and were asked for because of a search list.")
}

func (r *rendering) timings(s *meter.Snapshot) {
	rtt, handshake, lookup := histograms{r: r}, histograms{r: r}, histograms{r: r}
	for i := range s.Timings {
		t := &s.Timings[i]
		attrs, since := own(t.Own), time.Unix(0, t.Since)
		rtt.add(since, t.RTT, attrs)
		handshake.add(since, t.Handshake, attrs)
		for side, h := range t.DNS {
			lookup.add(since, h, with(attrs, role(side)))
		}
	}
	rtt.put("orb8.tcp.rtt", "Smoothed round-trip time of sockets as they send.")
	handshake.put("orb8.tcp.handshake.duration", "From the first SYN to its answer.")
	lookup.put("orb8.dns.lookup.duration", "From the first question to the answer.")
}

// histograms are of one metric, in seconds, of one of the two sorts.
type histograms struct {
	r           *rendering
	classic     []metricdata.HistogramDataPoint[float64]
	exponential []metricdata.ExponentialHistogramDataPoint[float64]
}

func (hs *histograms) add(since time.Time, h *meter.Histogram, attrs []attribute.KeyValue) {
	if h == nil {
		return
	}
	set, sum := attribute.NewSet(attrs...), float64(h.Sum)/1e9
	if hs.r.exponential {
		hs.exponential = append(hs.exponential, metricdata.ExponentialHistogramDataPoint[float64]{
			Attributes: set, StartTime: since, Time: hs.r.now, Count: h.Count, Sum: sum, Scale: meter.Schema,
			// The meter numbers a bucket by its upper bound, the SDK by its lower one.
			PositiveBucket: metricdata.ExponentialBucket{Offset: meter.MinBucket - 1, Counts: h.Native[:]},
		})
		return
	}
	hs.classic = append(hs.classic, metricdata.HistogramDataPoint[float64]{
		Attributes: set, StartTime: since, Time: hs.r.now, Count: h.Count, Sum: sum,
		Bounds: meter.Bounds[:], BucketCounts: h.Classic[:],
	})
}

func (hs *histograms) put(name, help string) {
	switch {
	case len(hs.exponential) > 0:
		hs.r.put(name, "s", help, metricdata.ExponentialHistogram[float64]{DataPoints: hs.exponential, Temporality: metricdata.CumulativeTemporality})
	case len(hs.classic) > 0:
		hs.r.put(name, "s", help, metricdata.Histogram[float64]{DataPoints: hs.classic, Temporality: metricdata.CumulativeTemporality})
	}
}
