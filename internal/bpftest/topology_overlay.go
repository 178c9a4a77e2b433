// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// stack puts a device on top of the interface, in its namespace: it has the
// addresses 10.90.net.n and fd90:net::n in net, n being the end's own number.
func (e *End) stack(l netlink.Link, net int) *End {
	e.t.Helper()
	n := e.IP4.AsSlice()[3]
	l.Attrs().ParentIndex = e.Index
	e.addLink(l)
	return e.at(l.Attrs().Name,
		netip.MustParsePrefix(fmt.Sprintf("10.90.%d.%d/24", net, n)), netip.MustParsePrefix(fmt.Sprintf("fd90:%d::%d/64", net, n)))
}

// VLAN adds a tagged interface: 802.1ad with service, as the outer of two tags.
func (e *End) VLAN(id int, service bool) *End {
	e.t.Helper()
	protocol := netlink.VLAN_PROTOCOL_8021Q
	if service {
		protocol = netlink.VLAN_PROTOCOL_8021AD
	}
	return e.stack(&netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("vlan%d", id)}, VlanId: id, VlanProtocol: protocol}, id)
}

// Macvlan adds a macvlan to the interface in its own namespace.
func (e *End) Macvlan(net int) *End {
	e.t.Helper()
	return e.stack(&netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "macvlan0"}, Mode: netlink.MACVLAN_MODE_BRIDGE}, net)
}

// VXLAN joins two ends by a tunnel over IPv4.
func VXLAN(a, b *End, id int) (x, y *End) {
	a.t.Helper()
	half := func(from, to *End) *End {
		return from.stack(&netlink.Vxlan{
			LinkAttrs: netlink.LinkAttrs{Name: "vxlan0"}, VxlanId: id, Port: 4789, VtepDevIndex: from.Index,
			SrcAddr: from.IP4.AsSlice(), Group: to.IP4.AsSlice(), UDPCSum: true,
		}, id)
	}
	return half(a, b), half(b, a)
}

// Geneve joins two ends by a tunnel over IPv6.
func Geneve(a, b *End, id int) (x, y *End) {
	a.t.Helper()
	half := func(from, to *End) *End {
		return from.stack(&netlink.Geneve{
			LinkAttrs: netlink.LinkAttrs{Name: "geneve0"}, ID: uint32(id), Dport: 6081, Remote: to.IP6.AsSlice(),
		}, id)
	}
	return half(a, b), half(b, a)
}

// IPTunnel joins two ends by a tunnel over IPv4 without a layer of its own
// (ipip carries IPv4, sit IPv6), or with GRE's (gre carries both).
func IPTunnel(a, b *End, kind string) (x, y *End) {
	a.t.Helper()
	half := func(from, to *End) *End {
		attrs := netlink.LinkAttrs{Name: kind + "1"}
		local, remote := from.IP4.AsSlice(), to.IP4.AsSlice()
		switch kind {
		case "ipip":
			return from.stack(&netlink.Iptun{LinkAttrs: attrs, Local: local, Remote: remote, Ttl: 64}, 20)
		case "sit":
			return from.stack(&netlink.Sittun{LinkAttrs: attrs, Local: local, Remote: remote, Ttl: 64}, 21)
		default:
			return from.stack(&netlink.Gretun{LinkAttrs: attrs, Local: local, Remote: remote, Ttl: 64}, 22)
		}
	}
	return half(a, b), half(b, a)
}

// Through sends what goes to the other host's pods through a tunnel, both ways.
func Through(a, b *Host, x, y *End) {
	a.t.Helper()
	for _, v6 := range []bool{false, true} {
		a.route(b.pod(v6), x.Name, y.IP(v6))
		b.route(a.pod(v6), y.Name, x.IP(v6))
	}
}
