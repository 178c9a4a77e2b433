// SPDX-License-Identifier: Apache-2.0

package drop

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

// reasons that kernels tell.
var withReasons = bpftest.Feature{Name: "reasons of drops", Major: 5, Minor: 17}

// seen collects what is dropped in namespaces of a test.
type seen struct {
	*Probe
	t     testing.TB
	drops []event.Drop
}

// open has room for what other tests on the machine have dropped at the same time.
func open(t testing.TB) *seen { return openFor(t, 1<<16) }

func openFor(t testing.TB, connections int) *seen {
	t.Helper()
	bpftest.RequireKernel(t, withReasons)
	p, err := Open(Config{Connections: connections})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return &seen{Probe: p, t: t}
}

// in gives the packets dropped in a namespace for a reason, "" for any, and the
// last of the drops.
func (s *seen) in(n *bpftest.Netns, reason string) (packets uint64, last event.Drop) {
	s.t.Helper()
	drops, err := s.Take()
	if err != nil {
		s.t.Fatal(err)
	}
	s.drops = append(s.drops, drops...)
	for _, d := range s.drops {
		if d.Conn.Netns == n.Inode() && (reason == "" || d.Reason == reason) {
			packets += d.Amount.Packets
			last = d
		}
	}
	return packets, last
}

// tell lists what was dropped in a namespace.
func (s *seen) tell(n *bpftest.Netns) string {
	var b strings.Builder
	for _, d := range s.drops {
		if d.Conn.Netns == n.Inode() {
			fmt.Fprintf(&b, "\n%d %s %s %v %v:%d %v:%d", d.Amount.Packets, d.Reason, d.Location, d.Conn.Protocol,
				d.Conn.Local.Addr(), d.Conn.LocalPort, d.Conn.Remote.Addr(), d.Conn.RemotePort)
		}
	}
	return b.String()
}

// expect waits for so many packets at least, as many as the kernel counts, and
// gives the last of the drops.
func (s *seen) expect(n *bpftest.Netns, reason string, least uint64, want func() uint64) event.Drop {
	s.t.Helper()
	if !s.knows(reason) {
		s.t.Skipf("this kernel has no reason %s", reason)
	}
	var d event.Drop
	var got uint64
	deadline := time.Now().Add(30 * time.Second)
	for got = 0; time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if got, d = s.in(n, reason); got >= least && got == want() {
			break
		}
	}
	if got < least || got != want() {
		s.t.Fatalf("%d packets dropped for %s, and the kernel counts %d; all:%s", got, reason, want(), s.tell(n))
	}
	if d.Location == "" || strings.HasPrefix(d.Location, "0x") || strings.Contains(d.Location, "/") {
		s.t.Errorf("place %q", d.Location)
	}
	if d.Hint == "" {
		s.t.Errorf("no hint for %s", reason)
	}
	return d
}

func (s *seen) knows(reason string) bool {
	for _, name := range s.names.core {
		if name == reason {
			return true
		}
	}
	return false
}

func snmp(n *bpftest.Netns, name string) func() uint64 {
	return func() uint64 { return n.SNMP(name)[0] }
}

