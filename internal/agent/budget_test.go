// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// fakeAgent spends what its load and its level cost. Time is a number here.
type fakeAgent struct {
	*budget
	now    time.Time
	last   time.Time
	s      spending
	levels []int
	limits []int
	frees  int
	// CPU of an epoch that was so long, and of all else in a second.
	epochCost func(time.Duration) time.Duration
	other     time.Duration
	// Memory with so many connections.
	footprint func(flows int) uint64
	garbage   uint64 // until it is given back
	want      int    // connections that there are to remember
}

func newFakeAgent(cfg Config) *fakeAgent {
	now := time.Unix(1_700_000_000, 0)
	return &fakeAgent{
		budget: newBudget(&cfg), now: now, last: now,
		epochCost: func(time.Duration) time.Duration { return 0 },
		footprint: func(int) uint64 { return 0 },
	}
}

// run lets time pass, a tick of the shortest epoch at a time.
func (a *fakeAgent) run(d time.Duration) {
	for end := a.now.Add(d); a.now.Before(end); {
		a.now = a.now.Add(a.epochs[0])
		a.s.total += time.Duration(float64(a.other) * a.epochs[0].Seconds())
		a.s.flows = min(a.want, a.flows)
		a.s.memory = a.footprint(a.s.flows) + a.garbage
		if a.now.Sub(a.last) < a.epoch() {
			continue
		}
		if !a.shed() {
			cost := a.epochCost(a.now.Sub(a.last))
			a.s.total += cost
			a.s.epochs += cost
		}
		a.last = a.now
		level, flows := a.level, a.flows
		if a.due(a.now) {
			a.judge(a.now, a.s)
			if a.free {
				a.frees++
				a.garbage = 0
			}
		}
		if a.level != level {
			a.levels = append(a.levels, a.level)
		}
		if a.flows != flows {
			a.limits = append(a.limits, a.flows)
		}
	}
}

// steady costs the same for an epoch however long: the same connections.
func steady(cost time.Duration) func(time.Duration) time.Duration {
	return func(time.Duration) time.Duration { return cost }
}

// growing costs so much for each second of an epoch: always new connections.
func growing(cost time.Duration) func(time.Duration) time.Duration {
	return func(d time.Duration) time.Duration { return time.Duration(float64(cost) * d.Seconds()) }
}

func TestLevels(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name    string
		epoch   time.Duration
		cost    func(time.Duration) time.Duration
		other   time.Duration
		levels  []int // the first of them in a minute, with half a core
		longest time.Duration
		short   bool
	}{
		{"nothing", time.Second, steady(0), 0, nil, time.Second, false},
		{"just within", time.Second, steady(490 * ms), 0, nil, time.Second, false},
		{"a little over", time.Second, steady(600 * ms), 0, []int{1}, 2 * time.Second, false},
		{"three times", time.Second, steady(1500 * ms), 0, []int{2}, 4 * time.Second, false},
		{"as far as it goes", time.Second, steady(4500 * ms), 0, []int{4}, 10 * time.Second, false},
		{"stretching is not enough", time.Second, steady(6 * time.Second), 0, []int{4, 5, 4, 5}, 10 * time.Second, false},
		{"stretching does not help", time.Second, growing(600 * ms), 0, []int{1, 2, 3, 4, 5, 4}, 10 * time.Second, false},
		{"questions leave a part of it", time.Second, steady(300 * ms), 300 * ms, []int{1}, 2 * time.Second, false},
		{"questions take all of it", time.Second, steady(300 * ms), 900 * ms, []int{3}, 8 * time.Second, true},
		{"nothing to shed", time.Second, steady(10 * ms), 900 * ms, nil, time.Second, true},
		{"short epochs", 100 * ms, steady(100 * ms), 0, []int{1}, 200 * ms, false},
		{"long epochs", time.Minute, steady(50 * time.Second), 0, []int{1, 0, 1}, time.Minute, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Defaults()
			cfg.Epoch = c.epoch
			a := newFakeAgent(cfg)
			a.epochCost, a.other = c.cost, c.other
			a.run(max(time.Minute, 5*c.epoch))
			if got := a.levels; !slices.Equal(got[:min(len(got), len(c.levels))], c.levels) || len(c.levels) < 3 && len(got) != len(c.levels) {
				t.Errorf("levels %v, want %v", got, c.levels)
			}
			if a.epoch() != c.longest || a.cpuShort != c.short {
				t.Errorf("an epoch of %v, short %v: %v", a.epoch(), a.cpuShort, a.notes())
			}
		})
	}
}

