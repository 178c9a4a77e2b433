// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/accelerator"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/probe/gpu"
)

// measure is one run.
type measure struct {
	options
	sampler *gpu.Sampler
	device  event.GPU
	tracker *accelerator.Tracker
	workers []*worker
}

// after waits for a snapshot that was begun after a time.
func (m *measure) after(t time.Time) (*gpu.Snapshot, error) {
	for begin := time.Now(); time.Since(begin) < 30*time.Second; time.Sleep(m.every / 20) {
		s := m.sampler.Latest()
		// A round takes a while: what it says may be from before it was published.
		if s.At != 0 && time.Unix(0, s.At).Sub(t) > m.every {
			return s, nil
		}
	}
	return nil, errors.New("the driver does not answer")
}

// run has the processes share a GPU, and holds what is told against what they do.
func (m *measure) run(first *gpu.Snapshot) (r *result, err error) {
	if err := m.choose(first); err != nil {
		return nil, err
	}
	m.tracker = accelerator.New(accelerator.Config{})
	defer func() {
		for _, w := range m.workers {
			err = errors.Join(err, w.stop())
		}
	}()
	for _, t := range tasks[:m.processes] {
		w, err := start(t, m.cuda, m.device.UUID)
		if err != nil {
			return nil, err
		}
		m.workers = append(m.workers, w)
	}
	r = &result{device: m.device, driver: first.Status.Version, missing: first.Status.Missing, gpus: len(first.GPUs), at: time.Now(), length: m.length}
	if err := m.memory(r); err != nil {
		return nil, err
	}
	if err := m.shares(r); err != nil {
		return nil, err
	}
	return r, m.release(r)
}

// choose takes a whole GPU that nobody computes on.
func (m *measure) choose(s *gpu.Snapshot) error {
	var why []string
	for i, g := range s.GPUs {
		switch sample := &s.Samples[i]; {
		case g.Parent != "":
		case g.Divided:
			why = append(why, g.UUID+" is divided (MIG)")
		case sample.State != event.GPUOK:
			why = append(why, g.UUID+" does not answer")
		case len(sample.Processes) > 0:
			why = append(why, fmt.Sprintf("%s has %d processes", g.UUID, len(sample.Processes)))
		case sample.Compute > event.ComputeShared:
			why = append(why, g.UUID+" is set to be for one process")
		default:
			m.device = g
			return nil
		}
	}
	return fmt.Errorf("no GPU is free for it: %s", strings.Join(why, ", "))
}

func (m *measure) tell(step string) time.Time {
	if m.step != nil {
		m.step(step, m.workers)
	}
	return time.Now()
}

// row is what the view says of a worker, or with nil of what is unattributed.
type row struct{ busy, memory float64 }

// rows are one round's, by the split of the agent, with the device's own sample.
func (m *measure) rows(s *gpu.Snapshot) (map[*worker]row, *event.GPUSample, event.GPUMode, error) {
	who := map[uint32]*event.Identity{}
	workers := map[string]*worker{}
	for _, w := range m.workers {
		uid := fmt.Sprint(w.pid)
		who[w.pid] = &event.Identity{Class: event.ClassPod, Namespace: "test", Pod: "process-" + uid, PodUID: uid}
		workers[uid] = w
	}
	view, _ := m.tracker.Round(&accelerator.Round{
		At: s.At, GPUs: s.GPUs, Samples: s.Samples,
		Process: func(pid uint32) (*event.Identity, string) { return who[pid], "" },
	})
	rows := map[*worker]row{}
	for i := range view.Holders {
		for _, share := range view.Holders[i].Shares {
			if share.GPU.UUID == m.device.UUID {
				w := workers[view.Holders[i].Who.PodUID]
				rows[w] = row{rows[w].busy + share.Busy.Value, rows[w].memory + share.Memory.Value}
			}
		}
	}
	for _, w := range m.workers {
		if _, is := rows[w]; !is {
			return nil, nil, 0, fmt.Errorf("the driver does not tell of process %d: run this in the host's PID namespace", w.pid)
		}
	}
	for i, g := range view.GPUs {
		if g.UUID == m.device.UUID {
			return rows, &view.Samples[i], view.Modes[i], nil
		}
	}
	return nil, nil, 0, errors.New("the GPU is gone")
}

// memory: what each process has more, once it has allocated.
func (m *measure) memory(r *result) error {
	s, err := m.after(m.tell("ready"))
	if err != nil {
		return err
	}
	before, _, _, err := m.rows(s)
	if err != nil {
		return err
	}
	for _, w := range m.workers {
		if err := w.do("allocate"); err != nil {
			return err
		}
	}
	if s, err = m.after(m.tell("allocate")); err != nil {
		return err
	}
	after, device, mode, err := m.rows(s)
	if err != nil {
		return err
	}
	r.mode = mode
	sum := 0.0
	for _, w := range m.workers {
		r.workers = append(r.workers, told{task: w.task, memory: after[w].memory - before[w].memory})
		sum += after[w].memory
	}
	r.memory = sums{rows: sum, device: device.MemoryUsed.Value}
	return nil
}

// shares: what part of the GPU's time is whose, over the whole time, and what it
// costs to ask.
func (m *measure) shares(r *result) error {
	m.tell("calibrate")
	for _, w := range m.workers {
		if err := w.do("calibrate"); err != nil {
			return err
		}
	}
	for _, w := range m.workers {
		if err := w.do("work"); err != nil {
			return err
		}
	}
	m.tell("work")
	time.Sleep(m.settle)
	begin, used := time.Now(), cpu()
	last, rounds := int64(0), 0.0
	for time.Since(begin) < m.length {
		time.Sleep(m.every / 4)
		s := m.sampler.Latest()
		if s.At == last {
			continue
		}
		last = s.At
		rows, device, _, err := m.rows(s)
		if err != nil {
			return err
		}
		rounds++
		sum := 0.0
		for i, w := range m.workers {
			r.workers[i].busy += rows[w].busy
			sum += rows[w].busy
		}
		r.busy.rows += sum + rows[nil].busy
		r.busy.device += device.Busy.Value
	}
	if rounds == 0 {
		return errors.New("no round was made")
	}
	for i := range r.workers {
		r.workers[i].busy /= rounds
	}
	r.busy.rows /= rounds
	r.busy.device /= rounds
	r.cost = (cpu() - used).Seconds() / time.Since(begin).Seconds()
	return nil
}

// release: the driver is let go, and opened again.
func (m *measure) release(r *result) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := m.sampler.Release(ctx); err != nil {
		return err
	}
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		return err
	}
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && strings.HasPrefix(to, "/dev/nvidia") {
			r.held++
		}
	}
	return m.sampler.Open(ctx)
}

// cpu is what this process has used of the processors.
func cpu() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// off is how far a value is from what it should be, as a part of that.
func off(is, should float64) float64 {
	if should == 0 {
		return math.Inf(1)
	}
	return math.Abs(is-should) / should
}
