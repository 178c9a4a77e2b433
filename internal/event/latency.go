// SPDX-License-Identifier: Apache-2.0

package event

import "math/bits"

// LatencyBuckets is how many buckets a histogram of latencies has: the last one
// begins at 62 s.
const LatencyBuckets = 200

// Latencies is a histogram with buckets of 6 to 12 percent. The zero value is
// empty. The number of a bucket is on the wire: see dns.proto.
type Latencies struct {
	Counts [LatencyBuckets]uint32
	Count  uint64
	// Microseconds.
	Sum uint64
}

// LatencyBucket is the bucket of a latency.
func LatencyBucket(ns int64) int {
	us := uint64(max(ns, 0)) / 1000
	if us < 16 {
		return int(us)
	}
	shift := bits.Len64(us) - 4 // the upper four bits of us are 8 to 15
	return min(shift*8+int(us>>shift), LatencyBuckets-1)
}

// LatencyBound is where a bucket begins, in microseconds.
func LatencyBound(bucket int) uint64 {
	if bucket < 16 {
		return uint64(bucket)
	}
	return uint64(8+bucket%8) << (bucket/8 - 1)
}

// Add counts one.
func (l *Latencies) Add(ns int64) {
	l.Counts[LatencyBucket(ns)]++
	l.Count++
	l.Sum += uint64(max(ns, 0)) / 1000
}

// Merge adds o to l.
func (l *Latencies) Merge(o *Latencies) {
	for i, n := range o.Counts {
		l.Counts[i] += n
	}
	l.Count += o.Count
	l.Sum += o.Sum
}

// Quantile gives the microseconds that the part q (0 to 1) is not above, by the
// middle of a bucket; ok is false where there is nothing.
func (l *Latencies) Quantile(q float64) (us uint64, ok bool) {
	if l.Count == 0 {
		return 0, false
	}
	rank := uint64(q * float64(l.Count-1))
	var seen uint64
	for i, n := range l.Counts {
		if seen += uint64(n); seen > rank {
			low := LatencyBound(i)
			if i == LatencyBuckets-1 {
				return low, true
			}
			return low + (LatencyBound(i+1)-low)/2, true
		}
	}
	return LatencyBound(LatencyBuckets - 1), true
}
