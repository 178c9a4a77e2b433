// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	dnsPort = 53
	// Names that are asked in turn: any one seldom enough that each question of it
	// is answered before the next.
	dnsNames = 10_000
	// nameAt is where the number of a name is in a question.
	nameAt = 20
)

// question asks for the address of bucket-0000.s3.eu-central-1.amazonaws.com.
func question() []byte {
	q := []byte{0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0} // recursion desired, one question
	for _, label := range []string{"bucket-0000", "s3", "eu-central-1", "amazonaws", "com"} {
		q = append(append(q, byte(len(label))), label...)
	}
	return append(q, 0, 0, 1, 0, 1) // A, IN
}

// records are what follows a question in its answer: another name for it, and that
// one's addresses.
func records(question int) []byte {
	const eu = 27 // where eu-central-1.amazonaws.com begins in the question
	alias := byte(question + 12)
	r := []byte{0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 7, 4, 's', '3', '-', 'w', 0xc0, eu}
	for host := range byte(3) {
		r = append(r, 0xc0, alias, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 52, 218, 0, host+1)
	}
	return r
}

// asker asks a server from many sockets in turn, and takes what a socket was
// answered before it asks by it again.
type asker struct {
	fds              []int
	question, answer []byte
	asked, answered  int
}

// newAsker makes one in n.
func newAsker(n namespace, server netip.Addr, sockets int) (*asker, error) {
	a := &asker{question: question(), answer: make([]byte, 512)}
	err := n.do(func() error {
		for range sockets {
			fd, err := askingSocket(server)
			if err != nil {
				return err
			}
			a.fds = append(a.fds, fd)
		}
		return nil
	})
	if err != nil {
		a.close()
		return nil, fmt.Errorf("asker: %w", err)
	}
	return a, nil
}

func askingSocket(server netip.Addr) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: server.As4(), Port: dnsPort}); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// send asks n questions.
func (a *asker) send(n int) (int, error) {
	for range n {
		fd := a.fds[a.asked%len(a.fds)]
		a.take(fd)
		binary.BigEndian.PutUint16(a.question, uint16(a.asked))
		for i, name := 3, a.asked%dnsNames; i >= 0; i, name = i-1, name/10 {
			a.question[nameAt+i] = byte('0' + name%10)
		}
		if _, err := unix.Write(fd, a.question); err != nil {
			return 0, fmt.Errorf("ask: %w", err)
		}
		a.asked++
	}
	return n, nil
}

// take takes an answer, if there is one.
func (a *asker) take(fd int) bool {
	n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&a.answer[0])), uintptr(len(a.answer)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 || n == 0 {
		return false
	}
	a.answered++
	return true
}

// rest takes all answers that are left.
func (a *asker) rest() {
	for _, fd := range a.fds {
		for a.take(fd) {
		}
	}
}

func (a *asker) close() {
	for _, fd := range a.fds {
		_ = unix.Close(fd)
	}
}

// responder answers all questions in the same way.
type responder struct {
	fd       int
	question int
	msgs     []mmsghdr
	// What the kernel reads and writes.
	bodies [][]byte
	names  []unix.RawSockaddrInet4
	iovs   []unix.Iovec
}

func newResponder(n namespace, at netip.Addr) (*responder, error) {
	q := question()
	tail := records(len(q))
	r := &responder{
		question: len(q), msgs: make([]mmsghdr, sendBatch), bodies: make([][]byte, sendBatch),
		names: make([]unix.RawSockaddrInet4, sendBatch), iovs: make([]unix.Iovec, sendBatch),
	}
	err := n.do(func() (err error) {
		r.fd, err = boundSocket(netip.AddrPortFrom(at, dnsPort))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("responder: %w", err)
	}
	for i := range r.msgs {
		r.bodies[i] = append(make([]byte, len(q)), tail...)
		r.iovs[i].Base = &r.bodies[i][0]
		h := &r.msgs[i].hdr
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&r.names[i])), unix.SizeofSockaddrInet4
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
	}
	// It looks up now and then whether it should end, and is away now and then.
	const away = 16 << 20
	wait := unix.NsecToTimeval(int64(100 * time.Millisecond))
	err = errors.Join(
		unix.SetsockoptTimeval(r.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait),
		unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, away),
	)
	if err != nil {
		r.close()
		return nil, fmt.Errorf("responder: %w", err)
	}
	return r, nil
}

// answer answers what is there, and waits where nothing is.
func (r *responder) answer() (int, error) {
	for i := range r.iovs {
		r.iovs[i].SetLen(r.question)
	}
	n, err := r.call(unix.SYS_RECVMMSG, r.msgs, unix.MSG_WAITFORONE)
	if err != nil || n == 0 {
		return 0, err
	}
	for i, b := range r.bodies[:n] {
		b[2], b[3], b[7] = 0x81, 0x80, 4 // a response, recursion available, its records
		r.iovs[i].SetLen(len(b))
	}
	for done := 0; done < n; {
		sent, err := r.call(unix.SYS_SENDMMSG, r.msgs[done:n], 0)
		if err != nil {
			return 0, err
		}
		done += sent
	}
	return n, nil
}

func (r *responder) call(number uintptr, msgs []mmsghdr, flags uintptr) (int, error) {
	n, _, errno := unix.Syscall6(number, uintptr(r.fd), uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)), flags, 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case syscall.EAGAIN, syscall.EINTR:
		return 0, nil
	}
	return 0, fmt.Errorf("answer: %w", errno)
}

func (r *responder) close() { _ = unix.Close(r.fd) }

// resolution is who asks in near and who answers in far, each on a processor of
// its own.
type resolution struct {
	asker             *asker
	responder         *responder
	asking, answering *worker
}

// resolve asks so many questions a second.
func resolve(l *lab, sockets, perSecond int) (r *resolution, err error) {
	r = &resolution{}
	if r.responder, err = newResponder(l.far, farAddr()); err != nil {
		return nil, err
	}
	if r.asker, err = newAsker(l.near, farAddr(), sockets); err != nil {
		r.responder.close()
		return nil, err
	}
	r.answering = startWorker(1, r.responder.answer)
	r.asking = startWorker(0, paced(r.asker, perSecond))
	return r, nil
}

// end stops when all is answered that can be.
func (r *resolution) end() error {
	err := r.asking.end()
	for last := -1; err == nil && last != r.asker.answered; time.Sleep(200 * time.Millisecond) {
		last = r.asker.answered
		r.asker.rest()
	}
	return errors.Join(err, r.answering.end())
}

func (r *resolution) close() {
	_ = r.end()
	r.asker.close()
	r.responder.close()
}
