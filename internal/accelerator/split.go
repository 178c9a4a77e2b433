// SPDX-License-Identifier: Apache-2.0

package accelerator

import (
	"github.com/orb8/orb8/internal/event"
)

// share is a device's readings, or a part of them. Memory is the last: it is
// split by what the processes have, and not by what they do.
type share [readings]event.Reading

const (
	ofBusy = iota
	ofSM
	ofOccupancy
	ofTensor
	ofDRAM
	ofPower
	ofMemory

	readings = iota
)

// tiny is a rest that is none but of the rounding.
const tiny = 1e-9

func readingsOf(s *event.GPUSample) share {
	return share{s.Busy, s.SM, s.Occupancy, s.Tensor, s.DRAM, s.Power, s.MemoryUsed}
}

// rowOf are the readings of a row, in the same order.
func rowOf(s *event.GPUShare) [readings]*event.Reading {
	return [...]*event.Reading{&s.Busy, &s.SM, &s.Occupancy, &s.Tensor, &s.DRAM, &s.Power, &s.Memory}
}

func reading(v float64) event.Reading { return event.Reading{Value: v, Known: true} }

// split parts the device among who has it; what is left is unattributed.
func (d *device) split(unknown *holder) {
	d.parted = d.parts()
	d.splitMemory()
	for i := range d.users {
		u := &d.users[i]
		u.share.Mode = d.mode
		for j, to := range rowOf(&u.share) {
			switch r := d.whole[j]; {
			case j == ofMemory || !r.Known:
			case d.parted:
				*to = reading(r.Value * u.part)
			case r.Value == 0:
				*to = reading(0)
			}
		}
		some := false
		for _, r := range rowOf(&u.share) {
			some = some || r.Known
		}
		u.share.Estimated = some && u.share.Estimated
		u.share.PowerEstimated = d.gpu.Parent != "" && u.share.Power.Known
	}
	d.remain(unknown)
}

// parts says what part of the device's work each user's is, and whether that is
// known. Who is alone on it has all; several are told apart by what the driver says
// of each of their processes.
func (d *device) parts() bool {
	if len(d.users) == 1 {
		u := &d.users[0]
		u.part = 1
		// The kubelet has given it to nobody else; whether somebody else computes on it
		// nobody tells.
		u.share.Estimated = !d.sample.ProcessesKnown
		return true
	}
	var last *user
	working, measured, sum := 0, true, 0.0
	for i := range d.users {
		if u := &d.users[i]; len(u.share.PIDs) > 0 {
			last = u
			working++
			measured = measured && u.measured == len(u.share.PIDs)
			sum += u.busy
		}
	}
	switch {
	case !d.sample.ProcessesKnown && working < len(d.users):
		return false
	case working == 1:
		last.part = 1
		return true
	case working == 0:
		return true
	case !measured || sum <= 0:
		return false
	}
	for i := range d.users {
		u := &d.users[i]
		u.part = u.busy / sum
		u.share.Estimated = len(u.share.PIDs) > 0
	}
	return true
}

// splitMemory gives each user the memory of its processes. Samples are not of one
// instant: if it is more than the device's, all have less.
func (d *device) splitMemory() {
	used := d.whole[ofMemory]
	sum := 0.0
	for i := range d.users {
		u := &d.users[i]
		m := &u.share.Memory
		switch {
		case u.sized < len(u.share.PIDs) || len(u.share.PIDs) == 0 && !d.sample.ProcessesKnown:
			if len(d.users) == 1 && used.Known {
				*m = used
			}
			u.share.Estimated = u.share.Estimated || m.Known
		case len(u.share.PIDs) == 0:
			*m = reading(0)
		}
		sum += m.Value
	}
	if !used.Known || sum <= used.Value {
		return
	}
	for i := range d.users {
		s := &d.users[i].share
		s.Memory.Value *= used.Value / sum
		s.Estimated = s.Estimated || s.Memory.Known
	}
}

// remain makes what nobody has unattributed. Of a device that nobody has this is
// all that it says, which may be nothing. Where something is left, what is wholly
// somebody's is 0, and not unknown.
func (d *device) remain(unknown *holder) {
	var rest share
	nobody := len(d.users) == 0
	some := nobody && !d.divided
	for i, r := range d.whole {
		left := r.Value
		for j := range d.users {
			left -= rowOf(&d.users[j].share)[i].Value
		}
		switch {
		case !r.Known:
		case left > max(tiny, r.Value*1e-12) || nobody && !d.divided:
			rest[i], some = reading(left), true
		default:
			rest[i] = reading(0)
		}
	}
	if !some {
		return
	}
	u := d.use(unknown, "")
	u.share.Mode = d.mode
	for i, to := range rowOf(&u.share) {
		to.Value += rest[i].Value
		to.Known = to.Known || rest[i].Known
	}
	estimated := d.gpu.Parent != "" && rest[ofPower].Known && (nobody || rest[ofPower].Value > 0)
	u.share.PowerEstimated = u.share.PowerEstimated || estimated
}

// divide splits what a GPU says of its instances' work. Their power is by how
// many of their SMs worked, which an instance has as many of as slices; without
// that, and of what they have not, it stays the GPU's.
func (t *Tracker) divide() {
	for i := range t.devices {
		d := &t.devices[i]
		d.whole = readingsOf(d.sample)
		d.part, d.told = 1, true
	}
	for i := range t.devices {
		if d := &t.devices[i]; d.divided {
			t.divideGPU(d)
		}
	}
}

func (t *Tracker) divideGPU(gpu *device) {
	sum, told := 0.0, true
	for i := range t.devices {
		d := &t.devices[i]
		if d.parent != gpu {
			continue
		}
		for j := range d.whole {
			if d.whole[j].Known && j < ofPower {
				gpu.whole[j] = event.Reading{}
			}
		}
		gpu.whole[ofMemory].Value -= t.memoryOf(d)
		d.part = d.whole[ofSM].Value * slicesOf(d.gpu.Profile)
		told = told && (d.whole[ofSM].Known || d.sample.State != event.GPUOK)
		sum += d.part
	}
	gpu.whole[ofMemory].Value = max(gpu.whole[ofMemory].Value, 0)
	for i := range t.devices {
		d := &t.devices[i]
		if d.parent != gpu {
			continue
		}
		if d.told = told; !told || sum <= 0 {
			d.part = 0
			continue
		}
		d.part /= sum
		if p := gpu.sample.Power; p.Known {
			d.whole[ofPower] = reading(p.Value * d.part)
			gpu.whole[ofPower].Value -= d.whole[ofPower].Value
		}
	}
	if told && sum > 0 {
		gpu.part = 0
		gpu.whole[ofPower].Value = 0
	}
}

// memoryOf is an instance's own memory; those of one GPU instance have theirs
// together, and it is the first one's.
func (t *Tracker) memoryOf(d *device) float64 {
	for i := range t.devices {
		o := &t.devices[i]
		if o == d {
			break
		}
		if o.parent == d.parent && o.gpu.Instance == d.gpu.Instance && d.gpu.Instance != event.NoInstance {
			return 0
		}
	}
	return d.whole[ofMemory].Value
}

// slicesOf a GPU that an instance of a profile has: 3 of 3g.40gb, 1 of
// 1c.3g.40gb.
func slicesOf(profile string) float64 {
	n := 0.0
	for _, c := range []byte(profile) {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + float64(c-'0')
	}
	return max(n, 1)
}
