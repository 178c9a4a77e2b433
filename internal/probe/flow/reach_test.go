// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/vishvananda/netlink"

	. "github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

// Each reason that the kernel side has for a packet is reached, and those that
// the short way has are reached on it: without the long one they still count.
func TestEveryClassIsReached(t *testing.T) {
	plain := Packet(Ether{}, v4, udp, Zeros(9))
	plain6 := Packet(Ether{}, v6, tcp, Zeros(9))
	reached := map[uint8]bool{}
	for _, c := range []struct {
		name     string
		class    uint8
		frames   [][]byte
		forwards bool
		// Whether the way is short once a record or a place is there.
		short   bool
		prepare func(*kernel)
	}{
		{name: "connection", frames: [][]byte{plain, plain6}, short: true},
		{name: "connection, long way", frames: [][]byte{Packet(Ether{}, VLAN{ID: 1}, v4, udp), Packet(Ether{}, v6, Extension{}, tcp), Packet(Ether{}, v4, ICMP{Type: 8})}},
		{name: "not IP", class: classNotIP, frames: [][]byte{Packet(Ether{}, Data{Number: 0x0806, Bytes: make([]byte, 28)})}},
		{name: "bad IP", class: classBadIP, frames: [][]byte{with(plain, ip4At, 0x44), with(plain6, ip4At, 0x50)}},
		{name: "bad transport", class: classBadTransport, frames: [][]byte{Packet(Ether{}, v4, TCP{Words: 4}), Packet(Ether{}, v6, udp)[:etherHeader+47]}},
		{name: "bad extension", class: classBadExtension, frames: [][]byte{Packet(append([]Layer{Ether{}, v6}, deep(9, 0, tcp)...)...)}},
		{name: "overflow: the table is full", class: classOverflow, frames: [][]byte{plain, plain6}, prepare: func(k *kernel) {
			for i := range uint16(100) {
				k.run(true, Packet(Ether{}, v4, UDP{Src: i, Dst: 1}))
			}
		}},
		{name: "overflow: no table", class: classOverflow, frames: [][]byte{plain, plain6}, prepare: func(k *kernel) {
			if err := k.tap.kernel.active.Delete(uint32(0)); err != nil {
				k.t.Fatal(err)
			}
		}},
		{name: "forwarded", class: classForwarded, frames: [][]byte{plain, plain6}, forwards: true, short: true, prepare: (*kernel).takePlace},
		{name: "forwarded, long way", class: classForwarded, frames: [][]byte{Packet(Ether{}, v4, ICMP{Type: 8})}, forwards: true, prepare: (*kernel).takePlace},
		{name: "forwarded, without a place", class: classForwarded, frames: [][]byte{plain, plain6}, forwards: true},
		{name: "forwarded, bits are alike", class: classForwarded, frames: [][]byte{plain}, forwards: true, prepare: func(k *kernel) {
			k.own("10.77."+src4.String()[len("10.1."):], "10.77."+dst4.String()[len("10.9."):])
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newKernel(t, 100)
			k.load(constants{netns: k.tap.own.inode, linkHeader: etherHeader, forwards: c.forwards})
			k.own()
			if c.prepare != nil {
				c.prepare(k)
			}
			for _, frame := range c.frames {
				for _, egress := range []bool{false, true} {
					before := k.counts()
					k.run(egress, frame)
					k.expectMore(before, c.class, frame)
					before = k.counts()
					k.withoutLongWay(func() { k.run(egress, frame) })
					// What is sent is judged by its socket, without which it takes the long way.
					if c.short && (c.class != 0 || !egress) {
						k.expectMore(before, c.class, frame)
					} else if after := k.counts(); !egress && !maps.Equal(before, after) {
						t.Errorf("it does not take the long way: %v became %v", before, after)
					}
					reached[c.class] = true
				}
			}
		})
	}
	for _, class := range kernelClasses(t) {
		if !reached[class] {
			t.Errorf("no packet reaches class %d", class)
		}
	}
}

// kernelClasses are the values of the kernel's enum packet_class.
func kernelClasses(t *testing.T) []uint8 {
	t.Helper()
	spec, err := loadKernel()
	if err != nil {
		t.Fatal(err)
	}
	var enum *btf.Enum
	if err := spec.Types.TypeByName("packet_class", &enum); err != nil {
		t.Fatal(err)
	}
	var classes []uint8
	for _, v := range enum.Values {
		classes = append(classes, uint8(v.Value))
	}
	if len(classes) < classForwarded+1 {
		t.Fatalf("classes %v", enum.Values)
	}
	return classes
}

// own sets the addresses of the namespace that forwards.
func (k *kernel) own(addresses ...string) {
	k.t.Helper()
	var list []netlink.Addr
	for _, a := range addresses {
		list = append(list, netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(a)}})
	}
	if err := k.tap.setAddresses(list); err != nil {
		k.t.Fatal(err)
	}
}

// takePlace gives the loopback that test packets are on a place in flow_slots.
func (k *kernel) takePlace() {
	k.t.Helper()
	if !k.tap.takeSlot(loopback) {
		k.t.Fatal("no place")
	}
}

