// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"regexp"
	"strings"
	"testing"

	"github.com/orb8/orb8/internal/event"
)

func glob(t testing.TB, s string) Glob {
	t.Helper()
	g, err := NewGlob(s)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*.amazonaws.com", "s3.eu-central-1.amazonaws.com", true},
		{"*.AMAZONAWS.com.", "s3.eu-central-1.amazonaws.com", true},
		{"*.amazonaws.com", "Storage.AmazonAWS.com", true},
		{"*.amazonaws.com", "amazonaws.com", false},
		{"*.amazonaws.com", "amazonaws.com.example.org", false},
		{"amazonaws", "s3.amazonaws.com", false},
		{"*amazonaws*", "s3.amazonaws.com", true},
		{"s?.example.com", "s3.example.com", true},
		{"s?.example.com", "s33.example.com", false},
		{"s?.example.com", "s.example.com", false},
		{"a*b*c", "abcbc", true},
		{"a*b*c", "abcb", false},
		{"***", "x", true},
		{"*", "", false},
		{"?", "", false},
		{".", ".", true},
		{"*", ".", true},
		{"x*", "x", true},
		{`\032*`, `\032evil`, true},
		{"[a]", "a", false},
	} {
		if got := glob(t, c.pattern).Match(c.name); got != c.want {
			t.Errorf("%q meets %q: %v", c.pattern, c.name, got)
		}
	}
	for _, bad := range []string{"", strings.Repeat("a", MaxGlob+1)} {
		if g, err := NewGlob(bad); err == nil {
			t.Errorf("%q is %v", bad, g)
		}
	}
	if (Glob{}).Match("x") || (Glob{}).Match("") {
		t.Error("nothing means nothing")
	}
}

// Many stars take no longer than the pattern times the name.
func TestGlobIsBounded(t *testing.T) {
	g := glob(t, strings.Repeat("*a", 127))
	if !g.Match(strings.Repeat("a", 1000)) || g.Match(strings.Repeat("a", 1000)+"b") {
		t.Error("a's")
	}
}

func FuzzGlob(f *testing.F) {
	for _, c := range [][2]string{{"*.example.com", "a.example.com"}, {"a*b*c?", "abcbcx"}, {"?*?", "é"}, {"**..", "x."}, {"A.b", "a.B"}} {
		f.Add(c[0], c[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		g, err := NewGlob(pattern)
		if err != nil || len(name) > 1000 {
			return
		}
		again, err := NewGlob(g.String())
		if g.String() != "" && g.String() != "." && !strings.HasSuffix(g.String(), ".") && (err != nil || again != g) {
			t.Errorf("%q is %q, then %q: %v", pattern, g, again, err)
		}
		// Bytes, as Match sees them.
		latin := func(s string) string {
			var b strings.Builder
			for i := range len(s) {
				b.WriteRune(rune(small(s[i])))
			}
			return b.String()
		}
		expr := strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(latin(g.String())))
		want := name != "" && regexp.MustCompile("^(?s:"+expr+")$").MatchString(latin(name))
		if got := g.Match(name); got != want {
			t.Errorf("%q meets %q: %v", g, name, got)
		}
	})
}

func BenchmarkGlob(b *testing.B) {
	g := glob(b, "*.amazonaws.com")
	b.ReportAllocs()
	for b.Loop() {
		if !g.Match("s3.eu-central-1.amazonaws.com") {
			b.Fatal("not met")
		}
	}
}

func TestFQDNs(t *testing.T) {
	fl := &event.Flow{
		Local:  &event.Identity{Namespace: "shop", Pod: "web-0", Class: event.ClassPod},
		Remote: &event.Identity{Class: event.ClassExternal, FQDN: "s3.amazonaws.com", FQDNSource: event.NameDNS},
	}
	aws, any := []Glob{glob(t, "*.amazonaws.com")}, []Glob{glob(t, "*")}
	for _, c := range []struct {
		filter Filter
		want   bool
	}{
		{Filter{Include: Fields{FQDNs: aws}}, true},
		{Filter{Exclude: Fields{FQDNs: aws}}, false},
		{Filter{Include: Fields{To: End{FQDNs: aws}}}, true},
		{Filter{Include: Fields{From: End{FQDNs: any}}}, false},
		{Filter{Exclude: Fields{From: End{FQDNs: any}}}, true},
		{Filter{Include: Fields{FQDNs: []Glob{glob(t, "*.example.com")}}}, false},
	} {
		if got := c.filter.Match(fl); got != c.want {
			t.Errorf("%+v: %v", c.filter, got)
		}
	}
}

func TestLookups(t *testing.T) {
	l := &event.Lookup{Role: event.RoleClient, Name: "s3.amazonaws.com", Type: 28, RCode: 3, Asked: 100, Answered: 100 + 20e6}
	never := &event.Lookup{Role: event.RoleClient, Name: "db", Type: 1, RCode: event.RCodeTimeout, Asked: 100}
	fields := func(f LookupFields) Lookups { return Lookups{Include: f} }
	not := func(f LookupFields) Lookups { return Lookups{Exclude: f} }
	for _, c := range []struct {
		filter          Lookups
		answered, given bool
	}{
		{Lookups{}, true, true},
		{fields(LookupFields{Names: []Glob{glob(t, "*.amazonaws.com"), glob(t, "x")}}), true, false},
		{not(LookupFields{Names: []Glob{glob(t, "*.amazonaws.com")}}), false, true},
		{fields(LookupFields{RCodes: []event.RCode{2, event.RCodeTimeout}}), false, true},
		{not(LookupFields{RCodes: []event.RCode{3}}), false, true},
		{fields(LookupFields{Types: []uint16{28}}), true, false},
		{fields(LookupFields{Roles: []event.Role{event.RoleServer}}), false, false},
		{fields(LookupFields{SlowerThan: 20e6}), false, true},
		{fields(LookupFields{SlowerThan: 20e6 - 1}), true, true},
		{not(LookupFields{SlowerThan: 1}), false, false},
		{fields(LookupFields{Types: []uint16{28}, RCodes: []event.RCode{2}}), false, false},
	} {
		if a, n := c.filter.Match(l), c.filter.Match(never); a != c.answered || n != c.given {
			t.Errorf("%+v: %v and %v", c.filter, a, n)
		}
	}
	f := fields(LookupFields{Names: []Glob{glob(t, "*.amazonaws.com")}, RCodes: []event.RCode{3}, SlowerThan: 1})
	if n := testing.AllocsPerRun(100, func() { f.Match(l) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What a follower of look-ups costs for each that it is not sent.
func BenchmarkLookups(b *testing.B) {
	f := Lookups{Include: LookupFields{Roles: []event.Role{event.RoleClient}, Names: []Glob{glob(b, "*.amazonaws.com")}, SlowerThan: 1}}
	l := &event.Lookup{Role: event.RoleClient, Name: "api.example.com.shop.svc.cluster.local", Asked: 1, Answered: 1000}
	b.ReportAllocs()
	for b.Loop() {
		if f.Match(l) {
			b.Fatal("sent")
		}
	}
}
