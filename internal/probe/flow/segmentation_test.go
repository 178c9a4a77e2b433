// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	. "github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

const bigPacket = 200_000

// allowBig has the end send and merge super-packets beyond 64 KiB; it tells
// whether the kernel does in this family (IPv6 since 5.19, IPv4 since 6.3).
func allowBig(t *testing.T, e *End, v6 bool) (big bool) {
	t.Helper()
	e.Offload(true, TSO, GSO)
	e.Offload(false, GRO)
	e.Do(func() {
		l, err := netlink.LinkByName(e.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, set := range []func(netlink.Link, int) error{
			netlink.LinkSetGSOMaxSize, netlink.LinkSetGROMaxSize, netlink.LinkSetGSOIPv4MaxSize, netlink.LinkSetGROIPv4MaxSize,
		} {
			_ = set(l, bigPacket) // read back below
		}
		if l, err = netlink.LinkByName(e.Name); err != nil {
			t.Fatal(err)
		}
		big = v6 && l.Attrs().GSOMaxSize == bigPacket || !v6 && l.Attrs().GSOIPv4MaxSize == bigPacket
	})
	return big
}

// In memory a packet of BIG TCP is longer than any length field, and over IPv6
// has a header that is on no wire. What counts is what the segments weigh.
func TestBigTCP(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("v6 %v", v6), func(t *testing.T) {
			RequireKernel(t, BPF, VethOffload)
			mean := uint64(0)
			for range 5 { // how much TCP sends at once depends on the machine's mood
				sent, big := bigTCP(t, v6)
				if mean = max(mean, sent.Bytes/sent.Packets); mean > 1<<16 || !big {
					return
				}
				if Emulated() {
					t.Logf("an emulated machine is slow: super-packets of no more than %d bytes", mean)
					return
				}
			}
			t.Errorf("a weak test: super-packets of no more than %d bytes", mean)
		})
	}
}

// bigTCP returns what the device sent.
func bigTCP(t *testing.T, v6 bool) (event.Counter, bool) {
	payload := uint64(16 << 20)
	if Emulated() {
		payload >>= 3
	}
	p := NewPair(t)
	big := allowBig(t, &p.A, v6) && allowBig(t, &p.B, v6)
	a, b := tapQuiet(t, &p.A, Config{}), tapQuiet(t, &p.B, Config{})
	before, again := sentSegments(&p.A), p.A.SNMP("Tcp: RetransSegs")[0]
	stopA, stopB := a.every(100*time.Millisecond), b.every(100*time.Millisecond)
	bulk(t, p.A.DialTCP(p.B.ListenTCP(v6, ServeDiscard)), int(payload))
	stopA()
	stopB()
	a.settle()
	b.settle()
	_, device := a.checkConserved(&p.A)
	b.checkConserved(&p.B)
	// A slow machine's multicast may come between the two taps.
	atA, atB := a.tcp(), b.tcp()
	if atA != atB.Reversed() {
		t.Errorf("the ends disagree: %+v and %+v", atA, atB)
	}
	segments := sentSegments(&p.A) - before
	headers := uint64(14 + 20 + 32) // with timestamps
	if v6 {
		headers += 20
	}
	// The first segment has eight bytes of options more.
	want := event.Counter{Bytes: payload + segments*headers + 8, Packets: segments}
	if again != p.A.SNMP("Tcp: RetransSegs")[0] {
		t.Log("sent something again: its size is not known")
		want.Bytes = atA.TxBytes
	}
	if atA.Tx() != want {
		t.Errorf("sent %+v, TCP says %+v", atA, want)
	}
	return device.device, big
}

// tcp is the traffic of all TCP connections.
func (l *live) tcp() (sum event.Traffic) {
	for c, d := range l.flows {
		if c.Protocol == event.TCP {
			sum.Add(d.Traffic)
		}
	}
	return sum
}

// Where there is no record for it, too.
func TestBigTCPInOverflow(t *testing.T) {
	RequireKernel(t, BPF, VethOffload)
	p := NewPair(t)
	allowBig(t, &p.A, true)
	allowBig(t, &p.B, true)
	a, b := tapQuiet(t, &p.A, Config{TableEntries: 1}), tapQuiet(t, &p.B, Config{TableEntries: 1})
	// It takes the only place, until the next epoch.
	if _, err := p.A.UDP(true).WriteToUDPAddrPort([]byte{1}, p.B.DrainUDP(true)); err != nil {
		t.Fatal(err)
	}
	bulk(t, p.A.DialTCP(p.B.ListenTCP(true, ServeDiscard)), 16<<20)
	a.settle()
	b.settle()
	_, tx := a.checkConserved(&p.A)
	rx, _ := b.checkConserved(&p.B)
	if tx.wire() != rx.wire() || tx.other.Overflow.Bytes < 16<<20 || tx.seg.Packets == 0 {
		t.Errorf("sent %+v, received %+v", tx, rx)
	}
}