// sendUDP sends datagrams of 100 bytes and gives where from.
func sendUDP(t *testing.T, from *bpftest.End, to netip.AddrPort, n int) netip.AddrPort {
	t.Helper()
	c := from.UDP(to.Addr().Is6())
	for range n {
		if _, err := c.WriteToUDPAddrPort(make([]byte, 100), to); err != nil {
			t.Fatal(err)
		}
	}
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// checkConn: the local end is the one in the namespace.
func checkConn(t *testing.T, d event.Drop, local, remote netip.AddrPort) {
	t.Helper()
	l, r := netip.AddrPortFrom(d.Conn.Local.Addr(), d.Conn.LocalPort), netip.AddrPortFrom(d.Conn.Remote.Addr(), d.Conn.RemotePort)
	if l != local || r != remote {
		t.Errorf("connection %v - %v, want %v - %v", l, r, local, remote)
	}
}

// TestNetfilter drops as a network policy does.
func TestNetfilter(t *testing.T) {
	s := open(t)
	for _, v6 := range []bool{false, true} {
		p := bpftest.NewPair(t)
		to := netip.AddrPortFrom(p.B.IP(v6), 4000)
		const n = 20
		p.A.Reaches(p.B.EchoUDP(v6).Addr) // IPv6 addresses take a moment
		counted := p.B.DropPort(unix.IPPROTO_UDP, to.Port(), v6, false)
		began := time.Now()
		from := sendUDP(t, &p.A, to, n)
		d := s.expect(p.B.Netns, "NETFILTER_DROP", n, counted)
		checkConn(t, d, to, from)
		if d.Conn.Ifindex != uint32(p.B.Index) || d.Conn.Protocol != event.UDP {
			t.Errorf("at interface %d, protocol %v", d.Conn.Ifindex, d.Conn.Protocol)
		}
		size := uint64(14 + 20 + 8 + 100)
		if v6 {
			size += 20
		}
		if d.Amount.Bytes != size*d.Amount.Packets {
			t.Errorf("%d bytes in %d packets of %d", d.Amount.Bytes, d.Amount.Packets, size)
		}
		// To a tick of the clock, and a busy machine's.
		if first := time.Unix(0, d.First); first.Before(began.Add(-time.Second)) || d.Last < d.First || d.Last > time.Now().UnixNano() {
			t.Errorf("at %v to %v, and it began at %v", first, time.Unix(0, d.Last), began)
		}
	}
}

// TestOneNamespace: what is dropped elsewhere is not looked at.
func TestOneNamespace(t *testing.T) {
	bpftest.RequireKernel(t, withReasons)
	p, other := bpftest.NewPair(t), bpftest.NewPair(t)
	probe, err := Open(Config{Netns: p.B.Inode()})
	if err != nil {
		t.Fatal(err)
	}
	defer probe.Close()
	s := &seen{Probe: probe, t: t}
	sendUDP(t, &other.A, netip.AddrPortFrom(other.B.IP4, 4000), 5)
	sendUDP(t, &p.A, netip.AddrPortFrom(p.B.IP4, 4000), 3)
	s.expect(p.B.Netns, "NO_SOCKET", 3, func() uint64 { return 3 })
	for _, d := range s.drops {
		if d.Conn.Netns != p.B.Inode() {
			t.Errorf("of another: %+v", d)
		}
	}
}

func TestFullReceiveBuffer(t *testing.T) {
	s := open(t)
	p := bpftest.NewPair(t)
	reader := p.B.UDP(false)
	if err := reader.SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	at := reader.LocalAddr().(*net.UDPAddr).AddrPort()
	from := sendUDP(t, &p.A, at, 200)
	checkConn(t, s.expect(p.B.Netns, "SOCKET_RCVBUFF", 1, snmp(p.B.Netns, "Udp: RcvbufErrors")), at, from)
}

func TestNoSocket(t *testing.T) {
	s := open(t)
	p := bpftest.NewPair(t)
	to := netip.AddrPortFrom(p.B.IP4, 4000)
	from := sendUDP(t, &p.A, to, 7)
	checkConn(t, s.expect(p.B.Netns, "NO_SOCKET", 7, snmp(p.B.Netns, "Udp: NoPorts")), to, from)

	p.A.Do(func() {
		if c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to)); err == nil {
			_ = c.Close()
			t.Error("connected")
		}
	})
	d := s.expect(p.B.Netns, "NO_SOCKET", 8, func() uint64 { return 8 })
	if d.Conn.Protocol != event.TCP {
		t.Errorf("protocol %v", d.Conn.Protocol)
	}
}

func TestBadChecksum(t *testing.T) {
	for _, c := range []struct {
		layer           bpftest.Layer
		sum             int // offset of the checksum in the frame
		reason, counter string
	}{
		{bpftest.UDP{Src: 5000, Dst: 4000}, 34 + 6, "UDP_CSUM", "Udp: InCsumErrors"},
		{bpftest.TCP{Src: 5000, Dst: 4000, Flags: 2}, 34 + 16, "TCP_CSUM", "Tcp: InCsumErrors"},
	} {
		t.Run(c.reason, func(t *testing.T) {
			s := open(t)
			p := bpftest.NewPair(t)
			frame := bpftest.Packet(bpftest.Ether{}, bpftest.IPv4{Src: p.A.IP4, Dst: p.B.IP4}, c.layer, bpftest.Zeros(10))
			frame[c.sum] = 0x77
			out := p.A.Frames()
			for range 5 {
				if _, err := out.Write(frame); err != nil {
					t.Fatal(err)
				}
			}
			d := s.expect(p.B.Netns, c.reason, 5, snmp(p.B.Netns, c.counter))
			checkConn(t, d, netip.AddrPortFrom(p.B.IP4, 4000), netip.AddrPortFrom(p.A.IP4, 5000))
		})
	}
}

