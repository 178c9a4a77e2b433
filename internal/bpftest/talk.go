// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Echo is a server that answers each datagram, or all that it reads from a TCP
// connection, with the same bytes, until the test ends.
type Echo struct {
	Addr netip.AddrPort
	mu   sync.Mutex
	from map[netip.AddrPort]int
}

// From tells who asked, as the server sees them: datagrams or connections.
func (s *Echo) From() map[netip.AddrPort]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[netip.AddrPort]int, len(s.from))
	for k, v := range s.from {
		out[k] = v
	}
	return out
}

func (s *Echo) asked(by netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from[netip.AddrPortFrom(by.Addr().Unmap().WithZone(""), by.Port())]++
}

// EchoUDP starts a server on the end's address.
func (e *End) EchoUDP(v6 bool) *Echo {
	e.t.Helper()
	c := e.socket(netip.AddrPortFrom(e.IP(v6), 0))
	s := &Echo{Addr: c.LocalAddr().(*net.UDPAddr).AddrPort(), from: map[netip.AddrPort]int{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 65536); ; {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				s.asked(from)
				_, _ = c.WriteToUDPAddrPort(b[:n], from)
			}
		}
	}()
	e.t.Cleanup(func() {
		_ = c.Close()
		<-done
	})
	return s
}

// AskUDP sends n datagrams of a size, each after the answer to the one before,
// and fails the test where one is not answered. It returns its own address.
func (e *End) AskUDP(to netip.AddrPort, n, size int) netip.AddrPort {
	e.t.Helper()
	c := e.socket(netip.AddrPortFrom(e.IP(to.Addr().Is6()), 0))
	defer c.Close()
	out, in := make([]byte, size), make([]byte, 65536)
	for i := range n {
		for j := range out {
			out[j] = byte(i + j)
		}
		if _, err := c.WriteToUDPAddrPort(out, to); err != nil {
			e.t.Fatalf("datagram %d of %d to %v: %v", i+1, n, to, err)
		}
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		got, from, err := c.ReadFromUDPAddrPort(in)
		if err != nil || from != to || string(in[:got]) != string(out) {
			e.t.Fatalf("datagram %d of %d to %v: %d bytes from %v, %v", i+1, n, to, got, from, err)
		}
	}
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// Reaches sends datagrams until one is answered: the first may be lost while
// neighbours are asked for and tunnels shake hands.
func (e *End) Reaches(to netip.AddrPort) {
	e.t.Helper()
	c := e.socket(netip.AddrPortFrom(e.IP(to.Addr().Is6()), 0))
	defer c.Close()
	Eventually(e.t, "an answer of "+to.String(), func() bool {
		if _, err := c.WriteToUDPAddrPort([]byte("anybody there?"), to); err != nil {
			return false
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		_, from, err := c.ReadFromUDPAddrPort(make([]byte, 64))
		return err == nil && from == to
	})
}

// EchoTCP starts a server on the end's address.
func (e *End) EchoTCP(v6 bool) *Echo {
	e.t.Helper()
	s := &Echo{from: map[netip.AddrPort]int{}}
	lc := net.ListenConfig{Control: e.bound()}
	lc.SetMultipathTCP(false)
	var l net.Listener
	e.Do(func() {
		var err error
		l, err = lc.Listen(context.Background(), "tcp", netip.AddrPortFrom(e.IP(v6), 0).String())
		e.check(err)
	})
	s.Addr = l.Addr().(*net.TCPAddr).AddrPort()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.asked(c.RemoteAddr().(*net.TCPAddr).AddrPort())
			// Its other end is closed by whoever asks, at the latest on failure.
			wg.Go(func() {
				_ = c.SetDeadline(time.Now().Add(30 * time.Second))
				_, _ = io.Copy(c, c)
				_ = c.Close()
			})
		}
	})
	e.t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return s
}

// AskTCP sends size bytes over one connection, reads them back and closes it.
// It returns its own address.
func (e *End) AskTCP(to netip.AddrPort, size int) netip.AddrPort {
	e.t.Helper()
	d := net.Dialer{Control: e.bound(), Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: e.IP(to.Addr().Is6()).AsSlice()}}
	d.SetMultipathTCP(false)
	var c net.Conn
	e.Do(func() {
		var err error
		// With a deadline of a context it would be another thread that dials.
		c, err = d.Dial("tcp", to.String())
		if err != nil {
			e.t.Fatalf("connect to %v: %v", to, err)
		}
	})
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	go func() {
		_, _ = c.Write(make([]byte, size))
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	if n, err := io.Copy(io.Discard, c); err != nil || int(n) != size {
		e.t.Fatalf("%d bytes of %d back from %v: %v", n, size, to, err)
	}
	return c.LocalAddr().(*net.TCPAddr).AddrPort()
}

// socket opens a UDP socket in the namespace.
func (e *End) socket(at netip.AddrPort) *net.UDPConn {
	e.t.Helper()
	lc := net.ListenConfig{Control: e.bound()}
	var c net.PacketConn
	e.Do(func() {
		var err error
		c, err = lc.ListenPacket(context.Background(), "udp", at.String())
		e.check(err)
	})
	e.t.Cleanup(func() { _ = c.Close() })
	return c.(*net.UDPConn)
}

// bound makes sockets of the VRF that the end's interface is a member of.
func (e *End) bound() func(network, address string, c syscall.RawConn) error {
	e.t.Helper()
	master := ""
	e.Do(func() {
		if index := e.lookup(e.Name).Attrs().MasterIndex; index != 0 {
			if m := e.byIndex(index); m.Type() == "vrf" {
				master = m.Attrs().Name
			}
		}
	})
	return func(_, _ string, c syscall.RawConn) error {
		if master == "" {
			return nil
		}
		var inner error
		err := c.Control(func(fd uintptr) { inner = unix.BindToDevice(int(fd), master) })
		return errors.Join(err, inner)
	}
}
