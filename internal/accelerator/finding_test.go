// SPDX-License-Identifier: Apache-2.0

package accelerator

import (
	"strings"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/event"
)

// watcher has one holder, time and devices of its own.
type watcher struct {
	at      int64
	n       *network
	f       *finder
	gpus    []event.GPU
	shares  []event.GPUShare
	samples map[string]*event.GPUSample
	rdma    event.RDMAUse
	// Its network is not known.
	deaf bool
	row  event.GPUHolder
	told []*event.GPUFinding
}

// newWatcher has a pod with GPUs that work.
func newWatcher(gpus int) *watcher {
	c := Config{}.filled()
	w := &watcher{at: 1_000_000 * second, n: newNetwork(&c), f: newFinder(&c), samples: map[string]*event.GPUSample{}}
	w.gpus = make([]event.GPU, gpus)
	for i := range w.gpus {
		uuid := "GPU-" + string(rune('a'+i))
		w.gpus[i] = event.GPU{UUID: uuid, Index: i}
		w.shares = append(w.shares, event.GPUShare{GPU: &w.gpus[i], Mode: event.GPUExclusive, Allocated: true, PIDs: []uint32{uint32(i + 1)}})
		w.samples[uuid] = &event.GPUSample{UUID: uuid, State: event.GPUOK, ProcessesKnown: true, PowerLimit: reading(700)}
	}
	w.set(works)
	return w
}

func works(s *event.GPUSample) {
	s.Busy, s.SM, s.Tensor, s.DRAM, s.Power, s.MemoryBusy = reading(1), reading(0.9), reading(0.4), reading(0.5), reading(600), reading(0.5)
}

func idles(s *event.GPUSample) {
	s.Busy, s.SM, s.Tensor, s.DRAM, s.Power, s.MemoryBusy = reading(0), reading(0), reading(0), reading(0), reading(115), reading(0)
}

// spin is a collective that waits: few SMs, no tensor cores, no memory.
func spin(s *event.GPUSample) {
	s.Busy, s.SM, s.Tensor, s.DRAM, s.Power, s.MemoryBusy = reading(1), reading(0.18), reading(0), reading(0.001), reading(190), reading(0)
}

func withoutGPM(set func(*event.GPUSample)) func(*event.GPUSample) {
	return func(s *event.GPUSample) {
		set(s)
		s.SM, s.Tensor, s.DRAM = event.Reading{}, event.Reading{}, event.Reading{}
	}
}

// set has all devices as they are said to be, each the holder's alone.
func (w *watcher) set(as func(*event.GPUSample)) {
	for i := range w.shares {
		w.only(i, as)
	}
}

func (w *watcher) only(i int, as func(*event.GPUSample)) {
	s := &w.shares[i]
	sample := w.samples[s.GPU.UUID]
	as(sample)
	s.Busy, s.SM, s.Tensor, s.DRAM, s.Power = sample.Busy, sample.SM, sample.Tensor, sample.DRAM, sample.Power
}

// round is one second, at the end of which the devices are sampled.
func (w *watcher) round() []*event.GPUFinding {
	w.at += second
	w.row = event.GPUHolder{Who: me, At: w.at, NetworkKnown: !w.deaf, Shares: w.shares, State: event.HolderActive, RDMA: w.rdma}
	w.row.Network, w.row.Resent = w.n.second(w.at)
	changed := w.f.look(&w.row, w.n, w.samples)
	w.told = append(w.told, changed...)
	return changed
}

// each does something in each of so many seconds.
func (w *watcher) each(seconds int, do ...func()) {
	for range seconds {
		for _, f := range do {
			f()
		}
		w.round()
	}
}

// rounds are those until something is told, at most so many.
func (w *watcher) until(most int) int {
	for i := range most {
		if len(w.round()) > 0 {
			return i + 1
		}
	}
	return -1
}

