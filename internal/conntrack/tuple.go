// SPDX-License-Identifier: Apache-2.0

package conntrack

import "github.com/orb8/orb8/internal/event"

// tuple is one direction of a connection as the kernel's table has it. An echo
// has its id for both ports, and what it is: type and code.
type tuple struct {
	src, dst         event.IP
	srcPort, dstPort uint16
	protocol         event.Protocol
	icmpType         uint8
}

// entry is a tracked connection: the tuple of who opened it, and the one that
// answers have. Not translated, each is the other inverted.
type entry struct{ orig, reply tuple }

// ICMP's types of an echo.
const (
	echoReply, echoRequest   = 0, 8
	echoRequest6, echoReply6 = 128, 129
)

// tupleOf is what a connection is looked up by; not ok: it cannot be.
//
// The kernel finds an entry by the tuple of either direction, each as it is
// before translation: what a pod sends, and what the host receives from the
// wire. What the host sends has been translated already, and would find
// another connection that has these addresses on the inside.
func tupleOf(c *event.Conn, host bool) (tuple, bool) {
	t := tuple{src: c.Local, dst: c.Remote, srcPort: c.LocalPort, dstPort: c.RemotePort, protocol: c.Protocol}
	switch c.Protocol {
	case event.TCP, event.UDP, event.SCTP:
		if c.Kind != event.ConnPlain || c.LocalPort == 0 && c.RemotePort == 0 {
			return t, false
		}
	case event.ICMP, event.ICMPv6:
		if c.Kind != event.ConnEchoOpenedLocal && c.Kind != event.ConnEchoOpenedRemote {
			return t, false
		}
		t.dstPort = t.srcPort
		t.icmpType = echoType(c.Protocol, c.Kind == event.ConnEchoOpenedLocal)
	default:
		return t, false
	}
	if host {
		t = t.inverted()
	}
	return t, true
}

func echoType(p event.Protocol, request bool) uint8 {
	switch {
	case p == event.ICMP && request:
		return echoRequest
	case p == event.ICMP:
		return echoReply
	case request:
		return echoRequest6
	}
	return echoReply6
}

// inverted is the tuple of an answer.
func (t *tuple) inverted() tuple {
	i := *t
	i.src, i.dst = t.dst, t.src
	i.srcPort, i.dstPort = t.dstPort, t.srcPort
	if t.protocol == event.ICMP || t.protocol == event.ICMPv6 {
		request := t.icmpType == echoType(t.protocol, true)
		i.icmpType = echoType(t.protocol, !request)
	}
	return i
}

// translation is what becomes of a tuple that was looked up, nil where it stays
// as it is.
func translation(e *entry, asked *tuple, host bool) *event.Translation {
	var other tuple
	switch *asked {
	case e.orig:
		other = e.reply.inverted()
	case e.reply:
		other = e.orig.inverted()
	default:
		return nil
	}
	if other == *asked {
		return nil
	}
	if host { // it was asked for as it comes from the remote end
		other = other.inverted()
	}
	t := &event.Translation{
		Local: other.src, Remote: other.dst,
		LocalPort: other.srcPort, RemotePort: other.dstPort,
		OfSocket: host,
	}
	if other.protocol == event.ICMP || other.protocol == event.ICMPv6 {
		t.RemotePort = 0 // as in event.Conn
	}
	return t
}
