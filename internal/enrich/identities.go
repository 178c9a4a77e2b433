// SPDX-License-Identifier: Apache-2.0

package enrich

import "github.com/orb8/orb8/internal/event"

// identities keeps one identity of each kind that is told apart, so that
// connections share it: those of the last two spans, a span being as many as
// half the bound.
type identities[K comparable] struct {
	half       int
	young, old map[K]*event.Identity
}

func newIdentities[K comparable](bound int) *identities[K] {
	return &identities[K]{half: max(1, bound/2), young: map[K]*event.Identity{}}
}

func (s *identities[K]) get(k K) *event.Identity {
	id := s.young[k]
	if id == nil {
		if id = s.old[k]; id != nil {
			s.put(k, id)
		}
	}
	return id
}

func (s *identities[K]) put(k K, id *event.Identity) {
	if len(s.young) >= s.half {
		s.old, s.young = s.young, make(map[K]*event.Identity, s.half)
	}
	s.young[k] = id
}
