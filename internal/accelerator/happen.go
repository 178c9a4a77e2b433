// SPDX-License-Identifier: Apache-2.0

package accelerator

import (
	"slices"

	"github.com/orb8/orb8/internal/event"
)

// xids are the errors that the driver told of, each with who may have to do with
// it.
func (t *Tracker) xids(r *Round) (list []event.GPUEvent) {
	for i := range r.Xids {
		x := &r.Xids[i]
		e := event.GPUEvent{Xid: x}
		if d := t.failed(x); d != nil {
			e.GPU, e.Holders = d.gpu, t.concerned(d)
		} else {
			// Nobody has heard of it.
			e.GPU = &event.GPU{UUID: x.UUID, Index: -1, NUMA: -1, Instance: x.Instance, ComputeInstance: x.ComputeInstance}
			e.Holders = []*event.Identity{t.unknown.who}
		}
		list = append(list, e)
	}
	return list
}

// failed is the device that an Xid is of: the instance, where it names one. One
// that has fallen off the bus may be among the devices no more, and nobody has it.
func (t *Tracker) failed(x *event.GPUXid) *device {
	d := t.byUUID[x.UUID]
	if c := t.counters[x.UUID]; d == nil && c != nil {
		return &device{gpu: c.gpu}
	}
	if d == nil || x.Instance == event.NoInstance {
		return d
	}
	if in := t.within(d, &event.GPUProcess{Instance: x.Instance, ComputeInstance: x.ComputeInstance}); in != nil {
		return in
	}
	return d
}

// concerned is who has the device, or one of its instances; what is unattributed
// where nobody does.
func (t *Tracker) concerned(of *device) (list []*event.Identity) {
	for i := range t.devices {
		d := &t.devices[i]
		if d != of && d.parent != of {
			continue
		}
		for j := range d.users {
			if h := d.users[j].holder; h != t.unknown && !slices.Contains(list, h.who) {
				list = append(list, h.who)
			}
		}
	}
	if len(list) == 0 {
		list = append(list, t.unknown.who)
	}
	return list
}

// throttles tells which reasons have begun to throttle a GPU, and which have
// ended. A clock that was set, or that has nothing to do, is none.
func (t *Tracker) throttles() (list []event.GPUEvent) {
	for i := range t.devices {
		d := &t.devices[i]
		c := t.counters[d.gpu.UUID]
		if c == nil || d.sample.State != event.GPUOK || !d.sample.ThrottleKnown {
			continue
		}
		now := d.sample.Throttle &^ (event.ThrottleIdle | event.ThrottleApplicationClocks)
		first := len(list)
		list = c.throttle(list, now, t.at)
		for j := first; j < len(list); j++ {
			list[j].Holders = t.concerned(d)
		}
	}
	for uuid, c := range t.counters {
		if t.byUUID[uuid] != nil {
			continue
		}
		first := len(list)
		list = c.throttle(list, 0, t.at)
		for j := first; j < len(list); j++ {
			list[j].Holders = []*event.Identity{t.unknown.who}
		}
	}
	return list
}

// throttle tells what is other than it was: what began is one event, and what
// ended one for each time at which it began.
func (c *counter) throttle(list []event.GPUEvent, now event.GPUThrottle, at int64) []event.GPUEvent {
	began, first := event.GPUEvent{GPU: c.gpu}, len(list)
	for bit := range c.throttled {
		since, is := &c.throttled[bit], now&(1<<bit) != 0
		switch {
		case is && *since == 0:
			*since = at
			began.Throttle |= 1 << bit
		case !is && *since != 0:
			lasted := at - *since
			*since = 0
			i := slices.IndexFunc(list[first:], func(o event.GPUEvent) bool { return o.Lasted == lasted })
			if i < 0 {
				i = len(list) - first
				list = append(list, event.GPUEvent{GPU: c.gpu, Ended: true, Lasted: lasted})
			}
			list[first+i].Throttle |= 1 << bit
		}
	}
	if began.Throttle != 0 {
		list = append(list, began)
	}
	return list
}
