// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"time"
)

// agentRows measure the agent as its users run it: as a process, asked through
// the command line.
func (b *bench) agentRows() error {
	bin, err := buildBinaries()
	if err != nil {
		return err
	}
	defer bin.close()
	if err := b.started(bin); err != nil {
		return err
	}
	// A namespace where nothing moves but what its own device says at the start.
	quiet, err := newLab()
	if err != nil {
		return err
	}
	defer quiet.close()
	a, err := bin.startAgent(quiet.near)
	if err != nil {
		return err
	}
	defer a.close()
	if err := a.ready(); err != nil {
		return err
	}
	time.Sleep(2 * time.Second)
	idle, err := a.cpuShare(b.watch())
	if err != nil {
		return err
	}
	b.add(result{Measure: "agent CPU, nothing moves", Unit: "% of a core", Value: idle, Bar: atMost(0.2)})
	return b.loadedAgent(a, quiet)
}

// watch is how long the agent's own cost is looked at.
func (b *bench) watch() time.Duration {
	if b.quick {
		return 4 * time.Second
	}
	return 20 * time.Second
}

// cpuShare is what the agent uses of one core for as long as it is watched.
func (a *agent) cpuShare(watch time.Duration) (float64, error) {
	from, err := a.cpuTime()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	time.Sleep(watch)
	to, err := a.cpuTime()
	return 100 * (to - from).Seconds() / time.Since(start).Seconds(), err
}

// loadedAgent: 100,000 connections that each send a packet every second.
func (b *bench) loadedAgent(a *agent, l *lab) error {
	src, err := newUDPSource(l.near, behindFar(), tableEntries, 1000)
	if err != nil {
		return err
	}
	defer src.close()
	w := startWorker(0, paced(src, tableEntries))
	defer w.end()
	time.Sleep(3 * time.Second)
	share, err := a.cpuShare(b.watch())
	if err != nil {
		return err
	}
	now, peak, err := a.resident()
	if err != nil {
		return err
	}
	maps, err := a.mapMemory()
	if err != nil {
		return err
	}
	b.add(result{Measure: "agent CPU, 100,000 flows moving each second", Unit: "% of a core", Value: share, Bar: atMost(10)})
	row := result{Measure: "  resident memory", Unit: "MiB", Value: now, Bar: atMost(64)}
	row.Baselines = []baseline{{"peak", peak, "MiB"}}
	b.add(row)
	b.add(result{Measure: "  kernel memory of its maps", Unit: "MiB", Value: maps, Bar: atMost(64)})
	if err := b.queries("orb8 flows --limit 10, 100,000 flows moving, p99", a); err != nil {
		return err
	}
	if err := w.end(); err != nil {
		return err
	}
	return b.queries("  the same, 100,000 flows at rest, p99", a)
}

// source sends the next n packets at most, and tells how many it was.
type source interface{ send(n int) (int, error) }

// paced sends perSecond packets a second in even portions of 10 ms. Where it was
// kept from that for long, it does not catch up: that would be another rate.
func paced(src source, perSecond int) func() (int, error) {
	const portion, long = 10 * time.Millisecond, 100 * time.Millisecond
	due := time.Now()
	return func() (int, error) {
		time.Sleep(time.Until(due))
		if time.Since(due) > long {
			due = time.Now()
		}
		due = due.Add(portion)
		want := int(float64(perSecond) * portion.Seconds())
		for left := want; left > 0; {
			n, err := src.send(min(left, sendBatch))
			if err != nil {
				return 0, err
			}
			left -= n
		}
		return want, nil
	}
}

// queries runs the command again and again, each time from its start to its end.
func (b *bench) queries(measure string, a *agent) error {
	runs := 200
	if b.quick {
		runs = 50
	}
	var took series
	for range runs {
		start := time.Now()
		out, err := a.ask("flows", "--limit", "10")
		if err != nil {
			return err
		}
		took = append(took, float64(time.Since(start).Microseconds())/1000)
		if lines := bytes.Count(out, []byte("\n")); lines < 10 {
			return fmt.Errorf("%s: %d lines of output", measure, lines)
		}
	}
	row := result{Measure: measure, Unit: "ms", Bar: atMost(50)}.of(took)
	row.Value = took.quantile(0.99)
	row.Baselines = []baseline{{"median", took.median(), "ms"}}
	b.add(row)
	return nil
}

// started: from starting a process to the first connection on the screen, with
// traffic flowing.
func (b *bench) started(bin *binaries) error {
	src, err := newUDPSource(b.lab.near, behindFar(), hotFlows, hotFlows)
	if err != nil {
		return err
	}
	defer src.close()
	w := startWorker(0, paced(src, 1600))
	defer w.end()
	var withAgent, alone series
	for range max(3, b.rounds/3) {
		took, err := b.firstFlow(bin)
		if err != nil {
			return err
		}
		withAgent = append(withAgent, took)
		start := time.Now()
		for {
			out, err := bin.orb8(b.lab.near, "--standalone", "flows", "-o", "json")
			if err != nil {
				return err
			}
			if len(out) > 0 {
				break
			}
		}
		alone = append(alone, time.Since(start).Seconds())
	}
	b.add(result{Measure: "agent start to first flow shown", Unit: "s", Bar: atMost(1)}.of(withAgent))
	b.add(result{Measure: "orb8 --standalone flows, start to first flow shown", Unit: "s", Bar: atMost(1)}.of(alone))
	return w.end()
}

func (b *bench) firstFlow(bin *binaries) (float64, error) {
	start := time.Now()
	a, err := bin.startAgent(b.lab.near)
	if err != nil {
		return 0, err
	}
	defer a.close()
	for time.Since(start) < 10*time.Second {
		// Not listening yet is what is being measured.
		if out, err := a.ask("flows", "-o", "json"); err == nil && len(out) > 0 {
			return time.Since(start).Seconds(), nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return 0, errors.Join(errors.New("no flow within 10 s"), a.ready())
}
