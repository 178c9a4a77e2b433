// SPDX-License-Identifier: Apache-2.0

// Package filter holds what a user wants to see, as a value. It decides about
// one flow at a time, allocates nothing while it does, and never fails: what
// cannot be meant is refused where the filter is made. The store asks it.
package filter

import (
	"net/netip"
	"slices"

	"github.com/orb8/orb8/internal/event"
)

// Filter lets a flow through when every field of Include that is set holds,
// and no single field of Exclude does. The zero value lets everything through.
type Filter struct{ Include, Exclude Fields }

// Fields are lists; a list holds when one of its values does.
type Fields struct {
	// Of either end.
	Namespaces, Pods []string
	// Name, or Kind/Name.
	Workloads []string
	Protocols []event.Protocol
	// Src is the end that opened the connection, the local one where that is
	// not known; Dst is the other.
	Ports, SrcPorts, DstPorts []uint16
	IPs, SrcIPs, DstIPs       []netip.Prefix
	// The opener: OpenerRemote is ingress, all else egress.
	Directions []event.Opener
	// The node that made the observation.
	Nodes []string
}

// Match tells whether f lets the flow through.
func (f *Filter) Match(fl *event.Flow) bool {
	every := true
	f.Include.each(fl, func(holds bool) bool { every = holds; return holds })
	if !every {
		return false
	}
	any := false
	f.Exclude.each(fl, func(holds bool) bool { any = holds; return !holds })
	return !any
}

// ends of a flow as the fields see them.
type ends struct {
	srcIP, dstIP     event.IP
	srcPort, dstPort uint16
	hasPorts         bool
}

func endsOf(fl *event.Flow) ends {
	l, r := fl.Conn.Ports()
	e := ends{fl.Conn.Local, fl.Conn.Remote, l, r, l != 0 || r != 0}
	if fl.OpenedBy == event.OpenerRemote {
		e.srcIP, e.dstIP, e.srcPort, e.dstPort = e.dstIP, e.srcIP, e.dstPort, e.srcPort
	}
	return e
}

// each asks every field that is set, until ask says false.
func (f *Fields) each(fl *event.Flow, ask func(bool) bool) {
	_ = field(f.Protocols, ask, func(p event.Protocol) bool { return p == fl.Conn.Protocol }) &&
		field(f.Namespaces, ask, func(n string) bool { return n == fl.Local.Namespace || n == fl.Remote.Namespace }) &&
		field(f.Pods, ask, func(n string) bool { return n == fl.Local.Pod || n == fl.Remote.Pod }) &&
		field(f.Workloads, ask, func(n string) bool { return named(n, fl.Local) || named(n, fl.Remote) }) &&
		field(f.Nodes, ask, func(n string) bool { return n == fl.Local.Node }) &&
		field(f.Directions, ask, func(d event.Opener) bool {
			return (d == event.OpenerRemote) == (fl.OpenedBy == event.OpenerRemote)
		}) &&
		f.eachAddress(endsOf(fl), ask)
}

func (f *Fields) eachAddress(e ends, ask func(bool) bool) bool {
	return field(f.Ports, ask, func(p uint16) bool { return e.hasPorts && (p == e.srcPort || p == e.dstPort) }) &&
		field(f.SrcPorts, ask, func(p uint16) bool { return e.hasPorts && p == e.srcPort }) &&
		field(f.DstPorts, ask, func(p uint16) bool { return e.hasPorts && p == e.dstPort }) &&
		field(f.IPs, ask, func(p netip.Prefix) bool { return p.Contains(e.srcIP.Addr()) || p.Contains(e.dstIP.Addr()) }) &&
		field(f.SrcIPs, ask, func(p netip.Prefix) bool { return p.Contains(e.srcIP.Addr()) }) &&
		field(f.DstIPs, ask, func(p netip.Prefix) bool { return p.Contains(e.dstIP.Addr()) })
}

// field passes on whether one of the values holds; a field that is not set is
// not asked about.
func field[T any](values []T, ask func(bool) bool, holds func(T) bool) bool {
	return len(values) == 0 || ask(slices.ContainsFunc(values, holds))
}

func named(want string, id *event.Identity) bool {
	w := id.Workload
	return w.Name != "" && (want == w.Name || want == w.Kind+"/"+w.Name)
}
