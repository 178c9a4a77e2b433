// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	. "github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

func TestFlagsAccumulateEachWay(t *testing.T) {
	k := newKernel(t, 100)
	back := IPv4{Src: dst4, Dst: src4}
	for _, flags := range []uint8{event.FlagSYN, event.FlagACK, event.FlagACK | event.FlagPSH, event.FlagECE} {
		k.run(true, Packet(Ether{}, v4, TCP{Src: 1, Dst: 2, Flags: flags}))
	}
	for _, flags := range []uint8{event.FlagSYN | event.FlagACK, event.FlagRST, event.FlagCWR | event.FlagURG, event.FlagFIN} {
		k.run(false, Packet(Ether{}, back, TCP{Src: 2, Dst: 1, Flags: flags}))
	}
	got := k.look()
	if len(got.deltas) != 1 {
		t.Fatalf("records %+v", got.deltas)
	}
	h := got.deltas[0].Health
	if tx, rx := event.FlagSYN|event.FlagACK|event.FlagPSH|event.FlagECE, event.FlagSYN|event.FlagACK|event.FlagRST|event.FlagCWR|event.FlagURG|event.FlagFIN; h.FlagsTx != tx || h.FlagsRx != rx {
		t.Errorf("sent %08b want %08b, received %08b want %08b", h.FlagsTx, tx, h.FlagsRx, rx)
	}
	// Each flag by itself, so that none stands in for another.
	for bit := range 8 {
		k.run(bit%2 == 0, Packet(Ether{}, v4, TCP{Flags: 1 << bit}))
		h := k.look().deltas[0].Health
		if h.FlagsTx|h.FlagsRx != 1<<bit {
			t.Errorf("flag %d became %08b and %08b", bit, h.FlagsTx, h.FlagsRx)
		}
	}
}

// Connections that find no room are counted under their protocol, and those
// that have a record go on.
func TestTableFull(t *testing.T) {
	const room, flows = 10, 50
	k := newKernel(t, room)
	frame := func(i int) []byte { return Packet(Ether{}, v4, UDP{Src: uint16(i + 1), Dst: 9}, Zeros(i)) }
	bytes := uint64(0)
	for range 2 {
		for i := range flows {
			k.run(true, frame(i))
			bytes += uint64(len(frame(i)))
		}
	}
	got := k.look()
	if len(got.deltas) != room {
		t.Errorf("%d records, there is room for %d", len(got.deltas), room)
	}
	for _, d := range got.deltas {
		if d.Traffic.TxPackets != 2 {
			t.Errorf("a record has %d packets of 2", d.Traffic.TxPackets)
		}
	}
	key := kernelRestKey{Netns: k.ns.Inode(), Ifindex: 1, Class: classOverflow, Protocol: 17, Direction: 1}
	if n := got.rest[key].Packets; n != 2*(flows-room) || len(got.rest) != 1 {
		t.Errorf("overflow %+v, want %d packets", got.rest, 2*(flows-room))
	}
	if wire, _ := got.total(); wire != (event.Counter{Bytes: bytes, Packets: 2 * flows}) {
		t.Errorf("counted %+v of %d bytes", wire, bytes)
	}
	// Emptied, it has room again.
	k.run(true, frame(flows-1))
	if got := k.look(); len(got.deltas) != 1 {
		t.Errorf("after emptying: %+v", got)
	}
}

// What finds no room even in the rest counters is still counted, and shown
// without an interface.
func TestRestFull(t *testing.T) {
	k := newKernel(t, 10)
	limit := k.tap.kernel.rest.MaxEntries()
	none := make([]kernelRestValue, possibleCPUs(t))
	for i := range limit {
		// The kernel's store of per-CPU memory is refilled in the background.
		Eventually(t, "memory for a counter", func() bool {
			err := k.tap.kernel.rest.Put(kernelRestKey{Ifindex: 1000 + i, Class: classNotIP}, none)
			if err != nil && !errors.Is(err, unix.ENOMEM) {
				t.Fatal(err)
			}
			return err == nil
		})
	}
	arp := Packet(Ether{}, Data{Number: 0x0806, Bytes: make([]byte, 28)})
	for range 3 {
		k.run(false, arp)
	}
	k.run(true, arp)
	totals, err := k.tap.readRest()
	if err != nil {
		t.Fatal(err)
	}
	n := uint64(len(arp))
	for egress, want := range map[bool]event.Counter{false: {Bytes: 3 * n, Packets: 3}, true: {Bytes: n, Packets: 1}} {
		if a := totals[restPlace{egress: egress}]; a == nil || a.Overflow != want {
			t.Errorf("egress %v: %+v, want %+v", egress, a, want)
		}
	}
	k.tap.totals = totals
	if places := k.tap.Interfaces(); len(places) != 1 || places[0].Problem == "" || places[0].Ingress.Overflow.Packets != 3 {
		t.Errorf("interfaces %+v", places)
	}
}

