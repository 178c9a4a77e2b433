// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"fmt"
	"math/bits"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
)

// The kernel's SEG_SHIFT.
const (
	segShift = 35
	segBytes = 1<<segShift - 1
)

// The kernel's FIRST_….
const (
	firstSent    = 1
	firstAnswers = 2
	firstTagged  = 4
)

// decode turns a table entry into t.delta. It allocates nothing.
func (t *Tap) decode(k *kernelFlowKey, v *kernelFlowValue) {
	d := &t.delta
	d.Conn = event.Conn{
		Local:      *(*event.IP)(unsafe.Pointer(&k.Local)),
		Remote:     *(*event.IP)(unsafe.Pointer(&k.Remote)),
		LocalPort:  bits.ReverseBytes16(k.LocalPortBe),
		RemotePort: bits.ReverseBytes16(k.RemotePortBe),
		Ifindex:    k.Ifindex,
		Netns:      k.Netns,
		Protocol:   event.Protocol(k.Protocol),
		Kind:       event.ConnKind(k.Kind),
	}
	tx, rx := &v.Tx, &v.Rx
	d.First = t.clock.unix(v.First)
	d.Last = d.First
	if tx.Packets > 0 {
		d.Last = max(d.Last, t.clock.unix(tx.Last))
	}
	if rx.Packets > 0 {
		d.Last = max(d.Last, t.clock.unix(rx.Last))
	}
	d.Traffic = event.Traffic{TxBytes: tx.Bytes, TxPackets: tx.Packets, RxBytes: rx.Bytes, RxPackets: rx.Packets}
	d.Segmentation = event.Traffic{
		TxBytes: tx.Seg & segBytes, TxPackets: tx.Seg >> segShift,
		RxBytes: rx.Seg & segBytes, RxPackets: rx.Seg >> segShift,
	}
	d.Health = event.Health{
		RTT:               v.SrttUs8 >> 3,
		MinRTT:            v.MinRttUs,
		Retransmits:       tx.Retransmits,
		RetransmitsBefore: v.RetransmitsBefore,
		OutOfOrder:        tx.OutOfOrder,
		BytesAcked:        v.BytesAcked,
		ICMPErrors:        v.IcmpErrors,
		ICMPType:          v.IcmpType,
		ICMPCode:          v.IcmpCode,
		FlagsRx:           flags(&rx.Seen),
		FlagsTx:           flags(&tx.Seen),
		SYN:               v.Syn,
		SYNACK:            v.SynAck,
		ZeroWindowsTx:     uint32(tx.ZeroWindows),
		ZeroWindowsRx:     uint32(rx.ZeroWindows),
		ShutTx:            tx.Window&windowShut != 0,
		ShutRx:            rx.Window&windowShut != 0,
		ClosedBy:          first(tx.Ended, rx.Ended, event.FlagFIN),
		ResetBy:           first(tx.Ended, rx.Ended, event.FlagRST),
	}
	if d.Health.MinRTT == ^uint32(0) { // no sample yet
		d.Health.MinRTT = 0
	}
	d.BeganShutTx, d.BeganShutRx = tx.Window&windowBeganShut != 0, rx.Window&windowBeganShut != 0
	d.Cookie, d.Cgroup = v.Cookie, v.Cgroup
	d.FirstTx = v.FirstWas&firstSent != 0
	d.FirstAnswers = v.FirstWas&firstAnswers != 0
	d.Loopback = t.cfg.Loopback && k.Ifindex == loopback
	d.HasSocket = v.HasHealth != 0
	d.Health.TellsOrder = d.HasSocket && t.kernel.outOfOrder != 0
	d.Place = t.scenes.of(k.Netns).place(&d.Conn, v.Sender, v.FirstWas&firstTagged != 0)
}

// The kernel's WINDOW_….
const (
	windowShut      = 1
	windowBeganShut = 2
)

// first tells which side sent a flag before the other did. Two that sent it at
// once, on two processors, may both seem to have.
func first(tx, rx, flag uint8) event.Side {
	switch {
	case tx&flag != 0 && rx&flag == 0:
		return event.SideLocal
	case rx&flag != 0 && tx&flag == 0:
		return event.SideRemote
	}
	return event.SideUnknown
}

// reflect turns what one end of a loopback connection sent into what the other
// received. Nothing is lost on the way.
func reflect(d *event.Delta) {
	c := &d.Conn
	c.Local, c.Remote = c.Remote, c.Local
	switch c.Kind {
	case event.ConnPlain:
		c.LocalPort, c.RemotePort = c.RemotePort, c.LocalPort
	case event.ConnEchoOpenedLocal:
		c.Kind = event.ConnEchoOpenedRemote
	case event.ConnEchoOpenedRemote:
		c.Kind = event.ConnEchoOpenedLocal
	}
	d.Traffic = d.Traffic.Reversed()
	d.Segmentation = d.Segmentation.Reversed()
	h := &d.Health
	d.Health = event.Health{
		FlagsRx: h.FlagsTx, SYN: h.SYN, SYNACK: h.SYNACK,
		ZeroWindowsRx: h.ZeroWindowsTx, ShutRx: h.ShutTx,
		ClosedBy: h.ClosedBy.Other(), ResetBy: h.ResetBy.Other(),
	}
	d.BeganShutTx, d.BeganShutRx = false, d.BeganShutTx
	d.Cookie, d.Cgroup, d.HasSocket, d.FirstTx = 0, 0, false, false
}

// flags puts the kernel's one byte a flag back into TCP's form: bit i of the
// result is byte i of the word.
func flags(seen *[8]uint8) uint8 {
	const gather = 0x0102040810204080
	word := *(*uint64)(unsafe.Pointer(seen))
	return uint8((word * gather) >> 56)
}

// clock turns the kernel's ticks into wall-clock time. The programs stamp with
// jiffies, which the verifier turns into a load; a call of any other clock
// costs 17 ns a packet.
type clock struct {
	prog   *ebpf.Program
	tick   int64 // nanoseconds
	jiffy  uint32
	wall   int64
	packet [etherHeader]byte
}

// anchor notes which tick it is now.
func (c *clock) anchor() error {
	if c.tick == 0 {
		var res unix.Timespec
		// The coarse clocks advance once a tick.
		if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &res); err != nil || res.Nano() <= 0 {
			return fmt.Errorf("length of a clock tick: %w", err)
		}
		c.tick = res.Nano()
	}
	now := time.Now().UnixNano()
	jiffy, err := c.prog.Run(&ebpf.RunOptions{Data: c.packet[:]})
	if err != nil {
		return fmt.Errorf("read the kernel's clock: %w", err)
	}
	c.jiffy, c.wall = jiffy, now
	return nil
}

// unix gives the wall-clock time of a stamp, to one tick and never in the
// future of the anchor.
func (c *clock) unix(stamp uint32) int64 {
	return c.wall + min(0, int64(int32(stamp-c.jiffy)))*c.tick
}