// TestDetailComesBack step by step, and at once where nothing is left to fear.
func TestDetailComesBack(t *testing.T) {
	a := newFakeAgent(Defaults())
	a.epochCost = steady(20 * time.Second)
	a.run(time.Minute)
	if !a.levelsSeen(5) {
		t.Fatalf("levels %v", a.levels)
	}
	a.levels = nil
	a.epochCost = steady(900 * time.Millisecond)
	a.run(2 * time.Minute)
	if a.epoch() != 4*time.Second { // 45 % of what 4 s may cost; 90 % of 2 s
		t.Errorf("an epoch of %v after %v", a.epoch(), a.levels)
	}
	a.epochCost = steady(0)
	a.run(10 * time.Second)
	if a.level != 0 {
		t.Errorf("level %d after %v", a.level, a.levels)
	}
}

func (a *fakeAgent) levelsSeen(level int) bool { return slices.Contains(a.levels, level) }

// TestNoFlapping: a load that comes and goes in any rhythm changes the level
// often at first, and then less is tried only every five minutes.
func TestNoFlapping(t *testing.T) {
	for _, period := range []time.Duration{3, 7, 15, 40, 90, 200} {
		period *= time.Second
		for _, load := range []func(time.Duration) time.Duration{growing(800 * time.Millisecond), growing(5 * time.Second), steady(5 * time.Second)} {
			a := newFakeAgent(Defaults())
			start := a.now
			a.epochCost = func(d time.Duration) time.Duration {
				if a.now.Sub(start)/(period/2)%2 == 1 {
					return 0
				}
				return load(d)
			}
			a.run(30 * time.Minute)
			early := len(a.levels)
			a.run(3 * time.Hour)
			late := len(a.levels) - early
			// Each of the 36 times 5 minutes may have one try, and the steps back.
			if early > 70 || late > 36*7 {
				t.Errorf("a load each %v: %d changes in the first half hour, %d in three hours", period, early, late)
			}
			if used := a.s.total.Seconds() / a.now.Sub(start).Seconds(); used > 0.55 {
				t.Errorf("a load each %v: %.2f cores on average", period, used)
			}
		}
	}
}

// TestMemory: fewer connections until it fits, and more again.
func TestMemory(t *testing.T) {
	cfg := Defaults()
	cfg.MaxMemory = 100 << 20
	a := newFakeAgent(cfg)
	a.want = 100_000
	a.footprint = func(flows int) uint64 { return 60<<20 + uint64(flows)*1000 }
	a.run(time.Minute)
	if a.flows != 25_000 || !slices.Equal(a.limits, []int{50_000, 25_000}) || a.level != 0 || a.memoryShort {
		t.Errorf("limits %v, level %d", a.limits, a.level)
	}
	if n := a.notes(); len(n) != 1 || !strings.Contains(n[0], "100MiB") || !strings.Contains(n[0], "25000 connections are remembered instead of 100000") {
		t.Errorf("notes %q", n)
	}
	// As long as the load is there it stays so: hours bring few tries.
	a.run(3 * time.Hour)
	if len(a.limits) > 2+3*12*3 {
		t.Errorf("%d changes in three hours", len(a.limits))
	}
	a.want = 100
	a.run(10 * time.Minute)
	if a.flows != cfg.MaxFlows || len(a.notes()) != 0 {
		t.Errorf("%d flows, %q", a.flows, a.notes())
	}
	// What can be given back costs no connections.
	a.garbage, a.frees, a.limits = 80<<20, 0, nil
	a.run(time.Minute)
	if a.frees != 1 || a.limits != nil {
		t.Errorf("given back %d times, limits %v", a.frees, a.limits)
	}
	// What cannot be met is said, does not take all, and is not tried for ever.
	a.footprint = func(int) uint64 { return 200 << 20 }
	a.want = 50_000
	a.run(5 * time.Minute)
	if a.flows != leastFlows || !a.memoryShort || len(a.notes()) != 2 || a.frees > 10 {
		t.Errorf("%d flows, given back %d times, %q", a.flows, a.frees, a.notes())
	}
}