// forward makes b a router, and a reach a network behind it.
func forward(t *testing.T, p *bpftest.Pair, network string) {
	t.Helper()
	p.B.Sysctl("ipv4/ip_forward", "1")
	_, dst, _ := net.ParseCIDR(network)
	p.A.Do(func() {
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: p.A.Index, Dst: dst, Gw: p.B.IP4.AsSlice()}); err != nil {
			t.Fatal(err)
		}
	})
}

// TestForwarding: what only passes through is dropped where it is.
func TestForwarding(t *testing.T) {
	for _, c := range []struct {
		name, reason string
		ttl          int
		counter      string
		prepare      func(p *bpftest.Pair, dst *net.IPNet) error
	}{
		{"time to live", "IP_INHDR", 1, "Ip: InHdrErrors", func(p *bpftest.Pair, dst *net.IPNet) error {
			return netlink.RouteAdd(&netlink.Route{LinkIndex: p.B.Index, Dst: dst, Scope: netlink.SCOPE_LINK})
		}},
		{"no route", "IP_INNOROUTES", 64, "", func(*bpftest.Pair, *net.IPNet) error { return nil }},
		// The kernel gives no reason, and the packet was on its way.
		{"unreachable", "NOT_SPECIFIED", 64, "", func(_ *bpftest.Pair, dst *net.IPNet) error {
			return netlink.RouteAdd(&netlink.Route{Dst: dst, Type: unix.RTN_UNREACHABLE})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			p := bpftest.NewPair(t)
			forward(t, p, "10.99.0.0/24")
			_, dst, _ := net.ParseCIDR("10.99.0.0/24")
			p.B.Do(func() {
				if err := c.prepare(p, dst); err != nil {
					t.Fatal(err)
				}
			})
			out := p.A.UDP(false)
			raw, err := out.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, c.ttl) })
			if err != nil {
				t.Fatal(err)
			}
			to := netip.MustParseAddrPort("10.99.0.7:4000")
			for range 3 {
				_, _ = out.WriteToUDPAddrPort([]byte("there?"), to) // ICMP errors come back
			}
			want := func() uint64 { return 3 }
			if c.counter != "" {
				want = snmp(p.B.Netns, c.counter)
			}
			checkConn(t, s.expect(p.B.Netns, c.reason, 3, want), to, out.LocalAddr().(*net.UDPAddr).AddrPort())
		})
	}
}

// TestFullAcceptQueue: a process that listens and does not accept.
func TestFullAcceptQueue(t *testing.T) {
	s := open(t)
	p := bpftest.NewPair(t)
	p.B.Sysctl("ipv4/tcp_syncookies", "0") // with them the kernel says NO_SOCKET
	fd := -1
	p.B.Do(func() {
		var err error
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
			err = unix.Bind(fd, &unix.SockaddrInet4{Port: 4000, Addr: p.B.IP4.As4()})
		}
		if err == nil {
			err = unix.Listen(fd, 3)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	defer unix.Close(fd)
	connect := func(n int) {
		for range n {
			p.A.Do(func() {
				c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = unix.Close(c) })
				_ = unix.Connect(c, &unix.SockaddrInet4{Port: 4000, Addr: p.B.IP4.As4()})
			})
		}
	}
	connect(2)
	// The handshakes of these end at once: the first answers go to nobody, and are
	// sent again a second later, when there is room for two of them.
	setNeighbour(p, net.HardwareAddr{2, 0, 0, 0, 0x88, 9})
	connect(3)
	setNeighbour(p, p.A.MAC)
	overflows := snmp(p.B.Netns, "TcpExt: ListenOverflows")
	bpftest.Eventually(t, "a full queue", func() bool { return overflows() > 0 })
	s.expect(p.B.Netns, "TCP_LISTEN_OVERFLOW", 1, overflows) // since 6.15
}

