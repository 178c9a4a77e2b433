// SPDX-License-Identifier: Apache-2.0

package netstat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// What inet_diag.h and tcp_states.h call these.
const (
	sizeofQuestion = unix.SizeofNlMsghdr + 56 // and inet_diag_req_v2
	sizeofSocket   = 72                       // inet_diag_msg
	byFamily       = 20                       // SOCK_DIAG_BY_FAMILY
	attrMemory     = 7                        // INET_DIAG_SKMEMINFO
	sizeofMemory   = 9 * 4

	stateFinWait1, stateFinWait2, stateTimeWait        = 4, 5, 6
	stateLastAck, stateListen, stateClosing            = 9, 10, 11
	memReceive, memSend, memQueued, memBacklog         = 0, 2, 5, 7
	memDrops                                           = 8
	allStates                                   uint32 = 1<<12 - 1
)

// Buffers is what the sockets of a namespace hold.
type Buffers struct {
	// Of the kernel's memory: not read yet, not sent yet, not acknowledged.
	Bytes uint64
	// TCP connections that no process has any more and that are not closed yet.
	Orphans uint64
	// The listening socket that is fullest, where one is full, and the UDP socket
	// that dropped most, where one did.
	Full  Listener
	Lossy Receiver
}

// Listener is a listening socket.
type Listener struct {
	Port uint16
	// Connections that wait to be accepted, and how many may.
	Waiting, Most uint32
}

// Receiver is a UDP socket.
type Receiver struct {
	Port  uint16
	Drops uint32
}

// Hold adds what the sockets tell to the sentences.
func (r *Report) Hold(b *Buffers) {
	for i := range r.Findings {
		f := &r.Findings[i]
		switch {
		case f.Counter == "TcpExtListenOverflows" && b.Full.Port != 0:
			f.Meaning += fmt.Sprintf("; port %d is full now: %d wait, its backlog is %d", b.Full.Port, b.Full.Waiting, b.Full.Most)
		case (f.Counter == "UdpRcvbufErrors" || f.Counter == "Udp6RcvbufErrors") && b.Lossy.Port != 0:
			f.Meaning += fmt.Sprintf("; most of them on port %d", b.Lossy.Port)
		}
	}
}

// Buffers asks each socket of a namespace. The kernel walks its tables for that:
// a millisecond, or some on a machine of many connections.
func (s *Sampler) Buffers(ctx context.Context, inode uint32, r *Report) (b Buffers, err error) {
	err = s.cfg.Enter(inode, func() error {
		for _, protocol := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			if protocol == unix.IPPROTO_TCP && r.TCP == 0 || protocol == unix.IPPROTO_UDP && r.UDP == 0 {
				continue
			}
			for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
				if err := b.list(ctx, family, protocol); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return b, fmt.Errorf("list sockets: %w", err)
	}
	return b, nil
}

// list asks for all sockets of a kind in the namespace of the thread.
func (b *Buffers) list(ctx context.Context, family, protocol byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	// The kernel answers as it is read: it has no reason to wait.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if err := unix.Sendto(fd, question(family, protocol), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return explain(err, protocol)
	}
	buf := make([]byte, 32<<10)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return explain(err, protocol)
		}
		done, err := answer(buf[:n], func(socket []byte) { b.add(protocol, socket) })
		if err != nil || done {
			return explain(err, protocol)
		}
	}
}

func explain(err error, protocol byte) error {
	name := map[byte]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[protocol]
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return fmt.Errorf("%w: the kernel has no %s_diag (modprobe %s_diag)", err, name, name)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// question asks for all but TIME_WAIT, which holds nothing.
func question(family, protocol byte) []byte {
	q := make([]byte, sizeofQuestion)
	order := binary.NativeEndian
	order.PutUint32(q, uint32(len(q)))
	order.PutUint16(q[4:], byFamily)
	order.PutUint16(q[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	q[16], q[17], q[18] = family, protocol, 1<<(attrMemory-1)
	order.PutUint32(q[20:], allStates&^(1<<stateTimeWait))
	return q
}

var errGarbled = errors.New("the kernel's answer cannot be read")

// answer gives the sockets of one datagram; done with the last of them.
func answer(b []byte, told func(socket []byte)) (done bool, err error) {
	order := binary.NativeEndian
	for len(b) >= unix.SizeofNlMsghdr {
		length := int(order.Uint32(b))
		if length < unix.SizeofNlMsghdr || length > len(b) {
			return false, errGarbled
		}
		body := b[unix.SizeofNlMsghdr:length]
		switch order.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return false, errGarbled
			}
			if code := -int32(order.Uint32(body)); code > 0 {
				return false, unix.Errno(code)
			}
			return true, nil
		case byFamily:
			told(body)
		}
		b = b[min(len(b), (length+3)&^3):]
	}
	return false, nil
}

// add takes one socket. One that cannot be read is left out.
func (b *Buffers) add(protocol byte, socket []byte) {
	if len(socket) < sizeofSocket {
		return
	}
	order := binary.NativeEndian
	state := socket[1]
	port := binary.BigEndian.Uint16(socket[4:])
	receive, send, inode := order.Uint32(socket[56:]), order.Uint32(socket[60:]), order.Uint32(socket[68:])
	mem := memory(socket[sizeofSocket:])
	if mem == nil {
		return
	}
	field := func(i int) uint64 { return uint64(order.Uint32(mem[4*i:])) }
	b.Bytes += field(memReceive) + field(memBacklog)
	if protocol == unix.IPPROTO_UDP {
		b.Bytes += field(memSend)
		if drops := uint32(field(memDrops)); drops > b.Lossy.Drops {
			b.Lossy = Receiver{port, drops}
		}
		return
	}
	b.Bytes += field(memQueued)
	switch state {
	case stateListen:
		// The kernel takes one more than was asked for.
		if receive > send && (b.Full.Port == 0 || receive > b.Full.Waiting) {
			b.Full = Listener{port, receive, send}
		}
	case stateFinWait1, stateFinWait2, stateLastAck, stateClosing:
		// In other states a socket without a process waits to be accepted.
		if inode == 0 {
			b.Orphans++
		}
	}
}

// memory finds the attribute that tells what a socket holds.
func memory(b []byte) []byte {
	order := binary.NativeEndian
	for len(b) >= unix.SizeofRtAttr {
		length := int(order.Uint16(b))
		if length < unix.SizeofRtAttr || length > len(b) {
			return nil
		}
		if order.Uint16(b[2:]) == attrMemory && length >= unix.SizeofRtAttr+sizeofMemory {
			return b[unix.SizeofRtAttr:length]
		}
		b = b[min(len(b), (length+3)&^3):]
	}
	return nil
}
