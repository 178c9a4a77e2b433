// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
)

// restraint is where the pipeline stands with its budget.
type restraint struct {
	*budget
	inEpochs time.Duration // CPU spent in epochs
	overflow uint64        // packets counted without a connection, as of the last epoch that was restrained
	lost     uint64        // of them, for want of budget
	eased    bool          // restrained when the last epoch was read
	stuck    error         // why detail could not be switched
	freeing  chan struct{} // a token: memory is not being given back
}

func newRestraint(cfg *Config) restraint {
	r := restraint{budget: newBudget(cfg), freeing: make(chan struct{}, 1)}
	r.freeing <- struct{}{}
	return r
}

// due tells whether a tick is one to read an epoch at: not while they are
// stretched.
func (p *pipeline) due() bool {
	return p.restraint.level == 0 || time.Since(p.last) >= p.restraint.epoch()-p.cfg.Epoch/2
}

// settle ends an epoch that began when the process had used so much CPU: it is
// judged, and what follows from that is done.
func (p *pipeline) settle(began time.Duration) {
	used, now := cpuTime(), time.Now()
	p.restraint.inEpochs += used - began
	level, flows := p.restraint.level, p.restraint.flows
	p.restraint.charge(p.idle == 0, p.overflowed)
	if !p.restraint.due(now) {
		return
	}
	s := spending{total: used, epochs: p.restraint.inEpochs, flows: p.flows.Stats().Flows}
	if p.restraint.memory > 0 {
		s.memory = residentBytes() + p.tap.KernelMemory() + p.drops.memory() + p.connects.memory()
	}
	p.restraint.judge(now, s)
	if p.restraint.level != level {
		if level == 0 { // what was lost before was not for want of budget
			p.restraint.overflow = p.overflowed()
		}
		p.tell("CPU", p.restraint.level > level, "epoch", p.restraint.epoch(), "connections", !p.restraint.shed())
	}
	p.switchDetail()
	if p.restraint.flows != flows {
		p.flows.Limit(p.restraint.flows)
		p.tell("memory", p.restraint.flows < flows, "used", sizeText(s.memory), "flows", p.restraint.flows)
	}
	if p.restraint.free {
		p.giveBack()
	}
}

// tell logs that there is less detail, or more again.
func (p *pipeline) tell(what string, less bool, detail ...any) {
	if less {
		p.log.Warn("less detail, to stay within the budget of "+what, detail...)
	} else {
		p.log.Info("more detail again, within the budget of "+what, detail...)
	}
}

// switchDetail makes the tap do what the budget says; it costs nothing when it
// does so already.
func (p *pipeline) switchDetail() {
	err := p.tap.Shed(p.restraint.shed())
	if err != nil && p.restraint.stuck == nil {
		p.log.Error("detail not switched, will try again", "error", err)
	}
	p.restraint.stuck = err
}

// overflowed is how many packets were counted without a connection.
func (p *pipeline) overflowed() (packets uint64) {
	for _, i := range p.tap.Interfaces() {
		packets += i.Ingress.Overflow.Packets + i.Egress.Overflow.Packets
	}
	return packets
}

// charge puts packets down to the budget that were counted without a connection
// while it was exceeded: long epochs fill the kernel's table, too. Detail is
// back only some time after an epoch was read, so the next one still counts.
func (r *restraint) charge(read bool, overflowed func() uint64) {
	if r.level > 0 || r.eased {
		seen := overflowed()
		r.lost += seen - min(seen, r.overflow)
		r.overflow = seen
	}
	if read {
		r.eased = r.level > 0
	}
}

// loss is what the budget cost, of the overflow that there is in all.
func (r *restraint) loss(overflow uint64) event.Loss {
	return event.Loss{
		Stage: "budget", Count: min(r.lost, overflow),
		Hint: "packets counted without their connection, or in a table that was read too seldom, to stay within the budget: raise ORB8_MAX_CPU",
	}
}

// giveBack frees memory that is not used, beside the pipeline: it takes a
// collection of garbage. A limit for the runtime would not help: what is
// resident is mostly in use, and collecting all the time took 28 % of a core
// instead of 10.
func (p *pipeline) giveBack() {
	select {
	case <-p.restraint.freeing:
		go func() {
			debug.FreeOSMemory()
			p.restraint.freeing <- struct{}{}
		}()
	default:
	}
}

// ownCost is the agent's processor time and resident memory.
func ownCost() (cpuSeconds float64, resident uint64) {
	return cpuTime().Seconds(), residentBytes()
}

// cpuTime is what the process has used.
func cpuTime() time.Duration {
	user, system := cpuTimes()
	return user + system
}

func cpuTimes() (user, system time.Duration) {
	var ru unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &ru) != nil {
		return 0, 0
	}
	return time.Duration(ru.Utime.Nano()), time.Duration(ru.Stime.Nano())
}

func residentBytes() uint64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseUint(f[1], 10, 64)
	return pages * uint64(os.Getpagesize())
}
