// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
)

// socket asks the kernel one question at a time. It is for any goroutine.
type socket struct {
	mu  sync.Mutex
	fd  int // -1: closed
	seq uint32
	out []byte
	in  []byte
}

var errClosed = errors.New("conntrack is closed")

// openSocket opens a socket in the calling thread's namespace and asks for a
// connection that cannot be: so what is missing is known at once.
func openSocket() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, explain(fmt.Errorf("netfilter socket: %w", err))
	}
	s := &socket{fd: fd, in: make([]byte, 8<<10)}
	// The kernel answers before the question's call returns; what does not come
	// is not waited for.
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1})
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	if err == nil {
		nobody := event.IPFrom(netip.IPv4Unspecified())
		if _, err = s.lookUp(tuple{src: nobody, dst: nobody, protocol: event.UDP}); errors.Is(err, errNoEntry) {
			err = nil
		}
	}
	if err != nil {
		return nil, errors.Join(explain(err), s.Close())
	}
	return s, nil
}

// explain says what is missing, and how to get it.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: needs root or the capability NET_ADMIN; without it the pod behind a Service is not known", err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT):
		return fmt.Errorf("%w: the kernel has no nf_conntrack_netlink (modprobe nf_conntrack_netlink); without it the pod behind a Service is not known", err)
	}
	return err
}

// lookUp asks for one entry.
func (s *socket) lookUp(t tuple) (entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return entry{}, errClosed
	}
	e, err := s.ask(&t)
	if errors.Is(err, unix.ENOBUFS) {
		// The kernel was out of memory for a moment, or its answer found no room.
		e, err = s.ask(&t)
	}
	return e, err
}

func (s *socket) ask(t *tuple) (entry, error) {
	s.seq++
	s.out = appendQuestion(s.out[:0], t, s.seq)
	for {
		_, err := unix.Write(s.fd, s.out)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return entry{}, fmt.Errorf("ask conntrack: %w", err)
		}
	}
	for {
		n, err := unix.Read(s.fd, s.in)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return entry{}, fmt.Errorf("conntrack's answer: %w", err)
		}
		if e, mine, err := parseAnswer(s.in[:n], s.seq); mine {
			return e, err
		}
	}
}

// Close is idempotent.
func (s *socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil
	}
	fd := s.fd
	s.fd = -1
	return unix.Close(fd)
}
