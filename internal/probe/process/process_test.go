// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
)

// heard keeps what a probe told. The machine's other processes are in it, too.
type heard struct {
	mu      sync.Mutex
	execs   map[uint32][]uint32  // PIDs by namespace
	groups  map[uint32][]uint64  // of those
	when    map[uint32]time.Time // the first of each namespace
	cgroups map[uint64]string
}

// listen opens a probe; start reads it until the test ends.
func listen(t *testing.T) (p *Probe, h *heard, start func()) {
	t.Helper()
	return listenTo(t, Group{})
}

// listenTo hears one node only.
func listenTo(t *testing.T, node Group) (p *Probe, h *heard, start func()) {
	t.Helper()
	bpftest.RequireKernel(t, bpftest.BPF)
	h = &heard{execs: map[uint32][]uint32{}, groups: map[uint32][]uint64{}, when: map[uint32]time.Time{}, cgroups: map[uint64]string{}}
	p, err := Open(Config{
		Node: node,
		NewNetns: func(e Exec) {
			now := time.Now()
			h.mu.Lock()
			defer h.mu.Unlock()
			if len(h.execs[e.Netns]) == 0 {
				h.when[e.Netns] = now
			}
			h.execs[e.Netns] = append(h.execs[e.Netns], e.PID)
			h.groups[e.Netns] = append(h.groups[e.Netns], e.Cgroup)
		},
		NewCgroup: func(id uint64, path string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.cgroups[id] = path
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Problems(); len(got) != 0 {
		t.Errorf("problems %q", got)
	}
	t.Cleanup(func() { _ = p.Close() })
	start = func() {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	return p, h, start
}

func (h *heard) of(inode uint32) []uint32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.execs[inode])
}

func (h *heard) first(inode uint32) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.when[inode]
}

func (h *heard) cgroup(id uint64) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cgroups[id]
}

// loop execs a small program n times in the namespace, after the shell itself.
func loop(ns *bpftest.Netns, n int) {
	ns.Command("/bin/sh", "-c", fmt.Sprintf("i=0; while [ $i -lt %d ]; do /bin/cat /dev/null; i=$((i+1)); done", n))
}

func TestExecInUnknownNetns(t *testing.T) {
	_, h, start := listen(t)
	start()
	var took, forks []time.Duration
	for range 20 {
		ns := bpftest.NewNetns(t)
		cmd := exec.Command("/bin/cat")
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = stdin.Close() })
		begin := time.Now()
		ns.Do(func() { err = cmd.Start() })
		execed := time.Now() // it returns when the child has
		if err != nil {
			t.Fatal(err)
		}
		bpftest.Eventually(t, "the exec to be told", func() bool { return len(h.of(ns.Inode())) > 0 })
		_ = stdin.Close()
		_ = cmd.Wait()
		// Its number may have been that of somebody else's before.
		bpftest.Eventually(t, "its PID to be told", func() bool { return slices.Contains(h.of(ns.Inode()), uint32(cmd.Process.Pid)) })
		if first := h.first(ns.Inode()); first.After(begin) {
			took = append(took, max(0, first.Sub(execed)))
			forks = append(forks, execed.Sub(begin))
		}
	}
	if len(took) < 10 {
		t.Fatalf("%d of 20 are new", len(took))
	}
	slices.Sort(took)
	slices.Sort(forks)
	median, fork := took[len(took)/2], forks[len(forks)/2]
	t.Logf("exec to callback: median %v, most %v; fork and exec: median %v", median, took[len(took)-1], fork)
	// On an emulated machine everything takes longer.
	if median > max(5*time.Millisecond, fork) {
		t.Errorf("an exec is told after %v", median)
	}
}

func TestKnownNetnsIsSilent(t *testing.T) {
	p, h, start := listen(t)
	start()
	known, other := bpftest.NewNetns(t), bpftest.NewNetns(t)
	if err := p.Know(known.Inode()); err != nil {
		t.Fatal(err)
	}
	// What was there before them, with their numbers.
	wasKnown, wasOther := len(h.of(known.Inode())), len(h.of(other.Inode()))
	loop(known, 10)
	loop(other, 1) // comes after them in the ring
	bpftest.Eventually(t, "the other namespace", func() bool { return len(h.of(other.Inode())) >= wasOther+2 })
	if got := h.of(known.Inode()); len(got) != wasKnown {
		t.Errorf("told %v of a known namespace", got)
	}
	for range 2 { // forgetting again is no error
		if err := p.Forget(known.Inode()); err != nil {
			t.Error(err)
		}
	}
	loop(known, 1)
	bpftest.Eventually(t, "the forgotten namespace", func() bool { return len(h.of(known.Inode())) >= wasKnown+2 })
}

func TestManyExecs(t *testing.T) {
	p, h, start := listen(t)
	start()
	ns := bpftest.NewNetns(t)
	const n = 2000
	before := len(h.of(ns.Inode())) // of another with its number
	loop(ns, n)
	bpftest.Eventually(t, "all to be told or counted", func() bool {
		return len(h.of(ns.Inode()))-before+int(p.Lost()) >= n+1
	})
	got := len(h.of(ns.Inode())) - before
	t.Logf("%d told, %d lost", got, p.Lost())
	if got > n+1 {
		t.Errorf("%d events of %d execs", got, n+1)
	}
}