// TestNoBudget: without limits nothing is judged.
func TestNoBudget(t *testing.T) {
	cfg := Defaults()
	cfg.MaxCPU, cfg.MaxMemory = 0, 0
	a := newFakeAgent(cfg)
	a.epochCost = growing(5 * time.Second)
	a.footprint = func(int) uint64 { return 1 << 40 }
	a.run(time.Hour)
	if a.levels != nil || a.limits != nil || a.notes() != nil || a.swap() != minSwap {
		t.Errorf("levels %v, limits %v, notes %q", a.levels, a.limits, a.notes())
	}
}

// TestQuestionsDoNotUndoIt: they may have the table read as often as the level
// allows.
func TestQuestionsDoNotUndoIt(t *testing.T) {
	cfg := Defaults()
	b := newBudget(&cfg)
	for level, want := range []time.Duration{minSwap, 2 * time.Second, 4 * time.Second, 8 * time.Second, 10 * time.Second, time.Second} {
		if b.level = level; b.swap() != want {
			t.Errorf("level %d: %v, want %v", level, b.swap(), want)
		}
	}
	if !b.shed() {
		t.Error("the last level has no detail")
	}
}

// TestWaitingTimes grow while tries are in vain, and are forgotten later.
func TestWaitingTimes(t *testing.T) {
	var p pace
	now := time.Unix(1_700_000_000, 0)
	for i, c := range []struct{ eased, wait time.Duration }{
		{-1, 10}, {-1, 10}, {0, 20}, {60, 40}, {200, 80}, {299, 160}, {1, 300}, {1, 300}, {400, 10}, {-1, 10},
	} {
		if c.eased >= 0 {
			p.ease(now)
			now = now.Add(c.eased * time.Second)
		}
		if p.rise(now); p.wait != c.wait*time.Second {
			t.Errorf("%d: waits %v, want %v s", i, p.wait, int64(c.wait))
		}
		if p.calm(now.Add(p.wait-1)) || !p.calm(now.Add(p.wait)) {
			t.Errorf("%d: does not wait as it says", i)
		}
		now = now.Add(p.wait)
	}
}

// TestPacketsOfTheBudget: what was counted without a connection while the budget
// was exceeded is its own, also in the epoch in which detail comes back; what
// the table had no room for otherwise is not.
func TestPacketsOfTheBudget(t *testing.T) {
	cfg := Defaults()
	r := newRestraint(&cfg)
	var seen uint64
	for i, step := range []struct {
		level    int
		read     bool
		overflow uint64 // in the epoch that ends with this
		lost     uint64
	}{
		{0, true, 10, 0},
		{5, true, 3, 3}, // it was exceeded when the last epoch ended
		{5, true, 4, 7},
		{0, false, 0, 7}, // a quiet tick
		{0, true, 4, 11},
		{0, true, 100, 11},
	} {
		if r.level == 0 && step.level > 0 {
			r.overflow = seen
		}
		r.level = step.level
		seen += step.overflow
		r.charge(step.read, func() uint64 { return seen })
		if n := r.loss(seen).Count; n != step.lost {
			t.Errorf("step %d: %d packets lost to the budget, want %d", i, n, step.lost)
		}
	}
}

// TestTooLittleMemoryIsSaidAtOnce: what the kernel's maps alone exceed needs no
// trying.
func TestTooLittleMemoryIsSaidAtOnce(t *testing.T) {
	for _, c := range []struct {
		budget, fixed uint64
		short         bool
	}{{0, 40 << 20, false}, {64 << 20, 40 << 20, false}, {16 << 20, 40 << 20, true}} {
		cfg := Defaults()
		cfg.MaxMemory = c.budget
		a := newFakeAgent(cfg)
		a.want, a.footprint = 10, func(int) uint64 { return c.fixed + 10<<20 }
		if a.begin(c.fixed) != c.short || a.memoryShort != c.short || (len(a.notes()) == 1) != c.short {
			t.Errorf("%d of %d bytes: short %v, %q", c.fixed, c.budget, a.memoryShort, a.notes())
		}
		// It is still true when it is judged.
		if a.run(minWindow * 2); a.memoryShort != c.short {
			t.Errorf("%d of %d bytes, later: short %v", c.fixed, c.budget, a.memoryShort)
		}
	}
}
