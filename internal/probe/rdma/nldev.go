// SPDX-License-Identifier: Apache-2.0

package rdma

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// What is used of linux/include/uapi/rdma/rdma_netlink.h.
const (
	nldev = 5 << 10 // the client RDMA_NL_NLDEV, in a message's type

	cmdGet   = nldev | 1
	cmdResQP = nldev | 10

	attrDeviceIndex = 1
	attrDeviceName  = 2
	attrResQP       = 19
	attrResQPEntry  = 20
	attrResPID      = 28
	attrResKernel   = 29

	headerLen     = unix.NLMSG_HDRLEN
	attrHeaderLen = 4
	// attrKind masks the flags of an attribute's kind.
	attrKind = 1<<14 - 1
)

var errCut = errors.New("a message of the kernel's is cut short")

// request is a question whose answer is a dump; of one device, or of all where
// device is nil.
func request(command uint16, seq uint32, device *uint32) []byte {
	b := make([]byte, headerLen, headerLen+8)
	if device != nil {
		b = binary.NativeEndian.AppendUint16(b, attrHeaderLen+4)
		b = binary.NativeEndian.AppendUint16(b, attrDeviceIndex)
		b = binary.NativeEndian.AppendUint32(b, *device)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], command)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	binary.NativeEndian.PutUint32(b[8:], seq)
	return b
}

// messages calls yield with the attributes of each message in b that answers the
// question, and tells whether the answer is at its end.
func messages(b []byte, command uint16, seq uint32, yield func([]byte) error) (done bool, err error) {
	for len(b) > 0 {
		if len(b) < headerLen {
			return false, errCut
		}
		n := int(binary.NativeEndian.Uint32(b))
		if n < headerLen || n > len(b) {
			return false, errCut
		}
		kind, body := binary.NativeEndian.Uint16(b[4:]), b[headerLen:n]
		ours := binary.NativeEndian.Uint32(b[8:]) == seq
		b = b[min((n+3)&^3, len(b)):]
		switch {
		case !ours:
		case kind == unix.NLMSG_DONE || kind == unix.NLMSG_ERROR:
			return true, number(body)
		case kind == command:
			if err := yield(body); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// number is the error that a message ends with.
func number(body []byte) error {
	if len(body) < 4 {
		return nil // no number is no error
	}
	if n := int32(binary.NativeEndian.Uint32(body)); n < 0 && n > -4096 {
		return unix.Errno(-n)
	}
	return nil
}

// attributes calls yield with each attribute in b.
func attributes(b []byte, yield func(kind uint16, value []byte) error) error {
	for len(b) > 0 {
		if len(b) < attrHeaderLen {
			return errCut
		}
		n := int(binary.NativeEndian.Uint16(b))
		if n < attrHeaderLen || n > len(b) {
			return errCut
		}
		if err := yield(binary.NativeEndian.Uint16(b[2:])&attrKind, b[attrHeaderLen:n]); err != nil {
			return err
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}

// deviceIndex is a device as it stands in an answer.
func deviceIndex(body []byte) (name string, index uint32, err error) {
	err = attributes(body, func(kind uint16, value []byte) error {
		switch {
		case kind == attrDeviceIndex && len(value) >= 4:
			index = binary.NativeEndian.Uint32(value)
		case kind == attrDeviceName:
			name = cString(value)
		}
		return nil
	})
	return name, index, err
}

// pairPIDs calls yield with the process of each queue pair in an answer. The
// kernel's own have none; nor have those of a process that ends.
func pairPIDs(body []byte, yield func(uint32)) error {
	entry := func(kind uint16, value []byte) error {
		if kind != attrResQPEntry {
			return nil
		}
		var pid uint32
		kernel := false
		err := attributes(value, func(kind uint16, value []byte) error {
			switch {
			case kind == attrResPID && len(value) >= 4:
				pid = binary.NativeEndian.Uint32(value)
			case kind == attrResKernel:
				kernel = true
			}
			return nil
		})
		if err == nil && !kernel && pid != 0 {
			yield(pid)
		}
		return err
	}
	return attributes(body, func(kind uint16, value []byte) error {
		if kind != attrResQP {
			return nil
		}
		return attributes(value, entry)
	})
}

func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// netlink is a socket to the kernel's RDMA, in the network namespace of the
// thread that opens it.
type netlink struct {
	fd  int
	seq uint32
	buf []byte
}

func openNetlink() (*netlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_RDMA)
	if err != nil {
		return nil, fmt.Errorf("open rdma netlink: %w", err)
	}
	wait := unix.Timeval{Sec: 2}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("rdma netlink: %w", err)
	}
	return &netlink{fd: fd, buf: make([]byte, 64<<10)}, nil
}

func (n *netlink) close() { unix.Close(n.fd) }

// mostParts bounds the parts of an answer: some ten thousand queue pairs each
// hundred.
const mostParts = 1 << 14

// dump asks, and calls yield with each part of the answer.
func (n *netlink) dump(command uint16, device *uint32, yield func([]byte) error) error {
	n.seq++
	to := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	if err := unix.Sendto(n.fd, request(command, n.seq, device), 0, to); err != nil {
		return fmt.Errorf("ask rdma netlink: %w", err)
	}
	for range mostParts {
		got, from, err := unix.Recvfrom(n.fd, n.buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("rdma netlink: %w", err)
		}
		if k, ok := from.(*unix.SockaddrNetlink); !ok || k.Pid != 0 {
			continue // not the kernel
		}
		done, err := messages(n.buf[:got], command, n.seq, yield)
		if err != nil {
			return fmt.Errorf("rdma netlink: %w", err)
		}
		if done {
			return nil
		}
	}
	return errors.New("rdma netlink: the answer has no end")
}
