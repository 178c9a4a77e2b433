// SPDX-License-Identifier: Apache-2.0

// Package enrich says who the ends of a connection are. It is asked once for
// each new connection and once more when the owner of its socket becomes
// known, never guesses, and allocates nothing per connection: identities are
// shared. The agent's pipeline asks it, on one goroutine; nothing here waits.
package enrich

import (
	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/probe/socket"
)

// Cgroups names control groups. cgroup.Resolver does.
type Cgroups interface {
	Info(id uint64) (*cgroup.Info, bool)
}

// Sockets knows who holds them, as of its last listing. socket.Probe does.
type Sockets interface {
	Owner(cookie uint64) (socket.Owner, bool)
	Find(c *event.Conn) (socket.Owner, bool)
	Listening(c *event.Conn) bool
	// Want asks for a listing, Generation counts those that were made.
	Want(netns uint32)
	Generation() uint64
}

// Config of an enricher. Of what is nil, nothing is known.
type Config struct {
	Node string
	// The machine's own network namespace: who cannot be told there is the
	// machine itself, and elsewhere unknown. 0: every namespace counts as its own.
	Netns   uint32
	Cgroups Cgroups
	Sockets Sockets
	// Own tells whether an address is one of the node's own.
	Own func(event.IP) bool
	// Ephemeral gives the range of ports that clients in a namespace get; nil is
	// the kernel's default.
	Ephemeral func(netns uint32) (low, high uint16)
	// Identities kept, and connections looked at again; 0 means 10,000 and 8,192.
	Identities, Pending int
}

// maxTries is how many listings a connection is looked for in: the first may
// have begun before its socket was there.
const maxTries = 3

// Enricher knows one node. It is for one goroutine.
type Enricher struct {
	cfg                     Config
	host, unknown, external *event.Identity
	parties                 *identities
	kernel                  map[string]*event.Identity
	// Connections whose owner is not known, and in how many listings it was not.
	pending    map[event.Conn]uint8
	generation uint64
	unnamed    uint64
}

// New makes an enricher: of the machine, and of its processes, units and
// containers as far as cfg has who knows them.
func New(cfg Config) *Enricher {
	if cfg.Identities <= 0 {
		cfg.Identities = 10_000
	}
	if cfg.Pending <= 0 {
		cfg.Pending = 8192
	}
	if cfg.Ephemeral == nil {
		cfg.Ephemeral = func(uint32) (low, high uint16) { return 32768, 60999 }
	}
	return &Enricher{
		cfg:      cfg,
		host:     &event.Identity{Class: event.ClassHost, Node: cfg.Node},
		unknown:  &event.Identity{Class: event.ClassUnknown, Node: cfg.Node},
		external: &event.Identity{Class: event.ClassExternal},
		parties:  newIdentities(cfg.Identities),
		kernel:   map[string]*event.Identity{},
		pending:  map[event.Conn]uint8{},
	}
}

// Identify fills in the ends of f as well as they are known now, and who opened
// it, where that was not seen and the ports tell. Not final: the owner of the
// local socket is not known for certain, and Again will look for it.
func (e *Enricher) Identify(f *event.Flow) (final bool) {
	final = e.identify(f)
	if final {
		return true
	}
	if _, already := e.pending[f.Conn]; !already {
		if len(e.pending) >= e.cfg.Pending {
			e.unnamed++
			return false
		}
		e.pending[f.Conn] = 0
	}
	e.cfg.Sockets.Want(f.Conn.Netns)
	return false
}

// Again looks once more at the connections that Identify was not certain of,
// where the sockets have been listed since. Call it once an epoch; find gives
// the connection, or nil where it is forgotten.
func (e *Enricher) Again(find func(event.Conn) *event.Flow) {
	if len(e.pending) == 0 {
		return
	}
	generation := e.cfg.Sockets.Generation()
	if generation == e.generation {
		return
	}
	e.generation = generation
	for c, tries := range e.pending {
		f := find(c)
		tries++
		if f == nil || e.identify(f) || tries >= maxTries || f.State.Ended() {
			delete(e.pending, c)
			continue
		}
		e.pending[c] = tries
		e.cfg.Sockets.Want(c.Netns)
	}
}

// Losses tells of what was not identified for want of room.
func (e *Enricher) Losses() []event.Loss {
	if e.unnamed == 0 {
		return nil
	}
	return []event.Loss{{
		Stage: "identity", Count: e.unnamed,
		Hint: "connections came faster than their owners could be looked up: some have no process name",
	}}
}

func (e *Enricher) identify(f *event.Flow) (final bool) {
	e.opener(f)
	f.Remote = e.external
	if e.cfg.Own != nil && e.cfg.Own(f.Conn.Remote) {
		f.Remote = e.host
	}
	owner, known, final := e.owner(f)
	if known && owner.Kernel {
		f.Local = e.kernelParty(kernelService(f))
		return final
	}
	f.Local = e.party(f, owner, known)
	return final
}

