// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"errors"
	"fmt"
	"strings"
)

// Glob is a pattern for names of the DNS: * is any characters, ? is one; letters
// in any case. The zero value matches nothing.
type Glob struct{ pattern string }

// MaxGlob bounds a pattern: no name of plain characters is longer than that.
const MaxGlob = 255

// NewGlob refuses what no name can match.
func NewGlob(s string) (Glob, error) {
	switch {
	case s == "":
		return Glob{}, errors.New("a pattern is empty (as *.example.com; * is any characters, ? is one)")
	case len(s) > MaxGlob:
		return Glob{}, fmt.Errorf("a pattern has %d bytes, the most is %d", len(s), MaxGlob)
	}
	// Names are kept without their last dot; the root is one.
	if s != "." {
		s = strings.TrimSuffix(s, ".")
	}
	lower := []byte(s)
	for i, c := range lower {
		lower[i] = small(c)
	}
	s = string(lower)
	for strings.Contains(s, "**") {
		s = strings.ReplaceAll(s, "**", "*")
	}
	return Glob{s}, nil
}

// String is the pattern as it is asked about.
func (g Glob) String() string { return g.pattern }

// Match tells whether a name is meant; what has none is not.
func (g Glob) Match(name string) bool {
	if name == "" {
		return false
	}
	// What they end with tells most of them apart.
	pattern := g.pattern
	for pattern != "" && pattern[len(pattern)-1] != '*' {
		if name == "" || !alike(pattern[len(pattern)-1], name[len(name)-1]) {
			return false
		}
		pattern, name = pattern[:len(pattern)-1], name[:len(name)-1]
	}
	if pattern == "" {
		return name == ""
	}
	// What a * took is given more until the rest fits: only the last one, those
	// before it have what they need. The pattern ends with one.
	star, taken := -1, 0
	for p, n := 0, 0; ; {
		switch {
		case p == len(pattern)-1:
			return true
		case pattern[p] == '*':
			star, taken = p, n
			p++
		case n == len(name):
			return false
		case alike(pattern[p], name[n]):
			p++
			n++
		case star >= 0:
			taken++
			p, n = star+1, taken
		default:
			return false
		}
	}
}

// alike tells whether a character of a pattern means one of a name.
func alike(pattern, name byte) bool { return pattern == '?' || pattern == small(name) }

// small is a letter's small form; of other bytes themselves.
func small(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