func TestIdleIsFoundAfterNSecondsAndEnds(t *testing.T) {
	w := newWatcher(8)
	w.each(10)
	w.set(idles)
	// The first sample is of the second in which it began.
	if n := w.until(60); n < 30 || n > 32 {
		t.Fatalf("found after %d rounds", n)
	}
	f := w.told[0]
	if f.Kind != event.GPUIdle || len(f.GPUs) != 8 || f.Ended != 0 || f.Cause != event.CauseNothing ||
		f.Text != "8 GPUs idle for 30s: nothing moves on its network" || w.row.State != event.HolderIdle || len(w.row.Findings) != 1 {
		t.Errorf("%+v, %v", f, w.row.State)
	}
	w.each(100)
	if len(w.told) != 1 || len(w.row.Findings) != 1 || !strings.Contains(w.row.Findings[0].Text, "for 2m10s") || f.Text == w.row.Findings[0].Text {
		t.Errorf("%d were told, %q", len(w.told), w.row.Findings[0].Text)
	}
	began := w.at
	w.set(works)
	w.each(2)
	if len(w.told) != 2 || w.told[1].Ended != began+second || w.told[1].Since != f.Since || len(w.row.Findings) != 0 || w.row.State != event.HolderActive {
		t.Fatalf("%d were told, %+v", len(w.told), w.told[len(w.told)-1])
	}
}

func TestOneSampleBeginsAndEndsNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		// Of a second whether it is idle.
		idle  func(s int) bool
		found bool
	}{
		{"always", func(int) bool { return true }, true},
		{"one of it works", func(s int) bool { return s != 20 }, true},
		{"two apart work", func(s int) bool { return s != 8 && s != 22 }, true},
		{"two in a row work", func(s int) bool { return s != 20 && s != 21 }, false},
		{"two of ten work", func(s int) bool { return s != 15 && s != 20 }, false},
		{"every other works", func(s int) bool { return s%2 == 0 }, false},
		{"one in a while is idle", func(s int) bool { return s%10 == 0 }, false},
	} {
		w := newWatcher(1)
		for s := range 34 {
			w.set(works)
			if c.idle(s) {
				w.set(idles)
			}
			w.round()
		}
		if found := len(w.told) > 0; found != c.found {
			t.Errorf("%s: %v", c.name, found)
		}
	}
}

