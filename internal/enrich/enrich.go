// SPDX-License-Identifier: Apache-2.0

// Package enrich says who the ends of a connection are. It is asked once for
// each new connection, and looks at it again when the owner of its socket
// becomes known, or more of the cluster does. It never guesses, and allocates
// nothing per connection: identities are shared. The agent's pipeline asks it,
// on one goroutine; nothing here waits.
package enrich

import (
	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/cluster"
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

// Sandboxes knows the pods of this node from the machine alone: which network
// namespace is whose. A pod with its node's network has none. sandbox.Sandboxes does.
type Sandboxes interface {
	// Pod of a namespace, Netns of a pod, by its UID.
	Pod(netns uint32) (uid string, ok bool)
	Netns(uid string) (netns uint32, ok bool)
	// Since when the namespace is that pod's, as far as is known.
	Since(netns uint32) int64
	// Own tells whether a cgroup is in one of the node's pods.
	Own(path string) bool
	// Learn: a socket in a namespace that is nobody's yet is of a pod's cgroup.
	Learn(netns uint32, path string)
	// Generation changes whenever another pod may be told of a namespace.
	Generation() uint64
}

// Translations asks the host how it translates a connection. conntrack.Table does.
type Translations interface {
	// Now answers at once, where it can: ok, and nil where there is no translation.
	// Host: the connection is one of the host's namespace.
	Now(c event.Conn, host bool) (other *event.Translation, ok bool)
	// Want never blocks.
	Want(c event.Conn, host bool)
	// Answers gives what was found since, nil where there is no translation.
	Answers(take func(c event.Conn, other *event.Translation))
}

// Flows are the connections. store.Flows does.
type Flows interface {
	Get(c event.Conn) *event.Flow
	Each(visit func(*event.Flow))
	// Retire: what moves from now on is another connection of the same tuple.
	Retire(c event.Conn)
	// Carry: it is none of this place.
	Carry(c event.Conn)
	// Translate: this is its NAT.
	Translate(f *event.Flow, t *event.Translation)
}

// Names knows what the outside is called. The agent does.
type Names interface {
	// Asked is the name by which the local end of a connection asked for the other's
	// address: the one that it said as it began to speak TLS, if it asked for that,
	// else the last that it was answered before the connection began; of a connection
	// whose beginning was not seen also a later one, if there is one only. "" where
	// there is none.
	Asked(f *event.Flow) string
	// Listed is how the agent was told to call an address, or "".
	Listed(ip event.IP) string
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
	// Cluster is nil outside of Kubernetes; then the next three are not asked.
	// With it, Flows must be there.
	Cluster      *cluster.Map
	Sandboxes    Sandboxes
	Translations Translations
	Flows        Flows
	Names        Names
	// SocketLB tells whether a Service's address may be replaced by who serves it
	// before any packet is made; nil is no.
	SocketLB func() bool
	// Identities kept, and connections looked at again; 0 means 10,000 and 8,192.
	Identities, Pending int
}

// maxTries is how many listings a connection is looked for in: the first may
// have begun before its socket was there.
const maxTries = 3

// Enricher knows one node. It is for one goroutine.
type Enricher struct {
	cfg Config
	// The machine itself, its addresses, who cannot be told here, and elsewhere.
	host, node, unknown, nobody, external *event.Identity
	// Where neither a node nor a pod has its address.
	apiServer *event.Identity
	parties   *identities[party]
	ends      *identities[end]
	fits      *identities[fit]
	// Pods of this node that the cluster has not told of, by UID, and Services that
	// it tells no more of.
	untold, past *identities[string]
	outsides     *identities[outside]
	kernel       map[string]*event.Identity
	// Connections whose owner is not known, and in how many listings it was not.
	pending    map[event.Conn]uint8
	generation uint64
	unnamed    uint64

	again again
}

// New makes an enricher: of the machine, and of its processes, units, containers
// and pods as far as cfg has who knows them.
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
	e := &Enricher{
		cfg:      cfg,
		nobody:   &event.Identity{Class: event.ClassUnknown},
		external: &event.Identity{Class: event.ClassExternal},
		pending:  map[event.Conn]uint8{},
		again:    newAgain(),

		apiServer: &event.Identity{Class: event.ClassAPIServer},
	}
	e.settle("")
	return e
}

// settle makes what depends on where the node is.
func (e *Enricher) settle(zone string) {
	node := e.cfg.Node
	e.host = &event.Identity{Class: event.ClassHost, Node: node, Zone: zone}
	e.node = &event.Identity{Class: event.ClassNode, Node: node, Zone: zone}
	e.unknown = &event.Identity{Class: event.ClassUnknown, Node: node, Zone: zone}
	e.parties = newIdentities[party](e.cfg.Identities)
	e.ends = newIdentities[end](e.cfg.Identities)
	e.fits = newIdentities[fit](e.cfg.Identities)
	e.untold = newIdentities[string](e.cfg.Identities)
	e.past = newIdentities[string](e.cfg.Identities)
	e.outsides = newIdentities[outside](e.cfg.Identities)
	e.kernel = map[string]*event.Identity{}
}

// Identify fills in the ends of f as well as they are known now, and who opened
// it, where that was not seen and the ports tell. Not final: the owner of the
// local socket is not known for certain, and Again will look for it. A
// connection that turns out to be another place's is Carried afterwards.
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
	var out []event.Loss
	if e.unnamed > 0 {
		out = append(out, event.Loss{
			Stage: "identity", Count: e.unnamed,
			Hint: "connections came faster than their owners could be looked up: some have no process name",
		})
	}
	if e.again.unasked > 0 {
		out = append(out, event.Loss{
			Stage: "translation", Count: e.again.unasked,
			Hint: "connections to Services came faster than the host could be asked who serves them: some name the Service alone",
		})
	}
	if e.cfg.Cluster != nil {
		out = append(out, e.cfg.Cluster.Losses()...)
	}
	return out
}

func (e *Enricher) identify(f *event.Flow) (final bool) {
	e.opener(f)
	owner, known, final := e.owner(f)
	switch id := e.local(f, owner, known); {
	case id == nil:
		// Its socket is in another namespace, and there it is a connection.
		e.cfg.Flows.Carry(f.Conn)
		return true
	default:
		f.Local = id
	}
	f.Remote = e.remote(f)
	return final
}
