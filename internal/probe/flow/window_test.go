// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	. "github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

// segment is a TCP packet between the usual two, with a window and, where it is
// odd, an option in its IP header: the tap's short way does not take that.
func segment(flags uint8, window uint16, odd bool) []byte {
	ip := IPv4{Src: src4, Dst: dst4}
	at := tcpAt
	if odd {
		ip.Options = make([]byte, 4)
		at += 4
	}
	b := Packet(Ether{}, ip, TCP{Src: 1, Dst: 2, Flags: flags}, Zeros(10))
	binary.BigEndian.PutUint16(b[at+14:], window)
	return b
}

const (
	ackF = event.FlagACK
	synF = event.FlagSYN
	rstF = event.FlagRST
	finF = event.FlagFIN
)

// What a window of zero is, packet by packet, in both directions and by both ways
// through the tap.
func TestZeroWindowPackets(t *testing.T) {
	k := newKernel(t, 100)
	type said struct {
		flags  uint8
		window uint16
	}
	for name, c := range map[string]struct {
		packets     []said
		zeros       uint32
		began, shut bool
	}{
		"never":                   {[]said{{synF, 10}, {ackF, 1}, {ackF, 65535}}, 0, false, false},
		"once, and again":         {[]said{{ackF, 10}, {ackF, 0}, {ackF, 0}, {ackF, 1}, {ackF, 0}}, 2, false, true},
		"opens at last":           {[]said{{ackF, 10}, {ackF, 0}, {ackF | event.FlagPSH, 7}}, 1, false, false},
		"from the first":          {[]said{{ackF, 0}, {ackF, 0}}, 1, true, true},
		"from the first, opens":   {[]said{{ackF, 0}, {ackF, 3}}, 1, true, false},
		"a SYN says nothing":      {[]said{{synF, 0}, {ackF, 9}, {synF | ackF, 0}}, 0, false, false},
		"a reset says nothing":    {[]said{{ackF, 9}, {rstF, 0}, {rstF | ackF, 0}, {rstF, 9}}, 0, false, false},
		"a reset opens nothing":   {[]said{{ackF, 9}, {ackF, 0}, {rstF, 9}, {rstF, 9}, {ackF, 0}}, 1, false, true},
		"the end says something":  {[]said{{ackF, 9}, {finF | ackF, 0}}, 1, false, true},
		"nothing at all says, so": {[]said{{0, 9}, {0, 0}}, 1, false, true},
	} {
		for _, egress := range []bool{false, true} {
			for _, odd := range []bool{false, true} {
				for _, p := range c.packets {
					k.run(egress, segment(p.flags, p.window, odd))
				}
				got := k.look()
				if len(got.deltas) != 1 {
					t.Fatalf("%s: %+v", name, got)
				}
				d := got.deltas[0]
				h := &d.Health
				zeros, began, shut, other := h.ZeroWindowsRx, d.BeganShutRx, h.ShutRx, h.ZeroWindowsTx
				if egress {
					zeros, began, shut, other = h.ZeroWindowsTx, d.BeganShutTx, h.ShutTx, h.ZeroWindowsRx
				}
				if zeros != c.zeros || began != c.began || shut != c.shut || other != 0 || d.Traffic.Packets() != uint64(len(c.packets)) {
					t.Errorf("%s, egress %v, odd %v: %d times, began %v, is %v; %+v", name, egress, odd, zeros, began, shut, d.Traffic)
				}
			}
		}
	}
}

// UDP has no window: what stands there is not one.
func TestNoWindowInUDP(t *testing.T) {
	k := newKernel(t, 100)
	for range 3 {
		k.run(true, Packet(Ether{}, v4, udp, Zeros(40)))
	}
	if d := k.look().deltas[0]; d.Health != (event.Health{}) || d.BeganShutTx {
		t.Errorf("%+v", d.Health)
	}
}

// The beginning and the end are what a second, plain reading of the packets says,
// whatever flags come in whatever order.
func TestAnyFlags(t *testing.T) {
	const rounds, seed = 400, 5
	k := newKernel(t, 100)
	random := rand.New(rand.NewPCG(seed, seed))
	for round := range rounds {
		var flags [2]uint8 // by direction, rx first
		var syn, synAck bool
		var closed, reset event.Side
		for range 1 + random.IntN(8) {
			some, others := uint8(random.Uint32()), uint8(random.Uint32())
			f := some & others // few at a time
			egress := random.IntN(2) == 1
			frame := segment(f, 9, random.IntN(2) == 1)
			side, own, other := event.SideRemote, &flags[0], &flags[1]
			if egress {
				side, own, other = event.SideLocal, &flags[1], &flags[0]
			} else { // of the same connection
				copy(frame[ip4At+12:], dst4.AsSlice())
				copy(frame[ip4At+16:], src4.AsSlice())
				at := ip4At + 4*int(frame[ip4At]&15)
				frame[at+1], frame[at+3] = 2, 1
			}
			k.run(egress, frame)
			both := *own | *other
			if f&finF != 0 && both&finF == 0 {
				closed = side
			}
			if f&rstF != 0 && both&rstF == 0 {
				reset = side
			}
			syn = syn || f&(synF|ackF) == synF
			synAck = synAck || f&(synF|ackF) == synF|ackF
			*own |= f
		}
		got := k.look()
		if len(got.deltas) != 1 {
			t.Fatalf("seed %d, round %d: %+v", seed, round, got)
		}
		h := got.deltas[0].Health
		// What goes by the short way does not tell of flags that are known.
		if h.FlagsRx != flags[0] || h.FlagsTx != flags[1] || h.ClosedBy != closed || h.ResetBy != reset || syn && h.SYN == 0 && !seenBoth(flags) {
			t.Errorf("seed %d, round %d: %+v; want flags %b, closed by %q, reset by %q", seed, round, h, flags, closed, reset)
		}
		if !syn && h.SYN != 0 || !synAck && h.SYNACK != 0 {
			t.Errorf("seed %d, round %d: stamps %d and %d without their packets", seed, round, h.SYN, h.SYNACK)
		}
	}
}

// seenBoth: a direction sent SYN with ACK, or after it: the other kind may have
// come when SYN was known already.
func seenBoth(flags [2]uint8) bool {
	return flags[0]&(synF|ackF) == synF|ackF || flags[1]&(synF|ackF) == synF|ackF
}