// Only BIG TCP has a header in memory that is not on the wire: a jumbogram, or
// what looks like it, has it there as well.
func TestJumbogramsAreWhole(t *testing.T) {
	k := newKernel(t, 10)
	for name, frame := range map[string][]byte{
		"TCP":         Packet(Ether{}, v6, Jumbo{Length: 70000}, tcp, Zeros(3000)),
		"UDP":         Packet(Ether{}, v6, Jumbo{Length: 70000}, udp, Zeros(3000)),
		"in a chain":  Packet(Ether{}, v6, Jumbo{Length: 70000}, Extension{Protocol: 60}, tcp, Zeros(3000)),
		"as a second": Packet(Ether{}, v6, Extension{Protocol: 60}, Jumbo{Length: 70000}, tcp, Zeros(3000)),
	} {
		want := read(frame, etherHeader, 0x86dd)
		for _, egress := range []bool{false, true} {
			k.runAs(egress, frame, &SkBuff{GSOSize: 1000, GSOSegs: 3})
			got := k.look()
			n := uint64(len(frame))
			if wire, device := got.total(); wire != (event.Counter{Bytes: n + 2*uint64(want.headers), Packets: 3}) || device != (event.Counter{Bytes: n, Packets: 1}) {
				t.Errorf("%s: %+v on the wire, %+v as the device has it", name, wire, device)
			}
		}
	}
}

// Numbers of segments that a driver may leave out, get wrong or overstate: the
// device has the one packet that it sees, and nothing goes below zero.
func TestOddSegmentNumbers(t *testing.T) {
	k := newKernel(t, 10)
	frames := map[string][]byte{
		"TCP": Packet(Ether{}, v4, tcp, Zeros(3000)), "UDP": Packet(Ether{}, v4, udp, Zeros(3000)), "TCP, IPv6": Packet(Ether{}, v6, tcp, Zeros(3000)),
		"nothing in it": Packet(Ether{}, v4, tcp), "GRE": Packet(Ether{}, v4, Data{Number: 47, Bytes: make([]byte, 3000)}),
		"not IP": Packet(Ether{}, Data{Number: 0x88cc, Bytes: make([]byte, 3000)}), "malformed": Packet(Ether{}, v4, TCP{Words: 4}, Zeros(3000)),
		"options beyond the end": Packet(Ether{}, v4, TCP{Words: 15})[:etherHeader+20+14],
		"jumbo":                  Packet(Ether{}, v6, Jumbo{Length: 1}, tcp),
	}
	for name, frame := range frames {
		r := read(frame, etherHeader, uint16(frame[12])<<8|uint16(frame[13]))
		for _, size := range []uint32{0, 1, 2, 999, 1000, 2999, 3000, 3001, 65535} {
			for _, segs := range []uint32{0, 1, 2, 3, 3000, 65535} {
				for _, egress := range []bool{false, true} {
					if !k.attempt(egress, frame, &SkBuff{GSOSize: size, GSOSegs: segs}) {
						continue
					}
					got, packets, headers := k.look(), uint64(segs), uint64(r.headers)
					if segs == 0 && size > 0 {
						packets = uint64(max(0, len(frame)-r.headers)+int(size)-1) / uint64(size)
					}
					if packets == 0 || size == 0 {
						packets = 1
					}
					want := event.Counter{Bytes: uint64(len(frame)) + (packets-1)*headers, Packets: packets}
					if wire, device := got.total(); wire != want || device != (event.Counter{Bytes: uint64(len(frame)), Packets: 1}) {
						t.Errorf("%s, %d segments of %d: %+v on the wire, want %+v; %+v as the device has it", name, segs, size, wire, want, device)
					}
				}
			}
		}
	}
}

