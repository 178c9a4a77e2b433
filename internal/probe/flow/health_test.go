// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"bufio"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	. "github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

// What is told of a connection's health is what its socket says: with packets
// lost on the way to the receiver, behind both taps.
func TestHealth(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		p := NewPair(t)
		loseOneIn(&p.B, "40")
		a, b := tapOn(t, p.A.Netns, Config{Attach: how}), tapOn(t, p.B.Netns, Config{Attach: how})
		stopA, stopB := a.every(100*time.Millisecond), b.every(100*time.Millisecond)
		before := sentSegments(&p.A)
		accepted, asked := make(chan *net.TCPConn, 1), make(chan struct{})
		release := sync.OnceFunc(func() { close(asked) })
		defer release()
		server := p.B.ListenTCP(false, func(c *net.TCPConn) {
			ServeDiscard(c)
			accepted <- c
			<-asked
		})
		c := p.A.DialTCP(server)
		cookie := p.A.Cookie(c)
		if _, err := c.Write(make([]byte, 8<<20)); err != nil {
			t.Fatal(err)
		}
		_ = c.CloseWrite()
		remote := <-accepted
		remoteCookie, remoteInfo := p.B.Cookie(remote), p.B.TCPInfo(remote)
		release()
		_, _ = io.Copy(io.Discard, c)
		stopA()
		stopB()
		a.settle()
		b.settle()
		info := p.A.TCPInfo(c)
		port := c.LocalAddr().(*net.TCPAddr).AddrPort().Port()
		own, other := a.find(event.TCP, port, server.Port()), b.find(event.TCP, server.Port(), port)
		checkHealth(t, own, info)
		if h := other.Health; !h.TellsOrder || h.OutOfOrder != remoteInfo.Rcv_ooopack || h.OutOfOrder == 0 {
			t.Errorf("%d segments out of order (%v), the socket says %d", h.OutOfOrder, h.TellsOrder, remoteInfo.Rcv_ooopack)
		}
		if n := sentSegments(&p.A) - before; n != own.Traffic.TxPackets {
			t.Errorf("TCP sent %d segments, tapped %d", n, own.Traffic.TxPackets)
		}
		if id := ownCgroup(t); own.Cookie != cookie || other.Cookie != remoteCookie || own.Cgroup != id || other.Cgroup != id {
			t.Errorf("sockets %d and %d, want %d and %d; cgroups %d and %d, want %d",
				own.Cookie, other.Cookie, cookie, remoteCookie, own.Cgroup, other.Cgroup, id)
		}
		if flags := event.FlagSYN | event.FlagFIN | event.FlagACK; own.Health.FlagsTx&flags != flags || own.Health.FlagsRx&flags != flags {
			t.Errorf("flags %b and %b", own.Health.FlagsTx, own.Health.FlagsRx)
		}
	})
}

// loseOneIn drops data on its way up from an interface, behind the tap.
func loseOneIn(e *End, n string) {
	for _, args := range [][]string{
		{"add", "table", "inet", "loss"},
		{"add", "chain", "inet", "loss", "in", "{ type filter hook input priority 0; }"},
		{"add", "rule", "inet", "loss", "in", "meta l4proto tcp meta length > 1000 numgen inc mod " + n + " == 7 drop"},
	} {
		e.Command("nft", args...)
	}
}

func checkHealth(t *testing.T, d *event.Delta, info *unix.TCPInfo) {
	t.Helper()
	h := d.Health
	if !d.HasSocket || h.Retransmits != info.Total_retrans || h.Retransmits == 0 {
		t.Errorf("%d segments sent again, the socket says %d", h.Retransmits, info.Total_retrans)
	}
	if h.MinRTT == 0 || h.MinRTT != info.Min_rtt {
		t.Errorf("least round trip %d µs, the socket says %d", h.MinRTT, info.Min_rtt)
	}
	// It is smoothed once more by the answer to the last packet.
	if h.RTT < h.MinRTT || h.RTT > 1_000_000 {
		t.Errorf("round trip %d µs with a least of %d, the socket says %d", h.RTT, h.MinRTT, info.Rtt)
	}
	// Counted at the last packet sent, so short of what came after it.
	if h.BytesAcked == 0 || h.BytesAcked > info.Bytes_acked {
		t.Errorf("%d bytes acknowledged, the socket says %d", h.BytesAcked, info.Bytes_acked)
	}
	t.Logf("tapped %+v; the socket: retransmits %d, rtt %d, least %d, acked %d", h, info.Total_retrans, info.Rtt, info.Min_rtt, info.Bytes_acked)
}

