// SPDX-License-Identifier: Apache-2.0

package accelerator

import (
	"time"

	"github.com/orb8/orb8/internal/event"
)

// keep is how long it is remembered who was on a device that does not answer.
const keep = 10 * time.Minute

// kept is who had processes on a device when the driver last told of them.
type kept struct {
	at        int64
	mps       bool
	processes []keptProcess
}

type keptProcess struct {
	pid uint32
	// Whose it was: a number may be another's by now.
	key holderKey
}

// remember keeps who is on the devices that answer, and puts those who were on the
// others there again, without readings: whom it hit is what one wants to know.
func (t *Tracker) remember(process func(uint32) (*event.Identity, string)) {
	for uuid, k := range t.kept {
		if age := t.at - k.at; age < 0 || age > int64(keep) {
			delete(t.kept, uuid)
		}
	}
	for i := range t.devices {
		d := &t.devices[i]
		switch {
		case down(d.sample), d.parent != nil && down(d.parent.sample):
			if k := t.kept[d.gpu.UUID]; k != nil && process != nil {
				t.recall(d, k, process)
			}
		case d.sample.ProcessesKnown:
			t.keep(d)
		}
	}
}

func (t *Tracker) keep(d *device) {
	k := t.kept[d.gpu.UUID]
	if k == nil {
		k = &kept{}
		t.kept[d.gpu.UUID] = k
	}
	k.at, k.mps, k.processes = t.at, d.mps, k.processes[:0]
	for i := range d.users {
		u := &d.users[i]
		if u.holder == t.unknown {
			continue
		}
		for _, pid := range u.share.PIDs {
			k.processes = append(k.processes, keptProcess{pid, u.holder.key})
		}
	}
}

// recall leaves out who has ended since.
func (t *Tracker) recall(d *device, k *kept, process func(uint32) (*event.Identity, string)) {
	for _, p := range k.processes {
		who, container := process(p.pid)
		if who == nil || keyOf(who) != p.key {
			continue
		}
		if h := t.whose(who); h != nil && !d.lists(p.pid) {
			u := d.use(h, container)
			u.share.PIDs = append(u.share.PIDs, p.pid)
			d.mps = d.mps || k.mps
		}
	}
}

// idled tells whether the holder had no process on the device when the driver last
// told: one that has just come back may not tell at once.
func (t *Tracker) idled(d *device, h *holder) bool {
	k := t.kept[d.gpu.UUID]
	if k == nil {
		return false
	}
	for _, p := range k.processes {
		if p.key == h.key {
			return false
		}
	}
	return true
}