// Super-packets that nobody has counted, as virtual machines send them, and as
// small as somebody may make them: both ends tell the same.
func TestUncountedSuperPackets(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		RequireKernel(t, VethOffload)
		p := NewPair(t)
		p.A.Offload(true, TSO, GSO)
		a, b := tapQuiet(t, &p.A, fromOutside(p.A.Netns, Config{Attach: how})), tapQuiet(t, &p.B, fromOutside(p.B.Netns, Config{Attach: how}))
		var want event.Counter
		for _, c := range []struct {
			layers        []Layer
			headers, size int
			payload       int
		}{
			{[]Layer{v4, tcp}, 54, 1000, 10_000},
			{[]Layer{v4, tcp}, 54, 1000, 9_001},
			{[]Layer{v4, TCP{Src: 1, Dst: 2, Words: 8}}, 66, 1448, 60_000},
			{[]Layer{v6, tcp}, 74, 1428, 60_000},
			{[]Layer{v4, udp}, 42, 1000, 9_500},
			{[]Layer{v6, udp}, 62, 1000, 9_500},
			// Some kernels make less of it eight bytes.
			{[]Layer{v4, tcp}, 54, 8, 3_001},
			{[]Layer{v6, tcp}, 74, 9, 1_000},
		} {
			frame := Packet(append(append([]Layer{Ether{}}, c.layers...), Zeros(c.payload))...)
			_, err := p.A.SuperPackets(frame, c.headers, c.size).Write(frame)
			if c.layers[1] == Layer(udp) && errors.Is(err, unix.EINVAL) {
				continue // before 6.2
			}
			if err != nil {
				t.Fatalf("%+v: %v", c, err)
			}
			n := (c.payload + c.size - 1) / c.size
			want.Add(event.Counter{Bytes: uint64(c.payload + n*c.headers), Packets: uint64(n)})
		}
		a.settle()
		b.settle()
		_, tx := a.checkConserved(&p.A)
		rx, _ := b.checkConserved(&p.B)
		if tx.flows != want || rx.flows != want {
			t.Errorf("sent %+v, received %+v, want %+v", tx, rx, want)
		}
	})
}

// Headers that are not in the linear part are not to be had on the short way,
// which the test takes the long one away to see; they are copied on the long one.
func TestScatteredHeaders(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		p := NewPair(t)
		for _, e := range []*End{&p.A, &p.B} {
			e.SetMTU(9000)
		}
		a, b := tapQuiet(t, &p.A, fromOutside(p.A.Netns, Config{Attach: how})), tapQuiet(t, &p.B, fromOutside(p.B.Netns, Config{Attach: how}))
		w := p.A.ScatteredFrames()
		for _, ip := range []Layer{v4, v6} {
			// A packet socket scatters what is larger than a page.
			small, large := Packet(Ether{}, ip, udp, Zeros(100)), Packet(Ether{}, ip, udp, Zeros(8000))
			write := func(frame []byte) {
				if _, err := w.Write(frame); err != nil {
					t.Fatal(err)
				}
			}
			counted := func(l *live) (packets uint64) {
				l.epoch()
				for c, d := range l.flows {
					if c.LocalPort == 5000 || c.RemotePort == 5000 {
						packets += d.Traffic.TxPackets + d.Traffic.RxPackets
					}
				}
				return packets
			}
			step := func(what string, frame []byte, short bool, want uint64) {
				t.Helper()
				before := [2]uint64{counted(a), counted(b)}
				write(small) // makes this epoch's record
				restore := cut(t, short, a.tap, b.tap)
				write(frame)
				restore()
				for i, l := range []*live{a, b} {
					if got := counted(l) - before[i] - 1; got != want {
						t.Errorf("%T, %s, end %d: %d packets counted, want %d", ip, what, i, got, want)
					}
				}
			}
			step("linear on the short way", small, true, 1)
			step("scattered on the short way", large, true, 0)
			step("scattered on the long way", large, false, 1)
		}
	})
}

// cut takes the long way out of taps, and gives back how to put it in again.
func cut(t *testing.T, really bool, taps ...*Tap) (restore func()) {
	t.Helper()
	if !really {
		return func() {}
	}
	for _, tap := range taps {
		for dir := range uint32(2) {
			if err := tap.kernel.rare.Delete(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	return func() {
		t.Helper()
		for _, tap := range taps {
			for dir, p := range []*ebpf.Program{tap.kernel.programs.RareIngress, tap.kernel.programs.RareEgress} {
				if err := tap.kernel.rare.Put(uint32(dir), p); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}
