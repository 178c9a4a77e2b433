// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"time"
)

// How a budget acts.
const (
	// What is spent is judged over this long at the least: a collection of
	// garbage or one big answer is not yet a load.
	minWindow = 2 * time.Second
	// Epochs are not stretched beyond this; the kernel's counters of one epoch
	// are good for a minute at 100 Gbit/s.
	longestEpoch = 10 * time.Second
	// Detail comes back when it is expected to take this part of the budget, and
	// connections when memory is below it.
	easeBelow = 0.7
	// How long nothing is tried after the budget was exceeded: firstCalm, twice
	// as long each time that it was tried in vain within mostCalm, which is also
	// the most.
	firstCalm = 10 * time.Second
	mostCalm  = 5 * time.Minute
	// Connections that are remembered however little memory there is.
	leastFlows = 1024
)

// budget chooses how much detail the agent can afford. Its levels of detail are
// epochs as configured, epochs of 2, 4, … times that, and no connections at all,
// where packets are counted by interface, direction and protocol only. For
// memory it chooses how many connections are remembered.
//
// It knows nothing but times and numbers; the pipeline acts on what it says.
type budget struct {
	cores  float64 // 0: no limit
	memory uint64  // bytes; 0: no limit

	epochs []time.Duration // by level; after the last comes no detail
	level  int
	cpu    pace
	// More is used than the budget, and there is nothing left to shed.
	cpuShort, memoryShort bool

	flows, maxFlows int
	mem             pace
	fixed           uint64 // what is used with no connection at all, known from the start
	free            bool   // what is not used is to be given back now
	freed           bool   // since connections were last forgotten

	from  time.Time // of the window
	spent spending
}

// spending is what the agent has used since its start; memory as of now.
type spending struct {
	total, epochs time.Duration // of CPU; epochs is part of total
	memory        uint64        // resident, and maps in the kernel
	flows         int           // connections remembered
}

func newBudget(cfg *Config) *budget {
	b := &budget{cores: cfg.MaxCPU, memory: cfg.MaxMemory, flows: cfg.MaxFlows, maxFlows: cfg.MaxFlows}
	b.epochs = []time.Duration{cfg.Epoch}
	for d := cfg.Epoch; d < longestEpoch; {
		d = min(2*d, longestEpoch)
		b.epochs = append(b.epochs, d)
	}
	return b
}

// shed tells that connections are not to be told apart.
func (b *budget) shed() bool { return b.level == len(b.epochs) }

// epoch is how often the kernel's table is to be read.
func (b *budget) epoch() time.Duration { return b.epochs[min(b.level, len(b.epochs)-1)] }

// swap is how often questions may have it read: they would undo the stretching.
// Without detail there is little to read.
func (b *budget) swap() time.Duration {
	switch {
	case b.level == 0:
		return minSwap
	case b.shed():
		return b.epochs[0]
	}
	return b.epoch()
}

// due tells whether enough time has passed to judge.
func (b *budget) due(now time.Time) bool {
	return (b.cores > 0 || b.memory > 0) && now.Sub(b.from) >= minWindow
}

// judge compares what was spent since it was last called with the budget. It is
// to be called at ends of epochs, so that whole ones are judged.
func (b *budget) judge(now time.Time, s spending) {
	window, before := now.Sub(b.from), b.spent
	first := b.from.IsZero()
	b.from, b.spent = now, s
	if first || window <= 0 {
		return
	}
	if b.cores > 0 {
		share := func(d time.Duration) float64 { return d.Seconds() / window.Seconds() }
		b.judgeCPU(now, share(s.total-before.total), share(s.epochs-before.epochs))
	}
	if b.memory > 0 {
		b.judgeMemory(now, &s)
	}
}

