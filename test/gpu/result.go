// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/orb8/orb8/internal/event"
)

// result is what was measured.
type result struct {
	device  event.GPU
	driver  string
	missing []string
	gpus    int
	mode    event.GPUMode
	at      time.Time
	length  time.Duration
	workers []told
	// Over all rows, beside what the device says of itself.
	memory, busy sums
	// Cores, and files of the driver that were open after it was released.
	cost float64
	held int
}

// told is what the agent tells of a worker.
type told struct {
	task
	busy, memory float64
}

type sums struct{ rows, device float64 }

// bar is a line of the table.
type bar struct {
	measure, is, should string
	met                 bool
}

// The bars.
const (
	mostOff     = 0.10 // of what a process was told to use
	mostOffSums = 0.05
	mostCost    = 0.01
)

func (r *result) bars() []bar {
	var all []bar
	for i, w := range r.workers {
		all = append(all, bar{
			fmt.Sprintf("process %d: memory allocated", i+1),
			fmt.Sprintf("%.0f bytes", w.memory), fmt.Sprintf("%d bytes", w.bytes), w.memory == float64(w.bytes),
		}, bar{
			fmt.Sprintf("process %d: part of the GPU's time", i+1),
			fmt.Sprintf("%.1f %%", 100*w.busy), fmt.Sprintf("%.0f %%, a tenth of it off at the most", 100*w.duty), off(w.busy, w.duty) <= mostOff,
		})
	}
	return append(all, bar{
		"memory of all processes", fmt.Sprintf("%.0f MiB", r.memory.rows/(1<<20)),
		fmt.Sprintf("the GPU's %.0f MiB, ± 5 %%", r.memory.device/(1<<20)), off(r.memory.rows, r.memory.device) <= mostOffSums,
	}, bar{
		"time of all rows", fmt.Sprintf("%.1f %%", 100*r.busy.rows),
		fmt.Sprintf("the GPU's %.1f %%, ± 5 %%", 100*r.busy.device), off(r.busy.rows, r.busy.device) <= mostOffSums,
	}, bar{
		fmt.Sprintf("cost of asking %d GPUs at 1 Hz", r.gpus), fmt.Sprintf("%.2f %% of a core", 100*r.cost), "1 % of a core", r.cost <= mostCost,
	}, bar{
		"files of the driver open after release", fmt.Sprint(r.held), "0", r.held == 0,
	})
}

func (r *result) passed() bool {
	for _, b := range r.bars() {
		if !b.met {
			return false
		}
	}
	return true
}

// table is Markdown.
func (r *result) table() string {
	var b strings.Builder
	missing := "none"
	if len(r.missing) > 0 {
		missing = "`" + strings.Join(r.missing, "`, `") + "`"
	}
	fmt.Fprintf(&b, "Run on %s, on a %s, driver %s: %d processes (mode: %s), %s. Functions that its library lacks: %s.\n\n",
		r.at.UTC().Format(time.DateOnly), r.device.Model, r.driver, len(r.workers), r.mode, r.length, missing)
	b.WriteString("| measure | is | should be | |\n|---|---|---|---|\n")
	for _, l := range r.bars() {
		met := "met"
		if !l.met {
			met = "**not met**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", l.measure, l.is, l.should, met)
	}
	return b.String()
}

// The page has the result between these.
const begins, ends = "<!-- make test-gpu: begin -->\n", "<!-- make test-gpu: end -->\n"

// write puts the result into the page, in the place of the one before.
func (r *result) write(page string) error {
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), begins)
	_, after, ended := strings.Cut(rest, ends)
	if !ok || !ended {
		return fmt.Errorf("%s has no place for the result: the lines %q and %q", page, strings.TrimSpace(begins), strings.TrimSpace(ends))
	}
	return os.WriteFile(page, []byte(before+begins+r.table()+ends+after), 0o644)
}
