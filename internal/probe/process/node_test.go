// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
)

// insideEnv makes this binary an agent in a pid namespace of its own.
const insideEnv = "ORB8_TEST_PROCESS_INSIDE"

// In kind, and in a container, an agent's processes have other numbers than the
// machine's; those of others have none.
func TestPIDNamespace(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	for _, deep := range []string{"1", "2"} {
		cmd := nested(deep)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		// Ready, and then an exec of the outside.
		if _, err := out.Read(make([]byte, 16)); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- cmd.Wait() }()
		ns := bpftest.NewNetns(t)
		for waiting := true; waiting; {
			select {
			case err := <-done:
				if waiting = false; err != nil {
					t.Errorf("%s deep: %v", deep, err)
				}
			default:
				ns.Command("/bin/sh", "-c", "sleep 0.02; true")
			}
		}
	}
}

// nested is this binary so many pid namespaces deeper.
func nested(deep string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), insideEnv+"="+deep)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
	}
	return cmd
}

func inside() int {
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fail("mount: %v", err)
	}
	if os.Getenv(insideEnv) != "1" {
		cmd := nested("1")
		cmd.Stdout = os.Stdout
		if err := cmd.Run(); err != nil {
			return fail("nested: %v", err)
		}
		return 0
	}
	told := make(chan Exec, 1024)
	p, err := Open(Config{NewNetns: func(e Exec) {
		select {
		case told <- e:
		default:
		}
	}})
	if err != nil {
		return fail("open: %v", err)
	}
	defer p.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { _ = p.Run(ctx) }()
	cmd := exec.Command("/bin/cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNET}
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return fail("start: %v", err)
	}
	defer time.AfterFunc(30*time.Second, func() { os.Exit(fail("waited in vain")) }).Stop()
	fmt.Println("ready")
	own, other := false, false
	for e := range told {
		switch e.PID {
		case uint32(cmd.Process.Pid):
			own = true
		case 0:
			other = true
		default:
			return fail("told of %+v, which is not %d", e, cmd.Process.Pid)
		}
		if own && other {
			_ = stdin.Close()
			_ = cmd.Wait()
			return 0
		}
	}
	return 1
}

func fail(format string, args ...any) int {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	return 1
}

// Of other nodes on the same kernel nothing is told, neither execs nor groups.
func TestNode(t *testing.T) {
	path := tree(t)
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	// tree makes it below the root.
	_, h, start := listenTo(t, Group{ID: inode(t, path), Level: 1})
	start()
	within, outside := bpftest.NewNetns(t), bpftest.NewNetns(t)
	run := func(ns *bpftest.Netns, attr *syscall.SysProcAttr) {
		t.Helper()
		cmd := exec.Command("/bin/sh", "-c", "mkdir "+path+"/$0-$$ && rmdir "+path+"/$0-$$", fmt.Sprint(attr != nil))
		cmd.SysProcAttr = attr
		var out []byte
		var err error
		ns.Do(func() { out, err = cmd.CombinedOutput() })
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	before := len(h.of(outside.Inode()))
	run(outside, nil)
	run(within, &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())})
	bpftest.Eventually(t, "the node's own exec", func() bool { return len(h.of(within.Inode())) > 0 })
	bpftest.Eventually(t, "the node's own group", func() bool { return h.made("true-") })
	if got := h.of(outside.Inode()); len(got) != before || h.made("false-") {
		t.Errorf("told of another node: %v", got)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Contains(h.groups[within.Inode()], inode(t, path)) {
		t.Errorf("groups %v, want %d", h.groups[within.Inode()], inode(t, path))
	}
}

// made tells whether a group was told of that is named so.
func (h *heard) made(prefix string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, path := range h.cgroups {
		if strings.Contains(path, "/"+prefix) {
			return true
		}
	}
	return false
}