func setNeighbour(p *bpftest.Pair, mac net.HardwareAddr) {
	p.B.Do(func() {
		_ = netlink.NeighSet(&netlink.Neigh{LinkIndex: p.B.Index, IP: p.A.IP4.AsSlice(), HardwareAddr: mac, State: netlink.NUD_PERMANENT})
	})
}

// TestSent: a packet that is dropped on its way out is the sender's, before it has
// an interface.
func TestSent(t *testing.T) {
	s := open(t)
	p := bpftest.NewPair(t)
	to := netip.AddrPortFrom(p.B.IP4, 4000)
	counted := p.A.DropPort(unix.IPPROTO_UDP, to.Port(), false, true)
	c := p.A.UDP(false)
	for range 3 {
		if _, err := c.WriteToUDPAddrPort([]byte("there?"), to); err == nil {
			t.Error("it was sent")
		}
	}
	d := s.expect(p.A.Netns, "NETFILTER_DROP", 3, counted)
	checkConn(t, d, c.LocalAddr().(*net.UDPAddr).AddrPort(), to)
	if d.Conn.Ifindex != uint32(p.A.Index) {
		t.Errorf("at interface %d, want %d", d.Conn.Ifindex, p.A.Index)
	}
}

// TestUnknownNeighbour: nobody has the address.
func TestUnknownNeighbour(t *testing.T) {
	p := bpftest.NewPair(t)
	s := open(t)
	to := netip.MustParseAddrPort("10.88.0.77:4000")
	from := sendUDP(t, &p.A, to, 2)
	checkConn(t, s.expect(p.A.Netns, "NEIGH_FAILED", 2, func() uint64 { return 2 }), from, to)
}

// TestHealthyTraffic: nothing of it is a drop.
func TestHealthyTraffic(t *testing.T) {
	p := bpftest.NewPair(t)
	for _, v6 := range []bool{false, true} { // IPv6 addresses take a moment
		p.A.Reaches(p.B.EchoUDP(v6).Addr)
	}
	s := open(t)
	for _, v6 := range []bool{false, true} {
		tcp, udp := p.B.EchoTCP(v6), p.B.EchoUDP(v6)
		for range 20 {
			p.A.AskTCP(tcp.Addr, 1000)
			p.A.AskUDP(udp.Addr, 1, 100) // as of DNS: a socket for each question
		}
		p.A.AskTCP(tcp.Addr, 10<<20)
		p.A.AskUDP(udp.Addr, 100, 1400)
		if n := p.A.Ping(p.B.IP(v6), 5); n != 5 {
			t.Errorf("%d echoes of 5", n)
		}
		reset(t, p, v6)
		farewell(t, p, v6)
	}
	idle(t, p)
	if n, _ := s.in(p.A.Netns, ""); n > 0 {
		t.Errorf("%d drops:%s", n, s.tell(p.A.Netns))
	}
	if n, _ := s.in(p.B.Netns, ""); n > 0 {
		t.Errorf("%d drops:%s", n, s.tell(p.B.Netns))
	}
}

// reset ends a connection without a farewell, as load balancers do.
func reset(t *testing.T, p *bpftest.Pair, v6 bool) {
	t.Helper()
	ended := make(chan struct{})
	at := p.B.ListenTCP(v6, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1))
		close(ended)
	})
	c := p.A.DialTCP(at)
	_ = c.SetLinger(0)
	_ = c.Close()
	<-ended
}

// farewell: one end closes and goes, the other does so later, and finds nobody but
// the kernel there.
func farewell(t *testing.T, p *bpftest.Pair, v6 bool) {
	t.Helper()
	ended := make(chan struct{})
	at := p.B.ListenTCP(v6, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1))
		time.Sleep(50 * time.Millisecond)
		_ = c.Close()
		close(ended)
	})
	_ = p.A.DialTCP(at).Close()
	<-ended
}

// idle keeps a connection open by probes.
func idle(t *testing.T, p *bpftest.Pair) {
	t.Helper()
	at := p.B.ListenTCP(false, bpftest.ServeDiscard)
	c := p.A.DialTCP(at)
	if err := c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second}); err != nil {
		t.Fatal(err)
	}
	bpftest.Eventually(t, "probes", func() bool { return p.A.SNMP("TcpExt: TCPKeepAlive")[0] >= 2 })
}
