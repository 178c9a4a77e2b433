// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/event"
)

func open(t testing.TB, cfg Config) *Probe {
	t.Helper()
	bpftest.RequireKernel(t)
	p, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	if problems := p.Problems(); problems != nil {
		t.Fatal(problems)
	}
	return p
}

func refresh(t testing.TB, p *Probe) {
	t.Helper()
	if err := p.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// ends gives a socket's connection as the tap names it.
func ends(n *bpftest.Netns, protocol event.Protocol, local, remote net.Addr) event.Conn {
	c := event.Conn{Netns: n.Inode(), Protocol: protocol, Ifindex: 1}
	parse := func(a net.Addr) (event.IP, uint16) {
		ap := netip.MustParseAddrPort(a.String())
		return event.IPFrom(ap.Addr()), ap.Port()
	}
	c.Local, c.LocalPort = parse(local)
	if remote != nil {
		c.Remote, c.RemotePort = parse(remote)
	}
	return c
}

func self(t testing.TB) (pid uint32, called string) {
	t.Helper()
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	return uint32(os.Getpid()), string(bytes.TrimSpace(comm))
}

func TestHeldSockets(t *testing.T) {
	pair := bpftest.NewPair(t)
	p := open(t, Config{})
	pid, called := self(t)
	for _, v6 := range []bool{false, true} {
		server := pair.B.ListenTCP(v6, bpftest.ServeDiscard)
		conn := pair.A.DialTCP(server)
		if _, err := conn.Write([]byte("x")); err != nil { // accepted, surely
			t.Fatal(err)
		}
		receiver := pair.B.UDP(v6)
		near := ends(pair.A.Netns, event.TCP, conn.LocalAddr(), conn.RemoteAddr())
		far := ends(pair.B.Netns, event.TCP, conn.RemoteAddr(), conn.LocalAddr())
		cookie := pair.A.Cookie(conn)
		is := func(o Owner, ok bool) bool {
			return ok && o.PID == pid && o.Name.String() == called && o.Final && !o.Kernel && o.Cgroup != 0
		}
		bpftest.Eventually(t, "both ends to be found", func() bool {
			refresh(t, p)
			return is(p.Owner(cookie)) && is(p.Find(&near)) && is(p.Find(&far))
		})
		if !p.Listening(&far) || p.Listening(&near) {
			t.Error("the wrong end listens")
		}
		only := ends(pair.B.Netns, event.UDP, receiver.LocalAddr(), conn.LocalAddr())
		if o, ok := p.Find(&only); !is(o, ok) {
			t.Errorf("who only receives is %+v", o)
		}
		elsewhere := only
		elsewhere.Netns = pair.A.Inode()
		if o, ok := p.Find(&elsewhere); ok {
			t.Errorf("in another namespace it is %+v", o)
		}
	}
	if p.Cost() <= 0 {
		t.Error("a listing that costs nothing")
	}
}

// A socket that was handed down belongs to who has it last.
func TestHandedDown(t *testing.T) {
	pair := bpftest.NewPair(t)
	p := open(t, Config{})
	c := pair.A.UDP(false)
	cookie := pair.A.Cookie(c)
	f, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "60")
	cmd.ExtraFiles = []*os.File{f}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	_ = f.Close()
	// A listing may have passed by before the child was there; the next has it.
	bpftest.Eventually(t, "the child to have it", func() bool {
		refresh(t, p)
		o, ok := p.Owner(cookie)
		return ok && o.PID == uint32(cmd.Process.Pid) && o.Name.String() == "sleep"
	})
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	bpftest.Eventually(t, "it to be ours again", func() bool {
		refresh(t, p)
		o, ok := p.Owner(cookie)
		return ok && o.PID == uint32(os.Getpid())
	})
}

