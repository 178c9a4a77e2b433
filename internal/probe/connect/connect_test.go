// SPDX-License-Identifier: Apache-2.0

package connect

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

// hearing is a probe and what it has told of one namespace.
type hearing struct {
	t     *testing.T
	probe *Probe
	ns    *bpftest.End
}

func hear(t *testing.T, ns *bpftest.End) *hearing {
	t.Helper()
	p, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return &hearing{t: t, probe: p, ns: ns}
}

// next waits for n more.
func (h *hearing) next(n int) []event.FailedConnect {
	h.t.Helper()
	var got []event.FailedConnect
	bpftest.Eventually(h.t, "the kernel to tell", func() bool {
		list, err := h.probe.Take(nil)
		if err != nil {
			h.t.Fatal(err)
		}
		for _, f := range list {
			if f.Conn.Netns == h.ns.Inode() {
				got = append(got, f)
			}
		}
		return len(got) >= n
	})
	if len(got) > n {
		h.t.Errorf("%d failed, not %d: %+v", len(got), n, got)
	}
	return got
}

// dial connects from the namespace, and says how that failed and by which socket.
func dial(t *testing.T, e *bpftest.End, to netip.AddrPort, within time.Duration) (cookie uint64, port uint16, err error) {
	t.Helper()
	e.Do(func() {
		family, addr := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()})
		if to.Addr().Is4() {
			family, addr = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
		}
		fd, e := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if e != nil {
			t.Fatal(e)
		}
		defer unix.Close(fd)
		if cookie, e = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE); e != nil {
			t.Fatal(e)
		}
		if err = unix.Connect(fd, addr); !errors.Is(err, unix.EINPROGRESS) {
			return
		}
		switch name, _ := unix.Getsockname(fd); a := name.(type) {
		case *unix.SockaddrInet4:
			port = uint16(a.Port)
		case *unix.SockaddrInet6:
			port = uint16(a.Port)
		}
		const asking = 2
		for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(time.Millisecond) {
			// An error alone may come before the end: the kernel asks again.
			if info, _ := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); info.State != asking {
				code, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
				if err = nil; code != 0 {
					err = unix.Errno(code)
				}
				return
			}
		}
		err = context.DeadlineExceeded
	})
	return cookie, port, err
}

// Each way that a connect can fail, provoked, with the error that the process
// got.
func TestWhyConnectsFail(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p := bpftest.NewPair(t)
	h := hear(t, &p.A)
	p.A.Sysctl("ipv4/neigh/"+p.A.Name+"/mcast_solicit", "1") // after 1 s
	black := netip.AddrPortFrom(p.B.IP4, 7)
	for _, rule := range [][]string{
		{"add", "table", "inet", "f"},
		{"add", "chain", "inet", "f", "in", "{ type filter hook input priority 0; }"},
		{"add", "rule", "inet", "f", "in", "tcp dport 7 drop"},
		{"add", "rule", "inet", "f", "in", "tcp dport 8 reject with icmpx host-unreachable"},
	} {
		p.B.Command("nft", rule...)
	}
	const enough = 30 * time.Second
	for _, c := range []struct {
		name   string
		to     netip.AddrPort
		within time.Duration
		err    error
		want   event.Failure
		again  uint32
	}{
		{"refused", netip.AddrPortFrom(p.B.IP4, 9), enough, unix.ECONNREFUSED, event.FailureRefused, 0},
		{"refused over IPv6", netip.AddrPortFrom(p.B.IP6, 9), enough, unix.ECONNREFUSED, event.FailureRefused, 0},
		{"refused over IPv4 by an IPv6 socket", netip.AddrPortFrom(netip.AddrFrom16(p.B.IP4.As16()), 9), enough, unix.ECONNREFUSED, event.FailureRefused, 0},
		{"no answer", black, enough, unix.ETIMEDOUT, event.FailureTimedOut, 1},
		{"unreachable, said by ICMP", netip.AddrPortFrom(p.B.IP4, 8), enough, unix.EHOSTUNREACH, event.FailureUnreachable, 0},
		{"a neighbour that is not there", netip.AddrPortFrom(netip.MustParseAddr("10.88.0.99"), 9), enough, unix.EHOSTUNREACH, event.FailureUnreachable, 0},
		{"given up", black, 100 * time.Millisecond, context.DeadlineExceeded, event.FailureGivenUp, 0},
	} {
		retries := "4" // longer than a slow machine takes for the rest
		if c.again > 0 {
			retries = "1" // 3 s
		}
		p.A.Sysctl("ipv4/tcp_syn_retries", retries)
		start := time.Now()
		cookie, port, err := dial(t, &p.A, c.to, c.within)
		if !errors.Is(err, c.err) {
			t.Errorf("%s: the process got %v, not %v", c.name, err, c.err)
		}
		got := h.next(1)[0]
		want := event.FailedConnect{
			Conn: event.Conn{
				Local: event.IPFrom(p.A.IP(!c.to.Addr().Unmap().Is4())), Remote: event.IPFrom(c.to.Addr()), LocalPort: port, RemotePort: c.to.Port(),
				Ifindex: uint32(p.A.Index), Netns: p.A.Inode(), Protocol: event.TCP,
			},
			Time: got.Time, Cookie: cookie, Cgroup: got.Cgroup, Retransmits: got.Retransmits, Failure: c.want,
		}
		if got.Conn.Ifindex == 0 { // its route was given up first
			want.Conn.Ifindex = 0
		}
		if got != want || got.Retransmits < c.again {
			t.Errorf("%s:\n told %+v\n want %+v", c.name, got, want)
		}
		if at := time.Unix(0, got.Time); at.Before(start.Add(-10*time.Millisecond)) || at.After(time.Now().Add(10*time.Millisecond)) {
			t.Errorf("%s: at %v, tried from %v on", c.name, at, start)
		}
	}
	if h.probe.Pending() || h.probe.Lost() != 0 {
		t.Errorf("pending %v, lost %d", h.probe.Pending(), h.probe.Lost())
	}
}

