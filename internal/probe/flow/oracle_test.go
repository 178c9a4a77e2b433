// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"encoding/binary"

	"github.com/orb8/orb8/internal/event"
)

// reading is what the tap has to tell of a packet, worked out by a second
// parser: by the standards, and by the tap's own limits of two tags and eight
// extension headers. It is written for clarity and shares nothing with the first.
type reading struct {
	class    uint8
	protocol uint8
	kind     event.ConnKind // as the source has it
	src, dst event.IP
	ports    [2]uint16
	headers  int  // up to what the transport carries
	blames   bool // an ICMP error
	v6       bool
}

const (
	tagType    = 0x8100
	serviceTag = 0x88a8
	maxTags    = 2
	maxChain   = 8
)

// read reads a frame whose link-layer header has this length and says that
// ethertype follows.
func read(frame []byte, link int, ethertype uint16) reading {
	off := link
	for range maxTags {
		if ethertype != tagType && ethertype != serviceTag {
			break
		}
		if len(frame) < off+4 {
			return reading{class: classNotIP}
		}
		ethertype = binary.BigEndian.Uint16(frame[off+2:])
		off += 4
	}
	r := reading{class: classNotIP}
	switch ethertype {
	case 0x0800:
		r, off = readIPv4(frame, off)
	case 0x86dd:
		r, off = readIPv6(frame, off)
	}
	if r.class == 0 {
		r.readTransport(frame, off)
	}
	return r
}

func readIPv4(b []byte, off int) (reading, int) {
	if len(b) < off+20 || b[off]>>4 != 4 || b[off]&15 < 5 {
		return reading{class: classBadIP}, 0
	}
	b = b[off:]
	r := reading{protocol: b[9]}
	r.src[10], r.src[11], r.dst[10], r.dst[11] = 0xff, 0xff, 0xff, 0xff
	copy(r.src[12:], b[12:16])
	copy(r.dst[12:], b[16:20])
	if binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
		r.kind = event.ConnFragment
	}
	return r, off + 4*int(b[0]&15)
}

func readIPv6(b []byte, off int) (reading, int) {
	if len(b) < off+40 || b[off]>>4 != 6 {
		return reading{class: classBadIP}, 0
	}
	r := reading{v6: true}
	copy(r.src[:], b[off+8:])
	copy(r.dst[:], b[off+24:])
	next := b[off+6]
	off += 40
	for n := 0; ; n++ {
		switch next {
		case 0, 43, 44, 51, 60, 135:
		default:
			r.protocol = next
			return r, off
		}
		if len(b) < off+4 {
			return reading{class: classBadExtension}, 0
		}
		length := 8 * (1 + int(b[off+1]))
		switch next {
		case 44:
			length = 8
			if binary.BigEndian.Uint16(b[off+2:])&0xfff8 != 0 {
				r.protocol, r.kind = b[off], event.ConnFragment
				return r, off + 8
			}
		case 51:
			length = 4 * (2 + int(b[off+1]))
		}
		if n == maxChain {
			return reading{class: classBadExtension}, 0
		}
		next = b[off]
		off += length
	}
}

// readTransport reads from the transport header on.
func (r *reading) readTransport(b []byte, off int) {
	r.headers = off
	if r.kind == event.ConnFragment {
		return
	}
	need := map[uint8]int{6: 16, 17: 8, 132: 8, 1: 8, 58: 8}[r.protocol]
	if need == 0 {
		return
	}
	if len(b) < off+need {
		r.class = classBadTransport
		return
	}
	b = b[off:]
	switch r.protocol {
	case 1, 58:
		r.headers += 8
		r.readICMP(b)
		return
	case 6:
		if b[12]>>4 < 5 {
			r.class = classBadTransport
			return
		}
		r.headers += 4 * int(b[12]>>4)
	case 17:
		r.headers += 8
	case 132:
		r.headers += 12
	}
	r.ports = [2]uint16{binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])}
}

func (r *reading) readICMP(b []byte) {
	request, reply := uint8(8), uint8(0)
	r.blames = b[0] == 3 || b[0] == 11 || b[0] == 12
	if r.protocol == 58 {
		request, reply = 128, 129
		r.blames = b[0] < 128
	}
	switch b[0] {
	case request:
		r.kind = event.ConnEchoOpenedLocal
	case reply:
		r.kind = event.ConnEchoOpenedRemote
	default:
		return
	}
	r.ports[0] = binary.BigEndian.Uint16(b[4:])
}

// conn is the connection of a packet in one direction.
func (r *reading) conn(k *kernel, egress bool) event.Conn {
	c := event.Conn{
		Local: r.src, Remote: r.dst, LocalPort: r.ports[0], RemotePort: r.ports[1],
		Ifindex: 1, Netns: k.ns.Inode(), Protocol: event.Protocol(r.protocol), Kind: r.kind,
	}
	if !egress {
		c = mirror(c)
	}
	return c
}
