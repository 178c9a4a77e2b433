// SPDX-License-Identifier: Apache-2.0

// Package lab puts taps on whole topologies, one a host as agents are, and
// checks each packet against what the sockets at its ends know: it is in one
// flow record per end and in no other, what passes a host is forwarded or
// carried there, and nothing is unaccounted for. It holds no topology of its
// own (internal/bpftest does) and knows the tap only by what it tells.
package lab

import (
	"fmt"
	"net/netip"
	"testing"

	"go.uber.org/goleak"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/probe/flow"
	"github.com/orb8/orb8/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tapped is what a node tells of its namespaces when nothing moves any more.
type tapped interface {
	Flows() []event.Flow
	Audit() []store.InterfaceAudit
	// Where the tap of a place is.
	Iface(p bpftest.Place) event.Iface
}

// talk is one exchange as the sockets at its ends know it.
type talk struct {
	protocol event.Protocol
	// What the client's socket is bound to and asks for; what the server's is
	// bound to and sees asking.
	client, dialled, server, seen netip.AddrPort
	// Packets each way, 0 where the sockets cannot tell.
	packets uint64
}

// traffics are the exchanges that every topology is checked with.
var traffics = []struct {
	name string
	run  func(t *testing.T, topo *bpftest.Topology, v6 bool) talk
}{
	{"UDP", func(t *testing.T, topo *bpftest.Topology, v6 bool) talk {
		const n = 20
		server := topo.Server.EchoUDP(v6)
		to := topo.Reach(server.Addr)
		client := topo.Client.AskUDP(to, n, 200)
		return talk{event.UDP, client, to, server.Addr, asker(t, server), n}
	}},
	{"TCP", func(t *testing.T, topo *bpftest.Topology, v6 bool) talk {
		server := topo.Server.EchoTCP(v6)
		to := topo.Reach(server.Addr)
		client := topo.Client.AskTCP(to, 300_000)
		return talk{event.TCP, client, to, server.Addr, asker(t, server), 0}
	}},
}

// asker is the one that asked.
func asker(t *testing.T, s *bpftest.Echo) netip.AddrPort {
	t.Helper()
	from := s.From()
	for a := range from {
		if len(from) == 1 {
			return a
		}
	}
	t.Fatalf("asked by %v, want one", from)
	return netip.AddrPort{}
}

func TestEveryPacketHasItsPlace(t *testing.T) {
	for _, how := range attachments() {
		for _, l := range bpftest.Layouts() {
			t.Run(fmt.Sprintf("%s/%s", l.Name, how), func(t *testing.T) { everyPacket(t, &l, how) })
		}
	}
}

// A host that complains of a packet on its way through, because it is too
// large, takes no part in the connection.
func TestPacketsTooLarge(t *testing.T) {
	l := bpftest.TooLarge()
	for _, how := range attachments() {
		t.Run(string(how), func(t *testing.T) { everyPacket(t, &l, how) })
	}
}

func everyPacket(t *testing.T, l *bpftest.Layout, how flow.Attach) {
	requireAttachment(t, how)
	topo := l.Topology(t)
	warm(topo)
	everyTalk(t, topo, tap(t, topo, how))
}

func everyTalk(t *testing.T, topo *bpftest.Topology, node tapped) {
	for _, v6 := range topo.Families() {
		for _, traffic := range traffics {
			r := round{t, fmt.Sprintf("%s, IPv6 %v", traffic.name, v6), topo, node, counted(node.Audit())}
			r.check(traffic.run(t, topo, v6))
		}
	}
}

// warm makes neighbours known and tunnels shake hands: that is not the talk.
func warm(topo *bpftest.Topology) {
	for _, v6 := range topo.Families() {
		topo.Client.Reaches(topo.Reach(topo.Server.EchoUDP(v6).Addr))
	}
}

// passage is what an interface told of one direction.
type passage struct{ flows, forwarded, carried, rest uint64 }

type passages struct{ rx, tx passage }

// counted are the packets of every interface that is tapped.
func counted(audits []store.InterfaceAudit) map[event.Iface]passages {
	one := func(a *store.Audit) passage {
		return passage{
			a.Flows.Packets + a.Remainder.Packets, a.Forwarded.Packets, a.Carried.Packets,
			a.Overflow.Packets + a.NotIP.Packets + a.Malformed.Packets,
		}
	}
	out := map[event.Iface]passages{}
	for _, a := range audits {
		if a.How != "" {
			out[a.Iface] = passages{one(&a.Ingress), one(&a.Egress)}
		}
	}
	return out
}

func (p passage) minus(o passage) passage {
	return passage{p.flows - o.flows, p.forwarded - o.forwarded, p.carried - o.carried, p.rest - o.rest}
}

// want is what packets of a talk are where they pass.
func want(r bpftest.Role, packets uint64) passage {
	switch r {
	case bpftest.Own:
		return passage{flows: packets}
	case bpftest.Forwarded:
		return passage{forwarded: packets}
	default:
		return passage{carried: packets}
	}
}

// round is one talk over a tapped topology.
type round struct {
	t      *testing.T
	name   string
	topo   *bpftest.Topology
	node   tapped
	before map[event.Iface]passages
}

func (r *round) errorf(format string, args ...any) {
	r.t.Helper()
	r.t.Errorf(r.name+": "+format, args...)
}

// places expects what passed each interface to be there what it should, with so
// many packets from the client to the server, and back.
func (r *round) places(after map[event.Iface]passages, out, back uint64) {
	r.t.Helper()
	for i, p := range r.topo.Places {
		iface := r.node.Iface(p)
		now, ok := after[iface]
		if ok == (p.Role == bpftest.Member) {
			r.errorf("%s (%s, number %d on the way): tapped is %v", p.Name, p.Role, i+1, ok)
		}
		if !ok || r.topo.Drops {
			continue
		}
		rx, tx := now.rx.minus(r.before[iface].rx), now.tx.minus(r.before[iface].tx)
		// The client sends what goes out and the server receives it; on the way
		// an interface does the one or the other, by the side it is on.
		sends := i == 0 || i < len(r.topo.Places)-1 && tx == want(p.Role, out)
		wantRx, wantTx := want(p.Role, out), want(p.Role, back)
		if sends {
			wantRx, wantTx = wantTx, wantRx
		}
		if rx != wantRx || tx != wantTx {
			r.errorf("%s (%s, number %d on the way) received %+v and sent %+v, want %+v and %+v", p.Name, p.Role, i+1, rx, tx, wantRx, wantTx)
		}
	}
}

func ifaceOf(p bpftest.Place) event.Iface {
	return event.Iface{Netns: p.Inode(), Index: uint32(p.Link(p.Name).Attrs().Index)}
}

func (r *round) check(k talk) {
	r.t.Helper()
	audits := r.node.Audit() // first: it ends the epoch
	out, back := r.ends(k)
	r.places(counted(audits), out, back)
	for _, a := range audits {
		if d := [4]int64{a.Ingress.UnaccountedPackets, a.Egress.UnaccountedPackets, a.Ingress.UnaccountedBytes, a.Egress.UnaccountedBytes}; d != [4]int64{} {
			r.errorf("%s does not add up: packets %d and %d, bytes %d and %d", a.Name, d[0], d[1], d[2], d[3])
		}
	}
}

// ends expects one flow at each end, which agree, and no other of the talk. It
// returns the packets from the client to the server, and back.
func (r *round) ends(k talk) (out, back uint64) {
	r.t.Helper()
	if r.topo.Translates {
		k.client, k.dialled = k.seen, k.server
	}
	ports := map[uint16]bool{k.client.Port(): true, k.seen.Port(): true}
	places := r.topo.Places
	client, server := r.node.Iface(places[0]), r.node.Iface(places[len(places)-1])
	var atClient, atServer []event.Traffic
	for _, f := range r.node.Flows() {
		c := f.Conn
		if c.Protocol != k.protocol || !ports[c.LocalPort] && !ports[c.RemotePort] {
			continue
		}
		local, remote := netip.AddrPortFrom(c.Local.Addr(), c.LocalPort), netip.AddrPortFrom(c.Remote.Addr(), c.RemotePort)
		switch {
		case c.Iface() == client && local == k.client && remote == k.dialled:
			atClient = append(atClient, f.Total)
		case c.Iface() == server && local == k.server && remote == k.seen:
			atServer = append(atServer, f.Total)
		default:
			r.errorf("a flow of neither end: %v to %v on interface %v, %+v", local, remote, c.Iface(), f.Total)
		}
	}
	if len(atClient) != 1 || len(atServer) != 1 {
		r.errorf("%d flows at the client, %d at the server", len(atClient), len(atServer))
		return k.packets, k.packets
	}
	a, b := atClient[0], atServer[0]
	if k.packets == 0 {
		k.packets = a.TxPackets
		if r.topo.Drops {
			return a.TxPackets, a.RxPackets
		}
	} else if a.RxPackets != k.packets {
		r.errorf("the client received %d packets of %d", a.RxPackets, k.packets)
	}
	if a.TxPackets != k.packets || a.Reversed() != b {
		r.errorf("the client has %+v, the server %+v, the sockets %d", a, b, k.packets)
	}
	return a.TxPackets, a.RxPackets
}
