// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	. "github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

// sample is a frame, and what is odd about it.
type sample struct {
	name  string
	frame []byte
}

// samples is every oddity that a header can have, one at a time and in some
// combinations, each carried by a frame that is right otherwise.
func samples() []sample {
	return slices.Concat(ipv4Samples(), fragmentSamples(), chainSamples(), tagSamples(), transportSamples(), quoteSamples())
}

func with(frame []byte, at int, value ...byte) []byte {
	b := slices.Clone(frame)
	copy(b[at:], value)
	return b
}

const (
	ip4At = etherHeader // of the IPv4 header
	tcpAt = etherHeader + 20
)

func ipv4Samples() (out []sample) {
	whole := Packet(Ether{}, IPv4{Src: src4, Dst: dst4, Options: make([]byte, 40)}, tcp, Zeros(40))
	plain := Packet(Ether{}, v4, tcp, Zeros(100))
	for ihl := range byte(16) {
		out = append(out,
			sample{fmt.Sprintf("%d words over 15", ihl), with(whole, ip4At, 0x40|ihl)},
			sample{fmt.Sprintf("%d words over 5", ihl), with(plain, ip4At, 0x40|ihl)},
			sample{fmt.Sprintf("%d words, no more than the header", ihl), with(plain, ip4At, 0x40|ihl)[:ip4At+20]})
	}
	for version := range byte(16) {
		out = append(out,
			sample{fmt.Sprintf("version %d as IPv4", version), with(plain, ip4At, version<<4|5)},
			sample{fmt.Sprintf("version %d as IPv6", version), with(Packet(Ether{}, v6, tcp), ip4At, version<<4)})
	}
	for _, length := range []uint16{0, 1, 19, 20, 21, 39, 40, 41, 119, 120, 121, 1500, 65535} {
		b := binary.BigEndian.AppendUint16(nil, length)
		out = append(out,
			sample{fmt.Sprintf("total length %d", length), with(plain, ip4At+2, b...)},
			sample{fmt.Sprintf("payload length %d", length), with(Packet(Ether{}, v6, udp, Zeros(9)), ip4At+4, b...)})
	}
	return append(out,
		sample{"IPv6 as IPv4", Packet(Ether{Type: 0x0800}, v6, tcp)},
		sample{"IPv4 as IPv6", Packet(Ether{Type: 0x86dd}, v4, tcp, Zeros(40))},
		sample{"IPv4 in IPv4", Packet(Ether{}, v4, Data{Number: 4, Bytes: Packet(v4, tcp)})},
		sample{"IPv6 in IPv4", Packet(Ether{}, v4, Data{Number: 41, Bytes: Packet(v6, tcp)})},
		sample{"IPv4 in IPv6", Packet(Ether{}, v6, Data{Number: 4, Bytes: Packet(v4, tcp)})})
}

func fragmentSamples() (out []sample) {
	for _, field := range []uint16{0x4000, 0x8000, 0x2000, 1, 0x2001, 0x1fff, 0x3fff, 0xe000, 0xffff} {
		for _, l := range []Layer{tcp, udp, SCTP{Src: 1, Dst: 2}, ICMP{Type: 8, ID: 1}, ICMP{Type: 3}, Data{Number: 6, Bytes: []byte{1}}} {
			out = append(out, sample{fmt.Sprintf("IPv4 fragment %#x of %T", field, l), Packet(Ether{}, IPv4{Src: src4, Dst: dst4, Fragment: field}, l)})
		}
	}
	for _, f := range []Fragment6{{}, {More: true}, {Offset: 8}, {Offset: 8, More: true}, {Offset: 0xfff8}, {Offset: 0xfff8, More: true}} {
		for _, l := range []Layer{tcp, udp, ICMP{V6: true, Type: 128}, Data{Number: 17, Bytes: []byte{1}}, f, Extension{Protocol: 60}} {
			out = append(out,
				sample{fmt.Sprintf("IPv6 fragment %+v of %T", f, l), Packet(Ether{}, v6, f, l, udp)},
				sample{fmt.Sprintf("IPv6 fragment %+v of %T behind options", f, l), Packet(Ether{}, v6, Extension{}, f, l)})
		}
	}
	// Reserved bits are not part of the offset.
	return append(out, sample{"reserved bits", with(Packet(Ether{}, v6, Fragment6{}, udp), ip4At+40+2, 0, 6)})
}

