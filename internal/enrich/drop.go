// SPDX-License-Identifier: Apache-2.0

package enrich

import "github.com/orb8/orb8/internal/event"

// Dropped gives the connection that packets were dropped of, its ends as well as
// they are known: those of the flow, where the tap has seen one; else whose the
// namespace is, and who has the addresses. The local end is whom it met: of what
// passes through the host the pod of this node, the receiver before the sender.
func (e *Enricher) Dropped(d *event.Drop) event.Flow {
	if e.cfg.Flows != nil {
		if f := e.cfg.Flows.Get(d.Conn); f != nil && f.Local != nil && f.Remote != nil {
			return *f
		}
	}
	f := event.Flow{Conn: d.Conn, First: d.First, Last: d.Last}
	c := &f.Conn
	if c.Netns == e.cfg.Netns && !e.own(c.Local) && e.own(c.Remote) {
		turn(&f)
	}
	known := c.Local != event.IP{} || c.Remote != event.IP{}
	switch {
	case !known:
		f.Local, f.Remote = e.resident(c.Netns), e.nobody
	case c.Netns != 0 && (c.Netns != e.cfg.Netns || e.cfg.Own == nil || e.own(c.Local) || isLoopback(&c.Local)):
		f.Local = e.resident(c.Netns)
		f.Remote = e.addressee(&f, c.Remote, c.RemotePort)
	default:
		f.Local = e.addressee(&f, c.Local, c.LocalPort)
		f.Remote = e.addressee(&f, c.Remote, c.RemotePort)
		if !e.here(f.Local) && e.here(f.Remote) {
			turn(&f)
		}
	}
	return f
}

// Party is the pod that an end is in, else the end: what is counted by pod does
// not tell its containers and processes apart.
func (e *Enricher) Party(id *event.Identity) *event.Identity {
	if id.Class != event.ClassPod || e.cfg.Cluster == nil {
		return id
	}
	if base := e.podBy(id.PodUID).base; base.Pod != "" || id.Pod == "" {
		return base
	}
	return id // the cluster has forgotten it
}

// Met is who a drop is counted for: the local end, and the host of what passes
// through it between others.
func (e *Enricher) Met(f *event.Flow) *event.Identity {
	switch {
	case e.here(f.Local):
		return e.Party(f.Local)
	case f.Conn.Netns == e.cfg.Netns && f.Conn.Netns != 0:
		return e.host
	}
	return e.unknown
}

// here tells that an end is on this node.
func (e *Enricher) here(id *event.Identity) bool { return id.Node == e.cfg.Node && id.Node != "" }

// resident is whose a namespace is.
func (e *Enricher) resident(netns uint32) *event.Identity {
	switch {
	case netns == 0:
		return e.unknown
	case netns == e.cfg.Netns, e.cfg.Netns == 0:
		return e.host
	case e.cfg.Cluster != nil && e.cfg.Sandboxes != nil:
		if p := e.again.space(e, netns).pod; p.base != nil {
			return p.base
		}
	}
	return e.unknown
}

// addressee is who has an address now, or the Service that it is of. The host is
// not asked who serves that.
func (e *Enricher) addressee(f *event.Flow, ip event.IP, port uint16) *event.Identity {
	switch {
	case e.cfg.Cluster == nil && e.own(ip):
		return e.host
	case e.cfg.Cluster == nil:
		return e.external
	case isNobodys(&ip):
		return e.nobody
	case isLoopback(&ip):
		return e.resident(f.Conn.Netns)
	}
	a := e.cfg.Cluster.At(ip)
	if s := a.Service(port, f.Conn.Protocol); s != nil {
		return s
	}
	return e.holder(f, a, ip)
}

// turn makes the remote end the local one.
func turn(f *event.Flow) {
	c := &f.Conn
	c.Local, c.Remote = c.Remote, c.Local
	f.Local, f.Remote = f.Remote, f.Local
	switch c.Kind {
	case event.ConnPlain:
		c.LocalPort, c.RemotePort = c.RemotePort, c.LocalPort
	case event.ConnEchoOpenedLocal:
		c.Kind = event.ConnEchoOpenedRemote
	case event.ConnEchoOpenedRemote:
		c.Kind = event.ConnEchoOpenedLocal
	}
}
