// SPDX-License-Identifier: Apache-2.0

package enrich

import (
	"github.com/orb8/orb8/internal/cluster"
	"github.com/orb8/orb8/internal/event"
)

// outside is what tells addresses outside of the cluster apart: what they are
// called, and who says so.
type outside struct {
	name   string
	source event.NameSource
}

// outside names the other side by what the local end asked for, by what it said as
// it began to speak TLS, or by the agent's list, the first that there is. A name
// that was given stays until there is a better one: what was asked may be forgotten.
func (e *Enricher) outside(f *event.Flow) *event.Identity {
	was := f.Remote
	if was == nil || was.Class != event.ClassExternal {
		was = e.external
	}
	asked := was.FQDNSource == event.NameDNS
	// Who is called by others has not asked who they are.
	if f.OpenedBy != event.OpenerRemote {
		said := ""
		if f.TLS != nil {
			said = f.TLS.ServerName
		}
		if name := e.cfg.Names.Asked(f); name != "" && (!asked || name == said) {
			return e.called(outside{name, event.NameDNS})
		}
		if said != "" && !asked {
			return e.called(outside{said, event.NameSNI})
		}
	}
	if was.FQDN != "" {
		return was
	}
	if name := e.cfg.Names.Listed(f.Conn.Remote); name != "" {
		return e.called(outside{name, event.NameCIDR})
	}
	return e.external
}

func (e *Enricher) called(o outside) *event.Identity {
	id := e.outsides.get(o)
	if id == nil {
		id = &event.Identity{Class: event.ClassExternal, FQDN: o.name, FQDNSource: o.source}
		e.outsides.put(o, id)
	}
	return id
}

// IsOutside tells whether nobody of the cluster or the machine has an address: what
// it is called is worth remembering.
func (e *Enricher) IsOutside(ip event.IP) bool {
	if isLoopback(&ip) || isNobodys(&ip) || e.own(ip) {
		return false
	}
	m := e.cfg.Cluster
	if m == nil {
		return true
	}
	a := m.At(ip)
	if a.Service(0, 0) != nil || a.APIServer(0, 0) {
		return false
	}
	_, standing := m.Holder(a, e.again.now)
	return standing == cluster.Nobody
}

// Heard takes in what the local end of a connection said as it began to speak TLS.
func (e *Enricher) Heard(f *event.Flow, hello *event.Hello) {
	f.TLS = hello
	if f.Remote != nil && f.Remote.Class == event.ClassExternal && e.cfg.Names != nil {
		f.Remote = e.outside(f)
	}
}

// Rename looks once more what the other sides of connections are called. Call it
// now and then, when more was asked for since.
func (e *Enricher) Rename() {
	if e.cfg.Names != nil && e.cfg.Flows != nil {
		e.cfg.Flows.Each(e.rename)
	}
}

func (e *Enricher) rename(f *event.Flow) {
	if f.Remote != nil && f.Remote.Class == event.ClassExternal && f.Remote.FQDNSource != event.NameDNS && e.cfg.Names != nil {
		f.Remote = e.outside(f)
	}
}

// Asked gives the connection of a look-up, its ends as well as they are known: those
// of the flow, where the tap has one. A server outside is known by its address, not
// by a name. ok is false where it is none of this place.
func (e *Enricher) Asked(l *event.Lookup) (f event.Flow, ok bool) {
	if e.cfg.Flows != nil {
		if known := e.cfg.Flows.Get(l.Conn); known != nil && known.Local != nil && known.Remote != nil {
			f = *known
			if f.Remote.FQDN != "" {
				f.Remote = e.external
			}
			return f, !f.Carried
		}
	}
	f = event.Flow{
		Conn: l.Conn, First: l.Asked, Last: max(l.Asked, l.Answered),
		Cookie: l.Cookie, Cgroup: l.Cgroup, OpenedBy: event.OpenerLocal,
	}
	if l.Role == event.RoleServer {
		f.OpenedBy = event.OpenerRemote
	}
	owner, known, _ := e.owner(&f)
	if f.Local = e.local(&f, owner, known); f.Local == nil {
		return f, false
	}
	f.Remote = e.known(&f)
	return f, true
}
