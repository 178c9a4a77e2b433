// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"slices"
	"strconv"
	"strings"

	"github.com/orb8/orb8/internal/event"
)

// GPUs lets devices through by UUID, index or PCI address; with a GPU its
// instances, too. An empty list lets all through.
type GPUs []string

// Match tells whether g is one of them.
func (f GPUs) Match(g *event.GPU) bool {
	return len(f) == 0 || g != nil && slices.ContainsFunc(f, func(want string) bool {
		return strings.EqualFold(want, g.UUID) || strings.EqualFold(want, g.Parent) && want != "" ||
			strings.EqualFold(want, g.PCI) && want != "" || want == strconv.Itoa(g.Index)
	})
}

// MatchShares tells whether one of the devices is.
func (f GPUs) MatchShares(shares []event.GPUShare) bool {
	return len(f) == 0 || slices.ContainsFunc(shares, func(s event.GPUShare) bool { return f.Match(s.GPU) })
}

// MatchEvent tells whether an event is of one of the devices.
func (f GPUs) MatchEvent(e *event.GPUEvent) bool {
	switch {
	case len(f) == 0:
		return true
	case e.Sample != nil:
		return f.MatchShares(e.Sample.Shares)
	case e.Finding != nil:
		return slices.ContainsFunc(e.Finding.GPUs, f.Match)
	}
	return f.Match(e.GPU)
}
