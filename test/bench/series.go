// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"slices"
)

// series is one number a round.
type series []float64

// quantile interpolates; 0 for a series without rounds.
func (s series) quantile(q float64) float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	at := q * float64(len(sorted)-1)
	low, part := math.Floor(at), at-math.Floor(at)
	high := min(int(low)+1, len(sorted)-1)
	return sorted[int(low)]*(1-part) + sorted[high]*part
}

func (s series) median() float64 { return s.quantile(0.5) }

// minus and over work round by round: what slows a whole round cancels out.
func (s series) minus(o series) series {
	return s.with(o, func(a, b float64) float64 { return a - b })
}

func (s series) over(o series) series {
	return s.with(o, func(a, b float64) float64 { return a / b })
}

func (s series) with(o series, f func(a, b float64) float64) series {
	out := make(series, min(len(s), len(o)))
	for i := range out {
		out[i] = f(s[i], o[i])
	}
	return out
}
