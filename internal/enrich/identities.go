// SPDX-License-Identifier: Apache-2.0

package enrich

import (
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/probe/socket"
)

// party is what makes a local end one and not another.
type party struct {
	class  event.Class
	cgroup uint64 // 0 where its path is not known
	pid    uint32
	name   socket.Name
}

// identities keeps one identity a party, so that connections share it: those
// of the last two spans, a span being as many parties as half the bound.
type identities struct {
	half       int
	young, old map[party]*event.Identity
}

func newIdentities(bound int) *identities {
	return &identities{half: max(1, bound/2), young: map[party]*event.Identity{}}
}

func (s *identities) get(p party) *event.Identity {
	id := s.young[p]
	if id == nil {
		if id = s.old[p]; id != nil {
			s.put(p, id)
		}
	}
	return id
}

func (s *identities) put(p party, id *event.Identity) {
	if len(s.young) >= s.half {
		s.old, s.young = s.young, make(map[party]*event.Identity, s.half)
	}
	s.young[p] = id
}
