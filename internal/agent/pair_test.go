// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/pair"
)

// inside runs fn in a named namespace of the world: its sockets stay there.
func (w *world) inside(name string, fn func() error) {
	w.t.Helper()
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		w.t.Fatal(err)
	}
	defer home.Close()
	ns, err := os.Open(fmt.Sprintf("/proc/%d/root/run/netns/%s", w.pid, name))
	if err == nil {
		defer ns.Close()
		err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
	}
	if err == nil {
		err = fn()
	}
	// The thread must not end: the world's processes end with the one that started
	// them.
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		w.t.Fatal(back)
	}
	runtime.UnlockOSThread()
	if err != nil {
		w.t.Fatalf("in namespace %s: %v", name, err)
	}
}

// TestLossBetweenBothEnds: a router drops every so many packets of each way, and
// what the two ends saw tells exactly how many.
func TestLossBetweenBothEnds(t *testing.T) {
	w := newWorld(t)
	a := w.agent(t.TempDir())
	a.listens()
	// Without offloads a packet of the router is a segment.
	w.run(`sysctl -qw net.ipv4.ip_forward=1
		for i in 1 2; do
			ip netns add c$i; ip link add v$i type veth peer name eth0 netns c$i
			ethtool -K v$i gro off gso off tso off >/dev/null; ip netns exec c$i ethtool -K eth0 gro off gso off tso off >/dev/null
			ip addr add 10.0.$i.1/24 dev v$i; ip link set v$i up
			ip -n c$i addr add 10.0.$i.2/24 dev eth0; ip -n c$i link set eth0 up; ip -n c$i route add default via 10.0.$i.1
		done
		nft add table ip t
		nft add chain ip t f '{ type filter hook forward priority 0; }'
		for p in udp tcp; do
			nft add counter ip t $p-there; nft add counter ip t $p-back
			nft add rule ip t f meta l4proto $p iifname v1 numgen inc mod 13 0 counter name $p-there drop
			nft add rule ip t f meta l4proto $p iifname v2 numgen inc mod 17 0 counter name $p-back drop
		done`)
	started := time.Now()
	for tapped(a.status()) < 3 || time.Since(started) < 2500*time.Millisecond {
		if time.Sleep(50 * time.Millisecond); time.Since(started) > 30*time.Second {
			t.Fatal("not tapped")
		}
	}
	w.exchange("udp", datagrams)
	w.exchange("tcp", stream)

	var pairs map[string]pair.Pair
	var dropped map[string]uint64
	bpftest.Eventually(t, "the last packets to come to rest", func() bool {
		dropped = w.dropped()
		pairs = a.pairs(9000)
		return !pairs["tcp"].Moving && !pairs["udp"].Moving && maps.Equal(dropped, w.dropped())
	})
	for _, name := range []string{"tcp", "udp"} {
		p := pairs[name]
		there, back := dropped[name+"-there"], dropped[name+"-back"]
		if p.From == nil || p.To == nil || p.LostThere == nil {
			t.Errorf("%s: %+v", name, p)
			continue
		}
		t.Logf("%s: lost %d and %d, of %d and %d", name, *p.LostThere, *p.LostBack, p.From.Total.GetTxPackets(), p.To.Total.GetTxPackets())
		if *p.LostThere != there || *p.LostBack != back || there == 0 || back == 0 {
			t.Errorf("%s: lost %d and %d, the router dropped %d and %d", name, *p.LostThere, *p.LostBack, there, back)
		}
		if p.From.GetTap().GetNamespace() != "c1" || p.To.GetTap().GetNamespace() != "c2" {
			t.Errorf("%s: from %v to %v", name, p.From.GetTap(), p.To.GetTap())
		}
	}
}

// pairs asks twice, as orb8 flows --pair does, and gives the connections of a
// port by their protocol.
func (p *running) pairs(port uint32) map[string]pair.Pair {
	p.t.Helper()
	ends := pair.New()
	flows, _ := p.flows(&pb.FlowsRequest{Limit: 1000})
	for _, f := range flows {
		ends.Before(f)
	}
	time.Sleep(300 * time.Millisecond)
	flows, sum := p.flows(&pb.FlowsRequest{Limit: 1000})
	for _, f := range flows {
		ends.Add(f)
	}
	found := map[string]pair.Pair{}
	for _, c := range ends.Pairs(sum.GetStartNs()) {
		if f := c.Either(); f.GetLocal().GetPort() == port || f.GetRemote().GetPort() == port {
			found[map[uint32]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[f.GetProtocol()]] = c
		}
	}
	return found
}

// dropped is what the rules of the router did.
func (w *world) dropped() map[string]uint64 {
	w.t.Helper()
	all := map[string]uint64{}
	for _, counter := range []string{"tcp-there", "tcp-back", "udp-there", "udp-back"} {
		_, text, _ := strings.Cut(w.run("nft list counter ip t "+counter), "packets ")
		var n uint64
		if _, err := fmt.Sscan(text, &n); err != nil {
			w.t.Fatal(err)
		}
		all[counter] = n
	}
	return all
}

// exchange has c1 talk to c2 until both are done.
func (w *world) exchange(network string, talk func(client, server net.Conn) error) {
	w.t.Helper()
	var server, client net.Conn
	var listener net.Listener
	w.inside("c2", func() (err error) {
		if network == "tcp" {
			listener, err = net.Listen("tcp", "10.0.2.2:9000")
			return err
		}
		server, err = net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(10, 0, 2, 2), Port: 9000}, &net.UDPAddr{IP: net.IPv4(10, 0, 1, 2), Port: 9000})
		return err
	})
	w.inside("c1", func() (err error) {
		if network == "udp" {
			client, err = net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(10, 0, 1, 2), Port: 9000}, &net.UDPAddr{IP: net.IPv4(10, 0, 2, 2), Port: 9000})
			return err
		}
		client, err = net.DialTimeout("tcp", "10.0.2.2:9000", 30*time.Second)
		return err
	})
	if listener != nil {
		var err error
		if server, err = listener.Accept(); err != nil {
			w.t.Fatal(err)
		}
		defer listener.Close()
	}
	defer server.Close()
	defer client.Close()
	if err := talk(client, server); err != nil {
		w.t.Fatal(err)
	}
	_ = client.Close()
	_ = server.Close()
}

// datagrams sends some each way; the receiver need not read them.
func datagrams(client, server net.Conn) error {
	for _, from := range []net.Conn{client, server} {
		for range 500 {
			if _, err := from.Write(make([]byte, 100)); err != nil {
				return err
			}
		}
	}
	return nil
}

// stream sends a megabyte each way, and ends.
func stream(client, server net.Conn) error {
	done := make(chan error, 4)
	for _, c := range []net.Conn{client, server} {
		_ = c.SetDeadline(time.Now().Add(60 * time.Second))
		go func() {
			_, err := c.Write(make([]byte, 1<<20))
			if err == nil {
				err = c.(*net.TCPConn).CloseWrite()
			}
			done <- err
		}()
		go func() {
			_, err := io.Copy(io.Discard, c)
			done <- err
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			return err
		}
	}
	return nil
}