func TestWhatIsNotKnownIsNoFinding(t *testing.T) {
	unknown := func(s *event.GPUSample) {
		*s = event.GPUSample{UUID: s.UUID, State: event.GPUOK, ProcessesKnown: true}
	}
	hung := func(s *event.GPUSample) { unknown(s); s.State = event.GPUHung }
	for _, c := range []struct {
		name  string
		set   func(*event.GPUSample)
		alter func(*event.GPUShare)
		found event.GPUFindingKind
	}{
		{"readings", unknown, func(*event.GPUShare) {}, 0},
		{"hung", hung, func(s *event.GPUShare) { s.PIDs = nil }, 0},
		{"no process", unknown, func(s *event.GPUShare) { s.PIDs = nil }, event.GPUIdle},
		{"no process, but it works", works, func(s *event.GPUShare) { s.PIDs = nil }, event.GPUIdle},
		{"the holder's share is small", works, func(s *event.GPUShare) { s.SM, s.Estimated = reading(0.03), true }, event.GPUIdle},
		{"busy is all that is known", withoutGPM(idles), func(*event.GPUShare) {}, event.GPUIdle},
		{"no SM has more than a little", func(s *event.GPUSample) { works(s); s.SM = reading(0.04) }, func(*event.GPUShare) {}, event.GPUIdle},
		{"divided", idles, func(s *event.GPUShare) { s.GPU.Divided = true }, 0},
		{"spins", spin, func(*event.GPUShare) {}, event.GPUBusyWaiting},
		{"spins, by power alone", withoutGPM(spin), func(*event.GPUShare) {}, event.GPUBusyWaiting},
		{"spins with others", spin, func(s *event.GPUShare) { s.Busy, s.SM, s.Estimated = reading(0.5), reading(0.09), true }, event.GPUBusyWaiting},
		{"others spin", spin, func(s *event.GPUShare) { s.Busy, s.SM, s.Estimated = reading(0), reading(0), true }, event.GPUIdle},
		{"nobody knows who spins", spin, func(s *event.GPUShare) { s.Busy, s.SM = event.Reading{}, event.Reading{} }, 0},
		{"memory is used", func(s *event.GPUSample) { spin(s); s.DRAM = reading(0.3) }, func(*event.GPUShare) {}, 0},
		{"tensor cores work", func(s *event.GPUSample) { spin(s); s.Tensor = reading(0.1) }, func(*event.GPUShare) {}, 0},
		{"power is high", func(s *event.GPUSample) { spin(s); s.Power = reading(500) }, func(*event.GPUShare) {}, 0},
		{"by power alone, and it is not low", func(s *event.GPUSample) { withoutGPM(spin)(s); s.Power = reading(300) }, func(*event.GPUShare) {}, 0},
		{"by power alone, and memory is used", func(s *event.GPUSample) { withoutGPM(spin)(s); s.MemoryBusy = reading(0.3) }, func(*event.GPUShare) {}, 0},
		{"by power alone, which is not known", func(s *event.GPUSample) { withoutGPM(spin)(s); s.Power = event.Reading{} }, func(*event.GPUShare) {}, 0},
		{"an instance", func(s *event.GPUSample) { spin(s); s.Busy, s.Power = event.Reading{}, event.Reading{} }, func(s *event.GPUShare) { s.GPU.Parent = "GPU-z" }, event.GPUBusyWaiting},
		{"an instance without GPM", withoutGPM(spin), func(s *event.GPUShare) { s.GPU.Parent = "GPU-z" }, 0},
		{"a kernel on two SMs spins", func(s *event.GPUSample) { spin(s); s.SM = reading(0.015) }, func(*event.GPUShare) {}, event.GPUBusyWaiting},
		{"half busy", func(s *event.GPUSample) { spin(s); s.Busy = reading(0.5) }, func(*event.GPUShare) {}, 0},
	} {
		w := newWatcher(1)
		w.set(c.set)
		c.alter(&w.shares[0])
		w.each(40)
		var found event.GPUFindingKind
		if len(w.told) > 0 {
			found = w.told[0].Kind
		}
		if found != c.found || len(w.told) > 1 {
			t.Errorf("%s: %v, %d told", c.name, found, len(w.told))
		}
	}
}

func TestUnusedStaysAllocated(t *testing.T) {
	w := newWatcher(1)
	w.set(idles)
	w.shares[0].PIDs = nil
	w.each(35)
	if len(w.row.Findings) != 1 || w.row.State != event.HolderActive { // what it was before
		t.Errorf("%d findings, %v", len(w.row.Findings), w.row.State)
	}
}

// Who works there is not this holder, and neither is who spins.
func TestUnusedIsIdleWhateverTheDeviceReads(t *testing.T) {
	for _, as := range []func(*event.GPUSample){works, spin, withoutGPM(works), func(s *event.GPUSample) { s.SM = reading(0.05) }} {
		w := newWatcher(1)
		w.set(as)
		w.shares[0].PIDs = nil
		w.each(40)
		if len(w.told) != 1 || w.told[0].Kind != event.GPUIdle || w.row.State != event.HolderActive { // what it was before
			t.Errorf("%+v, %v", w.told, w.row.State)
		}
	}
}

// An instance does not answer when its GPU does not.
func TestWhatDoesNotAnswerIsNotIdle(t *testing.T) {
	for _, state := range []event.GPUState{event.GPUHung, event.GPULost} {
		w := newWatcher(2)
		w.gpus[1].Parent = "GPU-p"
		w.samples["GPU-p"] = &event.GPUSample{State: event.GPUOK}
		w.set(idles)
		w.each(40)
		last := w.at
		w.samples["GPU-a"].State, w.samples["GPU-p"].State = state, state
		if w.each(1); len(w.told) != 2 || w.told[1].Ended != last || len(w.row.Findings) != 0 || w.row.State != event.HolderActive {
			t.Errorf("%d told, %+v", len(w.told), w.row)
		}
	}
}

