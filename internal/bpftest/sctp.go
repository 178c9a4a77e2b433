// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// TalkSCTP opens an association from one end to another, sends n messages of a
// size, each echoed before the next, and closes it. It returns both addresses.
func TalkSCTP(from, to *End, n, size int) (client, server netip.AddrPort) {
	from.t.Helper()
	listener, server := to.sctp()
	defer unix.Close(listener)
	to.check(unix.Listen(listener, 1))
	c, client := from.sctp()
	defer unix.Close(c)
	from.check(unix.Connect(c, &unix.SockaddrInet4{Addr: server.Addr().As4(), Port: int(server.Port())}))
	s, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	to.check(err)
	defer unix.Close(s)
	message, b := make([]byte, size), make([]byte, size)
	for range n {
		for _, way := range [][2]int{{c, s}, {s, c}} {
			_, err := unix.Write(way[0], message)
			from.check(err)
			if got, err := unix.Read(way[1], b); err != nil || got != size {
				from.t.Fatalf("a message of %d bytes: %d came, %v", size, got, err)
			}
		}
	}
	return client, server
}

// sctp opens a socket on the end's IPv4 address; it waits five seconds at most.
func (e *End) sctp() (fd int, at netip.AddrPort) {
	e.t.Helper()
	e.Do(func() {
		var err error
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
		e.check(err)
	})
	for _, which := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		e.check(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, which, &unix.Timeval{Sec: 5}))
	}
	e.check(unix.Bind(fd, &unix.SockaddrInet4{Addr: e.IP4.As4()}))
	name, err := unix.Getsockname(fd)
	e.check(err)
	return fd, netip.AddrPortFrom(e.IP4, uint16(name.(*unix.SockaddrInet4).Port))
}
