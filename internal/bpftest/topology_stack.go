// SPDX-License-Identifier: Apache-2.0

package bpftest

// tunnel joins two ends and gives the ends of what joins them.
type tunnel = func(a, b *End) (x, y *End)

// betweenHosts is a layout whose talk is between the ends of a tunnel.
func betweenHosts(join tunnel) func(*Wire) *Topology {
	return func(w *Wire) *Topology {
		a, b := w.Host(), w.Host()
		x, y := join(&a.End, &b.End)
		return path(x, y, Place{a.Netns, a.Name, Carried}, Place{b.Netns, b.Name, Carried})
	}
}

// betweenPods is a layout of pods behind a tunnel, whose packets fit into it or
// not.
func betweenPods(join tunnel, fit bool) func(*Wire) *Topology {
	return func(w *Wire) *Topology {
		a, b := w.Host(), w.Host()
		x, y := join(&a.End, &b.End)
		Through(a, b, x, y)
		p, q := a.BridgePod(), b.BridgePod()
		if fit {
			p.SetMTU(1400)
			q.SetMTU(1400)
		}
		between := append(p.places(Carried), Place{a.Netns, x.Name, Forwarded}, Place{b.Netns, y.Name, Forwarded})
		t := path(&p.End, &q.End, append(between, q.places(Carried)...)...)
		t.Drops = !fit
		return t
	}
}

func vxlan7(a, b *End) (x, y *End)  { return VXLAN(a, b, 7) }
func geneve8(a, b *End) (x, y *End) { return Geneve(a, b, 8) }

func tunnelLayouts() []Layout {
	ip := func(kind string) tunnel {
		return func(a, b *End) (x, y *End) { return IPTunnel(a, b, kind) }
	}
	only := func(v6 bool, build func(*Wire) *Topology) func(*Wire) *Topology {
		return func(w *Wire) *Topology {
			t := build(w)
			t.No4, t.No6 = v6, !v6
			return t
		}
	}
	return []Layout{
		{Name: "vxlan", Build: betweenHosts(vxlan7)},
		{Name: "pods behind vxlan", Build: betweenPods(vxlan7, true)},
		{Name: "geneve", Needs: []string{"geneve"}, Build: betweenHosts(geneve8)},
		{Name: "pods behind geneve", Needs: []string{"geneve"}, Build: betweenPods(geneve8, true)},
		{Name: "wireguard", Needs: []string{"wireguard"}, Build: betweenHosts(WireGuard)},
		{Name: "pods behind wireguard", Needs: []string{"wireguard"}, Build: betweenPods(WireGuard, true)},
		{Name: "ipip", Needs: []string{"ipip"}, Build: only(false, betweenHosts(ip("ipip")))},
		{Name: "pods behind ipip", Needs: []string{"ipip"}, Build: only(false, betweenPods(ip("ipip"), true))},
		{Name: "sit", Needs: []string{"sit"}, Build: only(true, betweenHosts(ip("sit")))},
		{Name: "gre", Needs: []string{"gre"}, Build: betweenHosts(ip("gre"))},
	}
}

// TooLarge is a layout in which pods send packets that do not fit into the
// tunnel between their hosts, which complain.
func TooLarge() Layout {
	return Layout{Name: "pods with packets too large for vxlan", Build: betweenPods(vxlan7, false)}
}

func stackedLayouts() []Layout {
	one := func(dev func(e *End) *End) tunnel {
		return func(a, b *End) (x, y *End) { return dev(a), dev(b) }
	}
	vlan := func(e *End) *End { return e.VLAN(7, false) }
	return []Layout{
		{Name: "vlan", Needs: []string{"vlan"}, Build: betweenHosts(one(vlan))},
		{Name: "two tags", Needs: []string{"vlan"}, Build: func(w *Wire) *Topology {
			a, b := w.Host(), w.Host()
			c, d := a.VLAN(9, true), b.VLAN(9, true)
			return path(c.VLAN(7, false), d.VLAN(7, false),
				Place{a.Netns, a.Name, Carried}, Place{a.Netns, c.Name, Carried}, Place{b.Netns, b.Name, Carried}, Place{b.Netns, d.Name, Carried})
		}},
		{Name: "vlan on a bond", Needs: []string{"bond", "vlan"}, Build: func(w *Wire) *Topology {
			a, b := w.BondHost(), w.Host()
			return path(vlan(&a.End), vlan(&b.End), Place{a.Netns, "eth0", Member}, Place{a.Netns, a.Name, Carried}, Place{b.Netns, b.Name, Carried})
		}},
		{Name: "macvlan of the host", Build: betweenHosts(one(func(e *End) *End { return e.Macvlan(24) }))},
	}
}
