// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/bpftest"
)

// What is not wanted stays unknown, and is asked about again.
func TestWanted(t *testing.T) {
	r := settle(t)
	var wanted atomic.Bool
	var asked atomic.Int64
	w := watchDirs(t, Config{
		Dirs:  []string{t.TempDir()},
		Sweep: 20 * time.Millisecond,
		Wanted: func(ns Namespace) bool {
			if ns.Inode != r.inode {
				return true
			}
			asked.Add(1)
			return wanted.Load()
		},
	})
	bpftest.Eventually(t, "a few questions", func() bool {
		w.Look() // on a busy machine sweeps are rare by themselves
		return asked.Load() > 2
	})
	w.Hint(uint32(r.pid))
	if n, _, _ := w.times(r.inode); n != 0 {
		t.Error("found although not wanted")
	}
	wanted.Store(true)
	w.await(r.inode, 1)
	last := asked.Load()
	sweeps := w.Stats().Sweeps
	bpftest.Eventually(t, "another sweep", func() bool {
		w.Look()
		return w.Stats().Sweeps > sweeps+1
	})
	if asked.Load() != last {
		t.Error("asked although known")
	}
}

func TestOfProcess(t *testing.T) {
	r := settle(t)
	inode, start, err := OfProcess("/proc", uint32(r.pid))
	if err != nil || inode != r.inode || start == 0 {
		t.Errorf("%d, %d, %v; want %d", inode, start, err, r.inode)
	}
	if _, _, err := OfProcess("/proc", 1<<30); err == nil {
		t.Error("a process that is not there")
	}
}
