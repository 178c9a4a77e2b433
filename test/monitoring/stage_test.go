// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/cgroup"
)

// stage is a node within the machine: processes, mounts and network namespaces
// of its own, and cgroups as a kubelet makes them. All of it ends with the test.
type stage struct {
	t      *testing.T
	init   *exec.Cmd
	pid    string
	host   *bpftest.Netns
	groups *cgroup.Resolver
	top    string // path of its cgroups
	made   []string
	actors []*actor
}

// actor is a process on the stage.
type actor struct {
	cmd    *exec.Cmd
	input  io.Closer
	output buffer
	exited chan struct{}
}

// buffer is written by the process and read by the test.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newStage(t *testing.T) *stage {
	t.Helper()
	bpftest.RequireKernel(t, bpftest.BPF)
	groups, err := cgroup.Open(cgroup.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, groups: groups, top: fmt.Sprintf("/orb8-monitoring-test-%d", os.Getpid())}
	t.Cleanup(s.close)
	s.init = exec.Command("unshare", "--pid", "--mount", "--net", "--fork", "--kill-child", "--mount-proc", "--propagation", "private",
		"sh", "-c", "mount -t tmpfs none /run && mkdir /run/netns && ip link set lo up && echo ready && exec sleep 600")
	s.init.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	ready, err := s.init.StdoutPipe()
	if err == nil {
		err = s.init.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ready.Read(make([]byte, 16)); err != nil {
		t.Fatalf("no namespaces of its own: %v", err)
	}
	outer := strconv.Itoa(s.init.Process.Pid)
	children, err := os.ReadFile("/proc/" + outer + "/task/" + outer + "/children")
	if err != nil {
		t.Fatalf("first process of the stage: %v", err)
	}
	s.pid = strings.TrimSpace(string(children))
	s.host = bpftest.OpenNetns(t, "/proc/"+s.pid+"/ns/net")
	return s
}

// close ends all processes with the first, and removes the cgroups.
func (s *stage) close() {
	if s.init != nil && s.init.Process != nil {
		_ = s.init.Process.Kill()
		_ = s.init.Wait()
	}
	for _, a := range s.actors {
		<-a.exited
	}
	for i := len(s.made) - 1; i >= 0; i-- {
		// A process that has ended leaves its group a little later.
		for range 200 {
			if err := unix.Rmdir(s.groups.Path(s.made[i])); !errors.Is(err, unix.EBUSY) {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	_ = s.groups.Close()
}

// command is one inside.
func (s *stage) command(args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"-t", s.pid, "-p", "-m", "-n"}, args...)...)
}

func (s *stage) run(script string) {
	s.t.Helper()
	if out, err := s.command("sh", "-ec", script).CombinedOutput(); err != nil {
		s.t.Fatalf("%v: %s\n%s", err, out, script)
	}
}

// start has a program run until the stage ends.
func (s *stage) start(cmd *exec.Cmd) *actor {
	s.t.Helper()
	a := &actor{cmd: cmd, exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &a.output, &a.output
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	input, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	a.input = input
	s.actors = append(s.actors, a)
	go func() {
		_ = cmd.Wait()
		close(a.exited)
	}()
	return a
}

// inPod has this program run in a pod's cgroup, as somebody else.
func (s *stage) inPod(p *pod, role string, env ...string) *actor {
	s.t.Helper()
	args := []string{os.Args[0]}
	if p.ip != "" {
		args = append([]string{"ip", "netns", "exec", p.name}, args...)
	}
	cmd := s.command(args...)
	cmd.Env = append([]string{as + "=" + role, "PATH=" + os.Getenv("PATH")}, env...)
	dir, err := os.Open(s.groups.Path(s.group(p)))
	if err != nil {
		s.t.Fatal(err)
	}
	defer dir.Close()
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	return s.start(cmd)
}

// group makes the cgroup of a pod's container.
func (s *stage) group(p *pod) string {
	s.t.Helper()
	path := s.top
	for _, part := range []string{"", "node", "kubepods", "pod" + p.uid, p.container()} {
		path = filepath.Join(path, part)
		err := os.Mkdir(s.groups.Path(path), 0o755)
		switch {
		case err == nil:
			s.made = append(s.made, path)
		case !os.IsExist(err):
			s.t.Fatal(err)
		}
	}
	return path
}

// listen gives a listener of the stage's host, and dial a connection from it.
func (s *stage) listen() (ln net.Listener) {
	s.t.Helper()
	var err error
	s.host.Do(func() { ln, err = net.Listen("tcp", "127.0.0.1:0") })
	if err != nil {
		s.t.Fatal(err)
	}
	return ln
}

func (s *stage) dial(address string) (c net.Conn, err error) {
	s.host.Do(func() { c, err = net.Dial("tcp", address) })
	return c, err
}

func (a *actor) done() bool {
	select {
	case <-a.exited:
		return true
	default:
		return false
	}
}

// end tells it to, and waits; what it said is the answer.
func (a *actor) end(t *testing.T) string {
	t.Helper()
	_ = a.input.Close()
	select {
	case <-a.exited:
	case <-time.After(30 * time.Second):
		t.Fatal("a pod does not end")
	}
	return a.output.String()
}
