// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"

	. "github.com/orb8/orb8/internal/bpftest"
)

// A pod behind a bridge asks for a Service of a pod beside it. While the host is
// not sure of that pod's hardware address, what is asked leaves by the bridge's
// own interface, which behind the tap takes it back and does not count it.
func TestServiceBesideOnABridge(t *testing.T) {
	for name, shared := range map[string]bool{"": false, ", the bridge has a port's address": true} {
		t.Run("a bridge"+name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, how Attach) {
				for _, v6 := range []bool{false, true} {
					serviceBeside(t, how, shared, v6)
				}
			})
		})
	}
}

func serviceBeside(t *testing.T, how Attach, shared, v6 bool) {
	t.Helper()
	w := NewWire(t)
	far, h := w.Host(), w.Host()
	p, q := h.BridgePod(), h.BridgePod()
	bridge := h.Link("cni0").Attrs()
	if shared { // as when it is given none of its own
		h.Do(func() { check(t, netlink.LinkSetHardwareAddr(byName(p.HostEnd), bridge.HardwareAddr)) })
	}
	for _, name := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables"} {
		if _, err := os.Stat("/proc/sys/net/bridge/" + name); err != nil {
			t.Skip("there is no br_netfilter")
		}
		h.Sysctl("bridge/"+name, "1")
	}
	at := netip.MustParseAddrPort("10.96.0.1:80")
	if v6 {
		at = netip.MustParseAddrPort("[fd96::1]:80")
	}
	server := q.EchoTCP(v6).Addr
	h.Service(at, server)
	p.AskTCP(at, 100) // it works, and who is who is known
	far.AskTCP(server, 100)
	l := tapQuiet(t, &End{Netns: h.Netns, Name: "cni0"}, Config{Attach: how})

	// What comes from elsewhere is counted as ever, and alone.
	unsure := &netlink.Neigh{LinkIndex: bridge.Index, IP: q.IP(v6).AsSlice(), HardwareAddr: q.MAC, State: netlink.NUD_STALE}
	h.Do(func() { check(t, netlink.NeighSet(unsure)) })
	before := h.Link("cni0").Attrs().Statistics.TxPackets
	p.AskTCP(at, 40_000)
	l.settle()
	if sent := h.Link("cni0").Attrs().Statistics.TxPackets - before; sent != 0 {
		t.Errorf("a weak test: the bridge counted %d", sent)
	}
	far.AskTCP(server, 40_000)
	l.settle()
	_, tx := l.accounts("cni0")
	got, seg := tx.other.Forwarded, tx.other.Segmentation
	got.Add(tx.wire())
	if got.Packets-seg.Packets != tx.device.Packets || got.Bytes-seg.Bytes != tx.device.Bytes || tx.device.Packets == 0 {
		t.Errorf("tapped %+v, the device counted %+v: %+v", got, tx.device, tx)
	}
}

// What is sent by a bridge that has lost its last port has passed the tap when
// it is dropped. The bridge does not count it, and says so.
func TestBridgeWithoutPorts(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		if Older(t, 6, 12) {
			t.Skip("a bridge of this kernel does not say what it drops without carrier")
		}
		w := NewWire(t)
		far, h := w.Host(), w.Host()
		p := h.BridgePod()
		far.AskUDP(p.EchoUDP(false).Addr, 1, 100) // the way to it is known
		bridge := h.Link("cni0").Attrs()
		l := tapQuiet(t, &End{Netns: h.Netns, Name: "cni0"}, Config{Attach: how})
		known := &netlink.Neigh{LinkIndex: bridge.Index, IP: p.IP4.AsSlice(), HardwareAddr: p.MAC, State: netlink.NUD_PERMANENT}
		h.Do(func() {
			check(t, netlink.NeighSet(known))
			check(t, netlink.LinkSetNoMaster(byName(p.HostEnd)))
		})
		Eventually(t, "the bridge to be without carrier", func() bool {
			return h.Link("cni0").Attrs().OperState == netlink.OperDown
		})
		s, before := far.UDP(false), bridge.Statistics.TxDropped
		for range 5 {
			if _, err := s.WriteToUDPAddrPort(make([]byte, 100), netip.AddrPortFrom(p.IP4, 9)); err != nil {
				t.Fatal(err)
			}
		}
		Eventually(t, "five to be dropped", func() bool { return h.Link("cni0").Attrs().Statistics.TxDropped >= before+5 })
		l.settle()
		_, tx := l.accounts("cni0")
		if got := tx.other.Forwarded; got.Packets != 5 || tx.device.Packets != 0 || tx.other.Dropped != 5 {
			t.Errorf("sent 5, tapped %+v, the device counted %+v and dropped %d", got, tx.device, tx.other.Dropped)
		}
	})
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