// extensions is one of each kind.
func extensions() []Layer {
	return []Layer{
		Extension{},
		Jumbo{Length: 70000},
		Extension{Protocol: 43, Extra: 2},
		Fragment6{More: true},
		Extension{Protocol: 51, Extra: 2},
		Extension{Protocol: 60, Extra: 1},
		Extension{Protocol: 135},
	}
}

func chainSamples() (out []sample) {
	add := func(layers ...Layer) {
		name := "IPv6"
		for _, l := range layers {
			name += fmt.Sprintf(" %T%v", l, l)
		}
		out = append(out, sample{name, Packet(append([]Layer{Ether{}, v6}, layers...)...)})
	}
	// Each pair in each order: hop-by-hop first and later, the same twice.
	for _, a := range extensions() {
		add(a, tcp)
		add(a)
		for _, b := range extensions() {
			add(a, b, udp)
		}
		for n := 7; n <= 10; n++ {
			add(append(slices.Repeat([]Layer{a}, n), tcp)...)
			add(append(slices.Repeat([]Layer{Extension{Protocol: 60}}, n), a, udp)...)
		}
	}
	add(deep(8, 255, tcp)...)
	add(deep(9, 255, tcp)...)
	// All in one, cut at each length, and with each length that one may claim.
	chain := Packet(append([]Layer{Ether{}, v6}, append(extensions(), tcp)...)...)
	for n := etherHeader + 40; n <= len(chain); n++ {
		out = append(out, sample{fmt.Sprintf("chain cut at %d", n), chain[:n]})
	}
	for _, length := range []byte{0, 1, 2, 3, 9, 100, 254, 255} {
		for _, protocol := range []byte{0, 43, 44, 51, 60, 135} {
			b := with(Packet(Ether{}, v6, Extension{Protocol: protocol}, Extension{Protocol: 60, Extra: 4}, tcp), ip4At+40+1, length)
			out = append(out, sample{fmt.Sprintf("extension %d that claims %d", protocol, length), b})
		}
	}
	for next := range 256 {
		out = append(out, sample{fmt.Sprintf("next header %d", next), with(Packet(Ether{}, v6, Data{Bytes: make([]byte, 24)}), ip4At+6, byte(next))})
	}
	return out
}

func tagSamples() (out []sample) {
	kinds := []uint16{0x8100, 0x88a8, 0x9100}
	stack := func(n, variant int) (tags []Layer) {
		for range n {
			tags = append(tags, VLAN{ID: uint16(variant), Type: kinds[variant%3]})
			variant /= 3
		}
		return tags
	}
	for depth, variants := range []int{1, 3, 9, 27, 81} {
		for v := range variants {
			for _, inner := range [][]Layer{{v4, tcp}, {v6, Extension{}, udp}, {Data{Number: 0x0806, Bytes: make([]byte, 28)}}} {
				frame := Packet(slices.Concat([]Layer{Ether{}}, stack(depth, v), inner)...)
				out = append(out, sample{fmt.Sprintf("%d tags, variant %d of %T", depth, v, inner[0]), frame})
			}
		}
		frame := Packet(append(append([]Layer{Ether{}}, stack(depth, 1)...), v4, udp)...)
		for n := etherHeader + 1; n <= etherHeader+4*depth && depth > 0; n++ {
			out = append(out, sample{fmt.Sprintf("%d tags cut at %d", depth, n), frame[:n]})
		}
	}
	return out
}

