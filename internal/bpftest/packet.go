// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Layer is one header of a packet, or what it carries.
type Layer interface {
	// wrap puts the header before what it carries; next is the number of that,
	// an EtherType or an IP protocol as the layer needs it.
	wrap(next uint16, inner []byte) []byte
	// number is what the layer before calls this one.
	number() uint16
}

// Packet builds a frame from its outermost layer to its innermost. Each header
// names the one after it; what is wrong in a packet is wrong because a test
// asked for it.
func Packet(layers ...Layer) []byte {
	var b []byte
	next := uint16(noNext)
	for _, l := range slices.Backward(layers) {
		b = l.wrap(next, b)
		next = l.number()
	}
	return b
}

// The numbers that layers have.
const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
	noNext    = 59 // IPv6: nothing follows
)

// Ether is an Ethernet header. Type is that of what follows, unless set.
type Ether struct{ Type uint16 }

func (e Ether) number() uint16 { return 0x6558 }

func (e Ether) wrap(next uint16, inner []byte) []byte {
	b := []byte{2, 0, 0, 0, 0x88, 2, 2, 0, 0, 0, 0x88, 1}
	return append(binary.BigEndian.AppendUint16(b, or(e.Type, next)), inner...)
}

// VLAN is a tag. Type is how the header before names it, 0x8100 unless set.
type VLAN struct {
	ID, Type uint16
}

func (v VLAN) number() uint16 { return or(v.Type, 0x8100) }

func (v VLAN) wrap(next uint16, inner []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, v.ID)
	return append(binary.BigEndian.AppendUint16(b, next), inner...)
}

// IPv4 is an IPv4 header. Words is the header length it claims in units of
// four bytes, the true one unless set; options are padded to such units.
type IPv4 struct {
	Src, Dst netip.Addr
	Options  []byte
	Fragment uint16 // flags and offset as in the header
	Version  uint8  // 4 unless set
	Words    uint8
}

func (h IPv4) number() uint16 { return etherIPv4 }

func (h IPv4) wrap(next uint16, inner []byte) []byte {
	options := append([]byte{}, h.Options...)
	for len(options)%4 != 0 {
		options = append(options, 0)
	}
	b := make([]byte, 20, 20+len(options)+len(inner))
	b[0] = or(h.Version, 4)<<4 | or(h.Words, uint8(5+len(options)/4))
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(options)+len(inner)))
	binary.BigEndian.PutUint16(b[6:], h.Fragment)
	b[8], b[9] = 64, uint8(next)
	copy(b[12:], h.Src.AsSlice())
	copy(b[16:], h.Dst.AsSlice())
	b = append(b, options...)
	binary.BigEndian.PutUint16(b[10:], checksum(b))
	return append(b, inner...)
}

// IPv6 is an IPv6 header.
type IPv6 struct {
	Src, Dst netip.Addr
	Version  uint8 // 6 unless set
}

func (h IPv6) number() uint16 { return etherIPv6 }

func (h IPv6) wrap(next uint16, inner []byte) []byte {
	b := make([]byte, 40, 40+len(inner))
	b[0] = or(h.Version, 6) << 4
	binary.BigEndian.PutUint16(b[4:], uint16(len(inner)))
	b[6], b[7] = uint8(next), 64
	copy(b[8:], h.Src.AsSlice())
	copy(b[24:], h.Dst.AsSlice())
	return append(b, inner...)
}

// Extension is an IPv6 extension header with a length: hop-by-hop (0), routing
// (43), destination options (60), mobility (135), authentication (51). Extra
// is what it has beyond its shortest form, in its own units.
type Extension struct {
	Protocol uint8
	Extra    uint8
}

func (e Extension) number() uint16 { return uint16(e.Protocol) }

