// SPDX-License-Identifier: Apache-2.0

package enrich

import (
	"github.com/orb8/orb8/internal/cluster"
	"github.com/orb8/orb8/internal/event"
)

// end is what makes a remote end one and not another, where it is more than who
// has the address.
type end struct {
	base *event.Identity
	// As which it was asked; nil: as the API server.
	service *event.Identity
}

// remote gives the identity of the other side.
func (e *Enricher) remote(f *event.Flow) *event.Identity {
	id := e.known(f)
	if id == e.external && e.cfg.Names != nil {
		return e.outside(f)
	}
	return id
}

// known is who of the cluster or the machine had the other side's address when the
// connection was first seen.
func (e *Enricher) known(f *event.Flow) *event.Identity {
	c := &f.Conn
	if e.cfg.Cluster == nil {
		switch {
		case isLoopback(&c.Remote):
			return e.itself(f)
		case e.own(c.Remote):
			return e.host
		}
		return e.external
	}
	if isNobodys(&c.Remote) {
		return e.nobody
	}
	if c.Remote == c.Local || isLoopback(&c.Remote) {
		return e.itself(f)
	}
	a := e.cfg.Cluster.At(c.Remote)
	if f.OpenedBy == event.OpenerRemote {
		return e.holder(f, a, c.Remote)
	}
	if s := a.Service(c.RemotePort, c.Protocol); s != nil {
		return e.served(f, s)
	}
	id := e.holder(f, a, c.Remote)
	if id.Class == event.ClassNode {
		if s := e.cfg.Cluster.NodePort(c.RemotePort, c.Protocol); s != nil {
			return e.served(f, s)
		}
	}
	return e.behind(f, a, e.atPort(id, a, c.RemotePort, c.Protocol))
}

// served is who serves a connection to a Service: until the host has said so,
// the Service.
func (e *Enricher) served(f *event.Flow, s *event.Identity) *event.Identity {
	t := f.NAT
	switch {
	case t == nil:
		if f.Conn.Netns != e.cfg.Netns && e.want(f) {
			return e.served(f, s)
		}
		return s
	case t.OfSocket:
		return s
	}
	var id *event.Identity
	if t.Remote == f.Conn.Local {
		id = e.itself(f)
	} else {
		a := e.cfg.Cluster.At(t.Remote)
		id = e.atPort(e.holder(f, a, t.Remote), a, t.RemotePort, f.Conn.Protocol)
	}
	return e.intoEnd(end{base: id, service: s})
}

// socketLB stands for a Service that a socket asked for, and no packet.
const socketLB = "unknown (socket LB)"

// behind adds the Service that an endpoint is asked as: in the host's namespace
// the packets show the endpoint where the socket asked for the Service, and who
// asks for a Service without an address has its endpoints' from the beginning.
func (e *Enricher) behind(f *event.Flow, a *cluster.Address, id *event.Identity) *event.Identity {
	c := &f.Conn
	var service *event.Identity
	switch {
	case f.NAT != nil && f.NAT.OfSocket:
		service = e.asked(f)
	case f.NAT == nil && (c.Netns == e.cfg.Netns || e.balanced(f)) && a.Endpoint(c.RemotePort, c.Protocol):
		if c.Netns == e.cfg.Netns && e.want(f) {
			return e.behind(f, a, id)
		}
		if e.balanced(f) {
			service = e.named(socketLB)
		}
	default:
		service = a.Headless(c.RemotePort, c.Protocol)
	}
	if was := f.Remote; service == nil && was != nil && was.Service != "" && was.Class == id.Class && was.PodUID == id.PodUID {
		service = e.named(was.Service) // it does not serve there any more
	}
	if service == nil {
		return id
	}
	return e.intoEnd(end{base: id, service: service})
}

// balanced: its socket may have asked for a Service.
func (e *Enricher) balanced(f *event.Flow) bool {
	return f.OpenedBy == event.OpenerLocal && e.cfg.SocketLB != nil && e.cfg.SocketLB()
}

// asked is the Service that a socket of the host's asked for.
func (e *Enricher) asked(f *event.Flow) *event.Identity {
	t := f.NAT
	a := e.cfg.Cluster.At(t.Remote)
	if s := a.Service(t.RemotePort, f.Conn.Protocol); s != nil {
		return s
	}
	if id, _ := e.cfg.Cluster.Holder(a, f.First); id != nil && id.Class == event.ClassNode || e.own(t.Remote) {
		return e.cfg.Cluster.NodePort(t.RemotePort, f.Conn.Protocol)
	}
	return nil
}

