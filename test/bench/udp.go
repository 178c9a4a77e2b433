// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	payload   = 64 // bytes in a packet, UDP
	sendBatch = 64 // packets in a system call
	firstPort = 20000
)

// mmsghdr is struct mmsghdr, which x/sys does not have.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   uint32
}

// udpSource sends one packet to each of many destinations in turn, from one
// socket.
type udpSource struct {
	fd   int
	msgs []mmsghdr
	// What the kernel reads while it sends.
	names []unix.RawSockaddrInet4
	iov   unix.Iovec
	next  int
	port  uint16 // its own, in network order
}

// newUDPSource makes one in n for count destinations, spread over addresses
// from first on with up to perAddr ports each.
func newUDPSource(n namespace, first netip.Addr, count, perAddr int) (*udpSource, error) {
	s := &udpSource{msgs: make([]mmsghdr, count), names: make([]unix.RawSockaddrInet4, count)}
	err := n.do(func() error {
		var err error
		s.fd, s.port, err = anySocket()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("udp source: %w", err)
	}
	body := make([]byte, payload)
	s.iov.Base = &body[0]
	s.iov.SetLen(payload)
	addr := first
	for i := range s.names {
		if i > 0 && i%perAddr == 0 {
			addr = addr.Next()
		}
		name := &s.names[i]
		name.Family, name.Addr = unix.AF_INET, addr.As4()
		port := uint16(firstPort + i%perAddr)
		name.Port = port<<8 | port>>8
		h := &s.msgs[i].hdr
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(name)), unix.SizeofSockaddrInet4
		h.Iov = &s.iov
		h.SetIovlen(1)
	}
	return s, nil
}

// send sends the next n packets at most, and tells how many it was.
func (s *udpSource) send(n int) (int, error) {
	n = min(n, len(s.msgs)-s.next)
	got, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.fd),
		uintptr(unsafe.Pointer(&s.msgs[s.next])), uintptr(n), 0, 0, 0)
	if errno != 0 {
		return 0, fmt.Errorf("send: %w", errno)
	}
	s.next = (s.next + int(got)) % len(s.msgs)
	return int(got), nil
}

// pass sends one packet to each destination.
func (s *udpSource) pass() error {
	for left := len(s.msgs); left > 0; {
		n, err := s.send(min(sendBatch, left))
		if err != nil {
			return err
		}
		left -= n
	}
	return nil
}

func (s *udpSource) close() { _ = unix.Close(s.fd) }

// repeat makes the source go through its first n destinations again and again.
func (s *udpSource) repeat(n int) {
	for i := range s.msgs {
		s.msgs[i].hdr.Name = (*byte)(unsafe.Pointer(&s.names[i%n]))
	}
}

// newUDPPair makes a source at each end whose destination is the other, so
// that what both send is one connection. Neither reads.
func newUDPPair(l *lab) (near, far *udpSource, err error) {
	if near, err = newUDPSource(l.near, farAddr(), sendBatch, sendBatch); err != nil {
		return nil, nil, err
	}
	if far, err = newUDPSource(l.far, nearAddr(), sendBatch, sendBatch); err != nil {
		near.close()
		return nil, nil, err
	}
	near.repeat(1)
	far.repeat(1)
	near.names[0].Port, far.names[0].Port = far.port, near.port
	return near, far, nil
}

// udpReader takes packets off a socket, many in a system call.
type udpReader struct {
	fd   int
	msgs []mmsghdr
	iov  unix.Iovec
}

func newUDPReader(fd int) *udpReader {
	r := &udpReader{fd: fd, msgs: make([]mmsghdr, sendBatch)}
	body := make([]byte, payload)
	r.iov.Base = &body[0]
	r.iov.SetLen(payload)
	for i := range r.msgs {
		r.msgs[i].hdr.Iov = &r.iov
		r.msgs[i].hdr.SetIovlen(1)
	}
	return r
}

// receive waits for packets, or for the socket's own limit, and counts them.
func (r *udpReader) receive() (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(r.fd),
		uintptr(unsafe.Pointer(&r.msgs[0])), uintptr(len(r.msgs)), unix.MSG_WAITFORONE, 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EAGAIN, unix.EINTR:
		return 0, nil
	}
	return 0, fmt.Errorf("receive: %w", errno)
}

// boundSocket makes a UDP socket in the calling thread's namespace.
func boundSocket(at netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("bind %s: %w", at, err)
	}
	return fd, nil
}

// anySocket makes one that the kernel gives a port.
func anySocket() (fd int, port uint16, err error) {
	if fd, err = boundSocket(netip.AddrPortFrom(netip.IPv4Unspecified(), 0)); err != nil {
		return -1, 0, err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return -1, 0, errors.Join(err, unix.Close(fd))
	}
	own := uint16(name.(*unix.SockaddrInet4).Port)
	return fd, own<<8 | own>>8, nil
}

// sinks are sockets that nobody reads: what arrives is dropped when they are
// full, without an answer.
type sinks []int

func newSinks(n namespace, addr netip.Addr, count int) (sinks, error) {
	var s sinks
	err := n.do(func() error {
		for i := range count {
			fd, err := boundSocket(netip.AddrPortFrom(addr, uint16(firstPort+i)))
			if err != nil {
				return err
			}
			s = append(s, fd)
		}
		return nil
	})
	if err != nil {
		s.close()
		return nil, fmt.Errorf("udp sinks: %w", err)
	}
	return s, nil
}

func (s sinks) close() {
	for _, fd := range s {
		_ = unix.Close(fd)
	}
}
