// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
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
	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/netns"
)

const (
	podA = "aaaaaaaa-7d43-4c0e-9d5e-2f0b6a1d3c4e"
	podB = "bbbbbbbb-7d43-4c0e-9d5e-2f0b6a1d3c4e"
	podC = "cccccccc-7d43-4c0e-9d5e-2f0b6a1d3c4e"
)

// container is the id of one, by its number.
func container(n int) string { return fmt.Sprintf("%064x", n) }

// machine is two nodes that share this kernel, in cgroups of the test's own.
type machine struct {
	t      testing.TB
	groups *cgroup.Resolver
	top    string // path of the nodes' groups
	own    uint32
	made   []string
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	bpftest.RequireKernel(t, bpftest.BPF)
	groups, err := cgroup.Open(cgroup.Config{})
	if err != nil {
		t.Fatal(err)
	}
	own, err := netns.Own()
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, groups: groups, own: own, top: fmt.Sprintf("/orb8-sandbox-test-%d", os.Getpid())}
	t.Cleanup(func() {
		for i := len(m.made) - 1; i >= 0; i-- {
			m.remove(m.made[i])
		}
		_ = groups.Close()
	})
	return m
}

// pods is where a node keeps its pods.
func (m *machine) pods(node int) string { return fmt.Sprintf("%s/node%d/kubepods", m.top, node) }

func (m *machine) pod(node int, uid string) string { return m.pods(node) + "/burstable/pod" + uid }

// group makes a group and those above it; what is there already stays.
func (m *machine) group(path string) string {
	m.t.Helper()
	for i, c := range path + "/" {
		if c != '/' || i == 0 {
			continue
		}
		err := os.Mkdir(m.groups.Path(path[:i]), 0o755)
		if err == nil {
			m.made = append(m.made, path[:i])
		} else if !os.IsExist(err) {
			m.t.Fatal(err)
		}
	}
	return path
}

func (m *machine) remove(path string) {
	// A process that has ended leaves its group a little later.
	for range 200 {
		if err := unix.Rmdir(m.groups.Path(path)); err != unix.EBUSY {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// open is an agent on the first node.
func (m *machine) open(cfg Config) *Sandboxes {
	m.t.Helper()
	cfg.Groups, cfg.Own = m.groups, m.own
	m.group(m.pods(1))
	s := open(cfg, node{root: filepath.Dir(m.pods(1)), pods: m.pods(1), sight: true})
	if p := s.Problems(); len(p) > 0 {
		m.t.Errorf("problems %q", p)
	}
	return s
}

func run(t testing.TB, s *Sandboxes) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// process is one that waits, in a group.
type process struct {
	*exec.Cmd
	netns uint32
	group uint64
	ended bool
}

// start starts a process in a group, in a network namespace of its own.
func (m *machine) start(path string) *process {
	m.t.Helper()
	return m.begin(path, func(cmd *exec.Cmd) error {
		cmd.SysProcAttr.Unshareflags = unix.CLONE_NEWNET
		return cmd.Start()
	})
}

// enter starts one in a namespace that is there; nil is the machine's own.
func (m *machine) enter(path string, ns *bpftest.Netns) *process {
	m.t.Helper()
	return m.begin(path, func(cmd *exec.Cmd) (err error) {
		if ns == nil {
			return cmd.Start()
		}
		ns.Do(func() { err = cmd.Start() })
		return err
	})
}

func (m *machine) begin(path string, start func(*exec.Cmd) error) *process {
	m.t.Helper()
	dir, err := os.Open(m.groups.Path(m.group(path)))
	if err != nil {
		m.t.Fatal(err)
	}
	defer dir.Close()
	p := &process{Cmd: exec.Command("sleep", "300"), group: m.groups.ID(path)}
	p.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if err := start(p.Cmd); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(p.end)
	if p.netns, _, err = netns.OfProcess("/proc", uint32(p.Process.Pid)); err != nil {
		m.t.Fatal(err)
	}
	return p
}

func (p *process) end() {
	if !p.ended {
		_ = p.Process.Kill()
		_ = p.Wait()
		p.ended = true
	}
}

// is checks whose a namespace is; "" is nobody's.
func is(t testing.TB, s *Sandboxes, inode uint32, uid string) {
	t.Helper()
	got, ok := s.Pod(inode)
	if got != uid || ok != (uid != "") {
		t.Errorf("namespace %d is %q's, %v; want %q", inode, got, ok, uid)
	}
	if uid == "" {
		return
	}
	if back, ok := s.Netns(uid); !ok || back != inode {
		t.Errorf("%s has %d, %v; want %d", uid, back, ok, inode)
	}
}

func mentions(problems []string, words string) bool {
	return strings.Contains(strings.Join(problems, "\n"), words)
}
