// SPDX-License-Identifier: Apache-2.0

package render

import (
	"math"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
)

// histogram is what a message says; buckets that there are not are the last.
func histogram(l *orb8v1.Latencies) (counts [event.LatencyBuckets]uint64, sum uint64) {
	for i, b := range l.GetBuckets() {
		if i < len(l.GetCounts()) {
			counts[min(b, event.LatencyBuckets-1)] += l.GetCounts()[i]
			sum += l.GetCounts()[i]
		}
	}
	return counts, sum
}

// AddLatencies gives both together; nil where both are.
func AddLatencies(a, b *orb8v1.Latencies) *orb8v1.Latencies {
	if a == nil || b == nil {
		if a == nil {
			return b
		}
		return a
	}
	counts, _ := histogram(a)
	more, _ := histogram(b)
	both := &orb8v1.Latencies{SumUs: a.GetSumUs() + b.GetSumUs()}
	for i := range counts {
		if n := counts[i] + more[i]; n > 0 {
			both.Buckets, both.Counts = append(both.Buckets, uint32(i)), append(both.Counts, n)
		}
	}
	return both
}

// quantile is in microseconds; not ok where there is nothing.
func quantile(l *orb8v1.Latencies, q float64) (us uint64, ok bool) {
	counts, total := histogram(l)
	shift := 0
	for total>>shift > math.MaxUint32 {
		shift++
	}
	var h event.Latencies
	for i, n := range counts {
		h.Counts[i] = uint32(min(n>>shift, math.MaxUint32))
		h.Count += uint64(h.Counts[i])
	}
	return h.Quantile(q)
}

// latencyJSON is a histogram as programs read it.
type latencyJSON struct {
	Count uint64 `json:"count"`
	SumUS uint64 `json:"sum_us"`
	P50US uint64 `json:"p50_us"`
	P99US uint64 `json:"p99_us"`
}

// newLatencyJSON is nil where there is nothing.
func newLatencyJSON(l *orb8v1.Latencies) *latencyJSON {
	half, ok := quantile(l, 0.5)
	if !ok {
		return nil
	}
	most, _ := quantile(l, 0.99)
	_, count := histogram(l)
	return &latencyJSON{Count: count, SumUS: l.GetSumUs(), P50US: half, P99US: most}
}