// ownGroup makes a cgroup of the test's own.
func ownGroup(t testing.TB) string {
	t.Helper()
	bpftest.RequireKernel(t)
	r, err := cgroup.Open(cgroup.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	dir := filepath.Join(r.Root(), fmt.Sprintf("orb8-test-socket-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Rmdir(dir) })
	return dir
}

// maker runs a process called orb8-short in the group: it makes a socket and
// is gone. It returns its pid and the socket's cookie.
func maker(t testing.TB, group string) (pid uint32, cookie uint64) {
	t.Helper()
	called := filepath.Join(t.TempDir(), "orb8-short")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(exe, called); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(group)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command(called)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cookie, err = strconv.ParseUint(string(out), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(cmd.Process.Pid), cookie
}

// A process that is gone before anybody asks still has its name.
func TestNotes(t *testing.T) {
	group := ownGroup(t)
	p := open(t, Config{Cgroup: group})
	pid, cookie := maker(t, group)
	refresh(t, p)
	if o, ok := p.Owner(cookie); !ok || o.PID != pid || o.Name.String() != "orb8-short" || !o.Final || o.Start == 0 {
		t.Errorf("it was %d (%s), is %+v", pid, o.Name, o)
	}
	if n := testing.AllocsPerRun(100, func() { p.Owner(cookie) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	if o, ok := p.Owner(cookie); ok {
		t.Errorf("after the end it is %+v", o)
	}
	// Nothing is left at the group, and nothing is refused there.
	if r, err := queryGroup(group); err != nil || r != 0 {
		t.Errorf("%d programs left, %v", r, err)
	}
	maker(t, group)
}

func queryGroup(group string) (int, error) {
	dir, err := os.Open(group)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	attr := struct {
		fd, kind, query, attach uint32
		ids                     uint64
		count                   uint32
		_                       [44]byte
	}{fd: uint32(dir.Fd()), kind: uint32(ebpf.AttachCGroupInetSockCreate)}
	_, errno := bpf(unix.BPF_PROG_QUERY, &attr)
	if errno != 0 {
		return 0, errno
	}
	return int(attr.count), nil
}

// The program for kernels that do not know the current task here.
func TestPlainNotes(t *testing.T) {
	group := ownGroup(t)
	bpftest.RequireKernel(t)
	spec, err := loadKernel()
	if err != nil {
		t.Fatal(err)
	}
	spec.Programs[kernelProgSocketCreated] = spec.Programs[kernelProgSocketCreatedPlain].Copy()
	p := &Probe{cfg: Config{Cgroup: group}, programs: map[string]*ebpf.Program{}}
	t.Cleanup(func() { _ = p.Close() })
	p.now.Store(&directory{})
	p.openNotes(spec)
	pid, cookie := maker(t, group)
	if o, ok := p.Owner(cookie); !ok || o.PID != pid || o.Name.String() != "orb8-short" || p.Problems() != nil {
		t.Errorf("it was %d (%s), is %+v, %v", pid, o.Name, o, p.Problems())
	}
}

// The kernel's own sockets are its own, in whichever namespace.
func TestKernelSockets(t *testing.T) {
	pair := bpftest.NewPair(t)
	pair.A.Do(func() {
		vxlan := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vx0"}, VxlanId: 7, Port: 4789, Learning: false}
		if err := netlink.LinkAdd(vxlan); err != nil {
			t.Skipf("no vxlan on this kernel: %v", err)
		}
		if err := netlink.LinkSetUp(vxlan); err != nil {
			t.Fatal(err)
		}
	})
	tunnel := event.Conn{Local: event.IPFrom(pair.A.IP4), LocalPort: 4789, Netns: pair.A.Inode(), Protocol: event.UDP}
	entered := 0
	p := open(t, Config{Enter: func(netns uint32, fn func() error) (err error) {
		if netns != pair.A.Inode() {
			return os.ErrNotExist
		}
		entered++
		pair.A.Do(func() { err = fn() })
		return err
	}})
	refresh(t, p)
	if o, ok := p.Find(&tunnel); ok || entered > 0 {
		t.Errorf("without asking it is %+v", o)
	}
	p.Want(pair.A.Inode())
	p.Want(pair.B.Inode())
	refresh(t, p)
	if o, ok := p.Find(&tunnel); !ok || !o.Kernel || !o.Final || o.PID != 0 || entered != 1 {
		t.Errorf("a tunnel's socket is %+v", o)
	}
	if problems := p.Problems(); problems != nil {
		t.Errorf("a namespace that is gone is no problem: %v", problems)
	}
}

// Of a multipath connection the kernel holds the parts, and a process all.
func TestMultipath(t *testing.T) {
	pair := bpftest.NewPair(t)
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(true)
	var l net.Listener
	var conn net.Conn
	pair.B.Do(func() {
		var err error
		if l, err = lc.Listen(context.Background(), "tcp", pair.B.IP4.String()+":0"); err != nil {
			t.Fatal(err)
		}
	})
	defer l.Close()
	pair.A.Do(func() {
		d := net.Dialer{}
		d.SetMultipathTCP(true)
		var err error
		if conn, err = d.Dial("tcp", l.Addr().String()); err != nil {
			t.Fatal(err)
		}
	})
	defer conn.Close()
	p := open(t, Config{Enter: func(netns uint32, fn func() error) (err error) {
		(map[uint32]*bpftest.End{pair.A.Inode(): &pair.A, pair.B.Inode(): &pair.B})[netns].Do(func() { err = fn() })
		return err
	}})
	check := func(when string) {
		t.Helper()
		p.Want(pair.A.Inode())
		p.Want(pair.B.Inode())
		refresh(t, p)
		near := ends(pair.A.Netns, event.TCP, conn.LocalAddr(), conn.RemoteAddr())
		far := ends(pair.B.Netns, event.TCP, conn.RemoteAddr(), conn.LocalAddr())
		for _, c := range []event.Conn{near, far} {
			if o, ok := p.Find(&c); !ok || o.Kernel || o.PID != uint32(os.Getpid()) {
				t.Errorf("%s: %+v is %+v", when, c, o)
			}
		}
		if !p.Listening(&far) {
			t.Errorf("%s: nobody listens", when)
		}
	}
	check("not accepted")
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	check("accepted")
}

// Run lists at once, and again when it is wanted, not more often.
func TestRun(t *testing.T) {
	p := open(t, Config{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	bpftest.Eventually(t, "the first listing", func() bool { return p.Generation() == 1 })
	for range 1000 {
		p.Want(p.netns)
	}
	time.Sleep(200 * time.Millisecond)
	if n := p.Generation(); n != 1 {
		t.Errorf("%d listings at once", n)
	}
	bpftest.Eventually(t, "the second listing", func() bool { return p.Generation() == 2 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// What cannot be attached is told, and the rest works.
func TestNoGroup(t *testing.T) {
	bpftest.RequireKernel(t)
	p, err := Open(Config{Cgroup: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if len(p.Problems()) != 1 {
		t.Errorf("problems %q", p.Problems())
	}
	refresh(t, p)
	if p.Generation() != 1 {
		t.Error("nothing was listed")
	}
	if o, ok := p.Owner(1 << 60); ok {
		t.Errorf("nobody is %+v", o)
	}
}

func TestRefreshEnds(t *testing.T) {
	p := open(t, Config{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.Refresh(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// A connection that waits at a multipath listener is one of the kernel's own
// TCP sockets for now, as the kernel marks it, and still not the kernel's.
func TestWaitingToBeAccepted(t *testing.T) {
	pair := bpftest.NewPair(t)
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(true)
	var l net.Listener
	pair.B.Do(func() {
		var err error
		if l, err = lc.Listen(context.Background(), "tcp", pair.B.IP4.String()+":0"); err != nil {
			t.Fatal(err)
		}
	})
	defer l.Close()
	conn := pair.A.DialTCP(netip.MustParseAddrPort(l.Addr().String())) // without multipath
	far := ends(pair.B.Netns, event.TCP, conn.RemoteAddr(), conn.LocalAddr())
	p := open(t, Config{Enter: func(_ uint32, fn func() error) (err error) {
		pair.B.Do(func() { err = fn() })
		return err
	}})
	marked := 0
	pair.B.Do(func() {
		err := list(t.Context(), p.tcp, func(r *record) {
			if r.kernel && r.conn.RemotePort == far.RemotePort && r.conn.LocalPort == far.LocalPort {
				marked++
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	if marked != 1 {
		t.Errorf("the kernel marks %d sockets of the connection", marked)
	}
	p.Want(pair.B.Inode())
	refresh(t, p)
	if o, ok := p.Find(&far); !ok || o.Kernel || o.Final || o.PID != uint32(os.Getpid()) {
		t.Errorf("it is %+v", o)
	}
}
