// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"github.com/orb8/orb8/internal/event"
)

// Gone is the name under which interfaces that are gone for good are summed, so
// that a node that makes and ends thousands a day keeps one account of them.
const Gone = "(gone)"

// Folded is the interface that stands for all that are gone.
func (t *Tap) Folded() event.Iface { return event.Iface{Netns: t.netns} }

// Fold adds the accounts of interfaces that are gone for longer than after to
// that of Folded, for each that may agrees to: it keeps accounts of its own.
func (t *Tap) Fold(after time.Duration, may func(event.Iface) bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var err error
	for index, p := range t.ports {
		if p.Problem != gone || time.Since(p.gone) < after || !may(p.Iface) {
			continue
		}
		if t.gone == nil {
			t.gone = &port{Interface: event.Interface{Iface: t.Folded(), Name: Gone, Problem: gone, Left: true}}
		}
		t.gone.low.add(p.low.now)
		t.gone.high.add(p.high.now)
		delete(t.ports, index)
		t.totals.move(p.Iface, t.Folded())
		err = errors.Join(err, t.foldRest(p.Iface))
	}
	return err
}

// foldRest takes an interface's rest counters out of the kernel.
func (t *Tap) foldRest(i event.Iface) error {
	var keys []kernelRestKey
	var key kernelRestKey
	var perCPU []kernelRestValue
	it := t.rest.Iterate()
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
		if err := t.rest.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("fold rest counters: %w", err)
		}
	}
	return nil
}
