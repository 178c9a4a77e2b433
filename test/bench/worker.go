// SPDX-License-Identifier: Apache-2.0

package main

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// worker repeats a step on a thread of its own, pinned to one processor.
type worker struct {
	stop atomic.Bool
	once sync.Once
	done chan error
	// Units done so far: packets or bytes, as the step returns them.
	count atomic.Uint64
	tid   atomic.Int32
}

func startWorker(cpu int, step func() (int, error)) *worker {
	w := &worker{done: make(chan error, 1)}
	go func() {
		w.done <- onThread(func() error {
			if err := pin(cpu); err != nil {
				return err
			}
			w.tid.Store(int32(unix.Gettid()))
			for !w.stop.Load() {
				n, err := step()
				if err != nil {
					return err
				}
				w.count.Add(uint64(n))
			}
			return nil
		})
	}()
	return w
}

// cpuTime is what its thread has used of its processor.
func (w *worker) cpuTime() time.Duration {
	// The kernel's number for the clock of another thread: the complement of
	// its id, CPUCLOCK_PERTHREAD, CPUCLOCK_SCHED.
	const perThread, sched = 4, 2
	var ts unix.Timespec
	if err := unix.ClockGettime(^w.tid.Load()<<3|perThread|sched, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// end stops the worker and tells what went wrong in it, once.
func (w *worker) end() (err error) {
	w.once.Do(func() {
		w.stop.Store(true)
		err = <-w.done
	})
	return err
}