// ownCgroup is the id of the test's cgroup in the v2 tree.
func ownCgroup(t *testing.T) uint64 {
	t.Helper()
	own := ""
	eachLine(t, "/proc/self/cgroup", func(line string) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			own = path
		}
	})
	id := uint64(0)
	eachLine(t, "/proc/self/mountinfo", func(line string) {
		before, after, _ := strings.Cut(line, " - ")
		if !strings.HasPrefix(after, "cgroup2 ") {
			return
		}
		var st unix.Stat_t
		if unix.Stat(filepath.Join(strings.Fields(before)[4], own), &st) == nil {
			id = st.Ino
		}
	})
	if id == 0 {
		t.Fatalf("no cgroup v2 directory for %q", own)
	}
	return id
}

func eachLine(t *testing.T, path string, fn func(string)) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fn(s.Text())
	}
}

// A socket that has sent once gives its name to all that it receives, and what
// nobody sent has none.
func TestReceiverIsNamedByItsAnswer(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		p := NewPair(t)
		b := tapOn(t, p.B.Netns, Config{Attach: how})
		client, server := p.A.UDP(false), p.B.UDP(false)
		to := net.UDPAddrFromAddrPort(server.LocalAddr().(*net.UDPAddr).AddrPort())
		if _, err := client.WriteTo([]byte("ask"), to); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 10)
		_, from, err := server.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatal(err)
		}
		b.settle()
		d := b.find(event.UDP, uint16(to.Port), from.Port())
		if d.Cookie != 0 || d.Cgroup != 0 || d.FirstTx || d.Traffic.RxPackets != 1 {
			t.Errorf("received only: %+v", d)
		}
		if _, err := server.WriteToUDPAddrPort([]byte("answer"), from); err != nil {
			t.Fatal(err)
		}
		b.settle()
		if d = b.find(event.UDP, uint16(to.Port), from.Port()); d.Cookie != p.B.Cookie(server) || d.Cgroup == 0 || d.HasSocket {
			t.Errorf("after its answer: %+v", d)
		}
	})
}

// A connection that is refused shows it in its flags, and a datagram to a
// closed port in the errors that quote it.
func TestRefused(t *testing.T) {
	p := NewPair(t)
	RequireKernel(t, BPF)
	a, b := tapOn(t, p.A.Netns, Config{}), tapOn(t, p.B.Netns, Config{})
	start := time.Now()
	p.A.Do(func() {
		if c, err := net.DialTimeout("tcp", "10.88.0.2:9", 5*time.Second); err == nil {
			_ = c.Close()
			t.Error("nobody listens there")
		}
	})
	s := p.A.UDP(false)
	if _, err := s.WriteTo([]byte("?"), &net.UDPAddr{IP: p.B.IP4.AsSlice(), Port: 9}); err != nil {
		t.Fatal(err)
	}
	a.settle()
	for c, d := range a.flows {
		if c.Protocol == event.TCP && (d.Health.FlagsTx != event.FlagSYN || d.Health.FlagsRx != event.FlagRST|event.FlagACK || !d.FirstTx) {
			t.Errorf("refused connection: %+v", d)
		}
		if c.Protocol == event.UDP && (d.Health.ICMPErrors != 1 || d.Health.ICMPType != 3 || d.Health.ICMPCode != 3) {
			t.Errorf("datagram to a closed port: %+v", d)
		}
		// A tick before the start and a tick after the end.
		if slack := 20 * time.Millisecond; d.First < start.Add(-slack).UnixNano() || d.Last > time.Now().UnixNano() || d.Last < d.First {
			t.Errorf("times %d to %d, the test began at %d", d.First, d.Last, start.UnixNano())
		}
	}
	if len(a.flows) != 3 {
		t.Errorf("%d connections, want TCP, UDP and the error: %+v", len(a.flows), a.flows)
	}
	// It is the kernel that refuses, and no socket of a connection.
	b.settle()
	for c, d := range b.flows {
		if h := d.Health; c.Protocol == event.TCP && (d.HasSocket || h.RTT != 0 || h.MinRTT != 0 || h.Retransmits != 0 || h.OutOfOrder != 0) {
			t.Errorf("refused here: %+v", d)
		}
	}
}
