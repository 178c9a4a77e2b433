// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

// A pod's packets are carried by its host also where a socket of the host has
// the pod's port, and receives at all addresses.
func TestSamePortInTheHost(t *testing.T) {
	const name = "routed pod to Service of a pod of another host, masqueraded"
	for _, l := range bpftest.Layouts() {
		if l.Name != name {
			continue
		}
		topo := l.Topology(t)
		warm(topo)
		node := tap(t, topo, "")
		for _, v6 := range topo.Families() {
			r := round{t, map[bool]string{false: "IPv4", true: "IPv6"}[v6], topo, node, counted(node.Audit())}
			r.check(askBesideHost(t, topo, v6))
		}
		return
	}
	t.Fatalf("no layout %q", name)
}

func askBesideHost(t *testing.T, topo *bpftest.Topology, v6 bool) talk {
	const n = 5
	server := topo.Server.EchoUDP(v6)
	to := topo.Reach(server.Addr)
	c := topo.Client.UDP(v6)
	own := c.LocalAddr().(*net.UDPAddr).AddrPort()
	topo.Hosts[0].Do(func() {
		beside, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(own.Port())})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = beside.Close() })
	})
	for range n {
		if _, err := c.WriteToUDPAddrPort([]byte(strings.Repeat("x", 100)), to); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 200)); err != nil {
			t.Fatal(err)
		}
	}
	return talk{event.UDP, netip.AddrPortFrom(own.Addr().Unmap(), own.Port()), to, server.Addr, asker(t, server), n}
}

// What servers of the host that share a port answer is its own, whichever of
// them is found by the address.
func TestSharedPort(t *testing.T) {
	topo := plain().Topology(t)
	warm(topo)
	node := tap(t, topo, "")
	server := topo.Places[len(topo.Places)-1]
	const asked, each = 8, 3
	for _, v6 := range topo.Families() {
		before := counted(node.Audit())[node.Iface(server)]
		at := netip.AddrPortFrom(topo.Server.IP(v6), 0)
		for range 2 {
			at = echoShared(t, topo.Server, at)
		}
		for range asked {
			topo.Client.AskUDP(at, each, 100)
		}
		now := counted(node.Audit())[node.Iface(server)]
		all := passage{flows: asked * each}
		if rx, tx := now.rx.minus(before.rx), now.tx.minus(before.tx); rx != all || tx != all {
			t.Errorf("received %+v and sent %+v, want %+v", rx, tx, all)
		}
	}
}

// echoShared answers on a port that others may have, too.
func echoShared(t *testing.T, e *bpftest.End, at netip.AddrPort) netip.AddrPort {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		_ = c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return err
	}}
	var c net.PacketConn
	e.Do(func() {
		var err error
		if c, err = lc.ListenPacket(context.Background(), "udp", at.String()); err != nil {
			t.Fatal(err)
		}
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		for b := make([]byte, 2048); ; {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(b[:n], from)
		}
	})
	t.Cleanup(func() {
		_ = c.Close()
		wg.Wait()
	})
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}
