// SPDX-License-Identifier: Apache-2.0

package store

import "github.com/orb8/orb8/internal/event"

// Audit holds, for one interface and direction, what the tap counted against
// what the interface counted, since attaching.
type Audit struct {
	// Everything the tap saw is in one of these.
	Flows, Remainder, Overflow, Forwarded, Carried, NotIP, Malformed event.Counter
	// Their sum, on the wire.
	Counted event.Counter
	// What segmentation adds to it over what the device saw.
	Segmentation event.Counter
	// The interface's own counters.
	Device event.Counter
	// Packets that it says it dropped behind the tap.
	Dropped uint64
	// Device minus tap, what readings, offload and Dropped explain left out.
	UnaccountedBytes, UnaccountedPackets int64
}

// InterfaceAudit is the audit of both directions of one interface.
type InterfaceAudit struct {
	event.Interface
	Ingress, Egress Audit
}

// Audit compares the table's totals with those of an interface.
func (s *Flows) Audit(i event.Interface) InterfaceAudit {
	sums := s.Sums(i.Iface)
	in := part{sums.Live.Rx(), sums.Remainder.Rx(), sums.Carried.Rx(), sums.Segmentation.Rx(), &i.Ingress, &i}
	out := part{sums.Live.Tx(), sums.Remainder.Tx(), sums.Carried.Tx(), sums.Segmentation.Tx(), &i.Egress, &i}
	return InterfaceAudit{Interface: i, Ingress: in.audit(), Egress: out.audit()}
}

type part struct {
	live, remainder, carried, segmentation event.Counter
	account                                *event.Account
	of                                     *event.Interface
}

func (p part) audit() Audit {
	acc := p.account
	a := Audit{
		Flows:        p.live,
		Remainder:    p.remainder,
		Overflow:     acc.Overflow,
		Forwarded:    acc.Forwarded,
		Carried:      p.carried,
		NotIP:        acc.NotIP,
		Malformed:    acc.Malformed,
		Segmentation: p.segmentation,
		Device:       acc.DeviceHigh,
		Dropped:      acc.Dropped,
	}
	a.Segmentation.Add(acc.Segmentation)
	for _, c := range []event.Counter{a.Flows, a.Remainder, a.Overflow, a.Forwarded, a.Carried, a.NotIP, a.Malformed} {
		a.Counted.Add(c)
	}
	// Whether a super-packet is cut before the device counts it, or put together
	// after, depends on device, driver and settings: each may have been.
	least := event.Counter{Bytes: a.Counted.Bytes - a.Segmentation.Bytes, Packets: a.Counted.Packets - a.Segmentation.Packets}
	most := a.Counted
	// Some devices (bridges, a veth with GRO) count bytes without the link-layer
	// header. That the tap has more is never a loss.
	least.Bytes -= min(least.Bytes, linkHeader*least.Packets)
	if p.of.Unread {
		// What the tap has more than the last reading came after it.
		acc.DeviceHigh.Bytes = max(acc.DeviceHigh.Bytes, least.Bytes)
		acc.DeviceHigh.Packets = max(acc.DeviceHigh.Packets, least.Packets)
		a.Device = acc.DeviceHigh
	}
	if p.of.OwnMessages {
		return a
	}
	// What it says it dropped passed the tap; of how many bytes it does not say.
	high := acc.DeviceHigh
	high.Add(event.Counter{Bytes: acc.Dropped * longest, Packets: acc.Dropped})
	a.UnaccountedBytes = distance(span{acc.DeviceLow.Bytes, high.Bytes}, span{least.Bytes, most.Bytes})
	a.UnaccountedPackets = distance(span{acc.DeviceLow.Packets, high.Packets}, span{least.Packets, most.Packets})
	return a
}

const (
	// linkHeader is Ethernet's.
	linkHeader = 14
	// longest is a super-packet's length.
	longest = 1 << 16
)

type span struct{ low, high uint64 }

// distance from b to a; 0 where they overlap.
func distance(a, b span) int64 {
	switch {
	case a.low > b.high:
		return int64(a.low - b.high)
	case a.high < b.low:
		return -int64(b.low - a.high)
	}
	return 0
}
