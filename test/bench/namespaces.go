// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
)

// rooms is how many namespaces there are, and how many more are made while the
// agent runs.
func (b *bench) rooms() (there, more int) {
	if b.quick {
		return 50, 20
	}
	return 500, 200
}

// namespaceRows measure an agent that taps all namespaces of a machine that has
// many, once for each way of attaching.
func (b *bench) namespaceRows() error {
	bin, err := buildBinaries()
	if err != nil {
		return err
	}
	defer bin.close()
	y, err := newYard()
	if err != nil {
		return err
	}
	defer y.close()
	there, more := b.rooms()
	rooms := make([]*room, there)
	for i := range rooms {
		if rooms[i], err = y.add(i, func(*room) error { return nil }); err != nil {
			return err
		}
	}
	for _, attach := range []string{"auto", "tcx"} {
		if err := b.tapped(bin, tenancy{y, rooms, more, attach}); err != nil {
			return fmt.Errorf("attach %s: %w", attach, err)
		}
	}
	return nil
}

// tenancy is what one agent is shown.
type tenancy struct {
	yard   *yard
	there  []*room
	more   int
	attach string
}

// title marks what is not the usual way of attaching.
func (t *tenancy) title(measure string) string {
	if t.attach == "auto" {
		return measure
	}
	return measure + ", " + t.attach
}

func (b *bench) tapped(bin *binaries, t tenancy) error {
	a := bin.command(t.yard.host, "--netns", "all", "--attach", t.attach, "--flow-timeout", "10m")
	a.patience = 3 * time.Minute
	// It detaches, also where this process is killed: the yard's thread is the
	// parent.
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	start := time.Now()
	if err := a.start(t.yard.do); err != nil {
		return err
	}
	defer a.close()
	last, err := a.tapsAll(t.there)
	if err != nil {
		return errors.Join(err, a.ready())
	}
	row := result{Measure: t.title(fmt.Sprintf("agent start to %d namespaces tapped", len(t.there))), Unit: "s", Value: last.Seconds()}
	row.Baselines = []baseline{{"and told", time.Since(start).Seconds(), "s"}}
	b.add(row)
	if t.attach == "auto" {
		if err := b.tenants(a); err != nil {
			return err
		}
	}
	return b.created(a, t)
}

// tapsAll waits until all rooms are tapped, and tells how long the last one was
// not: it is older than the agent, so from the agent's start on.
func (a *agent) tapsAll(rooms []*room) (last time.Duration, err error) {
	if err := a.ready(); err != nil {
		return 0, err
	}
	for start := time.Now(); time.Since(start) < a.patience; time.Sleep(time.Second / 2) {
		spaces, err := a.namespaces()
		if err != nil {
			return 0, err
		}
		last, missing := time.Duration(0), 0
		for _, r := range rooms {
			s := spaces[r.inode]
			if !s.Tapped {
				missing++
			}
			last = max(last, time.Duration(s.Untapped))
		}
		if missing == 0 {
			return last, nil
		}
	}
	return 0, errors.New("not all namespaces were tapped in time")
}

// tenants is what it costs while nothing moves.
func (b *bench) tenants(a *agent) error {
	time.Sleep(3 * time.Second)
	share, strangers, err := a.idle(b.watch())
	if err != nil {
		return err
	}
	now, peak, err := a.resident()
	if err != nil {
		return err
	}
	size, count, err := a.programMemory()
	if err != nil {
		return err
	}
	row := result{Measure: "  resident memory", Unit: "MiB", Value: now, Bar: atMost(80)}
	row.Baselines = []baseline{{"peak", peak, "MiB"}}
	b.add(row)
	row = result{Measure: "  kernel memory of its programs", Unit: "MB", Value: size / 1e6, Bar: atMost(20)}
	row.Baselines = []baseline{{"programs", float64(count), ""}}
	b.add(row)
	row = result{Measure: "  agent CPU, nothing moves", Unit: "% of a core", Value: share, Bar: atMost(0.5)}
	row.Baselines = []baseline{{"namespaces of others that came or went", float64(strangers), ""}}
	b.add(row)
	return nil
}

// idle is what the agent uses of a core while nothing moves in the rooms, and
// how many namespaces came or went elsewhere on the machine: they cost, too.
func (a *agent) idle(watch time.Duration) (share float64, strangers int, err error) {
	before, err := a.namespaces()
	if err != nil {
		return 0, 0, err
	}
	if share, err = a.cpuShare(watch); err != nil {
		return 0, 0, err
	}
	after, err := a.namespaces()
	for inode := range after {
		if _, ok := before[inode]; !ok {
			strangers++
		}
		delete(before, inode)
	}
	return share, strangers + len(before), err
}

// programMemory is what the kernel charges for the tap's programs and their
// machine code, in bytes.
func (a *agent) programMemory() (sum float64, count int, err error) {
	maps, err := a.maps()
	if err != nil {
		return 0, 0, err
	}
	var id ebpf.ProgramID
	for {
		if id, err = ebpf.ProgramGetNextID(id); errors.Is(err, os.ErrNotExist) {
			break
		} else if err != nil {
			return 0, 0, fmt.Errorf("list programs: %w", err)
		}
		if n := programSize(id, maps); n > 0 {
			sum += n
			count++
		}
	}
	if count == 0 {
		return 0, 0, errors.New("the agent has no programs")
	}
	return sum, count, nil
}

// programSize is 0 for one that is gone, or has none of these maps: another
// agent's.
func programSize(id ebpf.ProgramID, maps map[ebpf.MapID]float64) float64 {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return 0
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil || !strings.HasPrefix(info.Name, "flow_") {
		return 0
	}
	used, _ := info.MapIDs()
	for _, m := range used {
		if _, ours := maps[m]; ours {
			locked, _ := info.Memlock()
			code, _ := info.JitedSize()
			return float64(locked) + float64(code)
		}
	}
	return 0
}
