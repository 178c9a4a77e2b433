// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"

	"github.com/orb8/orb8/internal/event"
)

// Epoch makes the other table active, waits until no program is left on the
// old one, and calls apply for each connection in it; then the old one is
// empty. The delta is valid during the call only.
//
// With audit, the interfaces' counters are read on both sides of the swap, so
// that what the tap counted up to the swap lies between the two readings.
func (t *Tap) Epoch(audit bool, apply func(*event.Delta)) error {
	if t.kernel.active == nil {
		return errClosed
	}
	start := time.Now()
	t.takeLast()
	if audit {
		t.auditCost = 0
		t.readPorts(func(p *port) *baseline { return &p.low })
	}
	// Before the swap: what is counted on the way is read now or marked again.
	if err := t.kernel.moved.Put(uint32(0), uint64(0)); err != nil {
		return fmt.Errorf("start an epoch: %w", err)
	}
	old, err := t.swap()
	if err != nil {
		return err
	}
	if err := t.clock.anchor(); err != nil {
		return err
	}
	overflow := t.totals.overflow()
	if t.totals, err = t.readRest(); err != nil {
		return err
	}
	t.delta.Overflow = t.totals.overflow() - overflow
	if audit {
		t.readPorts(func(p *port) *baseline { return &p.high })
	}
	t.scenes.load(t.layout.Load())
	if err := t.empty(old, apply); err != nil {
		return err
	}
	t.swapped = start
	return nil
}

// swap returns the table that was active, with nothing running on it any more.
func (t *Tap) swap() (*ebpf.Map, error) {
	old := t.tables[t.active]
	if t.shed { // nothing has been since the epoch before
		return old, nil
	}
	// This returns only after an RCU grace period: programs run inside one.
	if err := t.kernel.active.Put(uint32(0), t.tables[1-t.active]); err != nil {
		return nil, fmt.Errorf("swap flow tables: %w", err)
	}
	t.active = 1 - t.active
	return old, nil
}

// Shed switches the detail off or on: without it, packets are counted by
// interface, direction and protocol only, as when the table is full. What the
// table holds is read by the next epoch.
func (t *Tap) Shed(on bool) error {
	switch {
	case t.kernel.active == nil:
		return errClosed
	case on == t.shed:
		return nil
	case on:
		if err := t.kernel.active.Delete(uint32(0)); err != nil {
			return fmt.Errorf("shed detail: %w", err)
		}
	default:
		if err := t.kernel.active.Put(uint32(0), t.tables[t.active]); err != nil {
			return fmt.Errorf("count in detail again: %w", err)
		}
	}
	t.shed = on
	return nil
}

func (t *Tap) empty(old *ebpf.Map, apply func(*event.Delta)) error {
	var cursor ebpf.MapBatchCursor
	t.read = 0
	for {
		n, err := old.BatchLookupAndDelete(&cursor, t.keys, t.values, nil)
		t.read += n
		for i := range n {
			t.decode(&t.keys[i], &t.values[i])
			apply(&t.delta)
			if t.delta.Loopback {
				reflect(&t.delta)
				apply(&t.delta)
			}
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read flow table: %w", err)
		}
	}
}

// Quiet tells that the programs have counted nothing since the last epoch, so
// that there is nothing to read.
func (t *Tap) Quiet() bool {
	var moved uint64
	if t.kernel.moved == nil || t.kernel.moved.Lookup(uint32(0), &moved) != nil {
		return false
	}
	return moved == 0
}

// readPorts asks the interfaces for their counters. One that does not answer
// keeps what it said last; it is usually on its way out.
func (t *Tap) readPorts(which func(*port) *baseline) {
	start := time.Now()
	defer func() { t.auditCost += time.Since(start) }()
	t.mu.Lock()
	asked := make([]*port, 0, 16)
	for _, s := range t.spaces {
		for _, p := range s.ports {
			if p.How != "" {
				p.asked = s.nsid
				asked = append(asked, p)
			}
		}
	}
	t.mu.Unlock()
	readings := t.readers.read(asked)
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, p := range asked {
		r := readings[i]
		switch {
		case p.How == "" || p.last != nil: // its last reading is later
		case r == nil:
			p.Unread = true // it is on its way out
		default:
			which(p).read(p.counted(*r))
			p.Unread = p.Unread && which(p) == &p.high
		}
	}
}

// AuditCost is the time that the last audit took to read the interfaces.
func (t *Tap) AuditCost() time.Duration { return t.auditCost }

// Interfaces tells where the tap is and is not, and what each interface
// counted up to the last audit, by name.
func (t *Tap) Interfaces() []event.Interface {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []event.Interface
	add := func(p *port) {
		i := t.account(p.Interface, p.low.now, p.high.now)
		i.Unread = i.Unread || p.unread
		if p.space != nil {
			i.Namespace = p.space.Name
		}
		out = append(out, i)
	}
	for _, s := range t.spaces {
		for _, p := range s.ports {
			add(p)
		}
	}
	for _, p := range t.left {
		add(p)
	}
	if t.gone != nil {
		add(t.gone)
	}
	if t.totals[restPlace{egress: false}] != nil || t.totals[restPlace{egress: true}] != nil {
		out = append(out, t.account(event.Interface{Problem: "more interfaces than the overflow table has room for"}, deviceCounters{}, deviceCounters{}))
	}
	slices.SortFunc(out, t.order)
	return out
}

// order is the own namespace first, and what is gone last.
func (t *Tap) order(a, b event.Interface) int {
	rank := func(i *event.Interface) int {
		switch {
		case i.Left:
			return 2
		case i.Iface.Netns != t.own.inode:
			return 1
		}
		return 0
	}
	if d := rank(&a) - rank(&b); d != 0 {
		return d
	}
	if d := strings.Compare(a.Namespace, b.Namespace); d != 0 {
		return d
	}
	if a.Iface.Netns != b.Iface.Netns {
		return int(int64(a.Iface.Netns) - int64(b.Iface.Netns))
	}
	return strings.Compare(a.Name, b.Name)
}

func (t *Tap) account(i event.Interface, low, high deviceCounters) event.Interface {
	if a := t.totals[restPlace{i.Iface, false}]; a != nil {
		i.Ingress = *a
	}
	if a := t.totals[restPlace{i.Iface, true}]; a != nil {
		i.Egress = *a
	}
	i.Ingress.DeviceLow, i.Ingress.DeviceHigh = low.rx, high.rx
	i.Egress.DeviceLow, i.Egress.DeviceHigh = low.tx, high.tx
	i.Ingress.Dropped, i.Egress.Dropped = high.rxDropped, high.txDropped
	return i
}
