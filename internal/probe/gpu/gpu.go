// SPDX-License-Identifier: Apache-2.0

// Package gpu asks NVIDIA's driver once a second what each GPU, and each MIG
// instance of one, does, and who has a context on it. It knows processes by
// their numbers and no pods, changes no setting of any GPU, and is not in the
// way: a driver that hangs costs a goroutine, and one that is not there nothing.
// The library is opened at run time; what it lacks is said, and absent. The agent
// reads it.
package gpu

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/orb8/orb8/internal/event"
)

// Settings of a sampler; what is zero has its default.
type Settings struct {
	// Where the library may be; the loader's path and the driver container's root by
	// default.
	Libraries []string
	// Where sysfs is mounted.
	Sysfs string
	// It begins with the driver released.
	Released bool
	// How often devices are sampled, how long one may take, and how often what is not
	// there, or may have changed, is looked for.
	Every, Deadline, Retry time.Duration
}

func (s Settings) filled() Settings {
	if len(s.Libraries) == 0 {
		s.Libraries = []string{
			"libnvidia-ml.so.1",
			"/run/nvidia/driver/usr/lib64/libnvidia-ml.so.1",
			"/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
			"/run/nvidia/driver/usr/lib/aarch64-linux-gnu/libnvidia-ml.so.1",
		}
	}
	if s.Sysfs == "" {
		s.Sysfs = "/sys"
	}
	for _, d := range []struct {
		of *time.Duration
		is time.Duration
	}{{&s.Every, time.Second}, {&s.Deadline, 2 * time.Second}, {&s.Retry, 30 * time.Second}} {
		if *d.of <= 0 {
			*d.of = d.is
		}
	}
	return s
}

// Status says what of the driver there is.
type Status struct {
	// The driver is in use; or why it is not, nil when it was released.
	Open bool
	Err  error
	// Of the driver.
	Version string
	// NVML's functions that the library lacks.
	Missing []string
	// Calls that have not come back, and how many have not in time since the start.
	Hung  []Hang
	Hangs uint64
}

// Hang is a call that the driver has not come back from.
type Hang struct {
	What  string
	Since time.Time
}

// Snapshot is what one round has found. It does not change. Samples are those of
// the GPUs at the same places.
type Snapshot struct {
	// Unix nanoseconds; 0 before the first round.
	At      int64
	Status  Status
	GPUs    []event.GPU
	Samples []event.GPUSample
}

// mostXids bounds those that wait to be taken.
const mostXids = 256

// Sampler keeps the latest snapshot. Its methods may be called from any
// goroutine.
type Sampler struct {
	settings Settings
	open     func() (driver, error)
	latest   atomic.Pointer[Snapshot]
	commands chan command
	stopped  chan struct{}
	// The driver is not wanted.
	released atomic.Bool

	mu       sync.Mutex
	xids     []event.GPUXid
	lostXids uint64
}

type command struct {
	next  bool // a round, and nothing else
	want  bool // the driver, or not
	stop  bool
	reply chan error
}

// Start begins to sample. A driver that is not there is looked for again.
func Start(settings Settings) *Sampler {
	settings = settings.filled()
	return start(settings, func() (driver, error) { return openNVML(settings.Libraries, settings.Sysfs) })
}

func start(settings Settings, open func() (driver, error)) *Sampler {
	s := &Sampler{settings: settings, open: open, commands: make(chan command), stopped: make(chan struct{})}
	s.latest.Store(&Snapshot{})
	s.released.Store(settings.Released)
	go s.run()
	return s
}

// Latest is what the last round has found.
func (s *Sampler) Latest() *Snapshot { return s.latest.Load() }

// Next has a round begin now and waits for its end, or for ctx's. While it is
// called as often as rounds are due, none comes by itself.
func (s *Sampler) Next(ctx context.Context) *Snapshot {
	_ = s.command(ctx, command{next: true}) // what there is, is the answer
	return s.Latest()
}

// Take adds to list the Xids that were heard of since it was last asked.
func (s *Sampler) Take(list []event.GPUXid) []event.GPUXid {
	s.mu.Lock()
	defer s.mu.Unlock()
	list = append(list, s.xids...)
	s.xids = s.xids[:0]
	return list
}

// Lost is how many Xids found no room since the start.
func (s *Sampler) Lost() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lostXids
}

func (s *Sampler) keep(list []event.GPUXid) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(list), mostXids-len(s.xids))
	s.xids = append(s.xids, list[:n]...)
	s.lostXids += uint64(len(list) - n)
}

// Release closes the driver, where there is one, so that MIG can be set up otherwise, GPUs be reset
// and the driver be replaced, until Open. An error says what still holds it; it
// is closed once that has come back. It waits for the round that is under way:
// a deadline for each call that hangs for the first time.
// Where ctx ends before, it is done nevertheless.
func (s *Sampler) Release(ctx context.Context) error {
	s.released.Store(true)
	return s.command(ctx, command{})
}

// Open uses the driver again. An error says why it cannot be used; it is tried
// again until Release.
func (s *Sampler) Open(ctx context.Context) error {
	s.released.Store(false)
	return s.command(ctx, command{want: true})
}

// Close releases the driver and ends. It is idempotent.
func (s *Sampler) Close() error {
	s.released.Store(true)
	return s.command(context.Background(), command{stop: true})
}

func (s *Sampler) command(ctx context.Context, c command) error {
	c.reply = make(chan error, 1)
	select {
	case s.commands <- c:
	case <-s.stopped:
		if c.want {
			return errors.New("GPUs: the sampler is closed")
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("GPUs: %w", ctx.Err())
	}
	select {
	case err := <-c.reply:
		return err
	case <-ctx.Done():
		return fmt.Errorf("GPUs: %w", ctx.Err())
	}
}

func (s *Sampler) run() {
	defer close(s.stopped)
	r := round{Sampler: s, line: line{deadline: s.settings.Deadline}}
	r.sample()
	ticker := time.NewTicker(s.settings.Every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			r.sample()
		case c := <-s.commands:
			if c.next {
				ticker.Reset(2 * s.settings.Every)
				r.sample()
				c.reply <- nil
				continue
			}
			if !c.want && r.driver == nil {
				r.err = nil // why it could not be opened does not matter any more
			}
			r.tried = time.Time{}
			r.sample()
			c.reply <- r.outcome()
			if c.stop {
				return
			}
		}
	}
}

// outcome tells whether the driver is in use as was wanted.
func (r *round) outcome() error {
	var held error
	if h := r.line.hung; len(h) > 0 {
		held = fmt.Errorf("a call (%s) has not come back since %s", h[0].What, h[0].Since.Format(time.TimeOnly))
	}
	switch {
	case r.want && r.driver == nil:
		return fmt.Errorf("open GPUs: %w", errors.Join(r.err, held))
	case !r.want && held != nil:
		return fmt.Errorf("release GPUs: %w: the driver is closed as soon as it does", held)
	case !r.want && r.err != nil:
		return fmt.Errorf("release GPUs: %w", r.err)
	}
	return nil
}

// status is what a snapshot says of the driver.
func (r *round) status() Status {
	st := Status{Open: r.driver != nil && r.want, Err: r.err, Hangs: r.line.hangs}
	for _, c := range r.line.hung {
		st.Hung = append(st.Hung, c.Hang)
	}
	if r.driver != nil {
		st.Version, st.Missing = r.version, slices.Clone(r.missing)
	}
	return st
}
