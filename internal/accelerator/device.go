// SPDX-License-Identifier: Apache-2.0

package accelerator

import (
	"slices"

	"github.com/orb8/orb8/internal/event"
)

// device is a GPU, or an instance of one, in the round that is made.
type device struct {
	gpu    *event.GPU
	sample *event.GPUSample
	// Of an instance: its GPU. Of a GPU: it has instances.
	parent  *device
	divided bool
	// The kubelet has given replicas of it; somebody is a client of an MPS server.
	replica, mps bool
	mode         event.GPUMode
	users        []user
	// What is split. Of an instance power is a part of its GPU's, and part that part;
	// a GPU that has instances is left with what they do not tell of.
	whole share
	part  float64
	// That part is known, and those of its users are.
	told, parted bool
	// Who has it alone, or nil.
	owner *holder
}

// user is a holder's, or one of its containers', part of a device.
type user struct {
	holder *holder
	share  event.GPUShare
	// Of its processes, those of which the driver told how busy they were, and how
	// busy; and those of which it told the memory.
	measured, sized int
	busy            float64
	// What of the device's work is its, where that is known.
	part float64
}

// begin has the devices of the round, and nobody on them.
func (t *Tracker) begin(r *Round) {
	t.at, t.lost = r.At, lost{}
	t.devices = slices.Grow(t.devices[:0], len(r.GPUs))[:min(len(r.GPUs), len(r.Samples))]
	clear(t.byUUID)
	clear(t.samples)
	for i := range t.devices {
		d := &t.devices[i]
		*d = device{gpu: &r.GPUs[i], sample: &r.Samples[i], users: d.users[:0]}
		t.byUUID[d.gpu.UUID] = d
		t.samples[d.gpu.UUID] = d.sample
	}
	for i := range t.devices {
		if d := &t.devices[i]; d.gpu.Parent != "" {
			if d.parent = t.byUUID[d.gpu.Parent]; d.parent != nil {
				d.parent.divided = true
			}
		}
	}
}

// use is the holder's part of the device; container is "" where it is not known
// which, and then the one that it has by then, if any.
func (d *device) use(h *holder, container string) *user {
	for i := range d.users {
		if u := &d.users[i]; u.holder == h && (container == "" || u.share.Container == container) {
			return u
		}
	}
	// What its slices were belongs to a view by now.
	d.users = append(d.users, user{holder: h, share: event.GPUShare{GPU: d.gpu, Container: container}})
	return &d.users[len(d.users)-1]
}

// give puts what the kubelet has given on the devices.
func (t *Tracker) give(held []Held) {
	for i := range held {
		g := &held[i]
		d, replica, ours := t.resolve(g)
		if !ours || len(t.devices) == 0 {
			continue
		}
		if d == nil {
			t.lost.devices++
			continue
		}
		h := t.whose(g.Who)
		if h == nil {
			h = t.unknown
		}
		d.replica = d.replica || replica
		d.use(h, g.Container).share.Allocated = true
	}
}

// place puts the processes of the samples on the devices.
func (t *Tracker) place(process func(uint32) (*event.Identity, string)) {
	for i := range t.devices {
		d := &t.devices[i]
		for j := range d.sample.Processes {
			p := &d.sample.Processes[j]
			on := d
			if d.divided && p.Instance != event.NoInstance {
				if on = t.within(d, p); on == nil {
					on = d
				} else if on.lists(p.PID) {
					continue
				}
			}
			h, container := t.unknown, ""
			if process != nil {
				who, c := process(p.PID)
				if known := t.whose(who); known != nil {
					h, container = known, c
				}
			}
			on.use(h, container).add(p)
			on.mps = on.mps || p.Kind&event.GPUShared != 0
		}
	}
}

// within is the instance of a GPU that a process of the GPU's own list is on.
func (t *Tracker) within(of *device, p *event.GPUProcess) *device {
	for i := range t.devices {
		if d := &t.devices[i]; d.parent == of && d.gpu.Instance == p.Instance &&
			(d.gpu.ComputeInstance == p.ComputeInstance || p.ComputeInstance == event.NoInstance) {
			return d
		}
	}
	return nil
}

// lists tells whether the device itself tells of a process.
func (d *device) lists(pid uint32) bool {
	return slices.ContainsFunc(d.sample.Processes, func(p event.GPUProcess) bool { return p.PID == pid })
}

func (u *user) add(p *event.GPUProcess) {
	u.share.PIDs = append(u.share.PIDs, p.PID)
	if p.Busy.Known {
		u.measured++
		u.busy += p.Busy.Value
	}
	if p.Memory.Known {
		u.sized++
		u.share.Memory.Known = true
		u.share.Memory.Value += p.Memory.Value
	}
}

// settle says how the device is given to who has it.
func (d *device) settle(unknown *holder) {
	var first *holder
	several := false
	for i := range d.users {
		u := &d.users[i]
		several = several || first != nil && u.holder != first
		first = u.holder
	}
	if !several && first != unknown {
		d.owner = first
	}
	switch {
	case len(d.users) == 0 || !several && first == unknown:
	case d.gpu.Parent != "":
		d.mode = event.GPUMIG
	case d.mps:
		d.mode = event.GPUMPS
	case several || d.replica:
		d.mode = event.GPUTimeSliced
	default:
		d.mode = event.GPUExclusive
	}
}
