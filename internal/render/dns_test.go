// SPDX-License-Identifier: Apache-2.0

package render

import (
	"testing"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
)

func TestOutsideNames(t *testing.T) {
	for _, c := range []struct{ name, source, want string }{
		{"s3.eu-central-1.amazonaws.com", "dns", "s3.eu-central-1.amazonaws.com"},
		{"_sip._tcp.example.com", "dns", "_sip._tcp.example.com"},
		{"xn--bcher-kva.example", "sni", "xn--bcher-kva.example"},
		{"a.b.2c", "dns", "a.b.2c"},
		{"storage", "cidr", "storage"},
		{"storage", "dns", `"storage"`},
		{"apiserver", "sni", `"apiserver"`},
		{"10.0.0.1", "sni", `"10.0.0.1"`},
		{"::1", "sni", `"::1"`},
		{"kube-system/coredns", "sni", `"kube-system/coredns"`},
		{"-/sshd.service", "dns", `"-/sshd.service"`},
		{"a.example.com:80→b", "dns", `"a.example.com:80→b"`},
		{"аpple.com", "dns", `"аpple.com"`}, // not a Latin а
		{"...", "dns", `"..."`},
	} {
		if got := Name(&orb8v1.End{Ip: "203.0.113.9", Class: "external", Fqdn: c.name, FqdnSource: c.source}); got != c.want {
			t.Errorf("%s by %s is %s, want %s", c.name, c.source, got, c.want)
		}
	}
}

func TestLatencies(t *testing.T) {
	if AddLatencies(nil, nil) != nil {
		t.Error("nothing")
	}
	a := &orb8v1.Latencies{Buckets: []uint32{3, 40}, Counts: []uint64{98, 1}, SumUs: 10}
	b := &orb8v1.Latencies{Buckets: []uint32{40, 100}, Counts: []uint64{1, 1 << 40}, SumUs: 5}
	sum := AddLatencies(a, b)
	if sum.SumUs != 15 || len(sum.Buckets) != 3 || sum.Counts[1] != 2 || len(a.Buckets) != 2 {
		t.Errorf("sum %v", sum)
	}
	if got, ok := quantile(a, 0.5); !ok || got != 3 {
		t.Errorf("half of %v: %d", a, got)
	}
	// More than the counters of a histogram hold.
	low, high := event.LatencyBound(100), event.LatencyBound(101)
	if got, ok := quantile(sum, 0.5); !ok || got < low || got > high {
		t.Errorf("half of %v: %d, not %d to %d", sum, got, low, high)
	}
	if _, ok := quantile(nil, 0.5); ok {
		t.Error("of nothing")
	}
}
