// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	. "github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

// Every packet is counted once: what the tap tells, over many epochs that end
// while traffic flows, is what the devices of both ends counted.
func TestConservation(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		p := NewPair(t)
		a, b := tapQuiet(t, &p.A, fromOutside(p.A.Netns, Config{Attach: how})), tapQuiet(t, &p.B, fromOutside(p.B.Netns, Config{Attach: how}))
		stopA, stopB := a.every(100*time.Millisecond), b.every(100*time.Millisecond)
		for _, v6 := range []bool{false, true} {
			mixedTraffic(t, p, v6)
		}
		stopA()
		stopB()
		a.settle()
		b.settle()
		rxA, txA := a.checkConserved(&p.A)
		rxB, txB := b.checkConserved(&p.B)
		if txA.wire() != rxB.wire() || rxA.wire() != txB.wire() {
			t.Errorf("the ends disagree:\n%+v\n%+v\n%+v\n%+v", txA, rxB, rxA, txB)
		}
		if txA.rest.Packets+rxA.rest.Packets > 0 {
			t.Errorf("without a connection: %+v %+v", txA, rxA)
		}
	})
}

// mixedTraffic is TCP in bulk both ways, UDP from many sockets, and echoes, at
// once, for about a second.
func mixedTraffic(t *testing.T, p *Pair, v6 bool) {
	t.Helper()
	var wg sync.WaitGroup
	for _, ends := range [][2]*End{{&p.A, &p.B}, {&p.B, &p.A}} {
		conn := ends[0].DialTCP(ends[1].ListenTCP(v6, ServeDiscard))
		wg.Go(func() { bulk(t, conn, 32<<20) })
	}
	to := p.B.DrainUDP(v6)
	var sockets []*net.UDPConn
	for range 200 {
		sockets = append(sockets, p.A.UDP(v6))
	}
	wg.Go(func() { manyUDP(t, sockets, to) })
	wg.Go(func() {
		if n := p.A.Ping(p.B.IP(v6), 200); n != 200 {
			t.Errorf("%d of 200 echoes answered", n)
		}
	})
	wg.Wait()
}

// bulk sends n bytes and closes.
func bulk(t *testing.T, c *net.TCPConn, n int) {
	b := make([]byte, 64<<10)
	for ; n > 0; n -= len(b) {
		if _, err := c.Write(b[:min(n, len(b))]); err != nil {
			t.Errorf("bulk: %v", err)
			return
		}
	}
	_ = c.CloseWrite()
	_, _ = io.Copy(io.Discard, c) // until the other side has closed, too
}

func manyUDP(t *testing.T, sockets []*net.UDPConn, to netip.AddrPort) {
	for i := range 50 {
		for j, s := range sockets {
			if _, err := s.WriteToUDPAddrPort(make([]byte, (i*j)%1400), to); err != nil {
				t.Errorf("UDP: %v", err)
				return
			}
		}
		// The other end's queue is bounded, and this is about counting.
		time.Sleep(2 * time.Millisecond)
	}
}

// A table that is much too small loses detail, not packets.
func TestConservationWhenTheTableIsFull(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		const flows, room = 50_000, 1000
		p := NewPair(t)
		cfg := Config{Attach: how, TableEntries: room}
		a, b := tapQuiet(t, &p.A, fromOutside(p.A.Netns, cfg)), tapQuiet(t, &p.B, fromOutside(p.B.Netns, cfg))
		stopA, stopB := a.every(100*time.Millisecond), b.every(100*time.Millisecond)
		w := p.A.Frames()
		var sent event.Counter
		for i := range flows {
			src := netip.AddrFrom4([4]byte{10, 77, byte(i >> 12), byte(i >> 4)})
			f := Packet(Ether{}, IPv4{Src: src, Dst: p.B.IP4}, UDP{Src: uint16(i & 15), Dst: 9}, Zeros(i%100))
			if _, err := w.Write(f); err != nil {
				t.Fatal(err)
			}
			sent.Add(event.Counter{Bytes: uint64(len(f)), Packets: 1})
			if i%500 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		stopA()
		stopB()
		a.settle()
		b.settle()
		_, tx := a.checkConserved(&p.A)
		rx, _ := b.checkConserved(&p.B)
		if tx.wire() != sent || rx.wire() != sent {
			t.Errorf("sent %+v, counted %+v and %+v", sent, tx, rx)
		}
		if tx.other.Overflow.Packets == 0 || len(a.flows) < room {
			t.Errorf("a weak test: %d connections, overflow %+v", len(a.flows), tx.other.Overflow)
		}
		t.Logf("%d of %d connections, overflow %+v", len(a.flows), flows, tx.other.Overflow)
	})
}

