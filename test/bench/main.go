// SPDX-License-Identifier: Apache-2.0

// Command bench measures what the tap, the agent and the command line cost,
// beside baselines of the same run, and prints one table. It judges nothing:
// whether a bar is reached is a word in the table, and the exit status is 0
// unless the measuring itself fails. All traffic is in network namespaces that
// it makes; it leaves nothing behind.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// options are the command line's.
type options struct {
	rounds  int
	slice   time.Duration // of traffic, for each variant in each round
	quick   bool
	only    *regexp.Regexp
	json    string
	compare []string
}

// bench is a run.
type bench struct {
	options
	*report
	lab  *lab
	load *loaded
}

func main() {
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func parseOptions(args []string) (options, error) {
	o := options{rounds: 15, slice: 300 * time.Millisecond}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.BoolVar(&o.quick, "quick", false, "fewer and shorter rounds: under a minute, and less exact")
	fs.IntVar(&o.rounds, "rounds", o.rounds, "interleaved rounds of each measure")
	fs.DurationVar(&o.slice, "slice", o.slice, "traffic for each variant in each round")
	fs.StringVar(&o.json, "json", "", "also write the table to this `file`, as JSON")
	fs.Func("only", "measure only the groups that match this `pattern`", func(s string) (err error) {
		o.only, err = regexp.Compile(s)
		return err
	})
	fs.Func("compare", "also measure the tap's programs in this object `file` (repeatable)", func(s string) error {
		o.compare = append(o.compare, s)
		return nil
	})
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if o.quick {
		o.rounds, o.slice = min(o.rounds, 3), min(o.slice, 100*time.Millisecond)
	}
	if o.rounds < 1 || fs.NArg() > 0 {
		return o, errors.New("rounds must be positive, and there are no arguments")
	}
	return o, nil
}

// group is a part of the table that -only chooses by name.
type group struct {
	name string
	run  func() error
}

func run(args []string) error {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	b := &bench{options: o, report: newReport(o)}
	defer b.close()
	if err := b.open(); err != nil {
		return err
	}
	for _, g := range []group{
		{"udp", b.udpHot},
		{"carried", b.carried},
		{"tcp", b.tcpBulk},
		{"many", b.manyFlows},
		{"cpus", b.twoCPUs},
		{"throughput", b.throughput},
		{"update", b.update},
		{"metrics", b.metrics},
		{"agent", b.agentRows},
		{"capture", b.capture},
		{"dns", b.dnsRows},
		{"gpu", b.gpuRows},
		{"namespaces", b.namespaceRows},
	} {
		if b.only != nil && !b.only.MatchString(g.name) {
			continue
		}
		start := time.Now()
		if err := g.run(); err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
		fmt.Fprintf(os.Stderr, "bench: %s took %s\n", g.name, time.Since(start).Round(time.Second/10))
	}
	if b.json != "" {
		if err := b.report.write(b.json); err != nil {
			return err
		}
	}
	return b.print(os.Stdout)
}

func (b *bench) open() (err error) {
	_ = rlimit.RemoveMemlock() // needed before 5.11 only
	if b.lab, err = newLab(); err != nil {
		return err
	}
	b.load, err = load(b.lab.nearDev, b.compare)
	return err
}

// withStats runs f while the kernel times every program, which costs each of
// them some 50 ns and is therefore off for throughput.
func withStats(f func() error) error {
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		return fmt.Errorf("program statistics: %w", err)
	}
	return errors.Join(f(), stats.Close())
}

func (b *bench) close() {
	if b.load != nil {
		b.load.close()
	}
	if b.lab != nil {
		b.lab.close()
	}
}
