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

// A socket belongs to the namespace of the thread that opened it; once open,
// any goroutine uses it. Each of these ends with the test at the latest.

// ServeDiscard reads until the other side closes, then closes.
func ServeDiscard(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }

// ListenTCP serves connections in the namespace, each in a goroutine, closing
// them when serve returns. It returns the server's address.
func (e *End) ListenTCP(v6 bool, serve func(*net.TCPConn)) netip.AddrPort {
	e.t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // its socket would not be the one that sends
	var l net.Listener
	e.Do(func() {
		var err error
		l, err = lc.Listen(context.Background(), "tcp", netip.AddrPortFrom(e.IP(v6), 0).String())
		e.check(err)
	})
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				serve(c.(*net.TCPConn))
				_ = c.Close()
			})
		}
	})
	e.t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// DialTCP connects from the namespace.
func (e *End) DialTCP(to netip.AddrPort) *net.TCPConn {
	e.t.Helper()
	var c *net.TCPConn
	e.Do(func() {
		var err error
		c, err = net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to))
		e.check(err)
	})
	e.t.Cleanup(func() { _ = c.Close() })
	return c
}

// UDP opens a socket on the end's address.
func (e *End) UDP(v6 bool) *net.UDPConn {
	e.t.Helper()
	var c *net.UDPConn
	e.Do(func() {
		var err error
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(e.IP(v6), 0)))
		e.check(err)
	})
	e.t.Cleanup(func() { _ = c.Close() })
	return c
}

// DrainUDP receives until the test ends.
func (e *End) DrainUDP(v6 bool) netip.AddrPort {
	e.t.Helper()
	c := e.UDP(v6)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 65536); ; {
			if _, err := c.Read(b); errors.Is(err, net.ErrClosed) {
				return
			}
		}
	}()
	e.t.Cleanup(func() {
		_ = c.Close()
		<-done
	})
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// Ping sends n echo requests, each after the answer to the one before, and
// returns how many were answered.
func (e *End) Ping(to netip.Addr, n int) int {
	e.t.Helper()
	network, request, reply := "ip4:icmp", ICMP{Type: 8, ID: 77}, byte(0)
	if to.Is6() {
		network, request, reply = "ip6:ipv6-icmp", ICMP{V6: true, Type: 128, ID: 77}, byte(129)
	}
	var c *net.IPConn
	e.Do(func() {
		var err error
		c, err = net.DialIP(network, nil, &net.IPAddr{IP: to.AsSlice()})
		e.check(err)
	})
	defer c.Close()
	answered := 0
	for i := range n {
		request.Seq = uint16(i)
		if _, err := c.Write(Packet(request, Zeros(56))); err != nil {
			e.t.Fatalf("ping: %v", err)
		}
		if awaitReply(c, reply) {
			answered++
		}
	}
	return answered
}

func awaitReply(c *net.IPConn, reply byte) bool {
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	for b := make([]byte, 2048); ; {
		n, _, err := c.ReadFromIP(b) // without the IP header
		if err != nil {
			return false
		}
		if n > 0 && b[0] == reply {
			return true
		}
	}
}

// Cookie is the number that the kernel knows a socket by.
func (e *End) Cookie(c syscall.Conn) uint64 {
	e.t.Helper()
	var cookie uint64
	e.control(c, func(fd int) (err error) {
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
		return err
	})
	return cookie
}

// TCPInfo is the kernel's own view of a connection.
func (e *End) TCPInfo(c syscall.Conn) *unix.TCPInfo {
	e.t.Helper()
	var info *unix.TCPInfo
	e.control(c, func(fd int) (err error) {
		info, err = unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		return err
	})
	return info
}

func (e *End) control(c syscall.Conn, fn func(fd int) error) {
	e.t.Helper()
	raw, err := c.SyscallConn()
	e.check(err)
	var inner error
	e.check(raw.Control(func(fd uintptr) { inner = fn(int(fd)) }))
	e.check(inner)
}
