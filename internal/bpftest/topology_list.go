// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// Role is what a packet of a talk is at an interface that it passes.
type Role string

// The roles: of the namespace's own sockets; of others, on its way through;
// within another packet or under another device, and counted there; at a
// member of a bridge or bond, which is not tapped.
const (
	Own       Role = "own"
	Forwarded Role = "forwarded"
	Carried   Role = "carried"
	Member    Role = "member"
)

// Place is an interface on the way of a talk. Each packet passes it once.
type Place struct {
	*Netns
	Name string
	Role Role
}

// Topology is a way between two ends, and all that is on it from the client to
// the server.
type Topology struct {
	Client, Server *End
	Places         []Place
	Hosts          []*Host
	// Packets that are too large are dropped on the way, and complained about.
	Drops bool
	// It does not carry this family.
	No4, No6 bool
	// What a client asks for to reach a server's address; nil where that is it.
	Publish func(server netip.AddrPort) netip.AddrPort
	// The client's own host translates what it sends: at the client's interface a
	// packet is as the server sees it.
	Translates bool
}

// Settle waits until nothing moves at the places and reads what their
// interfaces have counted.
func Settle(t testing.TB, places []Place) []Counters {
	t.Helper()
	read := func() []Counters {
		out := make([]Counters, len(places))
		for i, p := range places {
			s := p.Link(p.Name).Attrs().Statistics
			out[i] = Counters{RxPackets: s.RxPackets, RxBytes: s.RxBytes, TxPackets: s.TxPackets, TxBytes: s.TxBytes}
		}
		return out
	}
	last, quiet := read(), 0
	Eventually(t, "a quiet topology", func() bool {
		time.Sleep(5 * time.Millisecond)
		now := read()
		if quiet++; !slices.Equal(now, last) {
			quiet = 0
		}
		last = now
		return quiet >= 3
	})
	return last
}

// Layout makes a topology where the kernel has the types of interface that it
// needs.
type Layout struct {
	Name  string
	Needs []string
	Build func(w *Wire) *Topology
}

// Topology builds the layout, or skips the test as RequireDevice does.
func (l *Layout) Topology(t testing.TB) *Topology {
	t.Helper()
	RequireKernel(t, BPF)
	RequireDevice(t, l.Needs...)
	w := NewWire(t)
	topo := l.Build(w)
	topo.Hosts = w.hosts
	return topo
}

// Reach is the address that a client asks for to reach a server.
func (t *Topology) Reach(server netip.AddrPort) netip.AddrPort {
	if t.Publish == nil {
		return server
	}
	return t.Publish(server)
}

// Families are those that the topology carries: whether they are IPv6.
func (t *Topology) Families() []bool {
	return slices.DeleteFunc([]bool{false, true}, func(v6 bool) bool { return v6 && t.No6 || !v6 && t.No4 })
}

// Layouts are all that there are.
func Layouts() []Layout {
	all := []Layout{
		{Name: "host to host", Build: func(w *Wire) *Topology {
			a, b := w.Host(), w.Host()
			return path(&a.End, &b.End)
		}},
		{Name: "bond", Needs: []string{"bond"}, Build: func(w *Wire) *Topology {
			a, b := w.BondHost(), w.Host()
			return path(&a.End, &b.End, Place{a.Netns, "eth0", Member})
		}},
		{Name: "vrf", Needs: []string{"vrf"}, Build: func(w *Wire) *Topology {
			a, b := w.VRFHost(), w.Host()
			return path(&a.End, &b.End)
		}},
	}
	all = append(all, podLayouts()...)
	all = append(all, natLayouts()...)
	all = append(all, serviceLayouts()...)
	all = append(all, tunnelLayouts()...)
	return append(all, stackedLayouts()...)
}

// path is a topology whose ends are the sockets' own.
func path(client, server *End, between ...Place) *Topology {
	return &Topology{
		Client: client, Server: server,
		Places: append(append([]Place{{client.Netns, client.Name, Own}}, between...), Place{server.Netns, server.Name, Own}),
	}
}

