// SPDX-License-Identifier: Apache-2.0

package prom

import (
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"

	"github.com/orb8/orb8/internal/export/meter"
)

// family is a metric with its series, which are allocated many at a time.
type family struct {
	*dto.MetricFamily
	slab []sample
}

type sample struct {
	metric  dto.Metric
	counter dto.Counter
	gauge   dto.Gauge
	value   float64
}

func (f *family) sample(labels []*dto.LabelPair, value float64) *sample {
	if len(f.slab) == cap(f.slab) {
		f.slab = make([]sample, 0, min(max(8, 2*cap(f.slab)), 1024))
	}
	f.slab = f.slab[:len(f.slab)+1]
	s := &f.slab[len(f.slab)-1]
	s.metric.Label, s.value = labels, value
	f.Metric = append(f.Metric, &s.metric)
	return s
}

// set adds a series with its value.
func (f *family) set(value float64, labels ...*dto.LabelPair) {
	s := f.sample(labels, value)
	if f.GetType() == dto.MetricType_GAUGE {
		s.gauge.Value = &s.value
		s.metric.Gauge = &s.gauge
		return
	}
	s.counter.Value = &s.value
	s.metric.Counter = &s.counter
}

// count adds a counter that begins with 0.
func (f *family) count(one *series, n uint64) {
	if one.fresh {
		n = 0
	}
	f.set(float64(n), one.labels...)
}

// zeroThreshold is the library's own: only 0 itself is in the bucket of zero.
const zeroThreshold = 2.938735877055719e-39

// histogram adds one, with its native and its classic buckets.
func (f *family) histogram(one *series, h *meter.Histogram) {
	if one.fresh {
		h = &meter.Histogram{}
	}
	out := &dto.Histogram{
		SampleCount: &h.Count, SampleSum: new(float64(h.Sum) / 1e9),
		Schema: new(int32(meter.Schema)), ZeroThreshold: new(zeroThreshold), ZeroCount: new(uint64(0)),
	}
	sum := uint64(0)
	for i := range meter.Bounds {
		sum += h.Classic[i]
		out.Bucket = append(out.Bucket, &dto.Bucket{UpperBound: &meter.Bounds[i], CumulativeCount: new(sum)})
	}
	native(out, h)
	f.Metric = append(f.Metric, &dto.Metric{Label: one.labels, Histogram: out})
}

// native adds the buckets that hold something, and the few between them, as spans
// of neighbours, and each as what it has more than the one before.
func native(out *dto.Histogram, h *meter.Histogram) {
	next, before := 0, int64(0)
	add := func(n uint64) {
		span := out.PositiveSpan[len(out.PositiveSpan)-1]
		*span.Length++
		out.PositiveDelta = append(out.PositiveDelta, int64(n)-before)
		before = int64(n)
		next++
	}
	begin := func(offset int) {
		out.PositiveSpan = append(out.PositiveSpan, &dto.BucketSpan{Offset: new(int32(offset)), Length: new(uint32(0))})
	}
	for i, n := range h.Native {
		if n == 0 {
			continue
		}
		switch gap := i - next; {
		case len(out.PositiveSpan) == 0:
			begin(i + meter.MinBucket)
			next = i
		case gap > 2:
			begin(gap)
			next = i
		}
		for next < i {
			add(0)
		}
		add(n)
	}
	if len(out.PositiveSpan) == 0 { // else it would be taken for a classic one
		begin(0)
	}
}

// label makes one.
func label(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

// labels makes a sorted list of pairs of name and value. An empty value is the
// same as none.
func labels(pairs ...string) []*dto.LabelPair {
	list := make([]*dto.LabelPair, 0, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			list = append(list, label(pairs[i], pairs[i+1]))
		}
	}
	slices.SortFunc(list, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
	return list
}

func ofOwn(o *meter.Own, more ...string) []*dto.LabelPair {
	return labels(append(more, "namespace", o.Namespace, "workload", o.Workload, "workload_kind", o.Kind, "pod", o.Pod)...)
}

func ofPair(l *meter.Labels, more ...string) []*dto.LabelPair {
	p := &l.Peer
	return ofOwn(&l.Own, append(more,
		"peer_class", p.Class, "peer_namespace", p.Namespace, "peer_workload", p.Workload, "peer_pod", p.Pod, "peer_fqdn", p.FQDN)...)
}
