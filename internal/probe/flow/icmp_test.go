// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"net/netip"
	"testing"

	. "github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

// An ICMP error is a packet of its own and a word on the connection that it
// quotes, as seen from the same end, however little of it is quoted.
func TestErrorsAreBlamedOnWhatTheyQuote(t *testing.T) {
	k := newKernel(t, 100)
	// What the local end sent, and the answer from a router on the way.
	router4, router6 := netip.MustParseAddr("10.5.5.5"), netip.MustParseAddr("fd00:5::5")
	quoting := func(e ICMP, quoted ...Layer) []byte {
		if e.V6 {
			return Packet(Ether{}, IPv6{Src: router6, Dst: src6}, e, Data{Bytes: Packet(append([]Layer{v6}, quoted...)...)})
		}
		return Packet(Ether{}, IPv4{Src: router4, Dst: src4}, e, Data{Bytes: Packet(append([]Layer{v4}, quoted...)...)})
	}
	cut := func(b []byte, n int) []byte { return b[:len(b)-n] }
	for _, c := range []struct {
		name       string
		frame      []byte
		protocol   event.Protocol
		kind       event.ConnKind
		ports      [2]uint16
		icmp, code uint8
	}{
		{"port unreachable, UDP", quoting(ICMP{Type: 3, Code: 3}, udp), event.UDP, 0, [2]uint16{5000, 53}, 3, 3},
		{"host unreachable, TCP", quoting(ICMP{Type: 3, Code: 1}, tcp), event.TCP, 0, [2]uint16{4000, 443}, 3, 1},
		{"eight bytes of TCP", cut(quoting(ICMP{Type: 11}, tcp), 12), event.TCP, 0, [2]uint16{4000, 443}, 11, 0},
		{"four bytes of UDP", cut(quoting(ICMP{Type: 11}, udp), 4), event.UDP, 0, [2]uint16{5000, 53}, 11, 0},
		{"SCTP", quoting(ICMP{Type: 12}, SCTP{Src: 1, Dst: 2}), event.SCTP, 0, [2]uint16{1, 2}, 12, 0},
		{"echo", quoting(ICMP{Type: 3, Code: 1}, ICMP{Type: 8, ID: 5}), event.ICMP, event.ConnEchoOpenedLocal, [2]uint16{5, 0}, 3, 1},
		{"GRE", quoting(ICMP{Type: 3, Code: 2}, Data{Number: 47, Bytes: make([]byte, 8)}), 47, 0, [2]uint16{}, 3, 2},
		{"IPv6 packet too big, TCP", quoting(ICMP{V6: true, Type: 2}, tcp), event.TCP, 0, [2]uint16{4000, 443}, 2, 0},
		{"IPv6 port unreachable, UDP behind options", quoting(ICMP{V6: true, Type: 1, Code: 4}, Extension{}, Extension{Protocol: 60}, udp), event.UDP, 0, [2]uint16{5000, 53}, 1, 4},
		{"IPv6 echo", quoting(ICMP{V6: true, Type: 1}, ICMP{V6: true, Type: 128, ID: 5}), event.ICMPv6, event.ConnEchoOpenedLocal, [2]uint16{5, 0}, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			local, remote := src4, dst4
			if c.frame[12] == 0x86 {
				local, remote = src6, dst6
			}
			conn := k.conn(c.protocol, netip.AddrPortFrom(local, c.ports[0]), netip.AddrPortFrom(remote, c.ports[1]))
			conn.Kind = c.kind
			k.run(false, c.frame)
			checkBlame(t, k.look(), blame{conn, event.Health{ICMPErrors: 1, ICMPType: c.icmp, ICMPCode: c.code}}, event.Traffic{RxBytes: uint64(len(c.frame)), RxPackets: 1})
			// Sent by this end about a packet that it received.
			k.run(true, c.frame)
			checkBlame(t, k.look(), blame{mirror(conn), event.Health{ICMPErrors: 1, ICMPType: c.icmp, ICMPCode: c.code}}, event.Traffic{TxBytes: uint64(len(c.frame)), TxPackets: 1})
		})
	}
}

// blame is what a quoted connection is told.
type blame struct {
	conn   event.Conn
	health event.Health
}