func transportSamples() (out []sample) {
	for doff := range byte(16) {
		whole := Packet(Ether{}, v4, TCP{Src: 1, Dst: 2, Words: 15, Flags: event.FlagACK}, Zeros(8))
		six := Packet(Ether{}, v6, TCP{Src: 1, Dst: 2, Words: 15}, Zeros(8))
		out = append(out,
			sample{fmt.Sprintf("TCP of %d words", doff), with(whole, tcpAt+12, doff<<4)},
			sample{fmt.Sprintf("TCP of %d words, reserved bits", doff), with(whole, tcpAt+12, doff<<4|15)},
			sample{fmt.Sprintf("TCP of %d words over IPv6", doff), with(six, ip4At+40+12, doff<<4)},
			sample{fmt.Sprintf("TCP of %d words, cut", doff), with(whole, tcpAt+12, doff<<4)[:tcpAt+20]})
	}
	for _, l := range []Layer{tcp, udp, SCTP{Src: 3, Dst: 4}, ICMP{Type: 8, ID: 5}, ICMP{Type: 3, ID: 5}, Data{Number: 47, Bytes: make([]byte, 16)}} {
		for _, ip := range []Layer{v4, IPv4{Src: src4, Dst: dst4, Options: make([]byte, 4)}, v6} {
			frame := Packet(Ether{}, ip, l)
			for n := len(Packet(Ether{}, ip)); n <= len(frame); n++ {
				out = append(out, sample{fmt.Sprintf("%T over %T cut at %d", l, ip, n), frame[:n]})
			}
		}
	}
	for t := range 256 {
		out = append(out,
			sample{fmt.Sprintf("ICMP %d", t), Packet(Ether{}, v4, ICMP{Type: uint8(t), Code: 1, ID: 6})},
			sample{fmt.Sprintf("ICMPv6 %d", t), Packet(Ether{}, v6, ICMP{V6: true, Type: uint8(t), Code: 1, ID: 6})})
	}
	return append(out,
		sample{"ICMPv6 over IPv4", Packet(Ether{}, v4, ICMP{V6: true, Type: 128, ID: 1})},
		sample{"ICMP over IPv6", Packet(Ether{}, v6, ICMP{Type: 8, ID: 1})},
		sample{"ICMPv6 error over IPv4", Packet(Ether{}, v4, ICMP{V6: true, Type: 1}, Data{Bytes: Packet(v4, tcp)})},
		sample{"ICMP error over IPv6", Packet(Ether{}, v6, ICMP{Type: 3}, Data{Bytes: Packet(v6, tcp)})})
}

// quoteSamples are ICMP errors that quote all that is odd.
func quoteSamples() (out []sample) {
	quoted := slices.Concat(ipv4Samples(), fragmentSamples(), chainSamples())
	for i, s := range quoted {
		inner := Data{Bytes: s.frame[etherHeader:]}
		out = append(out,
			sample{"ICMP error that quotes " + s.name, Packet(Ether{}, v4, ICMP{Type: 3, Code: 1}, inner)},
			sample{"ICMPv6 error that quotes " + s.name, Packet(Ether{}, v6, ICMP{V6: true, Type: 1}, inner)})
		if i%16 == 0 {
			out = append(out, sample{
				"error that quotes an error that quotes " + s.name,
				Packet(Ether{}, v4, ICMP{Type: 3}, Data{Bytes: Packet(v4, ICMP{Type: 11}, inner)}),
			})
		}
	}
	return out
}

