// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"encoding/binary"
	"io"

	"golang.org/x/sys/unix"
)

// Frames opens a packet socket on the end's interface: each Write is one frame
// as it stands, below IP and above the tap.
func (e *End) Frames() io.Writer {
	e.t.Helper()
	return &frames{fd: e.packetSocket()}
}

// ScatteredFrames is Frames whose packets have no more than their Ethernet
// header in the linear part, where they are larger than a page.
func (e *End) ScatteredFrames() io.Writer {
	e.t.Helper()
	fd := e.packetSocket()
	e.check(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1))
	header := make([]byte, 10) // struct virtio_net_hdr
	binary.NativeEndian.PutUint16(header[2:], 14)
	return &frames{fd: fd, header: header}
}

// SuperPackets is Frames whose packets stand for segments of size bytes each, as
// a virtual machine or a driver hands them over: not counted, not checked. They
// are TCP or UDP without extension headers; headers is the length of all.
func (e *End) SuperPackets(example []byte, headers, size int) io.Writer {
	e.t.Helper()
	const needsChecksum, tcp4, tcp6, udp4or6 = 1, 1, 4, 5 // of virtio_net.h
	fd := e.packetSocket()
	e.check(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1))
	kind, transport, protocol, sum := byte(tcp4), 34, example[23], 16
	if binary.BigEndian.Uint16(example[12:]) == etherIPv6 {
		kind, transport, protocol = tcp6, 54, example[20]
	}
	if protocol == unix.IPPROTO_UDP {
		kind, sum = udp4or6, 6
	}
	header := []byte{needsChecksum, kind}
	for _, v := range []int{headers, size, transport, sum} {
		header = binary.NativeEndian.AppendUint16(header, uint16(v))
	}
	return &frames{fd: fd, header: header}
}

func (e *End) packetSocket() int {
	e.t.Helper()
	fd := -1
	e.Do(func() {
		var err error
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		e.check(err)
	})
	e.t.Cleanup(func() { _ = unix.Close(fd) })
	e.check(unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: e.Index}))
	return fd
}

type frames struct {
	fd     int
	header []byte
}

func (f *frames) Write(b []byte) (int, error) {
	n, err := unix.Write(f.fd, append(append([]byte{}, f.header...), b...))
	return max(0, n-len(f.header)), err
}