func checkBlame(t *testing.T, got seen, want blame, own event.Traffic) {
	t.Helper()
	if len(got.deltas) != 2 || len(got.rest) != 0 {
		t.Fatalf("records %+v, rest %+v", got.deltas, got.rest)
	}
	for _, d := range got.deltas {
		switch d.Conn {
		case want.conn:
			if d.Health != want.health || d.Traffic != (event.Traffic{}) {
				t.Errorf("the quoted connection has %+v and %+v, want %+v and no traffic", d.Health, d.Traffic, want.health)
			}
		default:
			if d.Traffic != own || d.Health.ICMPErrors != 0 {
				t.Errorf("the error itself: %+v %+v", d.Traffic, d.Health)
			}
		}
	}
}

// What cannot be told from a quotation is told of nobody, and the error is
// still counted.
func TestErrorsThatQuoteNothingUsable(t *testing.T) {
	k := newKernel(t, 100)
	later := v4
	later.Fragment = 100
	e4, e6 := ICMP{Type: 3, Code: 3}, ICMP{V6: true, Type: 1}
	for name, frame := range map[string][]byte{
		"no quotation":           Packet(Ether{}, v4, e4),
		"half an IP header":      Packet(Ether{}, v4, e4, Data{Bytes: Packet(v4)[:11]}),
		"no ports":               Packet(Ether{}, v4, e4, Data{Bytes: Packet(v4, udp)[:23]}),
		"later fragment":         Packet(Ether{}, v4, e4, Data{Bytes: Packet(later, udp)}),
		"other family":           Packet(Ether{}, v4, e4, Data{Bytes: Packet(v6, udp)}),
		"IPv6, no quotation":     Packet(Ether{}, v6, e6),
		"IPv6, extension is cut": Packet(Ether{}, v6, e6, Data{Bytes: Packet(v6, Extension{Extra: 3}, udp)[:50]}),
		"not an error":           Packet(Ether{}, v4, ICMP{Type: 5, Code: 1}, Data{Bytes: Packet(v4, udp)}),
	} {
		for _, egress := range []bool{false, true} {
			k.run(egress, frame)
			got := k.look()
			if len(got.deltas) != 1 || len(got.rest) != 0 || got.deltas[0].Health.ICMPErrors != 0 {
				t.Errorf("%s: records %+v, rest %+v", name, got.deltas, got.rest)
			}
		}
	}
}

// The error joins the record that the connection has, which keeps its counts.
func TestErrorJoinsRecord(t *testing.T) {
	k := newKernel(t, 100)
	sent := Packet(Ether{}, v4, udp, Zeros(20))
	back := Packet(Ether{}, IPv4{Src: dst4, Dst: src4}, ICMP{Type: 3, Code: 3}, Data{Bytes: Packet(v4, udp)})
	k.run(true, sent)
	k.run(false, back)
	k.run(false, back)
	for _, d := range k.look().deltas {
		if d.Conn.Protocol == event.UDP && (d.Health.ICMPErrors != 2 || d.Traffic.TxPackets != 1 || !d.FirstTx) {
			t.Errorf("record %+v", d)
		}
	}
}

// An echo and its answer are one record, and two hosts that ask each other
// with one id are two.
func TestEchoIsOneConversation(t *testing.T) {
	k := newKernel(t, 100)
	back := IPv4{Src: dst4, Dst: src4}
	k.run(true, Packet(Ether{}, v4, ICMP{Type: 8, ID: 7}))
	k.run(false, Packet(Ether{}, back, ICMP{Type: 0, ID: 7}))
	k.run(false, Packet(Ether{}, back, ICMP{Type: 8, ID: 7}))
	k.run(true, Packet(Ether{}, v4, ICMP{Type: 0, ID: 7}))
	got := k.look()
	if len(got.deltas) != 2 {
		t.Fatalf("records %+v", got.deltas)
	}
	for _, d := range got.deltas {
		if d.Traffic.TxPackets != 1 || d.Traffic.RxPackets != 1 || d.FirstTx != (d.Conn.Kind == event.ConnEchoOpenedLocal) {
			t.Errorf("record %+v", d)
		}
	}
}
