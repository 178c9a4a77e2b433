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
			samePCI(want, g.PCI) || want == strconv.Itoa(g.Index)
	})
}

// samePCI: nvidia-smi writes a domain with eight digits, the kernel with four, and
// people none where it is 0.
func samePCI(a, b string) bool {
	domainA, a := cutDomain(a)
	domainB, b := cutDomain(b)
	return a != "" && strings.EqualFold(a, b) && strings.EqualFold(domainA, domainB)
}

func cutDomain(address string) (domain, rest string) {
	if strings.Count(address, ":") != 2 {
		return "", address
	}
	domain, rest, _ = strings.Cut(address, ":")
	return strings.TrimLeft(domain, "0"), rest
}

// MatchShares tells whether one of the devices is.
func (f GPUs) MatchShares(shares []event.GPUShare) bool {
	return len(f) == 0 || slices.ContainsFunc(shares, func(s event.GPUShare) bool { return f.Match(s.GPU) })
}

// Of is a holder with what it has of the devices alone. What is found of it, and
// what its network does, is not of one device, and stays.
func (f GPUs) Of(h *event.GPUHolder) *event.GPUHolder {
	other := func(s event.GPUShare) bool { return !f.Match(s.GPU) }
	if !slices.ContainsFunc(h.Shares, other) {
		return h
	}
	part := *h
	part.Shares = slices.DeleteFunc(slices.Clone(h.Shares), other)
	return &part
}

// OfEvent is an event with what it tells of the devices alone.
func (f GPUs) OfEvent(e *event.GPUEvent) *event.GPUEvent {
	if e.Sample == nil {
		return e
	}
	part := *e
	part.Sample = f.Of(e.Sample)
	return &part
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