// up are the places of a pod's packets in its host, to the uplink.
func (p *Pod) places(last Role) []Place {
	h := p.Host
	uplink := Place{h.Netns, h.Name, last}
	switch {
	case p.HostEnd == "":
		return []Place{uplink}
	case h.has(cni):
		return []Place{{h.Netns, p.HostEnd, Member}, {h.Netns, cni, Forwarded}, uplink}
	}
	return []Place{{h.Netns, p.HostEnd, Forwarded}, uplink}
}

func podLayouts() []Layout {
	toHost := func(pod func(*Host) *Pod) func(*Wire) *Topology {
		return func(w *Wire) *Topology {
			a, b := w.Host(), w.Host()
			p := pod(a)
			return path(&p.End, &b.End, p.places(Forwarded)...)
		}
	}
	return []Layout{
		{Name: "bridge pod to host", Build: toHost((*Host).BridgePod)},
		{Name: "routed pod to host", Build: toHost((*Host).RoutedPod)},
		{Name: "macvlan pod to host", Build: toHost((*Host).MacvlanPod)},
		{Name: "ipvlan pod to host", Needs: []string{"ipvlan"}, Build: toHost(func(h *Host) *Pod { return h.IPvlanPod(false) })},
		{Name: "ipvlan pod on layer 3 to host", Needs: []string{"ipvlan"}, Build: toHost(func(h *Host) *Pod { return h.IPvlanPod(true) })},
		{Name: "bridge pod to pod beside it", Build: func(w *Wire) *Topology {
			h := w.Host()
			p, q := h.BridgePod(), h.BridgePod()
			return path(&p.End, &q.End, Place{h.Netns, p.HostEnd, Member}, Place{h.Netns, q.HostEnd, Member})
		}},
		{Name: "routed pod to pod beside it", Build: func(w *Wire) *Topology {
			h := w.Host()
			p, q := h.RoutedPod(), h.RoutedPod()
			return path(&p.End, &q.End, Place{h.Netns, p.HostEnd, Forwarded}, Place{h.Netns, q.HostEnd, Forwarded})
		}},
		{Name: "routed pod to its own host", Build: func(w *Wire) *Topology {
			h := w.Host()
			p := h.RoutedPod()
			t := path(&p.End, &h.End)
			// The host's address is that of its uplink, its interface is the pod's.
			t.Places[1] = Place{h.Netns, p.HostEnd, Own}
			return t
		}},
		{Name: "bridge pod to pod of another host", Build: func(w *Wire) *Topology {
			a, b := w.Host(), w.Host()
			p, q := a.BridgePod(), b.BridgePod()
			return path(&p.End, &q.End, append(p.places(Forwarded), q.places(Forwarded)...)...)
		}},
		{Name: "redirected pod to host", Build: func(w *Wire) *Topology {
			a, b := w.Host(), w.Host()
			p := a.RoutedPod()
			a.Attach(a.RedirectProgram(a.Name), Hook{Device: p.HostEnd, Clsact: true, Last: true})
			return path(&p.End, &b.End, p.places(Forwarded)...)
		}},
	}
}

func natLayouts() []Layout {
	const nodePort = 30080
	return []Layout{
		{Name: "masqueraded pod to host", Build: func(w *Wire) *Topology {
			a, b := w.Host(), w.Host()
			p := a.RoutedPod()
			a.Masquerade(a.Name)
			return path(&p.End, &b.End, p.places(Carried)...)
		}},
		{Name: "host to node port of a pod", Build: func(w *Wire) *Topology {
			a, b := w.Host(), w.Host()
			p := b.BridgePod()
			t := path(&a.End, &p.End, p.places(Carried)...)
			t.Publish = func(server netip.AddrPort) netip.AddrPort {
				port := server.Port() ^ nodePort&1 // another than the server's
				b.NodePort(port, server)
				return netip.AddrPortFrom(b.IP(server.Addr().Is6()), port)
			}
			return t
		}},
	}
}