// What an exec costs where nothing is to be told, from the kernel's own
// statistics: reading the namespace and one look-up.
func TestCostOfKnownExec(t *testing.T) {
	p, _, _ := listen(t)
	ns := bpftest.NewNetns(t)
	if err := p.Know(ns.Inode()); err != nil {
		t.Fatal(err)
	}
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stats.Close() })
	loop(ns, 1000)
	s, err := p.programs["process_exec"].Stats()
	if err != nil {
		t.Fatal(err)
	}
	if s.RunCount < 1000 {
		t.Fatalf("ran %d times", s.RunCount)
	}
	cost := s.Runtime / time.Duration(s.RunCount)
	t.Logf("%v an exec, of %d", cost, s.RunCount)
	// An exec takes half a millisecond; anything near this is not a look-up.
	if cost > 100*time.Microsecond {
		t.Errorf("an exec in a known namespace costs %v", cost)
	}
}

// tree makes a cgroup of the test's own in the v2 hierarchy.
func tree(t *testing.T) string {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if unix.Statfs(root, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return makeCgroup(t, filepath.Join(root, fmt.Sprintf("orb8-process-test-%d", os.Getpid())))
		}
	}
	t.Fatal("no cgroup v2 hierarchy")
	return ""
}

func makeCgroup(t *testing.T, path string) string {
	t.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(path) }) // children were removed before
	return path
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestCgroup(t *testing.T) {
	_, h, start := listen(t)
	start()
	path := tree(t)
	id := inode(t, path)
	bpftest.Eventually(t, "the cgroup to be told", func() bool { return h.cgroup(id) != "" })
	top := h.cgroup(id)
	if !strings.HasPrefix(top, "/") || !strings.HasSuffix(top, "/"+filepath.Base(path)) {
		t.Errorf("path %q of %s", top, path)
	}
	// Down to a path of exactly what there is room for, and one more.
	for _, c := range []struct {
		length int
		want   string
	}{{pathBytes, ""}, {pathBytes + 1, Cut}} {
		dir, full := path, top
		for c.length-len(full) > 200 {
			name := strings.Repeat("d", 99)
			dir, full = makeCgroup(t, filepath.Join(dir, name+fmt.Sprint(c.length))), full+"/"+name+fmt.Sprint(c.length)
		}
		name := strings.Repeat("e", c.length-len(full)-1)
		dir, full = makeCgroup(t, filepath.Join(dir, name)), full+"/"+name
		id := inode(t, dir)
		bpftest.Eventually(t, "the deep cgroup to be told", func() bool { return h.cgroup(id) != "" })
		if got, want := h.cgroup(id), full[:pathBytes]+c.want; got != want {
			t.Errorf("path of %d bytes: %q, want %q", c.length, got, want)
		}
	}
}

// Nobody reads: the ring is full, and what it could not take is counted.
func TestFullRing(t *testing.T) {
	p, h, start := listen(t)
	path := tree(t)
	const n = 600
	ids := map[uint64]bool{}
	for i := range n {
		dir := filepath.Join(path, fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		ids[inode(t, dir)] = true
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
	}
	if p.Lost() == 0 {
		t.Fatal("nothing lost: the ring is not as small as it says")
	}
	start()
	told := func() (got int) {
		h.mu.Lock()
		defer h.mu.Unlock()
		for id := range h.cgroups {
			if ids[id] {
				got++
			}
		}
		return got
	}
	bpftest.Eventually(t, "the rest to be told", func() bool { return told()+int(p.Lost()) >= len(ids) })
	t.Logf("%d told, %d lost", told(), p.Lost())
}

func TestOneProgramRefused(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	for _, broken := range []string{"process_exec", "process_cgroup"} {
		spec, err := loadKernel()
		if err != nil {
			t.Fatal(err)
		}
		spec.Programs[broken].AttachTo = "no_such_tracepoint"
		p, err := open(Config{}, spec)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Problems(); len(got) != 1 || !strings.Contains(got[0], broken) {
			t.Errorf("%s: problems %q", broken, got)
		}
		if len(p.links) != 1 {
			t.Errorf("%d programs are attached", len(p.links))
		}
		_ = p.Close()
		spec.Programs["process_exec"].AttachTo, spec.Programs["process_cgroup"].AttachTo = "no_such", "no_such"
		if p, err = open(Config{}, spec); err == nil {
			_ = p.Close()
			t.Error("a probe without a program")
		}
	}
}

func TestWithoutRights(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	errs := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			errs <- nil
			return
		}
		_, err := Open(Config{})
		errs <- err
	}()
	if err := <-errs; !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "needs root") {
		t.Errorf("without rights: %v", err)
	}
}

func TestClose(t *testing.T) {
	p, _, start := listen(t)
	start()
	for range 2 {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := p.Know(1); err == nil {
		t.Error("a closed probe knows")
	}
	if err := p.Forget(1); err == nil {
		t.Error("a closed probe forgets")
	}
	_ = p.Lost()
}
