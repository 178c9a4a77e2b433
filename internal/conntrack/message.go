// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
)

// What nfnetlink_conntrack.h calls these.
const (
	sizeofNfgenmsg = 4
	newEntry       = unix.NFNL_SUBSYS_CTNETLINK << 8   // IPCTNL_MSG_CT_NEW
	getEntry       = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1 // IPCTNL_MSG_CT_GET

	ctaTupleOrig, ctaTupleReply = 1, 2
	ctaTupleIP, ctaTupleProto   = 1, 2

	ctaIPv4Src, ctaIPv4Dst, ctaIPv6Src, ctaIPv6Dst     = 1, 2, 3, 4
	ctaProtoNum, ctaProtoSrcPort, ctaProtoDstPort      = 1, 2, 3
	ctaProtoICMPID, ctaProtoICMPType, ctaProtoICMPCode = 4, 5, 6
	// ICMPv6 has the same three, so much higher.
	ctaProtoICMPv6 = 3
)

// errNoEntry: nothing is known of the connection.
var errNoEntry = errors.New("no such connection")

var errGarbled = errors.New("the kernel's answer cannot be read")

// appendQuestion writes the message that asks for the entry of a tuple.
func appendQuestion(b []byte, t *tuple, seq uint32) []byte {
	m := message(b)
	start := len(m)
	family := byte(unix.AF_INET6)
	if t.src.Addr().Is4() {
		family = unix.AF_INET
	}
	m.u32(0) // the length
	m.u16(getEntry)
	m.u16(unix.NLM_F_REQUEST)
	m.u32(seq)
	m.u32(0)
	m = append(m, family, unix.NFNETLINK_V0, 0, 0)

	orig := m.nest(ctaTupleOrig)
	ip := m.nest(ctaTupleIP)
	if family == unix.AF_INET {
		m.attribute(ctaIPv4Src, t.src[12:])
		m.attribute(ctaIPv4Dst, t.dst[12:])
	} else {
		m.attribute(ctaIPv6Src, t.src[:])
		m.attribute(ctaIPv6Dst, t.dst[:])
	}
	m.end(ip)
	proto := m.nest(ctaTupleProto)
	m.attribute(ctaProtoNum, []byte{byte(t.protocol)})
	switch t.protocol {
	case event.ICMP, event.ICMPv6:
		offset := uint16(0)
		if t.protocol == event.ICMPv6 {
			offset = ctaProtoICMPv6
		}
		m.attribute(ctaProtoICMPID+offset, []byte{byte(t.srcPort >> 8), byte(t.srcPort)})
		m.attribute(ctaProtoICMPType+offset, []byte{t.icmpType})
		m.attribute(ctaProtoICMPCode+offset, []byte{0})
	default:
		m.attribute(ctaProtoSrcPort, []byte{byte(t.srcPort >> 8), byte(t.srcPort)})
		m.attribute(ctaProtoDstPort, []byte{byte(t.dstPort >> 8), byte(t.dstPort)})
	}
	m.end(proto)
	m.end(orig)
	binary.NativeEndian.PutUint32(m[start:], uint32(len(m)-start))
	return m
}

// message is netlink's, while it is written.
type message []byte

func (m *message) u16(v uint16) { *m = binary.NativeEndian.AppendUint16(*m, v) }
func (m *message) u32(v uint32) { *m = binary.NativeEndian.AppendUint32(*m, v) }

func (m *message) attribute(kind uint16, value []byte) {
	m.u16(uint16(unix.SizeofNlAttr + len(value)))
	m.u16(kind)
	*m = append(*m, value...)
	for len(*m)%unix.NLA_ALIGNTO != 0 {
		*m = append(*m, 0)
	}
}

// nest opens an attribute that holds attributes; end closes it.
func (m *message) nest(kind uint16) (at int) {
	at = len(*m)
	m.u16(0)
	m.u16(kind | unix.NLA_F_NESTED)
	return at
}

func (m *message) end(at int) { binary.NativeEndian.PutUint16((*m)[at:], uint16(len(*m)-at)) }

// parseAnswer reads the answer to a question out of a datagram. Not mine: it is
// the late answer to another one.
func parseAnswer(b []byte, seq uint32) (e entry, mine bool, err error) {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			break
		}
		if binary.NativeEndian.Uint32(b[8:]) == seq {
			e, err = parseMessage(binary.NativeEndian.Uint16(b[4:]), b[unix.SizeofNlMsghdr:size])
			return e, true, err
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return e, false, nil
}

func parseMessage(kind uint16, body []byte) (e entry, err error) {
	switch {
	case kind == unix.NLMSG_ERROR && len(body) >= 4:
		errno := unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
		if errno == unix.ENOENT {
			return e, errNoEntry
		}
		if errno == 0 { // an acknowledgement, which nobody asked for
			return e, errGarbled
		}
		return e, errno
	case kind == newEntry && len(body) >= sizeofNfgenmsg:
		orig, ok := parseTuple(value(body[sizeofNfgenmsg:], ctaTupleOrig))
		reply, too := parseTuple(value(body[sizeofNfgenmsg:], ctaTupleReply))
		if !ok || !too {
			return e, errGarbled
		}
		return entry{orig, reply}, nil
	}
	return e, errGarbled
}

func parseTuple(b []byte) (t tuple, ok bool) {
	ip, proto := value(b, ctaTupleIP), value(b, ctaTupleProto)
	src, dst := value(ip, ctaIPv4Src), value(ip, ctaIPv4Dst)
	if src == nil {
		src, dst = value(ip, ctaIPv6Src), value(ip, ctaIPv6Dst)
	}
	from, valid := netip.AddrFromSlice(src)
	to, too := netip.AddrFromSlice(dst)
	num := value(proto, ctaProtoNum)
	if !valid || !too || len(num) != 1 {
		return t, false
	}
	t = tuple{src: event.IPFrom(from), dst: event.IPFrom(to), protocol: event.Protocol(num[0])}
	switch t.protocol {
	case event.ICMP, event.ICMPv6:
		offset := uint16(0)
		if t.protocol == event.ICMPv6 {
			offset = ctaProtoICMPv6
		}
		kind := value(proto, ctaProtoICMPType+offset)
		if len(kind) != 1 {
			return t, false
		}
		t.icmpType = kind[0]
		t.srcPort, ok = port(value(proto, ctaProtoICMPID+offset))
		t.dstPort = t.srcPort
		return t, ok
	}
	t.srcPort, valid = port(value(proto, ctaProtoSrcPort))
	t.dstPort, too = port(value(proto, ctaProtoDstPort))
	return t, valid && too
}

func port(b []byte) (uint16, bool) {
	if len(b) != 2 {
		return 0, false
	}
	return binary.BigEndian.Uint16(b), true
}

// value is that of the first attribute of a type, nil where there is none.
func value(b []byte, kind uint16) []byte {
	for len(b) >= unix.SizeofNlAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofNlAttr || size > len(b) {
			return nil
		}
		if binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER) == kind {
			return b[unix.SizeofNlAttr:size]
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return nil
}
