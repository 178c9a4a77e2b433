// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	. "github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

// What the devices count beside the taps.
type counting int

const (
	asTapped  counting = iota // super-packets once
	asOnWire                  // segments: they are cut after, or merged before, the tap
	inBetween                 // some of each, which the tap cannot know
)

// offloads are how both ends are set up.
type offloads struct {
	name    string
	on, off []Offload
	device  counting
}

// However the ends are set up, both tell the same wire, and what TCP says that
// it sent.
func TestOffloads(t *testing.T) {
	for _, c := range []offloads{
		{"cut by the device", []Offload{TSO, GSO}, []Offload{GRO}, asTapped},
		{"cut by the device, merged", []Offload{TSO, GSO, GRO}, nil, inBetween},
		{"cut before the device", []Offload{GSO}, []Offload{TSO, GRO}, asOnWire},
		{"cut before the device, merged", []Offload{GSO, GRO}, []Offload{TSO}, asOnWire},
	} {
		t.Run(c.name, func(t *testing.T) {
			RequireKernel(t, BPF, VethOffload)
			for range 5 {
				if c.run(t) {
					return
				}
				t.Log("a device dropped packets behind the tap: once more")
			}
			t.Error("the devices drop packets in each run")
		})
	}
}

// run is false when a device dropped packets between the taps: its queue is
// short where it merges, and a busy machine fills it.
func (c offloads) run(t *testing.T) bool {
	p := NewPair(t)
	for _, e := range []*End{&p.A, &p.B} {
		e.Offload(false, c.off...)
		e.Offload(true, c.on...)
	}
	a, b := tapQuiet(t, &p.A, Config{}), tapQuiet(t, &p.B, Config{})
	before := [2]uint64{sentSegments(&p.A), sentSegments(&p.B)}
	stopA, stopB := a.every(100*time.Millisecond), b.every(100*time.Millisecond)
	for _, v6 := range []bool{false, true} {
		bulk(t, p.A.DialTCP(p.B.ListenTCP(v6, ServeDiscard)), 32<<20)
	}
	stopA()
	stopB()
	a.settle()
	b.settle()
	if dropped(&p.A)+dropped(&p.B) > 0 {
		return false
	}
	rxA, txA := a.accounts(p.A.Name)
	rxB, txB := b.accounts(p.B.Name)
	if txA.wire() != rxB.wire() || rxA.wire() != txB.wire() {
		t.Errorf("the ends disagree:\n%+v\n%+v\n%+v\n%+v", txA, rxB, rxA, txB)
	}
	for i, e := range []*End{&p.A, &p.B} {
		n := sentSegments(e) - before[i]
		if got := []account{txA, txB}[i]; n != got.flows.Packets {
			t.Errorf("TCP of end %d sent %d segments, tapped %+v", i, n, got)
		}
	}
	if txA.seg.Packets == 0 {
		t.Errorf("a weak test: %+v", txA)
	}
	for name, d := range map[string]account{"A sent": txA, "A received": rxA, "B sent": txB, "B received": rxB} {
		checkDevice(t, name, d, c.device)
	}
	t.Logf("%+v of which %+v by segmentation", txA.wire(), txA.seg)
	return true
}

func checkDevice(t *testing.T, name string, a account, how counting) {
	t.Helper()
	wire, tapped, device := a.wire(), a.tapped(), a.device
	// A veth that merges counts bytes without the Ethernet header.
	bare := device
	bare.Bytes += etherHeader * device.Packets
	low, high := tapped, wire
	switch how {
	case asTapped:
		high = tapped
	case asOnWire:
		low = wire
	}
	within := func(c event.Counter) bool {
		return c.Packets >= low.Packets && c.Packets <= high.Packets && c.Bytes >= low.Bytes && c.Bytes <= high.Bytes
	}
	if !within(device) && (how == asTapped || !within(bare)) {
		t.Errorf("%s: the device counted %+v, which is not between %+v and %+v", name, device, low, high)
	}
}

// sentSegments is what TCP handed down, retransmissions included.
func sentSegments(e *End) uint64 {
	n := e.SNMP("Tcp: OutSegs", "Tcp: RetransSegs")
	return n[0] + n[1]
}

// UDP can be segmented, too: one send of ten datagrams is ten.
func TestDatagramSegments(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		p := NewPair(t)
		a, b := tapQuiet(t, &p.A, Config{Attach: how}), tapQuiet(t, &p.B, Config{Attach: how})
		for _, v6 := range []bool{false, true} {
			s := p.A.UDP(v6)
			segmentEach(t, s, 1000)
			if _, err := s.WriteToUDPAddrPort(make([]byte, 9500), p.B.DrainUDP(v6)); err != nil {
				t.Fatal(err)
			}
		}
		a.settle()
		b.settle()
		_, tx := a.checkConserved(&p.A)
		rx, _ := b.checkConserved(&p.B)
		want := event.Counter{Bytes: 2*9500 + 10*42 + 10*62, Packets: 20}
		if tx.flows != want || rx.flows != want || tx.seg.Packets != 18 {
			t.Errorf("sent %+v, received %+v, want %+v", tx, rx, want)
		}
	})
}

func segmentEach(t *testing.T, s *net.UDPConn, n int) {
	t.Helper()
	raw, err := s.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, n) })
	if err != nil || inner != nil {
		t.Fatal(err, inner)
	}
}
