// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
)

// watched is a watcher that runs, and what it has found.
type watched struct {
	*Watcher
	t     testing.TB
	mu    sync.Mutex
	found []Namespace
	when  []time.Time
	stop  func()
}

// watchDirs runs a watcher until the test ends.
func watchDirs(t testing.TB, cfg Config) *watched {
	t.Helper()
	w := newWatched(t, cfg)
	w.start()
	return w
}

func newWatched(t testing.TB, cfg Config) *watched {
	w := &watched{t: t}
	also := cfg.Found
	cfg.Found = func(ns Namespace) {
		now := time.Now()
		w.mu.Lock()
		w.found = append(w.found, ns)
		w.when = append(w.when, now)
		w.mu.Unlock()
		if also != nil {
			also(ns)
		}
	}
	w.Watcher = New(cfg)
	return w
}

// start runs it, and returns after the first sweep.
func (w *watched) start() {
	t := w.t
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(w.stop)
	bpftest.Eventually(t, "the first sweep", func() bool { return w.Stats().Sweeps > 0 })
}

// troubles are the problems but for one that is the machine's: it may have
// processes with rights that its root lacks.
func troubles(w *Watcher) []string {
	return slices.DeleteFunc(w.Problems(), func(p string) bool { return strings.Contains(p, "processes cannot be read") })
}

func (w *watched) troubles() []string { return troubles(w.Watcher) }

func (w *watched) healthy() {
	w.t.Helper()
	if got := w.troubles(); len(got) != 0 {
		w.t.Errorf("problems %q", got)
	}
}

// times is how often a namespace was found; last is when and what, then.
func (w *watched) times(inode uint32) (n int, last Namespace, when time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, ns := range w.found {
		if ns.Inode == inode {
			n, last, when = n+1, ns, w.when[i]
		}
	}
	return n, last, when
}

// await waits until a namespace has been found n times.
func (w *watched) await(inode uint32, n int) (Namespace, time.Time) {
	w.t.Helper()
	var ns Namespace
	var when time.Time
	bpftest.Eventually(w.t, "a namespace to be found", func() bool {
		var got int
		got, ns, when = w.times(inode)
		return got >= n
	})
	if got, _, _ := w.times(inode); got != n {
		w.t.Errorf("found %d times, want %d", got, n)
	}
	return ns, when
}

// meet waits until a namespace is found by a name or a process. Its number may
// be known as that of another one, of somebody else on this machine, that is
// gone: the agent is told of that, here it is forgotten first.
func (w *watched) meet(inode uint32, name string, pid uint32) (ns Namespace, when time.Time) {
	w.t.Helper()
	w.Forget(inode)
	if pid != 0 {
		w.Hint(pid)
	}
	bpftest.Eventually(w.t, "a namespace to be found", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		i := slices.IndexFunc(w.found, func(ns Namespace) bool { return ns.Inode == inode && ns.Name == name && ns.PID == pid })
		if i >= 0 {
			ns, when = w.found[i], w.when[i]
		}
		return i >= 0
	})
	return ns, when
}

// named is a configuration that knows of no processes, and so nothing of other
// tests.
func named(t testing.TB, dirs ...string) Config {
	return Config{Dirs: dirs, Proc: t.TempDir(), Sweep: time.Hour}
}

// onThread runs fn on a thread that is thrown away.
func onThread(fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- fn()
	}()
	return <-done
}

// add makes a namespace as `ip netns add` does: file, namespace, mount. Created
// is when the namespace was there.
func add(t testing.TB, path string) (inode uint32, created time.Time) {
	t.Helper()
	err := onThread(func() (err error) {
		if err := unix.Mknod(path, unix.S_IFREG|0o444, 0); err != nil {
			return err
		}
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		created = time.Now()
		if inode, err = Own(); err != nil {
			return err
		}
		return unix.Mount(ownPath, path, "", unix.MS_BIND, "")
	})
	if err != nil {
		t.Fatalf("make a namespace: %v", err)
	}
	t.Cleanup(func() { remove(path) })
	return inode, created
}

// remove is `ip netns del`.
func remove(path string) {
	_ = unix.Unmount(path, unix.MNT_DETACH)
	_ = os.Remove(path)
}

// resident is a process in a new namespace.
type resident struct {
	inode uint32
	pid   uint32
	end   func()
}

// settle starts a process that sits in a new namespace until it is ended.
func settle(t testing.TB) *resident {
	t.Helper()
	cmd := exec.Command("/bin/cat")
	// Where the test dies, its end of the pipe does, and so does cat.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := &resident{pid: uint32(cmd.Process.Pid)}
	r.end = sync.OnceFunc(func() {
		_ = stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(r.end)
	if r.inode, err = inodeOf(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "ns/net")); err != nil {
		t.Fatal(err)
	}
	return r
}

// percentile of durations, which it sorts.
func percentile(d []time.Duration, p int) time.Duration {
	slices.Sort(d)
	return d[min(len(d)-1, len(d)*p/100)]
}
