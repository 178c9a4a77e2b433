// SPDX-License-Identifier: Apache-2.0

package filter

import "github.com/orb8/orb8/internal/event"

// Lookups lets a look-up through as a Filter does a flow. The zero value lets
// everything through.
type Lookups struct{ Include, Exclude LookupFields }

// LookupFields are lists; a list holds when one of its values does.
type LookupFields struct {
	Names  []Glob
	RCodes []event.RCode
	Types  []uint16
	Roles  []event.Role
	// Nanoseconds: answered after more than this, or never. 0 is not asked.
	SlowerThan int64
}

// Match tells whether f lets the look-up through.
func (f *Lookups) Match(l *event.Lookup) bool {
	every := true
	f.Include.each(l, func(holds bool) bool { every = holds; return holds })
	if !every {
		return false
	}
	any := false
	f.Exclude.each(l, func(holds bool) bool { any = holds; return !holds })
	return !any
}

// each asks every field that is set, until ask says false.
func (f *LookupFields) each(l *event.Lookup, ask func(bool) bool) {
	_ = field(f.Roles, ask, func(r event.Role) bool { return r == l.Role }) &&
		field(f.RCodes, ask, func(r event.RCode) bool { return r == l.RCode }) &&
		field(f.Types, ask, func(t uint16) bool { return t == l.Type }) &&
		(f.SlowerThan <= 0 || ask(l.Answered == 0 || l.Latency() > f.SlowerThan)) &&
		field(f.Names, ask, func(g Glob) bool { return g.Match(l.Name) })
}
