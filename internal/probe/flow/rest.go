// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"fmt"

	"github.com/orb8/orb8/internal/event"
)

// The kernel's enum packet_class.
const (
	classNotIP     = 1
	classOverflow  = 5
	classForwarded = 6
)

// restTotals is what one interface and direction counted without a connection.
type restTotals map[restPlace]*event.Account

type restPlace struct {
	iface  event.Iface
	egress bool
}

func (r restTotals) at(iface event.Iface, egress bool) *event.Account {
	p := restPlace{iface, egress}
	if r[p] == nil {
		r[p] = &event.Account{}
	}
	return r[p]
}

func (r restTotals) add(key *kernelRestKey, iface event.Iface, perCPU []kernelRestValue) {
	a := r.at(iface, key.Direction == 1)
	n, seg := sum(perCPU)
	a.Segmentation.Add(seg)
	switch key.Class {
	case classNotIP:
		a.NotIP.Add(n)
	case classOverflow:
		a.Overflow.Add(n)
	case classForwarded:
		a.Forwarded.Add(n)
	default:
		a.Malformed.Add(n)
	}
}

// overflow is how many packets the table had no room for.
func (r restTotals) overflow() (packets uint64) {
	for _, a := range r {
		packets += a.Overflow.Packets
	}
	return packets
}

func (r restTotals) move(from, into event.Iface) {
	for _, egress := range []bool{false, true} {
		if a := r[restPlace{from, egress}]; a != nil {
			addAccount(r.at(into, egress), a)
			delete(r, restPlace{from, egress})
		}
	}
}

func (r restTotals) addAll(o restTotals) {
	for p, a := range o {
		addAccount(r.at(p.iface, p.egress), a)
	}
}

func addAccount(to, a *event.Account) {
	to.Overflow.Add(a.Overflow)
	to.Forwarded.Add(a.Forwarded)
	to.NotIP.Add(a.NotIP)
	to.Malformed.Add(a.Malformed)
	to.Segmentation.Add(a.Segmentation)
}

func (r restTotals) clone() restTotals {
	c := make(restTotals, len(r))
	for p, a := range r {
		copied := *a
		c[p] = &copied
	}
	return c
}

// readRest sums the kernel's rest counters. What found no room among them has
// lost its interface and is under the zero Iface, as overflow.
func (t *Tap) readRest() (restTotals, error) {
	totals := t.folded.clone()
	var key kernelRestKey
	var perCPU []kernelRestValue
	it := t.kernel.rest.Iterate()
	for it.Next(&key, &perCPU) {
		totals.add(&key, event.Iface{Netns: key.Netns, Index: key.Ifindex}, perCPU)
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read rest counters: %w", err)
	}
	for dir := range uint32(2) {
		if err := t.kernel.lost.Lookup(dir, &perCPU); err != nil {
			return nil, fmt.Errorf("read rest counters: %w", err)
		}
		n, seg := sum(perCPU)
		if n.Packets > 0 {
			a := totals.at(event.Iface{}, dir == 1)
			a.Overflow.Add(n)
			a.Segmentation.Add(seg)
		}
	}
	if err := t.readSlots(totals); err != nil {
		return nil, err
	}
	return totals, nil
}

func sum(perCPU []kernelRestValue) (wire, seg event.Counter) {
	for _, v := range perCPU {
		wire.Add(event.Counter{Bytes: v.Bytes, Packets: v.Packets})
		seg.Add(event.Counter{Bytes: v.SegBytes, Packets: v.SegPackets})
	}
	return wire, seg
}
