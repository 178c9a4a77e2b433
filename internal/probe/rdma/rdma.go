// SPDX-License-Identifier: Apache-2.0

// Package rdma reads once a second what InfiniBand, RoCE and iWARP devices count
// in sysfs, in the host's network namespace and in those of pods, and asks the
// kernel which processes have queue pairs on them. It knows processes and
// namespaces by their numbers and no pods, changes nothing, and does not wait for
// a device that does not answer: such a one is said, and skipped until it does.
// The agent reads it.
package rdma

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/orb8/orb8/internal/event"
)

// Settings of a sampler; what is zero has its default.
type Settings struct {
	// Where sysfs and proc are mounted: that of the host's network namespace, and that
	// of the process namespace that Roots are of.
	Sysfs, Proc string
	// How often devices are read, and how long a round waits for them.
	Every, Deadline time.Duration
	// How often, at most, the kernel is asked for queue pairs.
	Pairs time.Duration
	// How often it is looked whether a pod's namespace has devices by now.
	Retry time.Duration
	// The pods' network namespaces; nil where there are none.
	Roots func() []Root
	// Any file system may stand in for sysfs: for tests.
	Plain bool
}

// Root is a living process of a network namespace.
type Root struct {
	// The namespace's inode.
	Netns uint32
	PID   uint32
}

// Bounds of what is kept; what is beyond is counted as lost.
const (
	mostDevices  = 64
	mostPorts    = 16
	mostCounters = 256  // of a port
	mostPlaces   = 4096 // namespaces
	mostNetdevs  = 16
	mostPIDs     = 4096 // of a device
	longestName  = 64
)

func (s Settings) filled() Settings {
	if s.Sysfs == "" {
		s.Sysfs = "/sys"
	}
	if s.Proc == "" {
		s.Proc = "/proc"
	}
	for _, d := range []struct {
		of *time.Duration
		is time.Duration
	}{
		{&s.Every, time.Second},
		{&s.Deadline, 700 * time.Millisecond},
		{&s.Pairs, 5 * time.Second},
		{&s.Retry, 30 * time.Second},
	} {
		if *d.of <= 0 {
			*d.of = d.is
		}
	}
	return s
}

// Snapshot is what one round has found. It does not change.
type Snapshot struct {
	// Unix nanoseconds; 0 before the first round.
	At int64
	// Without those that do not answer.
	Devices []event.RDMADevice
	// What cannot be told now, and why.
	Problems []string
	// Devices, ports, counters and namespaces that are left out of this one: they are
	// beyond the bounds, or their names are not to be told.
	Lost uint64
}

// Sampler keeps the latest snapshot. Its methods may be called from any
// goroutine.
type Sampler struct {
	latest atomic.Pointer[Snapshot]
	next   chan chan struct{}
	stop   chan struct{}
	ended  chan struct{}
	close  func()
}

// Start begins to sample. Devices may come and go.
func Start(settings Settings) *Sampler {
	s := newSampler()
	r := newRound(settings.filled())
	go s.run(r)
	return s
}

func newSampler() *Sampler {
	s := &Sampler{next: make(chan chan struct{}), stop: make(chan struct{}), ended: make(chan struct{})}
	s.close = sync.OnceFunc(func() { close(s.stop) })
	s.latest.Store(&Snapshot{})
	return s
}

// Latest is what the last round has found.
func (s *Sampler) Latest() *Snapshot { return s.latest.Load() }

// Next has a round begin now and waits for its end, or for ctx's. While it is
// called as often as rounds are due, none comes by itself.
func (s *Sampler) Next(ctx context.Context) *Snapshot {
	done := make(chan struct{})
	select {
	case s.next <- done:
		select {
		case <-done:
		case <-ctx.Done():
		}
	case <-s.ended:
	case <-ctx.Done():
	}
	return s.Latest()
}

// Close ends the sampler. It is idempotent, and does not wait for a device that
// does not answer.
func (s *Sampler) Close() {
	s.close()
	<-s.ended
}

func (s *Sampler) run(r *round) {
	defer close(s.ended)
	ticker := time.NewTicker(r.Every)
	defer ticker.Stop()
	var asked chan struct{}
	for {
		s.latest.Store(r.sample())
		if asked != nil {
			close(asked)
			asked = nil
		}
		select {
		case <-ticker.C:
		case asked = <-s.next:
			ticker.Reset(2 * r.Every)
		case <-s.stop:
			r.close()
			return
		}
	}
}