// owner finds who holds the socket of a connection. What only sends or answers
// below sockets (echo replies, later fragments) has none to look for.
func (e *Enricher) owner(f *event.Flow) (o socket.Owner, known, final bool) {
	if e.cfg.Sockets == nil || f.Conn.Kind != event.ConnPlain && f.Cookie == 0 {
		return o, false, true
	}
	if f.Cookie != 0 {
		if o, known = e.cfg.Sockets.Owner(f.Cookie); known && o.Final {
			return o, true, true
		}
	}
	if !known && ofTheStack(&f.Conn) {
		return o, false, true
	}
	byPlace, found := e.cfg.Sockets.Find(&f.Conn)
	// What systemd makes or listens for is not for itself.
	known = known && o.PID != 1
	switch {
	case !found:
		return o, known, false
	case f.Cookie != 0 && !byPlace.Kernel:
		// A socket of which a listing does not know the cookie is younger than it,
		// and perhaps another than was found at its place.
		byPlace.Final = false
	}
	return byPlace, byPlace.Final || byPlace.PID != 1, byPlace.Final
}

// ofTheStack: neighbour discovery, multicast reports, echo replies and errors
// are sent by the network stack itself, through sockets that nobody holds. Only
// a process that sends such things by a socket of its own is known at once.
func ofTheStack(c *event.Conn) bool {
	const igmp = 2
	switch c.Protocol {
	case event.ICMP, event.ICMPv6:
		return c.Kind != event.ConnEchoOpenedLocal
	case igmp:
		return true
	}
	return false
}

func (e *Enricher) kernelParty(service string) *event.Identity {
	id := e.kernel[service]
	if id == nil {
		id = &event.Identity{Class: event.KernelService(service), Node: e.cfg.Node}
		e.kernel[service] = id
	}
	return id
}

// party gives the identity of a process, or of what its cgroup is for.
func (e *Enricher) party(f *event.Flow, o socket.Owner, known bool) *event.Identity {
	if !known && (o.PID == 1 || e.mayBeKernel(f)) {
		return e.unknown
	}
	// The process's own group goes first: systemd opens sockets for services.
	p := party{cgroup: f.Cgroup, pid: o.PID, name: o.Name}
	if o.Cgroup != 0 {
		p.cgroup = o.Cgroup
	}
	var info *cgroup.Info
	if e.cfg.Cgroups != nil && p.cgroup != 0 {
		info, _ = e.cfg.Cgroups.Info(p.cgroup)
	}
	if info == nil {
		p.cgroup = 0 // another time it may be found
		info = &cgroup.Info{}
	}
	p.class = e.class(f, info, known)
	if known || info.Container != "" || info.Unit != "" {
		return e.intern(p, info)
	}
	if p.class == event.ClassHost {
		return e.host
	}
	return e.unknown
}

func (e *Enricher) class(f *event.Flow, info *cgroup.Info, known bool) event.Class {
	switch {
	case info.Container != "":
		return event.ClassContainer
	case known, info.Unit != "", e.cfg.Netns == 0, e.cfg.Netns == f.Conn.Netns:
		return event.ClassHost
	}
	return event.ClassUnknown
}

func (e *Enricher) intern(p party, info *cgroup.Info) *event.Identity {
	id := e.parties.get(p)
	if id == nil {
		id = &event.Identity{
			Class: p.class, Node: e.cfg.Node,
			Container: info.Container, PodUID: info.PodUID, Unit: info.Unit,
			Process: p.name.String(), PID: p.pid,
		}
		e.parties.put(p, id)
	}
	return id
}

// mayBeKernel: a socket of the kernel carries the cgroup of whoever happened to
// run when it was made. Until a listing has told, nobody gets the blame.
func (e *Enricher) mayBeKernel(f *event.Flow) bool {
	return e.cfg.Sockets != nil && f.Conn.Kind == event.ConnPlain && kernelService(f) != ""
}

// opener tells who opened a connection that is older than the agent: the end
// that listens is the server. It says nothing where that does not decide.
func (e *Enricher) opener(f *event.Flow) {
	c := &f.Conn
	if f.OpenedBy != event.OpenerUnknown || c.Kind != event.ConnPlain || c.LocalPort == 0 || c.RemotePort == 0 ||
		e.cfg.Sockets == nil || e.cfg.Sockets.Generation() == 0 {
		return
	}
	low, high := e.cfg.Ephemeral(c.Netns)
	client := func(port uint16) bool { return port >= low && port <= high }
	listens := e.cfg.Sockets.Listening(c)
	if c.Protocol == event.UDP {
		// Clients are bound and not connected as servers are: ports decide.
		listens = listens && !client(c.LocalPort)
		if listens && !client(c.RemotePort) {
			return
		}
	}
	switch {
	case listens:
		f.OpenedBy = event.OpenerRemote
	case client(c.LocalPort) && !client(c.RemotePort) && (c.Protocol == event.TCP || c.Protocol == event.UDP || c.Protocol == event.SCTP):
		f.OpenedBy = event.OpenerLocal
	}
}