// The tap tells of each odd packet what the second parser tells, whichever way
// it takes and however long the link-layer header is said to be.
func TestHostilePacketsAreReadAsTheyAre(t *testing.T) {
	k := newKernel(t, 1000)
	k.prog(true)
	whole, ran, classes := samples(), 0, map[uint8]int{}
	for _, link := range []uint32{etherHeader, unknownHeader} {
		k.load(constants{netns: k.tap.own.inode, linkHeader: link})
		for i, s := range whole {
			egress := i%2 == 0
			if !k.attempt(egress, s.frame, nil) {
				continue
			}
			ran++
			want := read(s.frame, etherHeader, binary.BigEndian.Uint16(s.frame[12:]))
			classes[want.class]++
			if err := k.compare(&want, len(s.frame), egress); err != nil {
				t.Errorf("link %d, egress %v, %s: %v\n% x", link, egress, s.name, err, s.frame)
			}
		}
	}
	t.Logf("%d of %d packets ran, by class %v", ran, 2*len(whole), classes)
	if ran < 2*len(whole)*9/10 || len(classes) != classBadExtension+1 {
		t.Errorf("a weak test: %d of %d packets ran", ran, 2*len(whole))
	}
}

// attempt runs a packet that the kernel may refuse to run a program on, before
// the program has seen it; it tells whether it ran.
func (k *kernel) attempt(egress bool, frame []byte, context any) bool {
	k.t.Helper()
	verdict, err := uint32(0), error(nil)
	k.ns.Do(func() { verdict, err = k.prog(egress).Run(&ebpf.RunOptions{Data: frame, Context: context}) })
	switch {
	case errors.Is(err, unix.EINVAL):
		return false
	case err != nil:
		k.t.Fatalf("run %d bytes: %v", len(frame), err)
	case int32(verdict) != -1:
		k.t.Fatalf("verdict %d: the tap never decides", int32(verdict))
	}
	return true
}

// compare looks at what one packet left.
func (k *kernel) compare(want *reading, length int, egress bool) error {
	got := k.look()
	if wire, _ := got.total(); wire != (event.Counter{Bytes: uint64(length), Packets: 1}) {
		return fmt.Errorf("counted %+v of %d bytes", wire, length)
	}
	if want.class != 0 {
		for key, v := range got.rest {
			if key.Class != want.class || v.Packets != 1 || key.Class == classBadTransport && key.Protocol != want.protocol {
				return fmt.Errorf("%+v: %+v, want class %d of protocol %d", key, v, want.class, want.protocol)
			}
		}
		if len(got.rest) != 1 || len(got.deltas) != 0 {
			return fmt.Errorf("rest %+v, records %+v, want class %d", got.rest, got.deltas, want.class)
		}
		return nil
	}
	if len(got.rest) != 0 {
		return fmt.Errorf("rest %+v, want %+v", got.rest, want.conn(k, egress))
	}
	for _, d := range got.deltas {
		switch {
		case d.Traffic == event.Traffic{} && want.blames && d.Health.ICMPErrors == 1: // whom it quotes
		case d.Conn == want.conn(k, egress) && d.FirstTx == egress:
		default:
			return fmt.Errorf("record %+v of %+v, want %+v", d.Conn, d.Traffic, want.conn(k, egress))
		}
	}
	return nil
}

// Random changes to what is odd already. Nothing is lost or counted twice, and
// the numbers are those of the second parser.
func TestMutatedHostilePackets(t *testing.T) {
	const packets, seed = 6000, 3
	k := newKernel(t, 1000)
	random := rand.New(rand.NewPCG(seed, seed))
	whole := samples()
	for i := range packets {
		s := whole[random.IntN(len(whole))]
		frame := slices.Clone(s.frame)
		for range 1 + random.IntN(3) {
			frame[12+random.IntN(min(len(frame)-12, 80))] = uint8(random.Uint32())
		}
		egress := i%2 == 0
		if !k.attempt(egress, frame, nil) {
			continue
		}
		// Lengths under 1536 are of an 802.3 frame, whose protocol is no ethertype.
		want := read(frame, etherHeader, binary.BigEndian.Uint16(frame[12:]))
		if err := k.compare(&want, len(frame), egress); err != nil {
			t.Fatalf("seed %d, packet %d from %s: %v\n% x", seed, i, s.name, err, frame)
		}
	}
}
