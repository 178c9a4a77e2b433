// SPDX-License-Identifier: Apache-2.0

package flow

import "github.com/orb8/orb8/internal/event"

// baseline turns readings of a device's counters into what it counted while
// the tap was on it.
type baseline struct {
	from  deviceCounters
	prior deviceCounters // earlier times on the same interface
	now   deviceCounters // since attaching, prior included
}

func (b *baseline) start(reading deviceCounters) {
	b.from, b.prior = reading, b.now
}

func (b *baseline) read(reading deviceCounters) {
	b.now = since(reading, b.from)
	b.now.add(b.prior)
}

// end reads for the last time. A device that is being taken apart may have lost
// its counters by then, as a veth whose other end is gone: those keep what was
// read before, and whole is false.
func (b *baseline) end(reading deviceCounters) (whole bool) {
	before := b.now
	b.read(reading)
	whole = reading.rx.Packets > 0 && reading.tx.Packets > 0
	for _, side := range []struct{ now, before *event.Counter }{{&b.now.rx, &before.rx}, {&b.now.tx, &before.tx}} {
		if side.now.Packets < side.before.Packets || side.now.Bytes < side.before.Bytes {
			*side.now = *side.before
			whole = false
		}
	}
	b.now.rxDropped, b.now.txDropped = max(b.now.rxDropped, before.rxDropped), max(b.now.txDropped, before.txDropped)
	return whole
}

// gain adds what is known only now of earlier times.
func (b *baseline) gain(more deviceCounters) {
	b.prior.add(more)
	b.now.add(more)
}

// add takes over what another interface counted.
func (b *baseline) add(o deviceCounters) { b.now.add(o) }

// since is what was counted between two readings; a device that was reset
// starts again at zero.
func since(now, then deviceCounters) deviceCounters {
	count := func(now, then event.Counter) event.Counter {
		if now.Bytes < then.Bytes || now.Packets < then.Packets {
			return now
		}
		return event.Counter{Bytes: now.Bytes - then.Bytes, Packets: now.Packets - then.Packets}
	}
	dropped := func(now, then uint64) uint64 {
		if now < then {
			return now
		}
		return now - then
	}
	return deviceCounters{
		rx: count(now.rx, then.rx), tx: count(now.tx, then.tx),
		rxDropped: dropped(now.rxDropped, then.rxDropped), txDropped: dropped(now.txDropped, then.txDropped),
	}
}
