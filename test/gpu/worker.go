// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// workerWord has this program be a worker: one of those that share the GPU.
const workerWord = "worker"

// task is what a worker is told to use: a part of the GPU's time, and bytes of
// its memory, whole pages of the GPU's of 2 MiB.
type task struct {
	duty  float64
	bytes uint64
}

// Together they leave the GPU a rest, so that each gets what it wants.
var tasks = []task{{0.30, 512 << 20}, {0.20, 1 << 30}, {0.15, 256 << 20}, {0.10, 768 << 20}}

// worker is one of those, from outside.
type worker struct {
	task
	pid uint32
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// start makes a worker, which has a context on the device when it is back.
func start(t task, library, device string) (*worker, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	w := &worker{task: t, cmd: exec.Command(self, workerWord, library, strconv.FormatFloat(t.duty, 'f', -1, 64), strconv.FormatUint(t.bytes, 10))}
	w.cmd.Env = append(os.Environ(), "CUDA_VISIBLE_DEVICES="+device, "CUDA_CACHE_DISABLE=1")
	w.cmd.Stderr = os.Stderr
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.out = bufio.NewReader(out)
	if err := w.cmd.Start(); err != nil {
		return nil, err
	}
	w.pid = uint32(w.cmd.Process.Pid)
	if err := w.await("ready"); err != nil {
		return nil, errors.Join(err, w.stop())
	}
	return w, nil
}

func (w *worker) await(word string) error {
	line, err := w.out.ReadString('\n')
	if got := strings.TrimSpace(line); got != word {
		return fmt.Errorf("worker %d says %q, not %s (%v)", w.pid, got, word, err)
	}
	return nil
}

// do has the worker take its next step, and waits for it.
func (w *worker) do(step string) error {
	if _, err := fmt.Fprintln(w.in, step); err != nil {
		return fmt.Errorf("worker %d: %w", w.pid, err)
	}
	return w.await(step)
}

func (w *worker) stop() error {
	return errors.Join(w.in.Close(), w.cmd.Wait())
}

// work is a worker from inside: it does what it reads, until there is no more.
func work(args []string) int {
	runtime.LockOSThread()
	if err := obey(args, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "worker: %v\n", err)
		return 1
	}
	return 0
}

func obey(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 3 {
		return errors.New("it is started by make test-gpu")
	}
	duty, err1 := strconv.ParseFloat(args[1], 64)
	bytes, err2 := strconv.ParseUint(args[2], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	c, err := openCUDA(args[0])
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "ready")
	var pace *pace
	words := bufio.NewScanner(in)
	for words.Scan() {
		word := words.Text()
		switch word {
		case "allocate":
			_, err = c.allocate(bytes)
		case "calibrate":
			pace, err = calibrate(c.turn)
		case "work":
			fmt.Fprintln(out, word)
			var stop atomic.Bool
			go func() {
				_, _ = io.Copy(io.Discard, in)
				stop.Store(true)
			}()
			return errors.Join(pace.keep(c.turn, duty, &stop), c.close())
		}
		if err != nil {
			return fmt.Errorf("%s: %w", word, err)
		}
		fmt.Fprintln(out, word)
	}
	return c.close()
}

// pace is how fast the GPU turns for who is alone on it. That is the least of
// what a turn took of late: whatever else shares the GPU can only make it longer.
type pace struct {
	recent [32]float64 // nanoseconds a turn
	next   int
}

// period is how often a worker works: short, beside what the driver measures
// over.
const period = 50 * time.Millisecond

// calibrate warms the GPU up, and finds its pace.
func calibrate(turn func(uint64) error) (*pace, error) {
	p := &pace{}
	turns := uint64(1 << 12)
	for begin := time.Now(); time.Since(begin) < time.Second; {
		took, err := p.time(turn, turns)
		if err != nil {
			return nil, err
		}
		if took < 10*time.Millisecond {
			if turns *= 2; turns > 1<<40 {
				return nil, errors.New("the kernel takes no time")
			}
			// What it took is the launch more than the loop.
			p.next, p.recent = 0, [32]float64{}
		}
	}
	return p, nil
}

func (p *pace) time(turn func(uint64) error, turns uint64) (time.Duration, error) {
	begin := time.Now()
	err := turn(turns)
	took := time.Since(begin)
	p.recent[p.next%len(p.recent)] = float64(took) / float64(turns)
	p.next++
	return took, err
}

func (p *pace) least() float64 {
	least := p.recent[0]
	for _, v := range p.recent[:min(p.next, len(p.recent))] {
		least = min(least, v)
	}
	return least
}

// keep works for a part of the time. What another has delayed is made up for.
func (p *pace) keep(turn func(uint64) error, duty float64, stop *atomic.Bool) error {
	if p == nil {
		return errors.New("work before calibrate")
	}
	next := time.Now()
	for !stop.Load() {
		if _, err := p.time(turn, max(1, uint64(duty*float64(period)/p.least()))); err != nil {
			return err
		}
		next = next.Add(period)
		time.Sleep(time.Until(next))
	}
	return nil
}
