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

// Match tells whether a name is meant; what has none is not. What a * took is taken back by one until
// the rest matches: only the last one's, the others have what they need.
func (g Glob) Match(name string) bool {
	p, n := 0, 0
	star, taken := -1, 0
	for n < len(name) {
		switch {
		case p < len(g.pattern) && g.pattern[p] == '*':
			star, taken = p, n
			p++
		case p < len(g.pattern) && (g.pattern[p] == '?' || g.pattern[p] == small(name[n])):
			p++
			n++
		case star >= 0:
			taken++
			p, n = star+1, taken
		default:
			return false
		}
	}
	for p < len(g.pattern) && g.pattern[p] == '*' {
		p++
	}
	return p == len(g.pattern) && n > 0
}

// small is a letter's small form; of other bytes themselves.
func small(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
