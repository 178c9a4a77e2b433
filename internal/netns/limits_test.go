// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
)

// runChild runs this test program as a child with a role and reports what it
// complains of.
func runChild(t *testing.T, role string, attr *syscall.SysProcAttr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+role)
	cmd.Dir = t.TempDir()
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("child %s: %v\n%s", role, err, out)
	}
	t.Logf("%s", bytes.TrimSpace(out))
}

// child plays a role in its own working directory; 0 is success.
func child(role string) int {
	c := &limited{found: make(chan Namespace, 100)}
	home, err := os.Getwd()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	c.dir = filepath.Join(home, "netns")
	cfg := Config{Dirs: []string{c.dir}, Sweep: time.Hour, Found: func(ns Namespace) { c.found <- ns }}
	if role == "descriptors" {
		cfg.Proc = home // without the namespaces of other tests
	}
	c.watcher = New(cfg)
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		fmt.Println(err)
		return 1
	}
	switch role {
	case "descriptors":
		err = c.descriptors()
	case "sightless":
		err = sightless()
	case "instances", "watches":
		err = c.inotify(role)
	default:
		err = fmt.Errorf("no role %q", role)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// limited is a watcher in a process with little of something.
type limited struct {
	dir     string
	watcher *Watcher
	found   chan Namespace
}

// start runs the watcher until the process ends.
func (c *limited) start() error {
	failed := make(chan error, 1)
	go func() { failed <- c.watcher.Run(context.Background()) }()
	return await("first sweep", func() bool { return len(failed) > 0 || c.watcher.Stats().Sweeps > 0 })
}

func await(what string, cond func() bool) error {
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("waited in vain for %s", what)
		}
	}
	return nil
}

func (c *limited) problem(words ...string) error {
	return await(fmt.Sprintf("a problem with %q", words), func() bool {
		all := strings.Join(c.watcher.Problems(), "\n")
		for _, w := range words {
			if !strings.Contains(all, w) {
				return false
			}
		}
		return true
	})
}

func (c *limited) healthy() error {
	err := await("no problem", func() bool { return len(troubles(c.watcher)) == 0 })
	if err != nil {
		return fmt.Errorf("%w: %q", err, c.watcher.Problems())
	}
	return nil
}

func (c *limited) named(name string) error {
	timeout := time.After(10 * time.Second)
	for {
		select {
		case ns := <-c.found:
			if ns.Name == name {
				return nil
			}
		case <-timeout:
			return fmt.Errorf("%s was not found; problems %q", name, c.watcher.Problems())
		}
	}
}

// mount makes a namespace without opening anything.
func (c *limited) mount(name string) error {
	path := filepath.Join(c.dir, name)
	return onThread(func() error {
		if err := unix.Mknod(path, unix.S_IFREG|0o444, 0); err != nil {
			return err
		}
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount(ownPath, path, "", unix.MS_BIND, "")
	})
}

// descriptors: none are left, first while it runs, then from its start on.
func (c *limited) descriptors() error {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		return err
	}
	few := unix.Rlimit{Cur: 0, Max: old.Max}
	if err := c.start(); err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return unix.Setrlimit(unix.RLIMIT_NOFILE, &few) },
		func() error { return c.mount("one") },
		func() error { return c.problem("one cannot be opened", "out of file descriptors") },
		func() error {
			if err := c.watcher.Enter(1, func() error { return nil }); err == nil {
				return fmt.Errorf("entered without a descriptor")
			}
			return c.problem("cannot be entered")
		},
		func() error { return c.problem("cannot be read", c.dir) },
		func() error { return unix.Setrlimit(unix.RLIMIT_NOFILE, &old) },
		func() error { return c.named("one") },
		func() error { return c.watcher.Enter(uint32(c.inode("one")), func() error { return nil }) },
		c.healthy,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (c *limited) inode(name string) uint32 {
	inode, _ := inodeOf(filepath.Join(c.dir, name))
	return inode
}

// inotify: the user may have no instances, or no watches; later it may.
func (c *limited) inotify(what string) error {
	limit := func(n string) error {
		return os.WriteFile("/proc/sys/user/max_inotify_"+what, []byte(n), 0)
	}
	for _, step := range []func() error{
		func() error { return limit("0") },
		c.start,
		func() error { return c.problem("max_user_" + what) },
		// The processes outside of this user namespace are not for its root.
		func() error { return c.problem("processes cannot be read", "SYS_PTRACE") },
		func() error { return c.mount("polled") },
		func() error { return c.named("polled") },
		func() error { return limit("100") },
		func() error {
			return await("the problem to go", func() bool { return !strings.Contains(strings.Join(c.watcher.Problems(), ""), "inotify") })
		},
		func() error { return c.mount("told") },
		func() error { return c.named("told") },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func TestOutOfDescriptors(t *testing.T) {
	bpftest.RequireKernel(t)
	runChild(t, "descriptors", &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL})
}

// In a user namespace inotify has limits of its own, so nobody else is hurt.
func TestInotifyLimits(t *testing.T) {
	bpftest.RequireKernel(t)
	for _, what := range []string{"instances", "watches"} {
		t.Run(what, func(t *testing.T) {
			root := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
			runChild(t, what, &syscall.SysProcAttr{
				Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
				UidMappings: root, GidMappings: root, Pdeathsig: syscall.SIGKILL,
			})
		})
	}
}
