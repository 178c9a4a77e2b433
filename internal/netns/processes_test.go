// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
)

// Who may not look at processes is told where they are by the kernel, as long
// as the namespace is mounted on a file.
func TestProcessesWithoutSight(t *testing.T) {
	r := settle(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "pod")
	// In a namespace of the test's own, whose names for others are its own, too.
	bpftest.NewNetns(t).Do(func() {
		p := &Processes{Dirs: []string{dir}}
		if _, _, err := p.Netns(uint32(r.pid)); err != nil {
			t.Fatalf("with sight: %v", err)
		}
		_, nsid, err := nameOf(fmt.Sprintf("/proc/%d/ns/net", r.pid))
		if err != nil || nsid < 0 {
			t.Fatalf("name %d, %v", nsid, err)
		}
		name := func() (int, error) { return nsid, nil }
		if _, err := p.named(name); !errors.Is(err, errNoFile) {
			t.Errorf("without a file: %v", err)
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(fmt.Sprintf("/proc/%d/ns/net", r.pid), file, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { remove(file) })
		if _, err := p.named(name); !errors.Is(err, errNoFile) {
			t.Errorf("listed again at once: %v", err)
		}
		p.listed = time.Time{}
		for range 2 { // listed, then remembered
			if inode, err := p.named(name); err != nil || inode != r.inode {
				t.Errorf("%d, %v; want %d", inode, err, r.inode)
			}
		}
		// What is mounted on the file is another one now.
		remove(file)
		add(t, file)
		p.listed = time.Time{}
		if inode, err := p.named(name); !errors.Is(err, errNoFile) {
			t.Errorf("%d, %v", inode, err)
		}
	})
}

// TestProcessesWithoutCapabilities does it as an agent that has next to none.
func TestProcessesWithoutCapabilities(t *testing.T) {
	r := settle(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "pod")
	add(t, file)
	remove(file)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(fmt.Sprintf("/proc/%d/ns/net", r.pid), file, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(file) })
	cmd := exec.Command("setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all", "/proc/self/exe")
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip("no setpriv (apt install util-linux)")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Args[len(cmd.Args)-1] = exe
	cmd.Env = append(os.Environ(), childEnv+"=sightless", fmt.Sprintf("ORB8_TEST_WANT=%d %d %s", r.pid, r.inode, dir))
	cmd.Dir = t.TempDir()
	bpftest.NewNetns(t).Do(func() { // a child has the namespace of the thread
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, strings.TrimSpace(string(out)))
		}
	})
}

// sightless plays the agent.
func sightless() error {
	var pid, want uint32
	var dir string
	if _, err := fmt.Sscan(os.Getenv("ORB8_TEST_WANT"), &pid, &want, &dir); err != nil {
		return err
	}
	if _, _, err := OfProcess("/proc", pid); !errors.Is(err, unix.EACCES) {
		return fmt.Errorf("the process can be looked at: %w", err)
	}
	p := &Processes{Dirs: []string{dir}}
	inode, start, err := p.Netns(pid)
	if err != nil || inode != want || start == 0 {
		return fmt.Errorf("%d, %d, %w; want %d", inode, start, err, want)
	}
	if inode, _, err := p.Netns(uint32(os.Getppid())); err == nil {
		return fmt.Errorf("the parent is in %d", inode)
	}
	for _, wanted := range []bool{false, true} {
		if err := deniedTo(dir, wanted); err != nil {
			return err
		}
	}
	return nil
}

// deniedTo: that processes may not be looked at is told where they matter.
func deniedTo(dir string, wanted bool) error {
	c := &limited{found: make(chan Namespace, 100)}
	c.watcher = New(Config{Dirs: []string{dir}, Wanted: func(ns Namespace) bool { return wanted || ns.Inode != 0 }})
	if err := c.start(); err != nil {
		return err
	}
	if err := await("a sweep", func() bool { return c.watcher.Stats().Sweeps > 0 }); err != nil {
		return err
	}
	told := strings.Contains(strings.Join(c.watcher.Problems(), "\n"), "cannot be read")
	if told != wanted {
		return fmt.Errorf("wanted %v: %q", wanted, c.watcher.Problems())
	}
	return nil
}

// With files alone nothing is looked at but files.
func TestFilesOnly(t *testing.T) {
	r := settle(t)
	dir := t.TempDir()
	w := watchDirs(t, Config{Dirs: []string{dir}, Sweep: time.Millisecond, FilesOnly: true})
	w.Hint(uint32(r.pid))
	inode, _ := add(t, filepath.Join(dir, "pod"))
	w.await(inode, 1)
	w.Look()
	time.Sleep(20 * time.Millisecond)
	if n, _, _ := w.times(r.inode); n != 0 || w.Stats().Processes != 0 {
		t.Errorf("a process was looked at: %+v", w.Stats())
	}
	if f, err := w.Open(inode); err != nil {
		t.Error(err)
	} else {
		_ = f.Close()
	}
	if _, err := w.Open(r.inode); !errors.Is(err, ErrGone) || strings.Contains(strings.Join(w.Problems(), "\n"), "entered") {
		t.Errorf("%v, problems %q", err, w.Problems())
	}
}
