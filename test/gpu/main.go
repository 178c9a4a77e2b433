// SPDX-License-Identifier: Apache-2.0

// Command gpu asks a real NVIDIA GPU what the agent asks: processes of its own
// share the GPU, each with memory and work that it was told to use, and what the
// agent's rooms make of the driver's answers is held against that. Without a GPU
// it says so and does nothing. It changes no setting of a GPU, judges by the bars
// that it prints, and writes the result into docs/gpu.md; make test-gpu runs it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/orb8/orb8/internal/probe/gpu"
)

// options are the command line's.
type options struct {
	processes int
	length    time.Duration
	page      string
	// Of the libraries; the loader's own where empty.
	nvml, cuda string
	// How often is sampled, and after a change of work how long nothing is judged: the
	// driver tells of up to a second that is past.
	every, settle time.Duration
	out           io.Writer
	// For a test: tells how far it is, and with which processes.
	step func(name string, workers []*worker)
}

var errMissed = errors.New("a bar was not met")

func main() {
	if len(os.Args) > 1 && os.Args[1] == workerWord {
		os.Exit(work(os.Args[2:]))
	}
	o := options{every: time.Second, settle: 5 * time.Second, out: os.Stdout}
	fs := flag.NewFlagSet("gpu", flag.ExitOnError)
	fs.IntVar(&o.processes, "processes", 3, "processes that share the GPU, 2 to 4")
	fs.DurationVar(&o.length, "length", 30*time.Second, "how long they work")
	fs.StringVar(&o.page, "page", "docs/gpu.md", "page that the result is written into; empty for none")
	fs.StringVar(&o.nvml, "nvml", "", "path of libnvidia-ml.so.1")
	fs.StringVar(&o.cuda, "cuda", "libcuda.so.1", "path of libcuda.so.1")
	_ = fs.Parse(os.Args[1:])
	if err := run(o); err != nil {
		fmt.Fprintf(os.Stderr, "gpu: %v\n", err)
		os.Exit(1)
	}
}

// run measures, prints and writes.
func run(o options) error {
	if o.processes < 2 || o.processes > len(tasks) {
		return fmt.Errorf("%d processes: 2 to %d can share the GPU here", o.processes, len(tasks))
	}
	settings := gpu.Settings{Every: o.every}
	if o.nvml != "" {
		settings.Libraries = []string{o.nvml}
	}
	s := gpu.Start(settings)
	defer s.Close()
	m := &measure{options: o, sampler: s}
	snap, err := m.after(time.Time{})
	if err != nil {
		return err
	}
	if errors.Is(snap.Status.Err, gpu.ErrNoLibrary) {
		fmt.Fprintln(o.out, "skipped: this machine has no NVIDIA driver (libnvidia-ml.so.1), so there is no GPU to ask.")
		return nil
	}
	if !snap.Status.Open {
		return fmt.Errorf("the driver is there, and cannot be used: %w", snap.Status.Err)
	}
	if len(snap.GPUs) == 0 {
		fmt.Fprintln(o.out, "skipped: the NVIDIA driver is there, and has no GPU for this process.")
		return nil
	}
	r, err := m.run(snap)
	if err != nil {
		return err
	}
	fmt.Fprint(o.out, r.table())
	if o.page != "" {
		if err := r.write(o.page); err != nil {
			return err
		}
		fmt.Fprintf(o.out, "\nwritten into %s\n", o.page)
	}
	if !r.passed() {
		return errMissed
	}
	return nil
}
