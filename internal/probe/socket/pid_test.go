// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
)

// insideEnv makes this binary an agent in a pid namespace of its own; its value
// is the group where it notes sockets.
const insideEnv = "ORB8_TEST_SOCKET_INSIDE"

// In kind, and in a container, processes have the numbers that /proc shows
// there, listed and noted.
func TestPIDNamespace(t *testing.T) {
	bpftest.RequireKernel(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), insideEnv+"="+ownGroup(t))
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func inside(group string) error {
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	p, err := Open(Config{Cgroup: group})
	if err != nil {
		return err
	}
	defer p.Close()
	if len(p.Problems()) != 1 { // that it does not see all
		return fmt.Errorf("problems %q", p.Problems())
	}
	dir, err := os.Open(group)
	if err != nil {
		return err
	}
	defer dir.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{childEnv + "=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	cookie, err := strconv.ParseUint(string(out), 10, 64)
	if err != nil {
		return err
	}
	if o, ok := p.Owner(cookie); !ok || o.PID != uint32(cmd.Process.Pid) {
		return fmt.Errorf("noted %+v, it was %d", o, cmd.Process.Pid)
	}
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := p.Refresh(context.Background()); err != nil {
		return err
	}
	for _, s := range p.now.Load().sockets {
		if s.process.PID == uint32(os.Getpid()) && int(s.conn.LocalPort) == c.LocalAddr().(*net.UDPAddr).Port {
			return nil
		}
	}
	return fmt.Errorf("not listed with %d: %+v", os.Getpid(), p.now.Load().sockets)
}