// What succeeds, what goes to the machine itself, and what asks nobody is not
// told.
func TestWhatIsNotTold(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p := bpftest.NewPair(t)
	h := hear(t, &p.A)
	_ = p.A.DialTCP(p.B.ListenTCP(false, bpftest.ServeDiscard)).Close()
	for _, to := range []string{"127.0.0.1:9", "127.1.2.3:9", "[::1]:9", "10.88.0.1:9", "[fd88::1]:9", "192.0.2.1:9"} {
		if _, _, err := dial(t, &p.A, netip.MustParseAddrPort(to), time.Second); err == nil {
			t.Errorf("%s answers", to)
		}
	}
	_, _, _ = dial(t, &p.A, netip.AddrPortFrom(p.B.IP4, 9), 30*time.Second)
	if got := h.next(1)[0]; got.Conn.Remote != event.IPFrom(p.B.IP4) {
		t.Errorf("told of %v", got.Conn.Remote.Addr())
	}
}

// What finds no room is counted.
func TestLost(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p := bpftest.NewPair(t)
	h := hear(t, &p.A)
	to := net.JoinHostPort(p.B.IP4.String(), "9")
	const tries = 3500 // of 88 bytes, in 256 KiB
	p.A.Do(func() {
		for range tries {
			if c, err := net.Dial("tcp", to); err == nil {
				_ = c.Close()
				t.Fatal("somebody listens there")
			}
		}
	})
	list, err := h.probe.Take(nil)
	if err != nil || len(list) == 0 || h.probe.Lost() == 0 || uint64(len(list))+h.probe.Lost() < tries {
		t.Errorf("%d told and %d lost of %d, %v", len(list), h.probe.Lost(), tries, err)
	}
	if list, err = h.probe.Take(list[:0]); err != nil || len(list) != 0 {
		t.Errorf("%d more, %v", len(list), err)
	}
}

func TestCloseIsIdempotent(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if p.Pending() || p.Lost() != 0 {
		t.Error("a closed probe has something to tell")
	}
	if list, err := p.Take(nil); err != nil || len(list) != 0 {
		t.Errorf("it tells %v, %v", list, err)
	}
}

func TestExplain(t *testing.T) {
	if err := explain(unix.EPERM); !errors.Is(err, unix.EPERM) || err.Error() == unix.EPERM.Error() {
		t.Errorf("no word on what to do: %v", err)
	}
	if err := explain(os.ErrClosed); !errors.Is(err, os.ErrClosed) {
		t.Errorf("%v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(make([]byte, unsafe.Sizeof(kernelConnectEvent{})), int64(0))
	f.Add([]byte("short"), int64(-1))
	f.Fuzz(func(t *testing.T, raw []byte, ago int64) {
		x, ok := decode(raw, ago)
		if ok != (len(raw) >= int(unsafe.Sizeof(kernelConnectEvent{}))) {
			t.Fatalf("%d bytes: %v", len(raw), ok)
		}
		if ok && (x.Failure == event.FailureNone || x.Conn.Protocol != event.TCP) {
			t.Fatalf("%+v", x)
		}
	})
}
