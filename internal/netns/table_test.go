// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
)

const hostInode = 4026531840

// fakeProc makes a process table of n processes from 1 on; those that one asks
// for are in a namespace of their own, the rest in the host's.
func fakeProc(t testing.TB, n int, own map[int]uint32) string {
	t.Helper()
	root := t.TempDir()
	// 60,000 files are quicker made in memory; elsewhere it works as well.
	if unix.Mount("tmpfs", root, "tmpfs", 0, "") == nil {
		t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	}
	for pid := 1; pid <= n; pid++ {
		inode := uint32(hostInode)
		if o, ok := own[pid]; ok {
			inode = o
		}
		enlist(t, root, pid, inode)
	}
	return root
}

func enlist(t testing.TB, root string, pid int, inode uint32) {
	t.Helper()
	dir := filepath.Join(root, strconv.Itoa(pid), "ns")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(fmt.Sprintf("net:[%d]", inode), filepath.Join(dir, "net")); err != nil {
		t.Fatal(err)
	}
}

// A long table: everything in it is found, the rest between two sweeps grows
// with it, and a hint is not held up by a sweep.
func TestLongProcessTable(t *testing.T) {
	const n = 20_000
	own := map[int]uint32{}
	for i := 1; i <= 100; i++ {
		own[i*200] = uint32(i)
	}
	root := fakeProc(t, n, own)
	var w *watched
	hinted, took := map[uint32]time.Time{}, []time.Duration{}
	w = newWatched(t, Config{Proc: root, Dirs: []string{t.TempDir()}, Sweep: time.Millisecond, Found: func(ns Namespace) {
		// Each namespace that the sweep finds brings another, by a hint.
		if begin, ok := hinted[ns.Inode]; ok {
			took = append(took, time.Since(begin))
			return
		}
		if ns.Inode <= 100 {
			enlist(t, root, n+int(ns.Inode), 1000+ns.Inode)
			hinted[1000+ns.Inode] = time.Now()
			w.Hint(n + ns.Inode)
		}
	}})
	w.start()
	bpftest.Eventually(t, "all hints to be looked at", func() bool { return w.Stats().Known >= 2*len(own)+1 })
	w.stop()
	for pid, inode := range own {
		if ns, _ := w.await(inode, 1); ns.PID != uint32(pid) {
			t.Errorf("found %+v by process %d", ns, pid)
		}
	}
	s := w.Stats()
	if s.Known != 2*len(own)+1 || s.Processes < n {
		t.Errorf("stats %+v", s)
	}
	if share := s.SweepTime.Seconds() / s.Interval.Seconds(); share > 0.00201 {
		t.Errorf("sweeps of %v each %v are %.2f %% of a core", s.SweepTime, s.Interval, 100*share)
	}
	t.Logf("a sweep of %d processes: %v, %v each; the next after %v", n, s.SweepTime, s.SweepTime/n, s.Interval)

	judge(t, "a hint during sweeps", took)
}

// A second hint finds nothing new; what is forgotten is found again.
func TestHintTwice(t *testing.T) {
	w := watchDirs(t, Config{Proc: fakeProc(t, 3, map[int]uint32{2: 22}), Dirs: []string{t.TempDir()}})
	for i := range 3 {
		w.Hint(2)
		w.Hint(2)
		w.await(22, 1+i)
		w.Forget(22)
	}
	w.await(22, 4)
}

// Only the process table itself must be there.
func TestNoProcessTable(t *testing.T) {
	w := New(Config{Proc: filepath.Join(t.TempDir(), "none"), Dirs: []string{t.TempDir()}})
	if err := w.Run(t.Context()); err == nil {
		t.Error("runs without a process table")
	}
}

// What is in the table and is no process, or of none that can be read.
func TestOddProcessTable(t *testing.T) {
	root := fakeProc(t, 3, map[int]uint32{2: 22})
	for _, odd := range []string{"sys", "0", "00", "-1", "99999999999", "4x"} {
		if err := os.MkdirAll(filepath.Join(root, odd, "ns"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "77"), 0o755); err != nil { // just gone
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, "78", "ns"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nonsense", filepath.Join(root, "78", "ns", "net")); err != nil {
		t.Fatal(err)
	}
	w := watchDirs(t, Config{Proc: root, Dirs: []string{t.TempDir()}})
	w.await(22, 1)
	if s := w.Stats(); s.Known != 2 || s.Processes != 5 {
		t.Errorf("stats %+v", s)
	}
	w.healthy()
}

// When inotify's queue overflows, the directories are read again.
func TestOverflow(t *testing.T) {
	bpftest.RequireKernel(t)
	dir := t.TempDir()
	var found []Namespace
	w := New(Config{Dirs: []string{dir}, Found: func(ns Namespace) { found = append(found, ns) }})
	r := &run{Watcher: w, files: newPending()}
	r.rewatch()
	defer func() { r.watch.close() }()
	inode, _ := add(t, filepath.Join(dir, "ns"))
	r.changed([]change{{watch: -1, mask: unix.IN_Q_OVERFLOW}}, true)
	r.check()
	if len(found) != 1 || found[0].Inode != inode || w.Stats().Overflows != 1 {
		t.Errorf("found %+v, stats %+v", found, w.Stats())
	}
	// And what went meanwhile is known no more.
	remove(filepath.Join(dir, "ns"))
	r.changed([]change{{watch: -1, mask: unix.IN_Q_OVERFLOW}}, true)
	if got := w.paths(inode); len(got) != 0 {
		t.Errorf("known by %q", got)
	}
	// The kernel tells no more: the next poll begins anew.
	_ = r.watch.file.Close()
	for range r.watch.changes { // until it is closed
	}
	r.changed(nil, false)
	if r.watch != nil || !r.polls() {
		t.Error("relies on a watch that is gone")
	}
	r.refresh()
	if r.watch == nil || r.polls() {
		t.Error("polls on")
	}
}

// More namespaces than there is room for: said, counted, and found later.
func TestMoreThanFits(t *testing.T) {
	w := New(Config{})
	for i := range maxKnown {
		w.see(Namespace{Inode: uint32(i + 1), PID: 1}, "", 1)
	}
	w.see(Namespace{Inode: maxKnown + 1, PID: 1}, "", 1)
	if s := w.Stats(); s.Known != maxKnown || s.Dropped != 1 || len(w.Problems()) != 1 {
		t.Errorf("stats %+v, problems %q", s, w.Problems())
	}
	w.Forget(1)
	w.see(Namespace{Inode: maxKnown + 1, PID: 1}, "", 1)
	if s := w.Stats(); s.Known != maxKnown || s.Dropped != 1 || s.Found != maxKnown+1 {
		t.Errorf("stats %+v", s)
	}
}

// A process costs a readlink and no allocation.
func BenchmarkSweep(b *testing.B) {
	for _, c := range []struct{ name, root string }{{"real", "/proc"}, {"fake", fakeProc(b, 1000, nil)}} {
		b.Run(c.name, func(b *testing.B) {
			w := New(Config{Proc: c.root, Dirs: []string{}})
			r := &run{Watcher: w, files: newPending()}
			var err error
			if r.procs, err = openProcs(c.root); err != nil {
				b.Fatal(err)
			}
			defer r.procs.close()
			b.ReportAllocs()
			processes := 0
			for b.Loop() {
				r.begin()
				for r.slice() {
				}
				processes += r.sweep.processes
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(processes), "ns/process")
		})
	}
}
