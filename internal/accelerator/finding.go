// SPDX-License-Identifier: Apache-2.0

package accelerator

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/orb8/orb8/internal/event"
)

// Thresholds of what is a finding; what is zero has its default. Ratios.
type Thresholds struct {
	// Below it a device is idle: 0.05.
	Idle float64
	// From it on a kernel runs all the time: 0.8. Of its SMs many may have nothing: a
	// collective that waits spins on few.
	Busy float64
	// Below both it computes nothing: 0.05 and 0.1. Who spins reads flags, which are in
	// caches or in the host's memory; the DRAM of one that works is not below a tenth.
	Tensor, DRAM float64
	// The part of the limit that power is below. Where tensor and DRAM are known it tells
	// spinning from computing without tensor cores: 0.6. Else it has to tell alone, with
	// the time that the memory is used, below DRAM: 0.4.
	Power, PowerAlone float64
}

func (t Thresholds) filled() Thresholds {
	for _, f := range []struct {
		is *float64
		or float64
	}{{&t.Idle, 0.05}, {&t.Busy, 0.8}, {&t.Tensor, 0.05}, {&t.DRAM, 0.1}, {&t.Power, 0.6}, {&t.PowerAlone, 0.4}} {
		if *f.is <= 0 {
			*f.is = f.or
		}
	}
	return t
}

const (
	// early is what rounds may come before their second.
	early = second / 2
	// together is how far apart devices may begin, and be found at once.
	together = 2 * second
	// Two samples without the condition so near to each other end it, one does not.
	apart = 10 * second
	// steady is how long another cause lasts before it is told.
	steady = 5 * second
)

// finder tells what is to be said of one holder's devices.
type finder struct {
	n       int64
	limits  Thresholds
	devices []watched
	kinds   [2]kind
	// What the kernel of the node moves for others; nil where that is not known.
	kernel *network
}

// kind is a finding that may go on.
type kind struct {
	// Nil while there is none.
	told *event.GPUFinding
	why  cause
	// Another one than was told, and since when.
	other      causeKey
	otherSince int64
}

func kindOf(i int) event.GPUFindingKind { return event.GPUFindingKind(i + 1) }

// watched is a device of the holder's.
type watched struct {
	share      event.GPUShare // of all its containers together
	at         int64
	unused     bool
	conditions [2]condition
}

// condition is what lasts, or not.
type condition struct {
	// When it began, 0: it has not; the last sample; the last one without it.
	since, last, missed int64
	// Of the one that was: when that was over.
	ended int64
}

// at takes in a sample.
func (c *condition) at(at int64, holds, known bool) {
	// A clock that was set back is in the past of what lasts.
	if c.since != 0 && (at-c.last > longest || at < c.last) {
		c.since, c.ended = 0, c.last
	}
	switch {
	case !known:
		return
	case holds && c.since == 0:
		c.since, c.missed = at, 0
	case !holds && c.since != 0 && c.missed != 0 && at-c.missed <= apart:
		c.since, c.ended = 0, c.missed
	case !holds:
		c.missed = at
	}
	c.last = at
}

// stop is of a device that does not answer: what lasted is over.
func (c *condition) stop() {
	if c.since != 0 {
		c.since, c.ended = 0, c.last
	}
}

func newFinder(c *Config) *finder {
	return &finder{n: int64(c.Idle), limits: c.Thresholds.filled()}
}

// look is asked once a round; of who has nothing any more, h has no shares: what
// goes on has ended then.
func (f *finder) look(h *event.GPUHolder, n *network, samples map[string]*event.GPUSample) (changed []*event.GPUFinding) {
	f.watch(h, samples)
	if n != nil && h.RDMA.Known {
		n.rdma[0].Add(h.RDMA.Moved)
	}
	for i := range f.kinds {
		k := &f.kinds[i]
		gpus, since, has := f.lasting(i, h.At)
		switch {
		case len(gpus) > 0:
			if now := f.tell(k, h, n, &event.GPUFinding{Kind: kindOf(i), Since: since, GPUs: gpus}); now != nil {
				changed = append(changed, now)
			}
			h.Findings = append(h.Findings, k.told)
			if has {
				h.State = max(h.State, [...]event.GPUHolderState{event.HolderIdle, event.HolderBusyWaiting}[i])
			}
		case k.told != nil:
			over := *k.told
			over.Ended = max(f.ended(i, over.GPUs), over.Since)
			over.Text = k.why.text(&over, over.Ended)
			changed = append(changed, &over)
			*k = kind{}
		}
	}
	f.devices = slices.DeleteFunc(f.devices, func(w watched) bool { return w.at != h.At })
	return changed
}

// watch takes in the samples of the holder's devices.
func (f *finder) watch(h *event.GPUHolder, samples map[string]*event.GPUSample) {
	for i := range h.Shares {
		s := &h.Shares[i]
		j := slices.IndexFunc(f.devices, func(w watched) bool { return w.share.GPU.UUID == s.GPU.UUID })
		if j < 0 {
			j = len(f.devices)
			f.devices = append(f.devices, watched{})
		}
		w := &f.devices[j]
		if w.at != h.At {
			w.share, w.at = *s, h.At
			continue
		}
		w.share.Allocated = w.share.Allocated || s.Allocated
		if len(s.PIDs) > 0 {
			w.share.PIDs = s.PIDs
		}
		theirs := rowOf(s)
		for k, r := range rowOf(&w.share) {
			r.Value += theirs[k].Value
			r.Known = r.Known && theirs[k].Known
		}
	}
	for i := range f.devices {
		w := &f.devices[i]
		if w.at != h.At {
			continue
		}
		sample := samples[w.share.GPU.UUID]
		if down(sample) || down(samples[w.share.GPU.Parent]) {
			w.unused = false
			w.conditions[0].stop()
			w.conditions[1].stop()
			continue
		}
		if sample == nil || sample.State != event.GPUOK || w.share.GPU.Divided {
			sample = &event.GPUSample{}
		}
		w.unused = unused(&w.share, sample)
		spins, known := f.spins(&w.share, sample)
		w.conditions[1].at(h.At, spins, known)
		idle, known := f.idle(&w.share, sample)
		w.conditions[0].at(h.At, idle && !spins, known)
	}
}

