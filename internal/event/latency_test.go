// SPDX-License-Identifier: Apache-2.0

package event

import "testing"

func TestLatencyBuckets(t *testing.T) {
	for i := range LatencyBuckets {
		at := int64(LatencyBound(i)) * 1000
		if got := LatencyBucket(at); got != i {
			t.Fatalf("bucket %d begins at %d ns, which is in bucket %d", i, at, got)
		}
		if i > 0 && LatencyBucket(at-1) != i-1 {
			t.Fatalf("what is before %d ns is in bucket %d", at, LatencyBucket(at-1))
		}
	}
	if LatencyBucket(1<<62) != LatencyBuckets-1 || LatencyBucket(-5) != 0 {
		t.Error("what is out of range belongs to the ends")
	}
}

func TestLatencyQuantile(t *testing.T) {
	var l, sum Latencies
	if _, ok := l.Quantile(0.5); ok {
		t.Error("of nothing there is no median")
	}
	for us := int64(1); us <= 10_000; us++ {
		l.Add(us * 1000)
	}
	sum.Merge(&l)
	sum.Merge(&l)
	for _, h := range []*Latencies{&l, &sum} {
		for q, want := range map[float64]float64{0: 1, 0.5: 5000, 0.99: 9900, 1: 10_000} {
			got, ok := h.Quantile(q)
			if off := (float64(got) - want) / want; !ok || off > 0.07 || off < -0.07 {
				t.Errorf("quantile %v: %d, want %v", q, got, want)
			}
		}
	}
	if sum.Count != 20_000 || sum.Sum != 2*l.Sum || l.Sum != 50_005_000 {
		t.Errorf("%d, %d, %d", sum.Count, sum.Sum, l.Sum)
	}
}