func (e Extension) wrap(next uint16, inner []byte) []byte {
	size, length := 8+8*int(e.Extra), e.Extra
	if e.Protocol == 51 { // in words, less two
		size, length = 12+4*int(e.Extra), e.Extra+1
	}
	b := make([]byte, size, size+len(inner))
	b[0], b[1] = uint8(next), length
	return append(b, inner...)
}

// Jumbo is a hop-by-hop header with the option of jumbograms, as they have it on
// the wire and as BIG TCP has it in memory.
type Jumbo struct{ Length uint32 }

func (j Jumbo) number() uint16 { return 0 }

func (j Jumbo) wrap(next uint16, inner []byte) []byte {
	b := []byte{uint8(next), 0, 0xc2, 4}
	return append(binary.BigEndian.AppendUint32(b, j.Length), inner...)
}

// Fragment6 is an IPv6 fragment header; Offset is in bytes.
type Fragment6 struct {
	Offset uint16
	More   bool
}

func (f Fragment6) number() uint16 { return 44 }

func (f Fragment6) wrap(next uint16, inner []byte) []byte {
	b := make([]byte, 8, 8+len(inner))
	b[0] = uint8(next)
	field := f.Offset &^ 7
	if f.More {
		field |= 1
	}
	binary.BigEndian.PutUint16(b[2:], field)
	b[7] = 42
	return append(b, inner...)
}

// TCP is a TCP header. Words is its length in units of four bytes, 5 unless set.
type TCP struct {
	Src, Dst uint16
	Flags    uint8
	Words    uint8
}

func (h TCP) number() uint16 { return 6 }

func (h TCP) wrap(_ uint16, inner []byte) []byte {
	words := or(h.Words, 5)
	b := make([]byte, 4*max(5, int(words)), 60+len(inner))
	binary.BigEndian.PutUint16(b, h.Src)
	binary.BigEndian.PutUint16(b[2:], h.Dst)
	b[12], b[13] = words<<4, h.Flags
	return append(b, inner...)
}

// UDP is a UDP header without a checksum.
type UDP struct{ Src, Dst uint16 }

func (h UDP) number() uint16 { return 17 }

func (h UDP) wrap(_ uint16, inner []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, h.Src)
	b = binary.BigEndian.AppendUint16(b, h.Dst)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(inner)))
	return append(append(b, 0, 0), inner...)
}

// SCTP is an SCTP common header.
type SCTP struct{ Src, Dst uint16 }

func (h SCTP) number() uint16 { return 132 }

func (h SCTP) wrap(_ uint16, inner []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, h.Src)
	b = binary.BigEndian.AppendUint16(b, h.Dst)
	return append(append(b, make([]byte, 8)...), inner...)
}

// ICMP is an ICMP header of IPv4, or with V6 of IPv6.
type ICMP struct {
	V6         bool
	Type, Code uint8
	ID, Seq    uint16
}

func (h ICMP) number() uint16 {
	if h.V6 {
		return 58
	}
	return 1
}

// wrap sets the checksum, which of IPv4 is right and of IPv6 lacks the pseudo
// header: a raw socket fills that one in.
func (h ICMP) wrap(_ uint16, inner []byte) []byte {
	b := []byte{h.Type, h.Code, 0, 0}
	b = binary.BigEndian.AppendUint16(b, h.ID)
	b = binary.BigEndian.AppendUint16(b, h.Seq)
	b = append(b, inner...)
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	return b
}

// Data is bytes that follow the last header. Number is what the header before
// calls them: an EtherType after Ether, a protocol after IP.
type Data struct {
	Number uint16
	Bytes  []byte
}

func (d Data) number() uint16 { return d.Number }

func (d Data) wrap(_ uint16, inner []byte) []byte { return append(slices.Clone(d.Bytes), inner...) }

// Zeros is n bytes of payload.
func Zeros(n int) Data { return Data{Bytes: make([]byte, n)} }

func or[T uint8 | uint16](v, otherwise T) T {
	if v != 0 {
		return v
	}
	return otherwise
}

// checksum is the Internet checksum.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