func TestGapsBeginAnew(t *testing.T) {
	w := newWatcher(1)
	w.set(idles)
	w.each(25)
	w.at += 4 * second // rounds are late
	if n := w.until(60); n < 0 || n > 3 {
		t.Errorf("found after %d rounds more", n)
	}
	w = newWatcher(1)
	w.set(idles)
	w.each(25)
	w.at += 10 * second
	if n := w.until(60); n < 30 || n > 32 {
		t.Errorf("found after %d rounds more", n)
	}
	last := w.at
	w.samples["GPU-a"].State = event.GPUHung
	if w.each(1); len(w.told) != 2 || w.told[1].Ended != last {
		t.Errorf("%d told, %+v", len(w.told), w.told[len(w.told)-1])
	}
	w.samples["GPU-a"].State = event.GPUOK
	if n := w.until(60); n < 30 || n > 32 {
		t.Errorf("found again after %d rounds", n)
	}
}

func TestClockThatIsSetBackBeginsAnew(t *testing.T) {
	w := newWatcher(1)
	w.set(idles)
	w.each(40)
	w.at -= 3600 * second
	if n := w.until(1); n != 1 || w.told[1].Ended == 0 {
		t.Errorf("what was found has not ended: %+v", w.told)
	}
	if n := w.until(60); n < 29 || n > 32 {
		t.Errorf("found again after %d rounds", n)
	}
}

func TestOneFindingForAllDevices(t *testing.T) {
	w := newWatcher(4)
	w.only(0, idles)
	w.round()
	w.only(1, idles)
	w.each(10)
	w.only(2, idles)
	w.each(50)
	if len(w.told) != 1 || len(w.told[0].GPUs) != 2 || len(w.row.Findings) != 1 || len(w.row.Findings[0].GPUs) != 3 || w.row.Findings[0].Since != w.told[0].Since {
		t.Fatalf("%d told, %+v", len(w.told), w.row.Findings)
	}
	w.only(3, spin)
	w.each(40)
	if len(w.told) != 2 || w.told[1].Kind != event.GPUBusyWaiting || len(w.row.Findings) != 2 || w.row.State != event.HolderBusyWaiting {
		t.Fatalf("%d told, %v", len(w.told), w.row.State)
	}
	// Two of the three are taken away, and then all.
	shares := w.shares
	w.shares = shares[2:]
	if w.each(1); len(w.told) != 2 || len(w.row.Findings[0].GPUs) != 1 {
		t.Errorf("%d told, %+v", len(w.told), w.row.Findings[0])
	}
	last := w.at
	w.shares = nil
	if w.each(1); len(w.told) != 4 || w.told[2].Ended != last || w.told[3].Ended != last || len(w.row.Findings) != 0 || len(w.f.devices) != 0 {
		t.Errorf("%d told, %+v", len(w.told), w.told[len(w.told)-1])
	}
}

func TestContainersOfOneDeviceAreOne(t *testing.T) {
	w := newWatcher(1)
	other := w.shares[0]
	w.shares[0].SM, w.shares[0].Container = reading(0.03), "a"
	other.SM, other.Container = reading(0.04), "b"
	w.shares = append(w.shares, other)
	w.each(40)
	if len(w.told) != 0 {
		t.Errorf("told though 7 %% work: %+v", w.told[0])
	}
}

func TestIdleIsSet(t *testing.T) {
	c := Config{Idle: 4 * time.Second}.filled()
	w := newWatcher(1)
	w.n, w.f = newNetwork(&c), newFinder(&c)
	w.set(idles)
	if n := w.until(10); n < 4 || n > 6 {
		t.Errorf("found after %d rounds", n)
	}
}
