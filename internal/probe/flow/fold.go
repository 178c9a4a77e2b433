// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"github.com/orb8/orb8/internal/event"
)

// Gone is the name under which interfaces that are gone for good are summed, so
// that a node that makes and ends thousands a day keeps one account of them.
const Gone = "(gone)"

// Folded is the interface that stands for all that are gone.
func (t *Tap) Folded() event.Iface { return event.Iface{Netns: t.own.inode} }

// Fold adds the accounts of interfaces that are gone for longer than after to
// that of Folded, for each that may agrees to: it keeps accounts of its own.
func (t *Tap) Fold(after time.Duration, may func(event.Iface) bool) error {
	var err error
	for _, p := range t.takeGone(after, may) {
		t.totals.move(p.Iface, t.Folded())
		err = errors.Join(err, t.foldRest(p.Iface))
		if p.slot {
			err = errors.Join(err, t.foldSlot(p.Iface, t.Folded()))
		}
	}
	return err
}

// takeGone takes the interfaces that may be folded out of the list.
func (t *Tap) takeGone(after time.Duration, may func(event.Iface) bool) (taken []*port) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone == nil {
		t.gone = &port{Interface: event.Interface{Iface: t.Folded(), Name: Gone, Problem: gone, Left: true}}
	}
	take := func(p *port) bool {
		// What it counted last is read with the first swap after its end.
		if p.Problem != gone || time.Since(p.gone) < after || !p.gone.Before(t.swapped) || p.last != nil || !may(p.Iface) {
			return false
		}
		t.gone.low.add(p.low.now)
		t.gone.high.add(p.high.now)
		t.gone.Unread = t.gone.Unread || p.Unread || p.unread
		taken = append(taken, p)
		return true
	}
	for _, s := range t.spaces {
		for index, p := range s.ports {
			if take(p) {
				delete(s.ports, index)
			}
		}
	}
	t.left = slices.DeleteFunc(t.left, take)
	if len(taken) == 0 && t.gone.low == (baseline{}) && t.gone.high == (baseline{}) {
		t.gone = nil
	}
	return taken
}

// foldRest takes an interface's rest counters out of the kernel.
func (t *Tap) foldRest(i event.Iface) error {
	var keys []kernelRestKey
	var key kernelRestKey
	var perCPU []kernelRestValue
	it := t.kernel.rest.Iterate()
	for it.Next(&key, &perCPU) {
		if key.Netns == i.Netns && key.Ifindex == i.Index {
			t.folded.add(&key, t.Folded(), perCPU)
			keys = append(keys, key)
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("fold rest counters: %w", err)
	}
	for _, k := range keys {
		if err := t.kernel.rest.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("fold rest counters: %w", err)
		}
	}
	return nil
}
