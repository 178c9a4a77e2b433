// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// End is one end of a veth: a namespace and the interface in it.
type End struct {
	*Netns
	Name     string
	Index    int
	MAC      net.HardwareAddr
	IP4, IP6 netip.Addr
}

// Pair is two namespaces joined by a veth, both ends up and addressed, with
// neighbours known: the first packet on it is the test's own.
type Pair struct{ A, B End }

// NewPair makes two namespaces that reach each other: 10.88.0.1 and .2,
// fd88::1 and ::2.
func NewPair(t testing.TB) *Pair {
	t.Helper()
	p := &Pair{
		A: End{
			Netns: NewNetns(t), Name: "veth0", MAC: net.HardwareAddr{2, 0, 0, 0, 0x88, 1},
			IP4: netip.MustParseAddr("10.88.0.1"), IP6: netip.MustParseAddr("fd88::1"),
		},
		B: End{
			Netns: NewNetns(t), Name: "veth0", MAC: net.HardwareAddr{2, 0, 0, 0, 0x88, 2},
			IP4: netip.MustParseAddr("10.88.0.2"), IP6: netip.MustParseAddr("fd88::2"),
		},
	}
	p.A.AddVeth(p.B.Netns, p.A.Name, p.B.Name)
	p.A.configure(&p.B)
	p.B.configure(&p.A)
	p.A.up()
	p.B.up()
	// The link comes up with its second end; addresses on it need the carrier.
	for _, e := range []*End{&p.A, &p.B} {
		e.waitRunning()
	}
	return p
}

// AddVeth makes a veth whose one end is in n and whose other is in peer; both
// are down. It returns the index of the end in n.
func (n *Netns) AddVeth(peer *Netns, name, peerName string) int {
	n.t.Helper()
	index := 0
	n.Do(func() {
		veth := &netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: name},
			PeerName:      peerName,
			PeerNamespace: netlink.NsFd(int(peer.handle)),
		}
		n.check(netlink.LinkAdd(veth))
		l, err := netlink.LinkByName(name)
		n.check(err)
		index = l.Attrs().Index
	})
	return index
}

// Link looks an interface up by its name.
func (n *Netns) Link(name string) netlink.Link {
	n.t.Helper()
	var l netlink.Link
	n.Do(func() {
		var err error
		l, err = netlink.LinkByName(name)
		n.check(err)
	})
	return l
}

func (n *Netns) check(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatalf("in network namespace: %v", err)
	}
}

// configure gives the end its addresses and tells it its peer's. IPv6 is kept
// from talking by itself: no link-local address, no detection of duplicates,
// no router solicitations, no second report of multicast groups.
func (e *End) configure(peer *End) {
	e.t.Helper()
	for name, value := range map[string]string{
		"addr_gen_mode": "1", "accept_ra": "0", "router_solicitations": "0", "dad_transmits": "0",
		"mldv2_unsolicited_report_interval": "3600000",
	} {
		e.Sysctl("ipv6/conf/"+e.Name+"/"+name, value)
	}
	e.Do(func() {
		l, err := netlink.LinkByName(e.Name)
		e.check(err)
		e.Index = l.Attrs().Index
		e.check(netlink.LinkSetHardwareAddr(l, e.MAC))
		for _, a := range []struct {
			own, peer netip.Addr
			bits      int
		}{{e.IP4, peer.IP4, 24}, {e.IP6, peer.IP6, 64}} {
			flags := 0
			if a.own.Is6() {
				flags = unix.IFA_F_NODAD
			}
			e.check(netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(a.own, a.bits), Flags: flags}))
		}
	})
	e.addNeighbours(peer)
}

func (e *End) addNeighbours(peer *End) {
	e.t.Helper()
	e.Do(func() {
		for _, ip := range []netip.Addr{peer.IP4, peer.IP6} {
			e.check(netlink.NeighSet(&netlink.Neigh{
				LinkIndex:    e.Index,
				IP:           ip.AsSlice(),
				HardwareAddr: peer.MAC,
				State:        netlink.NUD_PERMANENT,
			}))
		}
	})
}

func (e *End) up() {
	e.t.Helper()
	e.Do(func() {
		for _, name := range []string{"lo", e.Name} {
			l, err := netlink.LinkByName(name)
			e.check(err)
			e.check(netlink.LinkSetUp(l))
		}
	})
}

func (e *End) waitRunning() {
	e.t.Helper()
	Eventually(e.t, "carrier on "+e.Name, func() bool {
		return e.Link(e.Name).Attrs().OperState == netlink.OperUp
	})
}

// SetMTU sets the largest packet of the end's interface.
func (e *End) SetMTU(mtu int) {
	e.t.Helper()
	e.Do(func() {
		l, err := netlink.LinkByName(e.Name)
		e.check(err)
		e.check(netlink.LinkSetMTU(l, mtu))
	})
}

// IP is the end's address in one family.
func (e *End) IP(v6 bool) netip.Addr {
	if v6 {
		return e.IP6
	}
	return e.IP4
}

func ipNet(a netip.Addr, bits int) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}
}

// Counters are an interface's own: frames and bytes as the driver counts them.
type Counters struct{ RxPackets, RxBytes, TxPackets, TxBytes uint64 }

// Counters reads the end's interface.
func (e *End) Counters() Counters {
	e.t.Helper()
	s := e.Link(e.Name).Attrs().Statistics
	return Counters{RxPackets: s.RxPackets, RxBytes: s.RxBytes, TxPackets: s.TxPackets, TxBytes: s.TxBytes}
}
