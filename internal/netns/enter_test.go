// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
)

// inside expects to get into a namespace.
func (w *watched) inside(inode uint32) {
	w.t.Helper()
	var got uint32
	err := w.Enter(inode, func() (err error) {
		got, err = Own()
		return err
	})
	if err != nil || got != inode {
		w.t.Errorf("entered %d instead of %d: %v", got, inode, err)
	}
}

func TestEnter(t *testing.T) {
	bpftest.RequireKernel(t)
	dir := t.TempDir()
	w := watchDirs(t, Config{Dirs: []string{dir}, Sweep: time.Hour})
	own, err := Own()
	if err != nil {
		t.Fatal(err)
	}
	w.inside(own)
	path := filepath.Join(dir, "ns")
	named, _ := add(t, path)
	w.meet(named, "ns", 0)
	w.inside(named)
	f, err := w.Open(named)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := inodeOfFD(int(f.Fd())); got != named || err != nil {
		t.Errorf("opened %d instead of %d: %v", got, named, err)
	}
	_ = f.Close()
	if _, err := w.Open(1); !errors.Is(err, ErrGone) {
		t.Errorf("open what is not: %v", err)
	}

	r := settle(t)
	w.inside(r.inode) // never found: by looking for it
	w.meet(r.inode, "", r.pid)
	w.inside(r.inode)

	broken := errors.New("broken")
	if err := w.Enter(named, func() error { return broken }); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if err := w.Enter(named, func() error { runtime.Goexit(); return nil }); !errors.Is(err, errNotReturned) {
		t.Errorf("%v", err)
	}
	if now, err := Own(); now != own || err != nil {
		t.Errorf("now in %d: %v", now, err)
	}
	remove(path)
	r.end()
	for _, inode := range []uint32{named, r.inode, 1} {
		err := w.Enter(inode, func() error { t.Error("inside what is gone"); return nil })
		if !errors.Is(err, ErrGone) {
			t.Errorf("%v", err)
		}
	}
	w.healthy()
}

// What a namespace was known by may be another's.
func TestEnterByStaleReferences(t *testing.T) {
	bpftest.RequireKernel(t)
	dir := t.TempDir()
	w := watchDirs(t, Config{Dirs: []string{dir}, Sweep: time.Hour})
	path, moved := filepath.Join(dir, "ns"), filepath.Join(dir, "moved")
	inode, _ := add(t, path)
	w.meet(inode, "ns", 0)
	if err := os.WriteFile(moved, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(path, moved, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(moved) })
	bpftest.Eventually(t, "both names", func() bool { return slices.Contains(w.paths(inode), moved) })
	r := settle(t)
	// As a recycled process number, and a file that is mounted on anew.
	w.mu.Lock()
	w.known[inode].files, w.known[inode].pid = []string{path}, r.pid
	w.mu.Unlock()
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(w.ofProcess(r.pid), path, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	w.inside(inode)
}

// gone expects a namespace to end: with it goes the veth that has an end in it,
// and so the peer. The kernel takes its time where many end at once; of one that
// is held it would never come.
func gone(t *testing.T, home *bpftest.Netns, name string) {
	t.Helper()
	begin := time.Now()
	bpftest.Eventually(t, name+" to go with its peer's namespace", func() bool {
		found := false
		home.Do(func() {
			_, err := netlink.LinkByName(name)
			found = err == nil
		})
		return !found
	})
	t.Logf("the namespace lived for %v after its end", time.Since(begin))
}

func TestNothingIsPinned(t *testing.T) {
	bpftest.RequireKernel(t)
	dir := t.TempDir()
	w := watchDirs(t, Config{Dirs: []string{dir}, Sweep: 10 * time.Millisecond})
	home := bpftest.NewNetns(t)
	path := filepath.Join(dir, "ns")
	named, _ := add(t, path)
	r := settle(t)
	for _, c := range []struct {
		name  string
		file  string
		inode uint32
		pid   uint32
		end   func()
	}{{"named", "ns", named, 0, func() { remove(path) }}, {"process", "", r.inode, r.pid, r.end}} {
		w.meet(c.inode, c.file, c.pid)
		err := w.Enter(c.inode, func() error {
			here, err := unix.Open(ownPath, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(here)
			home.Do(func() {
				err = netlink.LinkAdd(&netlink.Veth{
					LinkAttrs: netlink.LinkAttrs{Name: c.name}, PeerName: "peer", PeerNamespace: netlink.NsFd(here),
				})
			})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		w.Hint(c.pid)
		sweeps := w.Stats().Sweeps
		w.Look()
		bpftest.Eventually(t, "a sweep", func() bool { return w.Stats().Sweeps > sweeps })
		c.end()
		gone(t, home, c.name)
	}
}
