// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/filter"
)

// program loads what runs on what is sent, for a filter.
func program(b *testing.B, f filter.Filter, target *Target) (*ebpf.Program, *Capture) {
	b.Helper()
	c, err := Open(Config{Filter: f, Snaplen: 256})
	if err != nil {
		b.Fatal(err)
	}
	spec, err := c.instance(target, Interface{})
	if err != nil {
		b.Fatal(err)
	}
	all, err := ebpf.NewCollectionWithOptions(spec, *c.options())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { all.Close(); _ = c.Close() })
	return all.Programs[kernelProgFlowCaptureOut], c
}

// BenchmarkKernel is what a packet of 128 bytes costs in the kernel, net of an
// empty program: one that does not match, by filters that take longer and longer
// to say so, and one that does. Medians of rounds that take turns.
func BenchmarkKernel(b *testing.B) {
	bpftest.RequireKernel(b, bpftest.BPF)
	frame := bpftest.Packet(bpftest.Ether{}, bpftest.IPv4{Src: netip.MustParseAddr("10.88.0.1"), Dst: netip.MustParseAddr("10.88.0.2")},
		bpftest.UDP{Src: 40000, Dst: serverPort}, bpftest.Zeros(86))
	empty, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}})
	if err != nil {
		b.Fatal(err)
	}
	defer empty.Close()
	var many filter.Fields
	for i := range 64 {
		many.Ports = append(many.Ports, uint16(i+1))
		many.IPs = append(many.IPs, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), 32))
	}
	for _, c := range []struct {
		name    string
		f       filter.Filter
		repeat  int
		matches bool
	}{
		{"miss by direction", filter.Filter{Include: filter.Fields{Directions: []event.Opener{event.OpenerRemote}}}, 100_000, false},
		{"miss by port", filter.Filter{Include: filter.Fields{Ports: port(80, 443)}}, 100_000, false},
		{"miss by protocol and address", filter.Filter{Include: filter.Fields{Protocols: []event.Protocol{event.UDP}, IPs: prefixesOf("10.9.0.0/16")}}, 100_000, false},
		{"miss by 64 ports", filter.Filter{Include: filter.Fields{Ports: many.Ports}}, 100_000, false},
		{"miss by 64 addresses", filter.Filter{Include: filter.Fields{IPs: many.IPs}}, 100_000, false},
		{"miss by 16 networks", filter.Filter{Include: filter.Fields{IPs: slices.Repeat(prefixesOf("10.9.0.0/16"), 16)}}, 100_000, false},
		{"match by port", filter.Filter{Include: filter.Fields{Ports: port(serverPort)}}, 20_000, true},
		{"match all", filter.Filter{}, 20_000, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			p, capture := program(b, c.f, &Target{})
			capture.next = 1
			run := func(p *ebpf.Program) float64 {
				_, took, err := p.Benchmark(frame, c.repeat, func() {})
				if err != nil {
					b.Fatal(err)
				}
				return float64(took / time.Nanosecond)
			}
			var nets []float64
			for b.Loop() {
				nets = nets[:0]
				for range 15 {
					before := run(empty)
					cost := run(p)
					if err := capture.Read(func(*Packet) bool { return true }); err != nil {
						b.Fatal(err)
					}
					nets = append(nets, cost-min(before, run(empty)))
				}
			}
			slices.Sort(nets)
			b.ReportMetric(nets[len(nets)/2], "net-ns/packet")
			b.ReportMetric(0, "ns/op")
			counts, err := capture.Counts()
			if err != nil || counts[0].Dropped > 0 || (counts[0].Matched > 0) != c.matches {
				b.Errorf("%+v, %v", counts, err)
			}
		})
	}
}

// BenchmarkRead is what user space pays for a packet: 30,000 in the ring.
func BenchmarkRead(b *testing.B) {
	bpftest.RequireKernel(b, bpftest.BPF)
	frame := bpftest.Packet(bpftest.Ether{}, bpftest.Zeros(114))
	p, capture := program(b, filter.Filter{}, &Target{})
	const packets = 30_000
	for b.Loop() {
		b.StopTimer()
		if _, _, err := p.Benchmark(frame, packets, func() {}); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		n := 0
		if err := capture.Read(func(*Packet) bool { n++; return true }); err != nil || n != packets {
			b.Fatalf("%d packets, %v", n, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/packets, "ns/packet")
}
