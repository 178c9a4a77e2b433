// SPDX-License-Identifier: Apache-2.0

package main

import (
	"sync"
	"sync/atomic"
)

// worker repeats a step on a thread of its own, pinned to one processor.
type worker struct {
	stop atomic.Bool
	once sync.Once
	done chan error
	// Units done so far: packets or bytes, as the step returns them.
	count atomic.Uint64
}

func startWorker(cpu int, step func() (int, error)) *worker {
	w := &worker{done: make(chan error, 1)}
	go func() {
		w.done <- onThread(func() error {
			if err := pin(cpu); err != nil {
				return err
			}
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

// end stops the worker and tells what went wrong in it, once.
func (w *worker) end() (err error) {
	w.once.Do(func() {
		w.stop.Store(true)
		err = <-w.done
	})
	return err
}
