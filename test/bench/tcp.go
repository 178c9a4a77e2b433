// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// tcpFlood is one connection from near to far that sends as fast as it can,
// the sender on one processor and the receiver on another.
type tcpFlood struct {
	from, to int
	// received counts bytes.
	sender, received *worker
	once             sync.Once
}

const (
	tcpPort   = 21000
	tcpBuffer = 256 << 10
)

func newTCPFlood(l *lab) (*tcpFlood, error) {
	f := &tcpFlood{from: -1, to: -1}
	listener := -1
	err := l.far.do(func() (err error) {
		listener, err = tcpSocket(netip.AddrPortFrom(farAddr(), tcpPort))
		if err != nil {
			return err
		}
		return unix.Listen(listener, 1)
	})
	defer func() {
		if listener >= 0 {
			_ = unix.Close(listener)
		}
	}()
	if err == nil {
		err = l.near.do(func() (err error) {
			if f.from, err = tcpSocket(netip.AddrPortFrom(nearAddr(), 0)); err != nil {
				return err
			}
			return unix.Connect(f.from, &unix.SockaddrInet4{Addr: farAddr().As4(), Port: tcpPort})
		})
	}
	if err == nil {
		f.to, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("tcp flood: %w", err)
	}
	out, in := make([]byte, tcpBuffer), make([]byte, tcpBuffer)
	f.received = startWorker(1, func() (int, error) { return ended(unix.Read(f.to, in)) })
	f.sender = startWorker(0, func() (int, error) { return ended(unix.Write(f.from, out)) })
	return f, nil
}

// ended: a connection that is shut down is how the workers learn of the end.
func ended(n int, err error) (int, error) {
	if err == unix.EPIPE || err == unix.ECONNRESET {
		return 0, nil
	}
	return max(n, 0), err
}

func tcpSocket(at netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("bind %s: %w", at, err)
	}
	return fd, nil
}

func (f *tcpFlood) end() (err error) {
	f.once.Do(func() {
		f.sender.stop.Store(true)
		f.received.stop.Store(true)
		_ = unix.Shutdown(f.from, unix.SHUT_RDWR)
		_ = unix.Shutdown(f.to, unix.SHUT_RDWR)
		err = f.sender.end()
		if e := f.received.end(); err == nil {
			err = e
		}
		_ = unix.Close(f.from)
		_ = unix.Close(f.to)
	})
	return err
}
