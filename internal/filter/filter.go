// SPDX-License-Identifier: Apache-2.0

// Package filter holds what a user wants to see, as a value. It decides about
// one flow, one pod or one look-up at a time, allocates nothing while it does, and never
// fails: what cannot be meant is refused where the filter is made. The store
// and the services ask it.
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
	Namespaces []string
	// Name, or namespace/name.
	Pods []string
	// Name, or Kind/Name, of which Kind in any case.
	Workloads []string
	Labels    []Label
	// Name, or namespace/name.
	Services []string
	// Of what is outside of the cluster. What has no name is never meant.
	FQDNs     []Glob
	Protocols []event.Protocol
	// Src is the end that opened the connection, the local one where that is
	// not known; Dst is the other. An address or port is that of the socket's
	// tuple or of the one on the wire.
	Ports, SrcPorts, DstPorts []uint16
	IPs, SrcIPs, DstIPs       []netip.Prefix
	// The opener: OpenerRemote is ingress, all else egress.
	Directions []event.Opener
	// The node that made the observation.
	Nodes []string
	// The same ends as Src and Dst.
	From, To End
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

// each asks every field that is set, until ask says false.
func (f *Fields) each(fl *event.Flow, ask func(bool) bool) {
	src, dst := fl.Local, fl.Remote
	if fl.OpenedBy == event.OpenerRemote {
		src, dst = dst, src
	}
	_ = field(f.Protocols, ask, func(p event.Protocol) bool { return p == fl.Conn.Protocol }) &&
		field(f.Namespaces, ask, func(n string) bool { return n == src.Namespace || n == dst.Namespace }) &&
		field(f.Pods, ask, func(n string) bool { return isPod(src, n) || isPod(dst, n) }) &&
		field(f.Workloads, ask, func(n string) bool { return worksFor(src, n) || worksFor(dst, n) }) &&
		field(f.Labels, ask, func(l Label) bool { return l.of(src) || l.of(dst) }) &&
		field(f.Services, ask, func(n string) bool { return serves(src, n) || serves(dst, n) }) &&
		field(f.FQDNs, ask, func(g Glob) bool { return g.Match(src.FQDN) || g.Match(dst.FQDN) }) &&
		field(f.Nodes, ask, func(n string) bool { return n == fl.Local.Node }) &&
		field(f.Directions, ask, func(d event.Opener) bool {
			return (d == event.OpenerRemote) == (fl.OpenedBy == event.OpenerRemote)
		}) &&
		f.From.each(src, ask) &&
		f.To.each(dst, ask) &&
		f.eachAddress(fl, ask)
}

func (f *Fields) eachAddress(fl *event.Flow, ask func(bool) bool) bool {
	if len(f.Ports)+len(f.SrcPorts)+len(f.DstPorts)+len(f.IPs)+len(f.SrcIPs)+len(f.DstIPs) == 0 {
		return true
	}
	e := addressesOf(fl)
	return field(f.Ports, ask, func(p uint16) bool { return e.src.port(p) || e.dst.port(p) }) &&
		field(f.SrcPorts, ask, func(p uint16) bool { return e.src.port(p) }) &&
		field(f.DstPorts, ask, func(p uint16) bool { return e.dst.port(p) }) &&
		field(f.IPs, ask, func(p netip.Prefix) bool { return e.src.in(p) || e.dst.in(p) }) &&
		field(f.SrcIPs, ask, func(p netip.Prefix) bool { return e.src.in(p) }) &&
		field(f.DstIPs, ask, func(p netip.Prefix) bool { return e.dst.in(p) })
}

// addresses of a flow as the fields see them.
type addresses struct{ src, dst address }

// address of one end: the socket's and the wire's, or one of them twice.
type address struct {
	ips   [2]netip.Addr
	ports [2]uint16
	// Else the numbers are no ports.
	hasPorts bool
}

func (a *address) port(p uint16) bool { return a.hasPorts && (p == a.ports[0] || p == a.ports[1]) }

func (a *address) in(p netip.Prefix) bool { return p.Contains(a.ips[0]) || p.Contains(a.ips[1]) }

func addressesOf(fl *event.Flow) addresses {
	l, r := fl.Conn.Ports()
	e := addresses{newAddress(fl.Conn.Local, l), newAddress(fl.Conn.Remote, r)}
	e.src.hasPorts = l != 0 || r != 0
	e.dst.hasPorts = e.src.hasPorts
	if t := fl.NAT; t != nil {
		e.src.ips[1], e.src.ports[1] = t.Local.Addr(), t.LocalPort
		e.dst.ips[1], e.dst.ports[1] = t.Remote.Addr(), t.RemotePort
	}
	if fl.OpenedBy == event.OpenerRemote {
		e.src, e.dst = e.dst, e.src
	}
	return e
}

func newAddress(ip event.IP, port uint16) address {
	a := ip.Addr()
	return address{ips: [2]netip.Addr{a, a}, ports: [2]uint16{port, port}}
}

// field passes on whether one of the values holds; a field that is not set is
// not asked about.
func field[T any](values []T, ask func(bool) bool, holds func(T) bool) bool {
	return len(values) == 0 || ask(slices.ContainsFunc(values, holds))
}
