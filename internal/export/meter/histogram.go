// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"math"
	"slices"

	"github.com/orb8/orb8/internal/event"
)

// Schema of the native buckets: four for each power of two, 19 % wide. Those
// from MinBucket on are there, the first and the last also hold what is beyond.
const (
	Schema    = 2
	MinBucket = -80 // up to 0.95 µs
	Buckets   = 105 // the last up to 64 s
)

// Bounds of the classic buckets, in seconds; what is beyond has no bound.
var Bounds = [...]float64{25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 100e-3, 500e-3, 2.5}

// HistogramSeries is how many series one histogram is: its classic buckets, sum
// and count.
const HistogramSeries = len(Bounds) + 3

// Histogram counts times, in native and in classic buckets.
type Histogram struct {
	Count uint64
	// Nanoseconds.
	Sum uint64
	// Not cumulative.
	Native  [Buckets]uint64
	Classic [len(Bounds) + 1]uint64
}

// steps are the bounds of the native buckets within a power of two.
var steps = [...]float64{0.5, 0.5946035575013605, 0.7071067811865475, 0.8408964152537144}

func (h *Histogram) add(ns int64) {
	ns = max(ns, 0)
	h.Count++
	h.Sum += uint64(ns)
	v := float64(ns) / 1e9
	i := 0
	for i < len(Bounds) && v > Bounds[i] {
		i++
	}
	h.Classic[i]++
	h.Native[native(v)]++
}

// native is the bucket of v: its bound is the first that v is not above.
func native(v float64) int {
	if v <= 0 {
		return 0
	}
	frac, exp := math.Frexp(v)
	step := 0
	for step < len(steps) && frac > steps[step] {
		step++
	}
	return min(max((exp-1)<<Schema+step-MinBucket, 0), Buckets-1)
}

// Timing is the times of an end; what was not seen is nil.
type Timing struct {
	Own   *Own
	Since int64

	RTT, Handshake *Histogram
	// Of look-ups, as client and as server.
	DNS [2]*Histogram
}

func (t *Timing) of(m Metric, role event.Role) **Histogram {
	switch m {
	case RTT:
		return &t.RTT
	case Handshake:
		return &t.Handshake
	}
	return &t.DNS[side(role)]
}

// clone is a copy that does not change.
func (t *Timing) clone() Timing {
	c := *t
	for _, h := range [...]**Histogram{&c.RTT, &c.Handshake, &c.DNS[0], &c.DNS[1]} {
		if *h != nil {
			copied := **h
			*h = &copied
		}
	}
	return c
}

// side is the place of a role.
func side(r event.Role) int {
	if r == event.RoleServer {
		return 1
	}
	return 0
}

// Roles are the names of the sides.
var Roles = [2]string{"client", "server"}

// Tally is a count by name.
type Tally struct {
	Name  string
	Count uint64
}

func find(list []Tally, name string) int {
	return slices.IndexFunc(list, func(t Tally) bool { return t.Name == name })
}
