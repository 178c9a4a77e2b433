// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Wire is a switch that joins the hosts of a test: a namespace with a bridge.
type Wire struct {
	*Netns
	hosts []*Host
}

// Host is a node: a namespace that forwards, with an uplink on the wire. The
// uplink of host n has 10.88.0.n and fd88::n; its pods have addresses of
// 10.(100+n).0.0/16 and fd88:n::/32, and other hosts reach these through it.
type Host struct {
	End  // the uplink
	Pods []*Pod
	wire *Wire
	n    int
}

const theSwitch = "switch"

// NewWire makes a wire without hosts.
func NewWire(t testing.TB) *Wire {
	t.Helper()
	w := &Wire{Netns: quietNetns(t)}
	w.Sysctl("ipv6/conf/default/disable_ipv6", "1")
	w.addLink(newBridge(theSwitch))
	w.linkUp(theSwitch)
	return w
}

// Host adds a host to the wire.
func (w *Wire) Host() *Host {
	w.t.Helper()
	h := w.newHost()
	w.plug(h, "eth0")
	h.join("eth0")
	return h
}

// BondHost adds a host whose uplink is a bond of two, one in reserve.
func (w *Wire) BondHost() *Host {
	w.t.Helper()
	h := w.newHost()
	bond := netlink.NewLinkBond(netlink.LinkAttrs{Name: "bond0"})
	bond.Mode, bond.Miimon = netlink.BOND_MODE_ACTIVE_BACKUP, 10
	h.addLink(bond)
	for _, name := range []string{"eth0", "eth1"} {
		w.plug(h, name)
		// A bond takes no member that is up.
		h.Do(func() {
			h.check(netlink.LinkSetDown(linkNamed(name)))
			h.check(netlink.LinkSetMaster(linkNamed(name), linkNamed("bond0")))
		})
		h.linkUp(name)
	}
	h.linkUp("bond0")
	h.join("bond0")
	return h
}

// VRFHost adds a host whose uplink is a member of the VRF "red".
func (w *Wire) VRFHost() *Host {
	w.t.Helper()
	h := w.newHost()
	h.addLink(&netlink.Vrf{LinkAttrs: netlink.LinkAttrs{Name: "red"}, Table: 10})
	h.linkUp("red")
	w.plug(h, "eth0")
	h.Do(func() { h.check(netlink.LinkSetMaster(linkNamed("eth0"), linkNamed("red"))) })
	h.running("eth0")
	h.join("eth0")
	return h
}

func (w *Wire) newHost() *Host {
	w.t.Helper()
	h := &Host{End: End{Netns: quietNetns(w.t)}, wire: w, n: len(w.hosts) + 1}
	h.Sysctl("ipv4/ip_forward", "1")
	h.Sysctl("ipv6/conf/all/forwarding", "1")
	w.hosts = append(w.hosts, h)
	return h
}

// plug joins the host and the switch by a veth.
func (w *Wire) plug(h *Host, name string) {
	w.t.Helper()
	port := fmt.Sprintf("port%d%s", h.n, name[3:])
	h.AddVeth(w.Netns, name, port)
	w.Do(func() { w.check(netlink.LinkSetMaster(linkNamed(port), linkNamed(theSwitch))) })
	w.linkUp(port)
	h.linkUp(name)
	w.running(port)
}

// join gives the host its addresses on the wire, and routes between its pods
// and the other hosts.
func (h *Host) join(uplink string) {
	h.t.Helper()
	h.End = *h.at(uplink, prefix("10.88.0.%d/24", h.n), prefix("fd88::%d/64", h.n))
	// The way out, at which nobody is: hosts have one, and answer for it.
	h.route(anywhere(false), uplink, netip.MustParseAddr("10.88.0.254"))
	for _, o := range h.wire.hosts {
		if o == h {
			continue
		}
		for _, v6 := range []bool{false, true} {
			h.route(o.pod(v6), uplink, o.IP(v6))
			o.route(h.pod(v6), o.Name, h.IP(v6))
		}
	}
}

// pod is the network of the host's pods.
func (h *Host) pod(v6 bool) netip.Prefix {
	if v6 {
		return prefix("fd88:%d::/32", h.n)
	}
	return prefix("10.%d.0.0/16", 100+h.n)
}

// prefix is an address with its length, which a format with one number gives.
func prefix(format string, n int) netip.Prefix { return netip.MustParsePrefix(fmt.Sprintf(format, n)) }

