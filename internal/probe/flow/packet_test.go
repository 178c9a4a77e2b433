// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"fmt"
	"testing"

	. "github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

// The kernel's enum packet_class, as far as only tests ask.
const (
	classBadIP        = 2
	classBadTransport = 3
	classBadExtension = 4
)

var (
	v4  = IPv4{Src: src4, Dst: dst4}
	v6  = IPv6{Src: src6, Dst: dst6}
	tcp = TCP{Src: 4000, Dst: 443, Flags: event.FlagACK}
	udp = UDP{Src: 5000, Dst: 53}
)

func TestRecordsIPv4(t *testing.T) {
	k := newKernel(t, 100)
	first, later, last := v4, v4, v4
	first.Fragment, later.Fragment, last.Fragment = 0x2000, 0x2000|185, 185
	records := []record{
		{name: "TCP", frame: Packet(Ether{}, v4, tcp, Zeros(10)), protocol: event.TCP, ports: [2]uint16{4000, 443}},
		{name: "TCP with options", frame: Packet(Ether{}, v4, TCP{Src: 1, Dst: 2, Words: 15}), protocol: event.TCP, ports: [2]uint16{1, 2}},
		{name: "TCP that claims more header than there is", frame: Packet(Ether{}, v4, TCP{Src: 1, Dst: 2, Words: 15})[:14+20+16], protocol: event.TCP, ports: [2]uint16{1, 2}},
		{name: "UDP", frame: Packet(Ether{}, v4, udp), protocol: event.UDP, ports: [2]uint16{5000, 53}},
		{name: "UDP of 3000 bytes", frame: Packet(Ether{}, v4, udp, Zeros(3000)), protocol: event.UDP, ports: [2]uint16{5000, 53}},
		{name: "SCTP", frame: Packet(Ether{}, v4, SCTP{Src: 6, Dst: 7}), protocol: event.SCTP, ports: [2]uint16{6, 7}},
		{name: "echo request", frame: Packet(Ether{}, v4, ICMP{Type: 8, ID: 9}), protocol: event.ICMP, kind: event.ConnEchoOpenedLocal, ports: [2]uint16{9, 0}},
		{name: "echo reply", frame: Packet(Ether{}, v4, ICMP{Type: 0, ID: 9}), protocol: event.ICMP, kind: event.ConnEchoOpenedRemote, ports: [2]uint16{9, 0}},
		{name: "other ICMP", frame: Packet(Ether{}, v4, ICMP{Type: 13, ID: 9}), protocol: event.ICMP},
		{name: "GRE", frame: Packet(Ether{}, v4, Data{Number: 47, Bytes: make([]byte, 30)}), protocol: 47},
		{name: "protocol without a byte of its own", frame: Packet(Ether{}, v4, Data{Number: 89}), protocol: 89},
		{name: "first fragment", frame: Packet(Ether{}, first, udp, Zeros(1480)), protocol: event.UDP, ports: [2]uint16{5000, 53}},
		{name: "later fragment", frame: Packet(Ether{}, later, udp, Zeros(1480)), protocol: event.UDP, kind: event.ConnFragment},
		{name: "last fragment of one byte", frame: Packet(Ether{}, last, Data{Number: 6, Bytes: []byte{1}}), protocol: event.TCP, kind: event.ConnFragment},
		{name: "one tag", frame: Packet(Ether{}, VLAN{ID: 5}, v4, tcp), protocol: event.TCP, ports: [2]uint16{4000, 443}},
		{name: "two tags", frame: Packet(Ether{}, VLAN{ID: 5}, VLAN{ID: 6}, v4, tcp), protocol: event.TCP, ports: [2]uint16{4000, 443}},
		{name: "802.1ad", frame: Packet(Ether{}, VLAN{ID: 5, Type: 0x88a8}, VLAN{ID: 6}, v4, udp), protocol: event.UDP, ports: [2]uint16{5000, 53}},
	}
	for words := 6; words <= 15; words++ {
		ip := v4
		ip.Options = make([]byte, 4*(words-5))
		records = append(records, record{
			name:  fmt.Sprintf("header of %d words", words),
			frame: Packet(Ether{}, ip, tcp), protocol: event.TCP, ports: [2]uint16{4000, 443},
		})
	}
	k.checkRecords(t, records)
}

