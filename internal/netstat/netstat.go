// SPDX-License-Identifier: Apache-2.0

// Package netstat holds what the kernel counts of the sockets of each network
// namespace, what of it tells that something is wrong, and what that means. It
// reads the kernel's own counters now and then, and what the sockets hold only
// when asked. It never holds a namespace between two readings, and does not know
// whose it is. The agent's pipeline reads it.
//
// The kernel keeps some numbers for all namespaces together, although it shows
// them in each: TCP's memory, its orphans and its allocated sockets in sockstat.
// They are never used here.
package netstat

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/orb8/orb8/internal/event"
)

// Config of a Sampler. The zero value reads the own namespace.
type Config struct {
	// Enter runs fn on a thread that is in a network namespace; nil where there is
	// only the own one.
	Enter func(inode uint32, fn func() error) error
	Proc  string // "" means /proc
	// Between two readings of all; 0 means 10 s. It grows, so that reading stays
	// below 0.2 % of a core.
	Interval time.Duration
	Log      *slog.Logger
}

// Bounds.
const (
	maxSpaces = 4096
	// How far back the last minute goes.
	minute = time.Minute
	// A pass over all namespaces rests that many times its own length.
	rest = 500
)

// Sampler knows how the counters of namespaces were. Run is for one goroutine,
// the rest for any.
type Sampler struct {
	cfg      Config
	counters []counter
	columns  map[string]int
	wake     chan struct{}

	mu     sync.Mutex // guards what follows, never across a system call
	spaces map[uint32]*space
	fresh  []uint32
	stats  Stats
}

// space is a namespace and its past.
type space struct {
	// When it was first read; nil until then.
	first []uint64
	// The oldest is of a minute ago, where it has been read for that long.
	samples []sample
}

type sample struct {
	at     time.Time
	values []uint64
}

// Stats of a sampler.
type Stats struct {
	Known   int           // namespaces
	Passes  uint64        // over all of them
	Pass    time.Duration // spent in the last one
	Failed  int           // not read in it
	Dropped uint64        // namespaces beyond the bound
}

// New makes a sampler that knows of no namespace.
func New(cfg Config) *Sampler {
	cfg.Proc = cmp.Or(cfg.Proc, "/proc")
	cfg.Interval = cmp.Or(cfg.Interval, 10*time.Second)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Enter == nil {
		cfg.Enter = func(_ uint32, fn func() error) error { return fn() }
	}
	s := &Sampler{cfg: cfg, counters: catalogue(), wake: make(chan struct{}, 1), spaces: make(map[uint32]*space)}
	s.columns = columns(s.counters)
	return s
}

// Add tells of a namespace. It is read at once, by Run: what grows from then on
// is known to be new.
func (s *Sampler) Add(inode uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.spaces[inode] != nil:
		return
	case len(s.spaces) >= maxSpaces:
		s.stats.Dropped++
		return
	}
	s.spaces[inode] = &space{}
	s.fresh = append(s.fresh, inode)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Forget tells that a namespace is gone: its number may soon be another's.
func (s *Sampler) Forget(inode uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.spaces, inode)
}

// Run reads all namespaces now and then, until the context ends.
func (s *Sampler) Run(ctx context.Context) error {
	timer := time.NewTimer(s.cfg.Interval)
	defer timer.Stop()
	r := newReader(s)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
			s.mu.Lock()
			fresh := s.fresh
			s.fresh = nil
			s.mu.Unlock()
			s.sample(ctx, r, fresh)
		case <-timer.C:
			began := time.Now()
			failed := s.sample(ctx, r, s.known())
			took := time.Since(began)
			s.mu.Lock()
			s.stats.Passes++
			s.stats.Pass, s.stats.Failed = took, failed
			s.mu.Unlock()
			timer.Reset(max(s.cfg.Interval, rest*took))
		}
	}
}

func (s *Sampler) known() []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]uint32, 0, len(s.spaces))
	for inode := range s.spaces {
		all = append(all, inode)
	}
	return all
}

// sample reads namespaces, and tells how many it could not: they are gone, and
// soon forgotten, or cannot be entered, which who enters tells.
func (s *Sampler) sample(ctx context.Context, r *reader, inodes []uint32) (failed int) {
	for _, inode := range inodes {
		if ctx.Err() != nil {
			return failed
		}
		of := s.space(inode)
		values := make([]uint64, len(s.counters))
		if err := s.cfg.Enter(inode, func() error { return r.counters(values) }); err != nil {
			failed++
			s.cfg.Log.Debug("sockets not read", "netns", inode, "error", err)
			continue
		}
		s.mu.Lock()
		// Meanwhile it may have gone, and its number be another's.
		if of != nil && s.spaces[inode] == of {
			of.keep(sample{time.Now(), values})
		}
		s.mu.Unlock()
	}
	return failed
}

func (s *Sampler) space(inode uint32) *space {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spaces[inode]
}

// keep adds what was read now; what is older than a minute goes, but for the
// youngest of it.
func (p *space) keep(now sample) {
	if p.shrunk(now.values) {
		p.first, p.samples = nil, nil
	}
	if p.first == nil {
		p.first = now.values
	}
	p.samples = append(p.samples, now)
	for len(p.samples) > 1 && now.at.Sub(p.samples[1].at) >= minute {
		p.samples = p.samples[1:]
	}
}

// shrunk: counters do not, so the number is another namespace's.
func (p *space) shrunk(values []uint64) bool {
	for i, was := range p.first {
		if values[i] < was {
			return true
		}
	}
	return false
}

// before gives the values at the start, and a minute before now; those of now
// where nothing is known.
func (p *space) before(now sample) (first, ago []uint64) {
	if p == nil || p.first == nil || p.shrunk(now.values) {
		return now.values, now.values
	}
	ago = p.samples[0].values
	for _, s := range p.samples {
		if now.at.Sub(s.at) >= minute {
			ago = s.values
		}
	}
	return p.first, ago
}

// Stats tells what the sampler did so far.
func (s *Sampler) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Known = len(s.spaces)
	return st
}

// Losses are namespaces that found no room.
func (s *Sampler) Losses() []event.Loss {
	if n := s.Stats().Dropped; n > 0 {
		return []event.Loss{{Stage: "sockets", Count: n, Hint: "network namespaces whose sockets are not watched: there are more than orb8 keeps"}}
	}
	return nil
}
