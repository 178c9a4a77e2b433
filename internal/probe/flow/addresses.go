// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/orb8/orb8/internal/event"
)

// The addresses of the own namespace, which tell its packets from those that
// only pass through.

// unspecified are the senders of whoever asks for an address.
var unspecified = []event.IP{{}, {10: 0xff, 11: 0xff}}

// setAddresses tells the kernel the addresses of the own namespace. First what
// is new, last what is not any more: no packet finds less than there is.
func (t *Tap) setAddresses(addrs []netlink.Addr) error {
	want := map[event.IP]bool{}
	for _, ip := range unspecified {
		want[ip] = true
	}
	for _, a := range addrs {
		if ip, ok := address(a); ok && !ip.Addr().IsLoopback() {
			want[ip] = true
		}
	}
	t.addressing.Lock()
	defer t.addressing.Unlock()
	if err := t.putAddresses(want); err != nil {
		return err
	}
	var ip event.IP
	var none uint8
	var old []event.IP
	it := t.kernel.addresses.Iterate()
	for it.Next(&ip, &none) {
		if !want[ip] {
			old = append(old, ip)
		}
	}
	for _, ip := range old {
		if err := t.kernel.addresses.Delete(ip); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget address %s: %w", ip.Addr(), err)
		}
	}
	return it.Err()
}

// addAddress adds one that was heard of, at once: what is sent from it would be
// taken for others'.
func (t *Tap) addAddress(ip event.IP) {
	t.addressing.Lock()
	defer t.addressing.Unlock()
	set := t.ownAddresses.Load()
	if set == nil || (*set)[ip] || ip.Addr().IsLoopback() {
		return
	}
	want := maps.Clone(*set)
	want[ip] = true
	if err := t.putAddresses(want); err != nil {
		t.log.Warn("address not noted", "error", err)
	}
}

// putAddresses is for who holds addressing.
func (t *Tap) putAddresses(want map[event.IP]bool) error {
	for ip := range want {
		if old := t.ownAddresses.Load(); old != nil && (*old)[ip] {
			continue
		}
		if err := t.kernel.addresses.Put(ip, uint8(0)); err != nil {
			return fmt.Errorf("note address %s: %w", ip.Addr(), err)
		}
	}
	t.ownAddresses.Store(&want)
	if err := t.kernel.bits.Put(uint32(0), addressBits(want)); err != nil {
		return fmt.Errorf("note addresses: %w", err)
	}
	return nil
}

// OwnAddress tells whether an address is one of the own namespace's.
func (t *Tap) OwnAddress(ip event.IP) bool {
	set := t.ownAddresses.Load()
	return set != nil && (*set)[ip]
}

// addressBits has a bit for the last two bytes of each address.
func addressBits(set map[event.IP]bool) *[1024]uint64 {
	var bits [1024]uint64
	for ip := range set {
		low := binary.NativeEndian.Uint16(ip[14:])
		bits[low>>6] |= 1 << (low & 63)
	}
	return &bits
}

// slots of the kernel's SLOTS.
const slots = 256

// takeSlot gives an interface a place to count in what passes through it. There
// is none when another has it; then it counts at a higher price.
func (t *Tap) takeSlot(index uint32) bool {
	var perCPU []kernelFlowSlot
	if err := t.kernel.slots.Lookup(index%slots, &perCPU); err != nil {
		return false
	}
	if perCPU[0].Ifindex != 0 {
		return perCPU[0].Ifindex == index
	}
	for i := range perCPU {
		perCPU[i] = kernelFlowSlot{Ifindex: index}
	}
	return t.kernel.slots.Put(index%slots, perCPU) == nil
}

// readSlots adds what passed through the interfaces to the totals.
func (t *Tap) readSlots(totals restTotals) error {
	var perCPU []kernelFlowSlot
	t.mu.Lock()
	var places []uint32
	if own := t.spaces[t.own.inode]; own != nil {
		for index, p := range own.ports {
			if p.slot {
				places = append(places, index)
			}
		}
	}
	t.mu.Unlock()
	for _, index := range places {
		if err := t.kernel.slots.Lookup(index%slots, &perCPU); err != nil {
			return fmt.Errorf("read forwarded counters: %w", err)
		}
		addSlot(totals, event.Iface{Netns: t.own.inode, Index: index}, perCPU)
	}
	return nil
}

func addSlot(totals restTotals, i event.Iface, perCPU []kernelFlowSlot) {
	for _, s := range perCPU {
		if s.Ifindex != i.Index {
			continue
		}
		for dir, f := range s.Forwarded {
			a := totals.at(i, dir == 1)
			a.Forwarded.Add(event.Counter{Bytes: f.Bytes, Packets: f.Packets})
			a.Segmentation.Add(event.Counter{Bytes: f.SegBytes, Packets: f.SegPackets})
		}
	}
}

// foldSlot takes an interface's slot out of the kernel.
func (t *Tap) foldSlot(i event.Iface, into event.Iface) error {
	var perCPU []kernelFlowSlot
	if err := t.kernel.slots.Lookup(i.Index%slots, &perCPU); err != nil {
		return fmt.Errorf("fold forwarded counters: %w", err)
	}
	if perCPU[0].Ifindex != i.Index {
		return nil
	}
	sum := restTotals{}
	addSlot(sum, i, perCPU)
	sum.move(i, into)
	t.folded.addAll(sum)
	clear(perCPU)
	return t.kernel.slots.Put(i.Index%slots, perCPU)
}