// quietNetns is a namespace that sends nothing by itself, in which what is
// known of neighbours stays known: counts can be exact.
func quietNetns(t testing.TB) *Netns {
	t.Helper()
	n := NewNetns(t)
	for name, value := range map[string]string{
		"accept_ra": "0", "router_solicitations": "0", "dad_transmits": "0", "accept_dad": "0",
	} {
		n.Sysctl("ipv6/conf/default/"+name, value)
	}
	for _, which := range []string{"all", "default"} {
		n.Sysctl("ipv4/conf/"+which+"/rp_filter", "0")
		// An interface answers for its own addresses only.
		n.Sysctl("ipv4/conf/"+which+"/arp_ignore", "1")
		n.Sysctl("ipv4/conf/"+which+"/arp_announce", "2")
	}
	n.withoutReports()
	n.linkUp("lo")
	return n
}

// addLink makes an interface, which is down.
func (n *Netns) addLink(l netlink.Link) {
	n.t.Helper()
	n.Do(func() {
		if err := netlink.LinkAdd(l); err != nil {
			n.t.Fatalf("make %s %s: %v", l.Type(), l.Attrs().Name, err)
		}
	})
}

func newBridge(name string) *netlink.Bridge {
	off := false
	// With an address of its own it does not take that of a member.
	mac := net.HardwareAddr{2, 0, 0, 0, 0x89, byte(len(name))}
	return &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: mac}, MulticastSnooping: &off}
}

// linkNamed names an interface to netlink without asking for it.
func linkNamed(name string) *netlink.GenericLink {
	return &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: name}}
}

// linkUp sets an interface up; running waits for it.
func (n *Netns) linkUp(name string) {
	n.t.Helper()
	n.Do(func() { n.check(netlink.LinkSetUp(linkNamed(name))) })
	if name == "lo" {
		return
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		n.Sysctl(family+"/neigh/"+name+"/delay_first_probe_time", "3600")
		n.Sysctl(family+"/neigh/"+name+"/base_reachable_time_ms", "3600000")
	}
}

// running waits until interfaces carry traffic: addresses need that.
func (n *Netns) running(names ...string) {
	n.t.Helper()
	for _, name := range names {
		Eventually(n.t, "carrier on "+name, func() bool {
			l := n.Link(name)
			s := l.Attrs().OperState
			// What has no carrier says unknown for good, the others while they
			// do not yet know, and come up, with reports, up to a second later.
			return s == netlink.OperUp || s == netlink.OperUnknown && slices.Contains(
				[]string{"device", "geneve", "gre", "ipip", "ipvlan", "sit", "vrf", "vxlan", "wireguard"}, l.Type())
		})
	}
}

// at sets an interface up with addresses, and describes it.
func (n *Netns) at(name string, addrs ...netip.Prefix) *End {
	n.t.Helper()
	n.linkUp(name)
	n.running(name)
	l := n.Link(name)
	e := &End{Netns: n, Name: name, Index: l.Attrs().Index, MAC: l.Attrs().HardwareAddr}
	for _, a := range addrs {
		if a.Addr().Is6() {
			e.IP6 = a.Addr()
		} else {
			e.IP4 = a.Addr()
		}
		n.address(name, a)
	}
	return e
}

func (n *Netns) address(name string, a netip.Prefix) {
	n.t.Helper()
	addr := &netlink.Addr{IPNet: ipNet(a.Addr(), a.Bits())}
	if a.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	n.Do(func() { n.check(netlink.AddrAdd(n.lookup(name), addr)) })
}

// lookup is Link for a thread that is in the namespace.
func (n *Netns) lookup(name string) netlink.Link {
	n.t.Helper()
	l, err := netlink.LinkByName(name)
	n.check(err)
	return l
}

// byIndex is lookup by an interface's index.
func (n *Netns) byIndex(index int) netlink.Link {
	n.t.Helper()
	l, err := netlink.LinkByIndex(index)
	n.check(err)
	return l
}

// vrfTable is the routing table of the VRF that an interface is a member of, 0
// where it is in none.
func (n *Netns) vrfTable(l netlink.Link) int {
	n.t.Helper()
	if master := l.Attrs().MasterIndex; master != 0 {
		if vrf, ok := n.byIndex(master).(*netlink.Vrf); ok {
			return int(vrf.Table)
		}
	}
	return 0
}

// route sends a network to an interface, by way of a gateway where it is valid.
func (n *Netns) route(dst netip.Prefix, name string, gateway netip.Addr) {
	n.t.Helper()
	n.Do(func() {
		l := n.lookup(name)
		r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(dst.Addr(), dst.Bits()), Table: n.vrfTable(l)}
		if gateway.IsValid() {
			r.Gw, r.Flags = net.IP(gateway.AsSlice()), int(netlink.FLAG_ONLINK)
		} else {
			r.Scope = netlink.SCOPE_LINK
		}
		n.check(netlink.RouteReplace(r))
	})
}

func anywhere(v6 bool) netip.Prefix {
	if v6 {
		return netip.MustParsePrefix("::/0")
	}
	return netip.MustParsePrefix("0.0.0.0/0")
}