// A super-packet is as many packets as go on the wire, each with its headers.
func TestSegments(t *testing.T) {
	k := newKernel(t, 10)
	options := TCP{Src: 1, Dst: 2, Words: 8}
	for _, c := range []struct {
		name     string
		frame    []byte
		skb      SkBuff
		segments uint64
		headers  uint64
	}{
		{"not one", Packet(Ether{}, v4, tcp, Zeros(3000)), SkBuff{}, 1, 0},
		{"counted by the driver", Packet(Ether{}, v4, tcp, Zeros(3000)), SkBuff{GSOSize: 1000, GSOSegs: 3}, 3, 54},
		{"not counted", Packet(Ether{}, v4, tcp, Zeros(3000)), SkBuff{GSOSize: 1000}, 3, 54},
		{"not counted, last one short", Packet(Ether{}, v4, tcp, Zeros(3001)), SkBuff{GSOSize: 1000}, 4, 54},
		{"not counted, one", Packet(Ether{}, v4, tcp, Zeros(10)), SkBuff{GSOSize: 1000}, 1, 54},
		{"one", Packet(Ether{}, v4, tcp, Zeros(10)), SkBuff{GSOSize: 1000, GSOSegs: 1}, 1, 54},
		{"TCP options", Packet(Ether{}, v4, options, Zeros(3000)), SkBuff{GSOSize: 1000, GSOSegs: 3}, 3, 14 + 20 + 32},
		{"IPv6 with options", Packet(Ether{}, v6, Extension{}, options, Zeros(3000)), SkBuff{GSOSize: 1000, GSOSegs: 3}, 3, 14 + 40 + 8 + 32},
		{"UDP", Packet(Ether{}, v4, udp, Zeros(3000)), SkBuff{GSOSize: 1000, GSOSegs: 3}, 3, 42},
		{"tag", Packet(Ether{}, VLAN{ID: 1}, v4, tcp, Zeros(3000)), SkBuff{GSOSize: 1000, GSOSegs: 3}, 3, 58},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, egress := range []bool{true, false} {
				k.runAs(egress, c.frame, &c.skb)
				got := k.look()
				wire, device := got.total()
				n := uint64(len(c.frame))
				if want := (event.Counter{Bytes: n + (c.segments-1)*c.headers, Packets: c.segments}); wire != want {
					t.Errorf("egress %v: on the wire %+v, want %+v", egress, wire, want)
				}
				if device != (event.Counter{Bytes: n, Packets: 1}) {
					t.Errorf("egress %v: the device sees %+v", egress, device)
				}
			}
		})
	}
	// In the rest counters too.
	for i := range 10 {
		k.run(true, Packet(Ether{}, v4, TCP{Src: uint16(i)}))
	}
	k.runAs(true, Packet(Ether{}, v4, tcp, Zeros(3000)), &SkBuff{GSOSize: 1000, GSOSegs: 3})
	got := k.look()
	key := kernelRestKey{Netns: k.ns.Inode(), Ifindex: 1, Class: classOverflow, Protocol: 6, Direction: 1}
	if want := (kernelRestValue{Bytes: 3054 + 108, Packets: 3, SegBytes: 108, SegPackets: 2}); got.rest[key] != want {
		t.Errorf("overflow %+v, want %+v", got.rest, want)
	}
}

// Whatever a packet holds, it is counted once.
func TestEveryPacketIsCountedOnce(t *testing.T) {
	const packets = 20_000
	k := newKernel(t, 2000) // many find it full
	seeds := [][]byte{
		Packet(Ether{}, v4, tcp, Zeros(50)),
		Packet(Ether{}, VLAN{ID: 1}, VLAN{ID: 2}, v4, udp, Zeros(10)),
		Packet(Ether{}, VLAN{ID: 1}, v6, Extension{}, Extension{Protocol: 43}, Fragment6{}, Extension{Protocol: 51}, tcp),
		Packet(Ether{}, VLAN{ID: 1}, v4, ICMP{Type: 3}, Data{Bytes: Packet(v4, tcp)}),
		Packet(Ether{}, VLAN{ID: 1}, v6, ICMP{V6: true, Type: 1}, Data{Bytes: Packet(v6, Extension{}, udp)}),
		Packet(Ether{}, VLAN{ID: 1}, IPv4{Src: src4, Dst: dst4, Options: make([]byte, 40)}, SCTP{Src: 1, Dst: 2}),
		Packet(Ether{}, Data{Number: 0x0806, Bytes: make([]byte, 28)}),
	}
	const seed = 1
	random := rand.New(rand.NewPCG(seed, seed))
	var want event.Counter
	for i := range packets {
		frame, skb := mutate(random, seeds[random.IntN(len(seeds))]), SkBuff{}
		if i%8 == 0 {
			skb.GSOSize, skb.GSOSegs = uint32(random.IntN(2000)), uint32(random.IntN(45))
		}
		if k.tryRun(random.IntN(2) == 0, frame, &skb) {
			want.Add(event.Counter{Bytes: uint64(len(frame)), Packets: 1})
		}
	}
	got := k.look()
	_, device := got.total()
	if device != want {
		t.Errorf("seed %d: counted %+v of %+v", seed, device, want)
	}
	classes := got.classes()
	if want.Packets < packets*3/4 || len(classes) != 5 || len(got.deltas) != 2000 {
		t.Errorf("a weak test: %d packets ran, %d records, without one: %v", want.Packets, len(got.deltas), classes)
	}
}

// mutate changes some bytes, and cuts or lengthens one packet in four.
func mutate(random *rand.Rand, frame []byte) []byte {
	b := slices.Clone(frame)
	for range random.IntN(4) {
		// From the EtherType on; what is random in an address is a new record.
		b[12+random.IntN(len(b)-12)] = uint8(random.Uint32())
	}
	switch random.IntN(8) {
	case 0:
		return b[:etherHeader+1+random.IntN(len(b)-etherHeader)]
	case 1:
		return append(b, make([]byte, random.IntN(2000))...)
	}
	return b
}
