// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"strings"

	"github.com/orb8/orb8/internal/event"
)

// End is about one end of a connection, or about a pod.
type End struct {
	Namespaces []string
	// Name, or namespace/name.
	Pods []string
	// Name, or Kind/Name, of which Kind in any case.
	Workloads []string
	Labels    []Label
	// Name, or namespace/name.
	Services []string
	// The node that the end is on.
	Nodes []string
	// Of what is outside of the cluster. What has no name is never meant.
	FQDNs []Glob
}

// Empty tells that nothing is asked.
func (e *End) Empty() bool {
	return len(e.Namespaces)+len(e.Pods)+len(e.Workloads)+len(e.Labels)+len(e.Services)+len(e.Nodes)+len(e.FQDNs) == 0
}

// Pods lets a pod through as a Filter does a flow.
type Pods struct{ Include, Exclude End }

// Match tells whether f lets the pod through.
func (f *Pods) Match(pod *event.Identity) bool {
	every := true
	f.Include.each(pod, func(holds bool) bool { every = holds; return holds })
	if !every {
		return false
	}
	any := false
	f.Exclude.each(pod, func(holds bool) bool { any = holds; return !holds })
	return !any
}

// each asks every field that is set, until ask says false.
func (e *End) each(id *event.Identity, ask func(bool) bool) bool {
	return field(e.Namespaces, ask, func(n string) bool { return n == id.Namespace }) &&
		field(e.Pods, ask, func(n string) bool { return isPod(id, n) }) &&
		field(e.Workloads, ask, func(n string) bool { return worksFor(id, n) }) &&
		field(e.Labels, ask, func(l Label) bool { return l.of(id) }) &&
		field(e.Services, ask, func(n string) bool { return serves(id, n) }) &&
		field(e.Nodes, ask, func(n string) bool { return n == id.Node }) &&
		field(e.FQDNs, ask, func(g Glob) bool { return g.Match(id.FQDN) })
}

// Label is a wish about one label of a pod. What is no pod has no labels, and
// no wish about them holds.
type Label struct {
	Key, Value string
	// Wanted is how the pod's value is to be.
	Wanted LabelValue
}

// LabelValue is how the value of a label is to be.
type LabelValue uint8

// LabelAny: the label is there. LabelOther: it is not there either.
const (
	LabelAny LabelValue = iota
	LabelSame
	LabelOther
)

func (l *Label) of(id *event.Identity) bool {
	if id.Pod == "" {
		return false
	}
	value, has := id.Labels[l.Key]
	switch l.Wanted {
	case LabelSame:
		return has && value == l.Value
	case LabelOther:
		return !has || value != l.Value
	}
	return has
}

func isPod(id *event.Identity, want string) bool {
	return named(want, id.Namespace, id.Pod, same)
}

// worksFor: nobody remembers how the letters of a kind are.
func worksFor(id *event.Identity, want string) bool {
	return named(want, id.Workload.Kind, id.Workload.Name, strings.EqualFold)
}

// serves: a Service is kept as namespace/name, and one that is not known as what
// is known of it.
func serves(id *event.Identity, want string) bool {
	namespace, name, ok := strings.Cut(id.Service, "/")
	if !ok {
		namespace, name = "", id.Service
	}
	return named(want, namespace, name, same)
}

func same(a, b string) bool { return a == b }

// named tells whether want is the name, or prefix/name, without making either.
// alike compares prefixes.
func named(want, prefix, name string, alike func(a, b string) bool) bool {
	if name == "" {
		return false
	}
	if want == name {
		return true
	}
	n := len(prefix)
	return len(want) == n+1+len(name) && want[n] == '/' && want[n+1:] == name && alike(want[:n], prefix)
}