// down tells whether the device does not answer.
func down(s *event.GPUSample) bool {
	return s != nil && (s.State == event.GPUHung || s.State == event.GPULost)
}

// unused: the kubelet has given it, and the driver says that the holder has no
// process on it. Whatever the device reads, somebody else does it.
func unused(s *event.GPUShare, of *event.GPUSample) bool {
	return s.Allocated && len(s.PIDs) == 0 && of.ProcessesKnown
}

// used is how much of the time its SMs work, or else a kernel runs.
func used(s *event.GPUShare) event.Reading {
	if s.SM.Known {
		return s.SM
	}
	return s.Busy
}

func (f *finder) idle(s *event.GPUShare, of *event.GPUSample) (idle, known bool) {
	if of.State != event.GPUOK {
		return false, false
	}
	if unused(s, of) {
		return true, true
	}
	u := used(s)
	return u.Value < f.limits.Idle, u.Known
}

// spins tells whether the device is busy with nothing, and this holder has its part
// in that. The device is asked, and not the holder's share: where several have it, it
// is all of them who compute nothing, or nobody knows who.
func (f *finder) spins(s *event.GPUShare, of *event.GPUSample) (spins, known bool) {
	l := &f.limits
	if unused(s, of) {
		return false, true
	}
	if of.State != event.GPUOK || !of.Busy.Known && !of.SM.Known || !s.Busy.Known && !s.SM.Known {
		return false, false
	}
	power := of.PowerLimit.Known && of.PowerLimit.Value > 0 && of.Power.Known
	part := 1.0
	if power {
		part = of.Power.Value / of.PowerLimit.Value
	}
	var low bool
	switch {
	case of.Tensor.Known && of.DRAM.Known:
		low = of.Tensor.Value < l.Tensor && of.DRAM.Value < l.DRAM && (!power || part < l.Power)
	case !power || s.GPU.Parent != "": // an instance has the power of all
		return false, false
	default:
		low = part < l.PowerAlone && (!of.MemoryBusy.Known || of.MemoryBusy.Value < l.DRAM)
	}
	// A kernel runs all the time, on however few SMs, and a part of that is its.
	busy, its := of.Busy, s.Busy
	if !busy.Known || !its.Known {
		its = s.SM
	}
	switch {
	case busy.Known && busy.Value < l.Busy, its.Value < l.Idle:
		return false, true
	}
	return low, true
}

// lasting are the devices on which a condition has lasted; has: one of them is not
// unused. Those that began a little later are found with the first.
func (f *finder) lasting(i int, at int64) (gpus []*event.GPU, since int64, has bool) {
	began := int64(0)
	for j := range f.devices {
		if c := &f.devices[j].conditions[i]; c.since != 0 && f.devices[j].at == at && (began == 0 || c.since < began) {
			began = c.since
		}
	}
	if began == 0 || at-began < f.n-early {
		return nil, 0, false
	}
	for j := range f.devices {
		w := &f.devices[j]
		c := &w.conditions[i]
		if c.since == 0 || w.at != at || at-c.since < f.n-early-together {
			continue
		}
		gpus = append(gpus, w.share.GPU)
		has = has || !w.unused
	}
	return gpus, began, has
}

// ended is when the condition was last seen on the devices of a finding.
func (f *finder) ended(i int, of []*event.GPU) (last int64) {
	for j := range f.devices {
		w := &f.devices[j]
		if !slices.ContainsFunc(of, func(g *event.GPU) bool { return g.UUID == w.share.GPU.UUID }) {
			continue
		}
		c := &w.conditions[i]
		if c.since != 0 {
			last = max(last, c.last) // it is not the holder's any more
		}
		last = max(last, c.ended)
	}
	return last
}

// tell makes the finding of this second, and gives it back where there is more to
// tell than before. While the network looks otherwise for a moment, what was told
// stays.
func (f *finder) tell(k *kind, h *event.GPUHolder, n *network, now *event.GPUFinding) *event.GPUFinding {
	why := f.why(h, n, now.Since, &k.why.key.peer)
	fresh := k.told == nil
	switch {
	case fresh || why.key == k.why.key:
		k.otherSince = 0
	case k.otherSince == 0 || why.key != k.other:
		k.other, k.otherSince = why.key, h.At
		why = k.why
	case h.At-k.otherSince < steady-early:
		why = k.why
	default:
		fresh, k.otherSince = true, 0
	}
	if !fresh {
		now.Since = min(now.Since, k.told.Since)
	}
	k.why = why
	why.fill(now)
	now.Text = why.text(now, h.At)
	k.told = now
	if fresh {
		return now
	}
	return nil
}

// text says it in one sentence.
func (c *cause) text(f *event.GPUFinding, at int64) string {
	var b strings.Builder
	b.WriteString(strconv.Itoa(len(f.GPUs)))
	if len(f.GPUs) == 1 {
		b.WriteString(" GPU ")
	} else {
		b.WriteString(" GPUs ")
	}
	b.WriteString(f.Kind.String() + " for " + lasted(at-f.Since) + ": " + c.clause)
	return b.String()
}

func lasted(ns int64) string {
	return time.Duration(ns).Round(time.Second).String()
}