// judgeCPU looks at cores used, in all and by epochs. Only what epochs cost can
// be saved: they get what all else leaves of the budget, and a tenth of it
// however little that is, so that questions never cost all the detail.
func (b *budget) judgeCPU(now time.Time, total, epochs float64) {
	room := max(b.cores-(total-epochs), b.cores/10)
	load := epochs / room
	b.cpuShort = total > b.cores && (b.shed() || load <= 1)
	switch last := len(b.epochs) - 1; {
	case load > 1 && b.level == last:
		b.level++
		b.cpu.rise(now)
	case load > 1 && !b.shed():
		// A longer epoch costs as much as a short one at the least.
		here := b.epoch()
		for b.level++; b.level < last && load*ratio(here, b.epoch()) > 1; {
			b.level++
		}
		b.cpu.rise(now)
	case b.level == 0 || !b.cpu.calm(now):
	case b.shed():
		// What detail costs is known only by trying.
		b.level--
		b.cpu.ease(now)
	default:
		// A shorter epoch costs as much as a long one at the most.
		here, level := b.epoch(), b.level
		for level > 0 && load*ratio(here, b.epochs[level-1]) < easeBelow {
			level--
		}
		if level < b.level {
			b.level = level
			b.cpu.ease(now)
		}
	}
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }

// judgeMemory has memory given back while there is too much, then halves what
// is remembered, and so on. Connections are forgotten over several epochs, and
// what they took is resident until it is given back: each is waited for.
func (b *budget) judgeMemory(now time.Time, s *spending) {
	over, least := s.memory > b.memory, min(leastFlows, b.maxFlows)
	b.memoryShort = over && (b.flows <= least || b.fixed > b.memory)
	b.free = over && !b.freed && s.flows <= b.flows
	switch {
	case b.free:
		b.freed = true
	case over && b.freed && b.flows > least:
		b.flows = max(min(b.flows, s.flows)/2, least)
		b.freed = false
		b.mem.rise(now)
	case over:
	case b.flows < b.maxFlows && float64(s.memory) < easeBelow*float64(b.memory) && b.mem.calm(now) && now.Sub(b.mem.eased) >= firstCalm:
		b.flows = min(2*b.flows, b.maxFlows)
		b.mem.ease(now)
		b.freed = false
	default:
		b.freed = false
	}
}

// begin tells what memory is used in any case; it may be too much already.
func (b *budget) begin(fixed uint64) (short bool) {
	b.fixed = fixed
	b.memoryShort = b.memory > 0 && fixed > b.memory
	return b.memoryShort
}

// notes say what is shed, for status.
func (b *budget) notes() (notes []string) {
	switch {
	case b.shed():
		notes = append(notes, fmt.Sprintf("beyond %s (ORB8_MAX_CPU): packets are counted by interface, direction and protocol only; connections are tried again every %v", coresText(b.cores), b.cpu.wait))
	case b.level > 0:
		notes = append(notes, fmt.Sprintf("beyond %s (ORB8_MAX_CPU): connections are read every %v, and answers are up to that old", coresText(b.cores), b.epoch()))
	}
	if b.cpuShort {
		notes = append(notes, fmt.Sprintf("%s (ORB8_MAX_CPU) are exceeded by what cannot be shed: questions, followers, new namespaces", coresText(b.cores)))
	}
	if b.flows < b.maxFlows {
		notes = append(notes, fmt.Sprintf("beyond %s of memory (ORB8_MAX_MEMORY): %d connections are remembered instead of %d", sizeText(b.memory), b.flows, b.maxFlows))
	}
	if b.memoryShort {
		notes = append(notes, fmt.Sprintf("%s (ORB8_MAX_MEMORY) is less than the agent needs with few connections: raise it, or lower ORB8_TABLE_ENTRIES", sizeText(b.memory)))
	}
	return notes
}

// pace keeps a budget from going up and down with a load that does.
type pace struct {
	rose  time.Time     // when the budget was last exceeded
	eased time.Time     // when less was last tried, and not yet judged in vain
	wait  time.Duration // from the one to the other
}

// rise notes that the budget was exceeded.
func (p *pace) rise(now time.Time) {
	switch {
	case p.wait == 0, !p.eased.IsZero() && now.Sub(p.eased) > mostCalm:
		p.wait = firstCalm
	case !p.eased.IsZero():
		p.wait = min(2*p.wait, mostCalm)
	}
	p.rose, p.eased = now, time.Time{}
}

// calm tells that less may be tried.
func (p *pace) calm(now time.Time) bool { return now.Sub(p.rose) >= p.wait }

// ease notes that it is.
func (p *pace) ease(now time.Time) { p.eased = now }