func TestRecordsIPv6(t *testing.T) {
	k := newKernel(t, 100)
	hop, routing, dst, mobility, auth := Extension{Protocol: 0}, Extension{Protocol: 43, Extra: 2}, Extension{Protocol: 60, Extra: 1}, Extension{Protocol: 135}, Extension{Protocol: 51, Extra: 3}
	chain := func(layers ...Layer) []byte { return Packet(append([]Layer{Ether{}, v6}, layers...)...) }
	tcpRecord := func(name string, frame []byte) record {
		return record{name: name, frame: frame, protocol: event.TCP, ports: [2]uint16{4000, 443}, v6: true}
	}
	k.checkRecords(t, []record{
		tcpRecord("TCP", chain(tcp)),
		tcpRecord("hop-by-hop", chain(hop, tcp)),
		tcpRecord("routing", chain(routing, tcp)),
		tcpRecord("destination options", chain(dst, tcp)),
		tcpRecord("mobility", chain(mobility, tcp)),
		tcpRecord("authentication", chain(auth, tcp)),
		tcpRecord("longest extension", chain(Extension{Protocol: 60, Extra: 255}, tcp)),
		tcpRecord("all in one chain", chain(hop, dst, routing, Fragment6{More: true}, auth, dst, tcp)),
		tcpRecord("eight", chain(hop, dst, dst, dst, dst, dst, dst, dst, tcp)),
		tcpRecord("eight long ones", chain(deep(8, 50, tcp)...)),
		tcpRecord("two tags", Packet(Ether{}, VLAN{ID: 1, Type: 0x88a8}, VLAN{ID: 2}, v6, hop, tcp)),
		{name: "UDP", frame: chain(udp, Zeros(1)), protocol: event.UDP, ports: [2]uint16{5000, 53}, v6: true},
		{name: "SCTP", frame: chain(SCTP{Src: 6, Dst: 7}), protocol: event.SCTP, ports: [2]uint16{6, 7}, v6: true},
		{name: "echo request", frame: chain(ICMP{V6: true, Type: 128, ID: 3}), protocol: event.ICMPv6, kind: event.ConnEchoOpenedLocal, ports: [2]uint16{3, 0}, v6: true},
		{name: "echo reply", frame: chain(hop, ICMP{V6: true, Type: 129, ID: 3}), protocol: event.ICMPv6, kind: event.ConnEchoOpenedRemote, ports: [2]uint16{3, 0}, v6: true},
		{name: "neighbour solicitation", frame: chain(ICMP{V6: true, Type: 135}, Zeros(16)), protocol: event.ICMPv6, v6: true},
		{name: "ESP", frame: chain(Data{Number: 50, Bytes: make([]byte, 20)}), protocol: 50, v6: true},
		{name: "nothing follows", frame: chain(), protocol: 59, v6: true},
		{name: "first fragment", frame: chain(Fragment6{More: true}, udp, Zeros(1400)), protocol: event.UDP, ports: [2]uint16{5000, 53}, v6: true},
		{name: "later fragment", frame: chain(Fragment6{Offset: 1408, More: true}, udp, Zeros(1400)), protocol: event.UDP, kind: event.ConnFragment, v6: true},
		{name: "last fragment of one byte", frame: chain(Fragment6{Offset: 2816}, Data{Number: 6, Bytes: []byte{1}}), protocol: event.TCP, kind: event.ConnFragment, v6: true},
	})
}

// deep is n destination option headers and then a transport.
func deep(n int, extra uint8, last Layer) []Layer {
	var layers []Layer
	for range n {
		layers = append(layers, Extension{Protocol: 60, Extra: extra})
	}
	return append(layers, last)
}

