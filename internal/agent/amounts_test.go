// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"math"
	"testing"
)

func TestAmounts(t *testing.T) {
	for text, want := range map[string]float64{
		"0": 0, "1": 1, "0.2": 0.2, ".5": 0.5, "20%": 0.2, "150%": 1.5, "500m": 0.5, "0.5%": 0.005,
	} {
		var c cores
		if err := c.Set(text); err != nil || float64(c) != want {
			t.Errorf("%q is %v cores: %v; want %v", text, c, err, want)
		}
	}
	for _, text := range []string{"", "%", "m", "-1", "1e3", "NaN", "Inf", "0x1p4", "1 core", "1.2.3", "0.5 %", "1%m", "10m%", "123456789012345678901"} {
		var c cores
		if err := c.Set(text); err == nil {
			t.Errorf("%q is taken for %v cores", text, c)
		}
	}
	for text, want := range map[string]uint64{
		"0": 0, "1048576": 1 << 20, "256MiB": 256 << 20, "256Mi": 256 << 20, "256 MiB": 256 << 20, "1.5GiB": 3 << 29,
		"256MB": 256e6, "256M": 256e6, "64Ki": 64 << 10, "1K": 1000, "2G": 2e9, "12B": 12,
		"256mib": 256 << 20, "256MIB": 256 << 20, "256mb": 256e6, "64ki": 64 << 10, "1k": 1000,
	} {
		var s size
		if err := s.Set(text); err != nil || uint64(s) != want {
			t.Errorf("%q is %d bytes: %v; want %d", text, uint64(s), err, want)
		}
	}
	for _, text := range []string{"", "B", "i", "iB", "M", "MiB", "12i", "12iB", "-1", "1e9", "256MBB", "256bb", "12ib", "1MMi", "99999999G", "0x10", " 1"} {
		var s size
		if err := s.Set(text); err == nil {
			t.Errorf("%q is taken for %d bytes", text, uint64(s))
		}
	}
	for n, want := range map[uint64]string{0: "0", 512: "512B", 256 << 20: "256MiB", 2 << 30: "2GiB", 1500000: "1.4MiB"} {
		if got := sizeText(n); got != want {
			t.Errorf("%d bytes are %s, want %s", n, got, want)
		}
	}
}

// FuzzAmounts: what is accepted is a plain amount, and what is shown of it is
// accepted again and means the same.
func FuzzAmounts(f *testing.F) {
	for _, seed := range []string{"0.2", "20%", "500m", "256MiB", "1.5Gi", "64K", "1 MB", "iB", "..", "1e9", "", "18446744073709551615"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var c, again cores
		if c.Set(text) == nil {
			v := float64(c)
			if v < 0 || math.IsNaN(v) || math.IsInf(v, 0) {
				t.Errorf("%q is %v cores", text, v)
			}
			if v >= 0.0001 && v < 1e6 && (again.Set(c.String()) != nil || again != c) {
				t.Errorf("%q is %v cores, shown as %q and read as %v", text, v, c.String(), again)
			}
		}
		var s, shown size
		if s.Set(text) == nil {
			if s >= 1<<53 {
				t.Errorf("%q is %d bytes", text, uint64(s))
			}
			if err := shown.Set(s.String()); err != nil || math.Abs(float64(shown)-float64(s)) > 1<<17 {
				t.Errorf("%q is %d bytes, shown as %q and read as %d: %v", text, uint64(s), s.String(), uint64(shown), err)
			}
		}
	})
}
