// SPDX-License-Identifier: Apache-2.0

// Package stats has the kernel count how often the agent's programs run, and how
// long. That costs every program of the machine some nanoseconds a run while it
// is on, so it is only when somebody asks for it. It loads no program and keeps
// none: it asks by their numbers. The agent tells it what it loads, and its
// metrics read it.
package stats

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Count is what programs of one name have cost since they were loaded.
type Count struct {
	Name string
	Runs uint64
	Time time.Duration
}

// maxPrograms bounds those that are asked for; what is beyond it is not counted.
const maxPrograms = 32768

// every is how often programs are asked when nobody wants to know: what one has
// cost since then is lost with it.
const every = 5 * time.Second

// Stats may be used by any goroutine. A nil one counts nothing.
type Stats struct {
	closer io.Closer

	mu   sync.Mutex
	live map[ebpf.ProgramID]*Count
	// Of those that are gone, by name.
	gone map[string]*Count
}

// Open has the kernel count, until Close.
func Open() (*Stats, error) {
	closer, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	switch {
	case errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("count runs of kernel programs: %w: needs root, or the capability SYS_ADMIN", unix.EPERM)
	case err != nil:
		return nil, fmt.Errorf("count runs of kernel programs: %w (kernel 5.8 or newer can)", err)
	}
	return &Stats{closer: closer, live: map[ebpf.ProgramID]*Count{}, gone: map[string]*Count{}}, nil
}

// Add has a program counted under a name, which several may have.
func (s *Stats) Add(name string, p *ebpf.Program) {
	if s == nil || p == nil {
		return
	}
	info, err := p.Info()
	if err != nil {
		return
	}
	id, ok := info.ID()
	s.mu.Lock()
	defer s.mu.Unlock()
	if ok && len(s.live) < maxPrograms {
		s.live[id] = &Count{Name: name}
	}
}

// Read tells what programs have cost, those that are gone included, by name.
func (s *Stats) Read() []Count {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sums := map[string]*Count{}
	for name, c := range s.gone {
		sums[name] = &Count{name, c.Runs, c.Time}
	}
	for id, c := range s.live {
		switch err := c.ask(id); {
		case errors.Is(err, os.ErrNotExist):
			delete(s.live, id)
			add(s.gone, c)
			add(sums, c)
		default: // one that does not answer has what it had
			add(sums, c)
		}
	}
	list := make([]Count, 0, len(sums))
	for _, c := range sums {
		list = append(list, *c)
	}
	slices.SortFunc(list, func(a, b Count) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func add(to map[string]*Count, c *Count) {
	sum := to[c.Name]
	if sum == nil {
		sum = &Count{Name: c.Name}
		to[c.Name] = sum
	}
	sum.Runs += c.Runs
	sum.Time += c.Time
}

// ask reads what a program has cost so far.
func (c *Count) ask(id ebpf.ProgramID) error {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return err
	}
	defer p.Close()
	st, err := p.Stats()
	if err != nil {
		return err
	}
	c.Runs, c.Time = max(c.Runs, st.RunCount), max(c.Time, st.Runtime)
	return nil
}

// Run asks now and then, until ctx ends.
func (s *Stats) Run(ctx context.Context) error {
	if s == nil {
		return nil
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.Read()
		}
	}
}

// Close ends the counting, unless somebody else has the kernel count, too.
func (s *Stats) Close() error {
	if s == nil {
		return nil
	}
	return s.closer.Close()
}