// holder is who had an address when the connection was first seen. That nobody
// has it any more takes no name away.
func (e *Enricher) holder(f *event.Flow, a *cluster.Address, ip event.IP) *event.Identity {
	m := e.cfg.Cluster
	id, standing := m.Holder(a, f.First)
	switch {
	case f.Remote != nil && e.outlives(f, ip, id):
		return f.Remote
	case standing == cluster.Held:
		return id
	case standing == cluster.Past:
		e.again.late(f.Conn)
		return id
	case standing == cluster.Between:
		e.again.late(f.Conn)
		return e.nobody
	case e.own(ip):
		return e.node
	}
	if s := a.Service(0, 0); s != nil {
		return s // another port of it, or an echo
	}
	switch {
	case a.APIServer(0, 0):
		return e.apiServer // no node: a load balancer, or a control plane that hides
	case wasNamed(f, ip):
		return f.Remote
	case m.Synced() && !isLinkLocal(&ip):
		return e.external
	}
	return e.nobody
}

// outlives tells that a name was given which stays, because nothing says any
// more who had the address then: its pod is forgotten, or the clock went back.
func (e *Enricher) outlives(f *event.Flow, ip event.IP, id *event.Identity) bool {
	was := f.Remote
	if was == id || !wasNamed(f, ip) {
		return false
	}
	if f.First > e.again.now {
		return true
	}
	other := id == nil || was.PodUID != id.PodUID
	return other && was.PodUID != "" && e.cfg.Cluster.Pod(was.PodUID) == nil
}

// wasNamed tells that it was known once who has an address of the other side.
func wasNamed(f *event.Flow, ip event.IP) bool {
	if f.Remote == nil {
		return false
	}
	switch f.Remote.Class {
	case event.ClassUnknown, event.ClassExternal:
		return false
	case event.ClassService:
		return ip == f.Conn.Remote // else it is who serves there that is asked for
	}
	return true
}

// atPort tells the API server from the node that it is on.
func (e *Enricher) atPort(id *event.Identity, a *cluster.Address, port uint16, protocol event.Protocol) *event.Identity {
	if id.Class == event.ClassPod || id.Class == event.ClassAPIServer || !a.APIServer(port, protocol) {
		return id
	}
	return e.intoEnd(end{base: id})
}

// itself is the local end seen from outside: what it says to localhost or to its
// own address stays with it.
func (e *Enricher) itself(f *event.Flow) *event.Identity {
	switch l := f.Local; {
	case f.Conn.Netns == e.cfg.Netns:
		return e.host
	case l.Class == event.ClassPod:
		return e.podBy(l.PodUID).base
	}
	return e.unknown
}

// named is a Service of which the cluster tells no more.
func (e *Enricher) named(service string) *event.Identity {
	id := e.past.get(service)
	if id == nil {
		id = &event.Identity{Class: event.ClassService, Service: service}
		e.past.put(service, id)
	}
	return id
}

func (e *Enricher) own(ip event.IP) bool { return e.cfg.Own != nil && e.cfg.Own(ip) }

func (e *Enricher) intoEnd(k end) *event.Identity {
	id := e.ends.get(k)
	switch {
	case id != nil:
		return id
	case k.service != nil && k.base.Service == k.service.Service:
		return k.base
	}
	made := *k.base
	if k.service == nil {
		made.Class = event.ClassAPIServer
	} else {
		made.Service = k.service.Service
	}
	e.ends.put(k, &made)
	return &made
}

func isLoopback(ip *event.IP) bool {
	if isIPv4(ip) {
		return ip[12] == 127
	}
	return *ip == event.IP{15: 1}
}

// isNobodys: the address of who has none yet, of a group, or of all.
func isNobodys(ip *event.IP) bool {
	if isIPv4(ip) {
		return ip[12]>>4 == 0xe || *(*[4]byte)(ip[12:]) == ([4]byte{}) || *(*[4]byte)(ip[12:]) == ([4]byte{255, 255, 255, 255})
	}
	return ip[0] == 0xff || *ip == event.IP{}
}

// isLinkLocal: who has it is not far, whoever it is. Of IPv4 these are clouds'
// own servers.
func isLinkLocal(ip *event.IP) bool { return ip[0] == 0xfe && ip[1]>>6 == 2 }

func isIPv4(ip *event.IP) bool { return *(*[12]byte)(ip[:12]) == [12]byte{10: 0xff, 11: 0xff} }
