// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Pod is a namespace of a host, with eth0. Its traffic passes what HostEnd
// names in the host: the veth, "" where it has none.
type Pod struct {
	End
	Host    *Host
	HostEnd string
}

const cni = "cni0"

// newPod makes a pod without an interface, and tells its number on the host.
func (h *Host) newPod() (*Pod, int) {
	h.t.Helper()
	p := &Pod{End: End{Netns: quietNetns(h.t)}, Host: h}
	h.Pods = append(h.Pods, p)
	return p, len(h.Pods)
}

// vethPod makes a pod with a veth to its host.
func (h *Host) vethPod() (*Pod, int) {
	h.t.Helper()
	p, k := h.newPod()
	p.HostEnd = fmt.Sprintf("pod%d", k)
	h.AddVeth(p.Netns, p.HostEnd, "eth0")
	p.linkUp("eth0")
	return p, k
}

// BridgePod adds a pod behind the bridge cni0, which has the host's first pod
// address and is the pod's gateway.
func (h *Host) BridgePod() *Pod {
	h.t.Helper()
	first := !h.has(cni)
	if first {
		h.addLink(newBridge(cni))
		h.linkUp(cni)
	}
	p, k := h.vethPod()
	h.Do(func() { h.check(netlink.LinkSetMaster(linkNamed(p.HostEnd), linkNamed(cni))) })
	h.linkUp(p.HostEnd)
	h.running(p.HostEnd, cni)
	if first {
		h.address(cni, netip.PrefixFrom(h.podAddr(false, 0, 1), 24))
		h.address(cni, netip.PrefixFrom(h.podAddr(true, 0, 1), 64))
	}
	p.End = *p.at("eth0", netip.PrefixFrom(h.podAddr(false, 0, 1+k), 24), netip.PrefixFrom(h.podAddr(true, 0, 1+k), 64))
	for _, v6 := range []bool{false, true} {
		p.route(anywhere(v6), "eth0", h.podAddr(v6, 0, 1))
	}
	return p
}

// RoutedPod adds a pod on a point-to-point link: the host has a route to its
// one address, and answers for the gateway that the pod asks for.
func (h *Host) RoutedPod() *Pod {
	h.t.Helper()
	p, k := h.vethPod()
	h.linkUp(p.HostEnd)
	h.running(p.HostEnd)
	h.Sysctl("ipv4/conf/"+p.HostEnd+"/proxy_arp", "1")
	h.Sysctl("ipv4/neigh/"+p.HostEnd+"/proxy_delay", "0")
	h.address(p.HostEnd, netip.MustParsePrefix("fe80::1/64"))
	p.End = *p.at("eth0", netip.PrefixFrom(h.podAddr(false, 1, k), 32), netip.PrefixFrom(h.podAddr(true, 1, k), 128))
	for v6, gateway := range map[bool]netip.Addr{false: netip.MustParseAddr("169.254.1.1"), true: netip.MustParseAddr("fe80::1")} {
		p.route(netip.PrefixFrom(gateway, gateway.BitLen()), "eth0", netip.Addr{})
		p.route(anywhere(v6), "eth0", gateway)
		h.route(netip.PrefixFrom(p.IP(v6), p.IP(v6).BitLen()), p.HostEnd, netip.Addr{})
	}
	return p
}

// MacvlanPod adds a pod with an address on the wire: its interface is a macvlan
// of the host's uplink.
func (h *Host) MacvlanPod() *Pod {
	h.t.Helper()
	p, k := h.newPod()
	p.take(&netlink.Macvlan{Mode: netlink.MACVLAN_MODE_BRIDGE})
	p.End = *p.at("eth0", prefix("10.88.0.%d/24", 50*h.n+k), prefix("fd88::%d/64", 50*h.n+k))
	return p
}

// take makes a device on top of the host's uplink and moves it into the pod.
func (p *Pod) take(l netlink.Link) {
	p.t.Helper()
	// Some kernels want its first name to be free in the host as well.
	a := l.Attrs()
	a.Name, a.ParentIndex, a.Namespace = "moving", p.Host.Index, netlink.NsFd(int(p.handle))
	p.Host.addLink(l)
	p.Do(func() { p.check(netlink.LinkSetName(linkNamed("moving"), "eth0")) })
}

// IPvlanPod adds a pod whose interface is an ipvlan of the host's uplink: with
// an address on the wire, or with l3 with one of the host's pods.
func (h *Host) IPvlanPod(l3 bool) *Pod {
	h.t.Helper()
	p, k := h.newPod()
	mode := netlink.IPVLAN_MODE_L2
	if l3 {
		mode = netlink.IPVLAN_MODE_L3
	}
	p.take(&netlink.IPVlan{Mode: mode})
	if !l3 {
		p.End = *p.at("eth0", prefix("10.88.0.%d/24", 50*h.n+k), prefix("fd88::%d/64", 50*h.n+k))
		return p
	}
	p.End = *p.at("eth0", netip.PrefixFrom(h.podAddr(false, 2, k), 24), netip.PrefixFrom(h.podAddr(true, 2, k), 64))
	for _, v6 := range []bool{false, true} {
		p.route(anywhere(v6), "eth0", netip.Addr{})
	}
	return p
}

// podAddr is a pod's address: each way of joining pods has a net of its own.
func (h *Host) podAddr(v6 bool, net, k int) netip.Addr {
	if v6 {
		return netip.MustParseAddr(fmt.Sprintf("fd88:%d:0:%d::%d", h.n, net, k))
	}
	return netip.AddrFrom4([4]byte{10, byte(100 + h.n), byte(net), byte(k)})
}

func (n *Netns) has(name string) bool {
	n.t.Helper()
	found := false
	n.Do(func() {
		_, err := netlink.LinkByName(name)
		found = err == nil
	})
	return found
}