// Frames as a driver may hand them up: headers outside of the linear part, cut
// at any length, not IP. Each is counted on both sides.
func TestConservationOfOddFrames(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		p := NewPair(t)
		for _, e := range []*End{&p.A, &p.B} {
			e.SetMTU(9000)
		}
		a, b := tapQuiet(t, &p.A, fromOutside(p.A.Netns, Config{Attach: how})), tapQuiet(t, &p.B, fromOutside(p.B.Netns, Config{Attach: how}))
		w := p.A.ScatteredFrames()
		var sent event.Counter
		for _, f := range oddFrames() {
			if _, err := w.Write(f); err != nil {
				t.Fatalf("%d bytes: %v", len(f), err)
			}
			sent.Add(event.Counter{Bytes: uint64(len(f)), Packets: 1})
		}
		a.settle()
		b.settle()
		_, tx := a.checkConserved(&p.A)
		rx, _ := b.checkConserved(&p.B)
		if tx.wire() != sent || rx.wire() != sent {
			t.Errorf("sent %+v, counted %+v and %+v", sent, tx, rx)
		}
		for name, c := range map[string][2]event.Counter{
			"not IP":    {tx.other.NotIP, rx.other.NotIP},
			"malformed": {tx.other.Malformed, rx.other.Malformed},
		} {
			if c[0] != c[1] || c[0].Packets == 0 {
				t.Errorf("%s: sent %+v, received %+v", name, c[0], c[1])
			}
		}
		// Its ports are 7,800 bytes into the frame.
		if d := a.find(event.TCP, 4000, 443); d.Traffic.TxPackets != 1 || d.Traffic.TxBytes < 7800 {
			t.Errorf("behind a long chain: %+v", d)
		}
		if d := b.find(event.UDP, 53, 5000); d.Traffic.RxPackets != 1 {
			t.Errorf("large datagram: %+v", d)
		}
	})
}

func oddFrames() [][]byte {
	frames := [][]byte{
		Packet(Ether{}, v4, udp, Zeros(8900)),
		Packet(append([]Layer{Ether{}, v6}, deep(8, 120, tcp)...)...),
		Packet(Ether{}, v6, Extension{Extra: 255}, Fragment6{}, Extension{Protocol: 60, Extra: 255}, SCTP{Src: 1, Dst: 2}, Zeros(4500)),
		Packet(Ether{}, Data{Number: 0x0806, Bytes: make([]byte, 28)}),
		Packet(Ether{}, Data{Number: 0x88cc, Bytes: make([]byte, 5000)}),
	}
	for _, whole := range [][]byte{
		Packet(Ether{}, v4, ICMP{Type: 8, ID: 4}, Zeros(4)),
		Packet(Ether{}, v6, Extension{}, TCP{Src: 1, Dst: 2}),
		Packet(Ether{}, IPv4{Src: src4, Dst: dst4, Options: make([]byte, 40)}, SCTP{Src: 1, Dst: 2}),
	} {
		for n := etherHeader; n <= len(whole); n++ {
			frames = append(frames, whole[:n])
		}
	}
	return frames
}

// A tag is on the wire, whether it is in the packet's bytes or beside them.
func TestTagsAreWireBytes(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		p := NewPair(t)
		a, b := tapQuiet(t, &p.A, fromOutside(p.A.Netns, Config{Attach: how})), tapQuiet(t, &p.B, fromOutside(p.B.Netns, Config{Attach: how}))
		w := p.A.Frames()
		f := Packet(Ether{}, VLAN{ID: 5}, v4, udp, Zeros(100))
		for range 10 {
			if _, err := w.Write(f); err != nil {
				t.Fatal(err)
			}
		}
		a.settle()
		b.settle()
		_, tx := a.checkConserved(&p.A)
		rx, _ := b.checkConserved(&p.B)
		if want := (event.Counter{Bytes: 10 * uint64(len(f)), Packets: 10}); tx.flows != want || rx.flows != want {
			t.Errorf("sent %+v, received %+v, want %+v", tx.flows, rx.flows, want)
		}
	})
}

// Later fragments are counted without ports, the first with them.
func TestConservationOfFragments(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		p := NewPair(t)
		a, b := tapQuiet(t, &p.A, fromOutside(p.A.Netns, Config{Attach: how})), tapQuiet(t, &p.B, fromOutside(p.B.Netns, Config{Attach: how}))
		for _, v6 := range []bool{false, true} {
			s := p.A.UDP(v6)
			if _, err := s.WriteToUDPAddrPort(make([]byte, 5000), p.B.DrainUDP(v6)); err != nil {
				t.Fatal(err)
			}
		}
		a.settle()
		b.settle()
		a.checkConserved(&p.A)
		b.checkConserved(&p.B)
		packets := map[event.ConnKind]uint64{}
		for c, d := range b.flows {
			packets[c.Kind] += d.Traffic.RxPackets
		}
		// 5,008 bytes at 1,480 or 1,448 a fragment are four, twice.
		if packets[event.ConnPlain] != 2 || packets[event.ConnFragment] != 6 {
			t.Errorf("packets by kind: %v", packets)
		}
	})
}