func TestMisfits(t *testing.T) {
	k := newKernel(t, 100)
	short, old := v4, v4
	short.Words, old.Version = 4, 6
	young := v6
	young.Version = 4
	chain := func(layers ...Layer) []byte { return Packet(append([]Layer{Ether{}, v6}, layers...)...) }
	k.checkMisfits(t, []misfit{
		{name: "ARP", frame: Packet(Ether{}, Data{Number: 0x0806, Bytes: make([]byte, 28)}), class: classNotIP},
		{name: "LLDP", frame: Packet(Ether{}, Data{Number: 0x88cc, Bytes: make([]byte, 50)}), class: classNotIP},
		{name: "802.3 length", frame: Packet(Ether{Type: 46}, Zeros(46)), class: classNotIP},
		{name: "three tags", frame: Packet(Ether{}, VLAN{ID: 1}, VLAN{ID: 2}, VLAN{ID: 3}, v4, tcp), class: classNotIP},
		{name: "half a tag", frame: Packet(Ether{}, VLAN{ID: 1}, v4, tcp)[:17], class: classNotIP},
		{name: "header of four words", frame: Packet(Ether{}, short, tcp), class: classBadIP},
		{name: "version 6 under 0x0800", frame: Packet(Ether{}, old, tcp), class: classBadIP},
		{name: "version 4 under 0x86dd", frame: Packet(Ether{}, young, tcp), class: classBadIP},
		{name: "options beyond the end", frame: Packet(Ether{}, IPv4{Src: src4, Dst: dst4, Words: 15}, tcp), class: classBadTransport, protocol: 6},
		{name: "TCP header of four words", frame: Packet(Ether{}, v4, TCP{Words: 4}), class: classBadTransport, protocol: 6},
		{name: "first fragment without ports", frame: Packet(Ether{}, IPv4{Src: src4, Dst: dst4, Fragment: 0x2000}, Data{Number: 17, Bytes: make([]byte, 7)}), class: classBadTransport, protocol: 17},
		{name: "nine extension headers", frame: chain(deep(9, 0, tcp)...), class: classBadExtension},
		{name: "extension beyond the end", frame: chain(Extension{Protocol: 60}, Extension{Protocol: 60})[:14+40+8+1], class: classBadExtension},
		{name: "extension that claims too much", frame: claimTooMuch(), class: classBadTransport, protocol: 6},
	})
}

func claimTooMuch() []byte {
	b := Packet(Ether{}, v6, Extension{Protocol: 60}, tcp)
	b[14+40+1] = 200
	return b
}

// However short a packet is, it is counted, once and with its length, and for
// the reason that the missing part gives. All have a tag: newer kernels refuse
// to run a program on a bare IP header that is cut.
func TestTruncated(t *testing.T) {
	k := newKernel(t, 100)
	type part struct {
		upto  int // the class holds for frames shorter than this
		class uint8
	}
	tag := VLAN{ID: 1}
	for _, c := range []struct {
		name  string
		frame []byte
		parts []part
	}{
		{"IPv4 TCP", Packet(Ether{}, tag, v4, tcp, Zeros(4)), []part{{18, classNotIP}, {38, classBadIP}, {54, classBadTransport}}},
		{"IPv4 UDP", Packet(Ether{}, tag, v4, udp, Zeros(4)), []part{{18, classNotIP}, {38, classBadIP}, {46, classBadTransport}}},
		{"IPv4 ICMP", Packet(Ether{}, tag, v4, ICMP{Type: 8}, Zeros(4)), []part{{18, classNotIP}, {38, classBadIP}, {46, classBadTransport}}},
		{"IPv6 TCP", Packet(Ether{}, tag, v6, tcp, Zeros(4)), []part{{18, classNotIP}, {58, classBadIP}, {74, classBadTransport}}},
		{"IPv6 chain", Packet(Ether{}, tag, v6, Extension{}, Fragment6{}, udp), []part{{18, classNotIP}, {58, classBadIP}, {62, classBadExtension}, {70, classBadExtension}, {82, classBadTransport}}},
		{"two tags", Packet(Ether{}, tag, tag, v4, udp), []part{{22, classNotIP}, {42, classBadIP}, {50, classBadTransport}}},
		{"IPv4 GRE", Packet(Ether{}, tag, v4, Data{Number: 47, Bytes: make([]byte, 9)}), []part{{18, classNotIP}, {38, classBadIP}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			// A test run refuses a frame of its Ethernet header only.
			for n := etherHeader + 1; n <= len(c.frame); n++ {
				want := uint8(0)
				for i := len(c.parts) - 1; i >= 0; i-- {
					if n < c.parts[i].upto {
						want = c.parts[i].class
					}
				}
				for _, egress := range []bool{false, true} {
					k.run(egress, c.frame[:n])
					got := k.look()
					wire, _ := got.total()
					if wire != (event.Counter{Bytes: uint64(n), Packets: 1}) {
						t.Errorf("%d bytes: counted %+v", n, wire)
					}
					if (want == 0) != (len(got.deltas) == 1) || want != 0 && got.classes()[want] != 1 {
						t.Errorf("%d bytes: %d records and %v, want class %d", n, len(got.deltas), got.classes(), want)
					}
				}
			}
		})
	}
}
