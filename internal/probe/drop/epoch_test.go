// SPDX-License-Identifier: Apache-2.0

package drop

import (
	"net/netip"
	"testing"
	"unsafe"

	"github.com/orb8/orb8/internal/event"
)

// still is a probe without a kernel.
func still() *Probe {
	return &Probe{
		names:  newNames(enum("SKB_NOT_DROPPED_YET", "SKB_CONSUMED", "SKB_DROP_REASON_NOT_SPECIFIED", "SKB_DROP_REASON_NO_SOCKET")),
		places: places{known: map[uint64]string{}, ask: func(uint64) (string, bool) { return "here+0x1/0x2", true }},
		clock:  clock{tick: 4e6, jiffy: 1000, wall: 1e18},
		reader: reader{index: map[kernelDropKey]int{}},
	}
}

func key(cpu uint32) *kernelDropKey {
	k := &kernelDropKey{Location: 7, Reason: 3, Cpu: cpu}
	*(*event.IP)(unsafe.Pointer(&k.Conn.Local)) = event.IPFrom(netip.MustParseAddr("10.0.0.1"))
	*(*event.IP)(unsafe.Pointer(&k.Conn.Remote)) = event.IPFrom(netip.MustParseAddr("fd00::2"))
	k.Conn.LocalPortBe, k.Conn.RemotePortBe = 0x5000, 0xbb01 // 80 and 443, as they lie in memory
	k.Conn.Netns, k.Conn.Ifindex, k.Conn.Protocol = 4026532001, 3, 6
	return k
}

// TestCPUsAddUp: each has records of its own, and the time is that of all.
func TestCPUsAddUp(t *testing.T) {
	p := still()
	p.add(key(0), &kernelDropValue{Packets: 2, Bytes: 200, First: 990, Last: 995})
	p.add(key(5), &kernelDropValue{Packets: 3, Bytes: 300, First: 980, Last: 990})
	folded := key(0)
	folded.Conn.Zero = 1
	p.add(folded, &kernelDropValue{Packets: 1, First: 1001, Last: 1001})
	if len(p.reader.drops) != 2 {
		t.Fatalf("%+v", p.reader.drops)
	}
	d := p.reader.drops[0]
	want := event.Drop{
		Conn: event.Conn{
			Local: event.IPFrom(netip.MustParseAddr("10.0.0.1")), Remote: event.IPFrom(netip.MustParseAddr("fd00::2")),
			LocalPort: 80, RemotePort: 443, Netns: 4026532001, Ifindex: 3, Protocol: event.TCP,
		},
		Reason: "NO_SOCKET", Hint: hints["NO_SOCKET"], Location: "here+0x1", Amount: event.Counter{Packets: 5, Bytes: 500},
		First: 1e18 - 20*4e6, Last: 1e18 - 5*4e6,
	}
	if d != want {
		t.Errorf("%+v, want %+v", d, want)
	}
	if d := p.reader.drops[1]; !d.Folded || d.Last != 1e18 {
		t.Errorf("of many connections, and never in the future: %+v", d)
	}
}

func FuzzAdd(f *testing.F) {
	f.Add(make([]byte, int(unsafe.Sizeof(kernelDropKey{})+unsafe.Sizeof(kernelDropValue{}))))
	f.Fuzz(func(t *testing.T, b []byte) {
		var k kernelDropKey
		var v kernelDropValue
		n := copy(unsafe.Slice((*byte)(unsafe.Pointer(&k)), unsafe.Sizeof(k)), b)
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v)), b[n:])
		p := still()
		for range 2 {
			p.add(&k, &v)
		}
		d := p.reader.drops[0]
		if len(p.reader.drops) != 1 || d.Amount.Packets != 2*v.Packets || d.Reason == "" || d.Location == "" || d.First > d.Last && v.First <= v.Last && v.Last <= 1000 && v.First > 0 {
			t.Errorf("%+v", p.reader.drops)
		}
	})
}

// A second's worth of a storm of random connections.
func BenchmarkAdd(b *testing.B) {
	p, k, v := still(), key(0), &kernelDropValue{Packets: 1}
	b.ReportAllocs()
	for b.Loop() {
		clear(p.reader.index)
		p.reader.drops = p.reader.drops[:0]
		for i := range uint32(4096) {
			k.Conn.Netns = i
			p.add(k, v)
		}
	}
}
