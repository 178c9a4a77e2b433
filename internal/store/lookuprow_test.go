// SPDX-License-Identifier: Apache-2.0

package store

import (
	"testing"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/filter"
)

// What is known is what was asked about: who asks what clients asked is not told
// that there is more, which servers answered.
func TestLookupsKnownByRole(t *testing.T) {
	s := NewLookups(0)
	for _, role := range []event.Role{event.RoleClient, event.RoleServer, event.RoleServer} {
		s.Add(web("web-0"), &event.Identity{Class: event.ClassExternal}, &event.Lookup{Role: role, Name: "a", Tries: 1, Asked: 1, Answered: 2})
	}
	none := filter.Filter{Include: filter.Fields{Pods: []string{"nobody"}}}
	for _, c := range []struct {
		roles []event.Role
		known int
	}{{[]event.Role{event.RoleClient}, 1}, {nil, 2}} {
		if a := s.Query(&none, c.roles, 10, 3); a.Known != c.known || a.Matched != 0 {
			t.Errorf("%v: %+v", c.roles, a)
		}
	}
}