// counts is what was counted so far by class, in packets and bytes; nothing is
// emptied.
func (k *kernel) counts() map[uint8]event.Counter {
	k.t.Helper()
	out := map[uint8]event.Counter{}
	add := func(class uint8, c event.Counter) {
		sum := out[class]
		sum.Add(c)
		out[class] = sum
	}
	var key kernelFlowKey
	var value kernelFlowValue
	it := k.tap.tables[k.tap.active].Iterate()
	for it.Next(&key, &value) {
		add(0, event.Counter{Bytes: value.Tx.Bytes + value.Rx.Bytes, Packets: value.Tx.Packets + value.Rx.Packets})
	}
	if err := it.Err(); err != nil {
		k.t.Fatal(err)
	}
	var rest kernelRestKey
	var perCPU []kernelRestValue
	it = k.tap.kernel.rest.Iterate()
	for it.Next(&rest, &perCPU) {
		wire, _ := sum(perCPU)
		add(rest.Class, wire)
	}
	if err := it.Err(); err != nil {
		k.t.Fatal(err)
	}
	add(classForwarded, k.passed())
	maps.DeleteFunc(out, func(_ uint8, c event.Counter) bool { return c == event.Counter{} })
	return out
}

// passed is what the place in flow_slots counted.
func (k *kernel) passed() (c event.Counter) {
	k.t.Helper()
	var slots []kernelFlowSlot
	if err := k.tap.kernel.slots.Lookup(uint32(loopback), &slots); err != nil {
		k.t.Fatal(err)
	}
	for _, s := range slots {
		for _, f := range s.Forwarded {
			c.Add(event.Counter{Bytes: f.Bytes, Packets: f.Packets})
		}
	}
	return c
}

// expectMore expects one packet more in one class, and nothing else.
func (k *kernel) expectMore(before map[uint8]event.Counter, class uint8, frame []byte) {
	k.t.Helper()
	want := maps.Clone(before)
	sum := want[class]
	sum.Add(event.Counter{Bytes: uint64(len(frame)), Packets: 1})
	want[class] = sum
	if got := k.counts(); !maps.Equal(got, want) {
		k.t.Errorf("%d bytes of class %d: %v became %v", len(frame), class, before, got)
	}
}

// withoutLongWay runs fn while the programs have nowhere to go on to.
func (k *kernel) withoutLongWay(fn func()) {
	k.t.Helper()
	for dir := range uint32(2) {
		if err := k.tap.kernel.rare.Delete(dir); err != nil {
			k.t.Fatal(err)
		}
	}
	fn()
	for dir, p := range []*ebpf.Program{k.tap.kernel.programs.RareIngress, k.tap.kernel.programs.RareEgress} {
		if err := k.tap.kernel.rare.Put(uint32(dir), p); err != nil {
			k.t.Fatal(err)
		}
	}
}

// However an instance is set up, each packet is counted once, with its length.
func TestEveryInstanceCountsOnce(t *testing.T) {
	whole := samples()
	if Emulated() { // a part of them, each time another: a frame takes a hundred times as long there
		whole = slices.DeleteFunc(whole, func(sample) bool { return rand.IntN(24) > 0 })
	}
	// As they are behind other link-layer headers: none, where what the kernel
	// takes for the ethertype lies in the source address, and a long one.
	for name, frames := range map[string][]sample{
		"0":  bare(whole),
		"14": whole,
		"24": lengthened(whole, 10),
	} {
		for _, forwards := range []bool{false, true} {
			links := map[string][]uint32{"0": {0}, "14": {etherHeader, unknownHeader, 0, 24, 1500}, "24": {24}}[name]
			for _, link := range links {
				t.Run(fmt.Sprintf("%s read as %d, forwards %v", name, link, forwards), func(t *testing.T) {
					k := newKernel(t, 50)
					k.load(constants{netns: k.tap.own.inode, linkHeader: link, forwards: forwards})
					k.own(src4.String(), src6.String())
					if forwards && link != unknownHeader {
						k.takePlace()
					}
					k.countAll(frames)
				})
			}
		}
	}
}

func (k *kernel) countAll(frames []sample) {
	k.t.Helper()
	var want event.Counter
	for i, s := range frames {
		for range 1 + i%2 { // the second time there is a record
			if k.attempt(i/2%2 == 0, s.frame, nil) {
				want.Add(event.Counter{Bytes: uint64(len(s.frame)), Packets: 1})
			}
		}
	}
	var got event.Counter
	counts := k.counts()
	for _, c := range counts {
		got.Add(c)
	}
	if got != want || want.Packets < uint64(len(frames)) {
		k.t.Errorf("ran %+v, counted %+v: %v", want, got, counts)
	}
	k.t.Logf("%d packets, by class %v", want.Packets, slices.Sorted(maps.Keys(counts)))
}

// bare is the frames without their Ethernet header, as far as the kernel can
// run them: it takes an ethertype from where one would be.
func bare(frames []sample) (out []sample) {
	for _, s := range frames {
		f := slices.Clone(s.frame[etherHeader:])
		if len(f) <= etherHeader {
			continue
		}
		copy(f[12:], s.frame[12:14])
		out = append(out, sample{s.name, f})
	}
	return out
}

func lengthened(frames []sample, n int) (out []sample) {
	for _, s := range frames {
		out = append(out, sample{s.name, slices.Concat(s.frame[:etherHeader], make([]byte, n), s.frame[etherHeader:])})
	}
	return out
}

// The same packets read where another link-layer header ends are the same
// connections.
func TestOtherLinkHeaders(t *testing.T) {
	k := newKernel(t, 1000)
	k.prog(true)
	for link, frames := range map[uint32][]sample{0: bare(samples()), 24: lengthened(samples(), 10)} {
		k.load(constants{netns: k.tap.own.inode, linkHeader: link})
		for i, s := range frames {
			if egress := i%2 == 0; k.attempt(egress, s.frame, nil) {
				want := read(s.frame, int(link), binary.BigEndian.Uint16(s.frame[12:]))
				if err := k.compare(&want, len(s.frame), egress); err != nil {
					t.Errorf("link %d, egress %v, %s: %v\n% x", link, egress, s.name, err, s.frame)
				}
			}
		}
	}
}
