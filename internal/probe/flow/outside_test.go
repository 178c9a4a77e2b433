// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
	orb8netns "github.com/orb8/orb8/internal/netns"
)

// windows are namespaces that a tap may look at and not enter.
type windows struct {
	mu   sync.Mutex
	open map[uint32]*bpftest.Netns
}

func newWindows(namespaces ...*bpftest.Netns) *windows {
	w := &windows{open: map[uint32]*bpftest.Netns{}}
	for _, ns := range namespaces {
		w.open[ns.Inode()] = ns
	}
	return w
}

func (w *windows) config(cfg Config) Config {
	cfg.FromOutside = func(inode uint32) (f *os.File, err error) {
		w.mu.Lock()
		ns := w.open[inode]
		w.mu.Unlock()
		if ns == nil {
			return nil, orb8netns.ErrGone
		}
		ns.Do(func() { f, err = os.Open("/proc/thread-self/ns/net") })
		return f, err
	}
	return cfg
}

func (w *windows) shut(ns *bpftest.Netns) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, ns.Inode())
}

func (l *live) namespace(ns *bpftest.Netns) (found event.Namespace) {
	for _, n := range l.tap.Namespaces() {
		if n.Netns == ns.Inode() {
			found = n
		}
	}
	return found
}

// A namespace is tapped when a veth leads to it, whichever is heard of first,
// and nothing stays on the own end when it has gone or the tap has.
func TestOutsideFollows(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		own, early, late := bpftest.NewNetns(t), bpftest.NewNetns(t), bpftest.NewNetns(t)
		w := newWindows(early, late)
		l := host(t, own, w.config(Config{Attach: how}))
		l.follow()
		l.tap.Add(early.Inode(), "early", time.Now())
		bpftest.Eventually(t, "the namespace to be missed", func() bool { return l.namespace(early).Problem == noOwnEnd })
		own.AddVeth(early, "toearly", "eth0")
		own.AddVeth(late, "tolate", "eth0")
		i := l.tapped(early, "toearly")
		if !strings.Contains(i.Note, atOwnEnd) || i.Namespace != "early" {
			t.Errorf("%+v", i)
		}
		l.tapped(own, "tolate")
		l.tap.Add(late.Inode(), "late", time.Now())
		l.tapped(late, "tolate")
		bpftest.Eventually(t, "both to be tapped", func() bool {
			return l.namespace(early).Problem == "" && !l.namespace(late).Tapped.IsZero()
		})
		if n := hooked(t, own, "tolate"); n != 4 {
			t.Errorf("%d programs on an end that is both, want 4", n)
		}

		own.Do(func() {
			if err := netlink.LinkDel(byName("toearly")); err != nil {
				t.Error(err)
			}
		})
		bpftest.Eventually(t, "the veth to be missed", func() bool { return l.namespace(early).Problem == noOwnEnd })
		// What refers to a namespace may go before it does.
		w.shut(late)
		l.sync()
		if n := hooked(t, own, "tolate"); n != 2 {
			t.Errorf("%d programs on the end of what is gone, want 2", n)
		}
		for _, n := range l.tap.Namespaces() {
			if n.Netns == late.Inode() {
				t.Errorf("still there: %+v", n)
			}
		}
		l.close()
		if n := hooked(t, own, "tolate"); n != 0 || qdisc(t, own, "tolate") {
			t.Errorf("%d programs left, or the qdisc", n)
		}
	})
}

// When the other end of a veth moves on, the tap follows it.
func TestOutsideEndMoves(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		own, from, to := bpftest.NewNetns(t), bpftest.NewNetns(t), bpftest.NewNetns(t)
		own.AddVeth(from, "veth0", "eth0")
		l := host(t, own, newWindows(from, to).config(Config{Attach: how}))
		l.tap.Add(from.Inode(), "from", time.Now())
		l.tap.Add(to.Inode(), "to", time.Now())
		l.sync()
		l.tapped(from, "veth0")
		from.Do(func() {
			if err := netlink.LinkSetNsFd(byName("eth0"), int(handle(t, to))); err != nil {
				t.Error(err)
			}
		})
		l.sync()
		l.tapped(to, "veth0")
		if p := l.namespace(from).Problem; p != noOwnEnd {
			t.Errorf("where it was: %q", p)
		}
		if n := hooked(t, own, "veth0"); n != 4 {
			t.Errorf("%d programs, want 4", n)
		}
	})
}

// Super-packets add up from outside, too, to what the device counted.
func TestOutsideIsConserved(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		p := bpftest.NewPair(t)
		bpftest.Settle(t, []bpftest.Place{{Netns: p.A.Netns, Name: p.A.Name}})
		l := host(t, p.A.Netns, newWindows(p.B.Netns).config(Config{Attach: how}))
		l.tap.Add(p.B.Inode(), "pod", time.Now())
		l.sync()
		for _, v6 := range []bool{false, true} {
			const size = 20 << 20
			to := p.A.ListenTCP(v6, bpftest.ServeDiscard)
			c := p.B.DialTCP(to)
			if _, err := c.Write(make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			_ = c.CloseWrite()
			_, _ = io.Copy(io.Discard, c) // until the other has read all
			l.settle()
			_, tx := l.checkConserved(&p.A) // of its two ports the last: the pod's
			d := l.find(event.TCP, c.LocalAddr().(*net.TCPAddr).AddrPort().Port(), to.Port())
			if d.Conn.Netns != p.B.Inode() || d.Traffic.TxBytes < size || d.Cookie != p.B.Cookie(c) || !d.HasSocket || tx.flows.Bytes < size {
				t.Errorf("%+v, %+v", d, tx)
			}
		}
	})
}

// Tapped from outside a namespace ends as well, and the tap hears of it.
func TestOutsideIsNotKept(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		own := bpftest.NewNetns(t)
		sleep := exec.Command("sleep", "60")
		sleep.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		if err := sleep.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = sleep.Process.Kill(); _ = sleep.Wait() })
		path := fmt.Sprintf("/proc/%d/ns/net", sleep.Process.Pid)
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		n, err := inode(f)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		var gone atomic.Uint32
		l := host(t, own, Config{Attach: how, Gone: gone.Store, FromOutside: func(uint32) (*os.File, error) {
			f, err := os.Open(path)
			if err != nil {
				err = orb8netns.ErrGone
			}
			return f, err
		}})
		l.follow()
		l.tap.Add(n, "short", time.Now())
		l.link(func() error {
			return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "near"}, PeerName: "far", PeerNamespace: netlink.NsPid(sleep.Process.Pid)})
		})
		bpftest.Eventually(t, "the end to be tapped twice", func() bool { return hooked(t, own, "near") == 4 })
		_ = sleep.Process.Kill()
		_ = sleep.Wait()
		bpftest.Eventually(t, "the tap to hear of it", func() bool { return gone.Load() == n })
		if got := l.tap.Namespaces(); len(got) != 1 {
			t.Errorf("still listed: %+v", got)
		}
	})
}

// A process that has the capabilities BPF, NET_ADMIN and PERFMON and no others
// taps pods from outside.
func TestBareCapabilities(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		w := bpftest.NewWire(t)
		node, far := w.Host(), w.Host()
		pods := []*bpftest.Pod{node.BridgePod(), node.RoutedPod()}
		var echoes []*bpftest.Echo
		for _, v6 := range []bool{false, true} {
			echoes = append(echoes, far.EchoUDP(v6))
			for _, p := range pods {
				p.Reaches(echoes[len(echoes)-1].Addr)
			}
		}
		places := []bpftest.Place{{Netns: node.Netns, Name: node.Name}}
		bpftest.Settle(t, places)
		c := startBare(t, node.Netns, how, pods)
		for _, p := range pods {
			for _, e := range echoes {
				const n = 20
				from := p.AskUDP(e.Addr, n, 100)
				want := fmt.Sprintf("%d %v %v %d %d socket true", p.Inode(), from, e.Addr, n, n)
				if got := c.epoch(t, from); len(got) != 1 || got[0] != want {
					t.Errorf("%q, want %q", got, want)
				}
			}
		}
	})
}

// bareChild drops what it has too much of, and is a tap from then on.
func bareChild(how, dir string) int {
	const marker = "bare"
	if len(os.Args) < 2 || os.Args[1] != marker {
		runtime.LockOSThread()
		for c := range unix.CAP_LAST_CAP + 1 {
			if c != unix.CAP_NET_ADMIN && c != unix.CAP_BPF && c != unix.CAP_PERFMON {
				_ = unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
			}
		}
		fmt.Println(syscall.Exec("/proc/self/exe", []string{"tap", marker}, os.Environ()))
		return 1
	}
	files := map[uint32]*os.File{}
	var fs unix.Statfs_t
	for fd := 3; unix.Fstatfs(fd, &fs) == nil && fs.Type == unix.NSFS_MAGIC; fd++ {
		f := os.NewFile(uintptr(fd), "namespace")
		if n, err := inode(f); err == nil {
			files[n] = f
		}
	}
	if err := unix.Setns(3, unix.CLONE_NEWNET); !errors.Is(err, unix.EPERM) {
		fmt.Println("a namespace can be entered:", err)
		return 1
	}
	tap, err := Open(Config{Attach: Attach(how), StateDir: dir, FromOutside: func(n uint32) (*os.File, error) {
		if files[n] == nil {
			return nil, errors.New("not given")
		}
		fd, err := unix.Dup(int(files[n].Fd()))
		return os.NewFile(uintptr(fd), "namespace"), err
	}})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for n := range files {
		tap.Add(n, "pod", time.Now())
	}
	err = tap.Sync()
	for _, n := range tap.Namespaces() {
		if n.Problem != "" {
			err = errors.Join(err, errors.New(n.Problem))
		}
	}
	w, _, watchErr := openWatch(false)
	if err = errors.Join(err, watchErr); err != nil {
		fmt.Println(err)
		return 1
	}
	_ = w.file.Close()
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		err := tap.Epoch(true, func(d *event.Delta) {
			c, s := &d.Conn, &d.Traffic
			if d.Place != event.PlaceCarried {
				fmt.Println(c.Netns, netip.AddrPortFrom(c.Local.Addr(), c.LocalPort), netip.AddrPortFrom(c.Remote.Addr(), c.RemotePort),
					s.TxPackets, s.RxPackets, "socket", d.Cookie != 0 && d.Cgroup != 0)
			}
		})
		for _, i := range tap.Interfaces() {
			if i.Note == atOwnEnd && i.Ingress.DeviceLow != i.Ingress.DeviceHigh {
				fmt.Println("not quiet:", i.Name)
			}
		}
		fmt.Println("end", err)
	}
	if err := tap.Close(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

type bareTap struct {
	in  *os.File
	out *bufio.Scanner
}

// epoch has the child end one and returns what it says of an address.
func (c *bareTap) epoch(t *testing.T, of netip.AddrPort) (said []string) {
	t.Helper()
	if _, err := fmt.Fprintln(c.in, "epoch"); err != nil {
		t.Fatal(err)
	}
	for c.out.Scan() {
		line := c.out.Text()
		if strings.HasPrefix(line, "end ") {
			if line != "end <nil>" {
				t.Error(line)
			}
			return said
		}
		if strings.Contains(line, of.String()) {
			said = append(said, line)
		}
	}
	t.Fatal("the child has ended")
	return nil
}

func startBare(t *testing.T, ns *bpftest.Netns, how Attach, pods []*bpftest.Pod) *bareTap {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=bare-%s:%s", childEnv, how, t.TempDir()))
	cmd.Stderr = os.Stderr
	in, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = in
	for _, p := range pods {
		p.Do(func() {
			var f *os.File
			if f, err = os.Open("/proc/thread-self/ns/net"); err == nil {
				cmd.ExtraFiles = append(cmd.ExtraFiles, f)
			}
		})
	}
	out, pipeErr := cmd.StdoutPipe()
	if err := errors.Join(err, pipeErr); err != nil {
		t.Fatal(err)
	}
	ns.Do(func() { err = cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(cmd.ExtraFiles, in) {
		_ = f.Close()
	}
	t.Cleanup(func() {
		_ = write.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the child: %v", err)
		}
	})
	c := &bareTap{write, bufio.NewScanner(out)}
	var told []string
	for c.out.Scan() {
		if c.out.Text() == "ready" {
			return c
		}
		told = append(told, c.out.Text())
	}
	t.Fatalf("the child is not attached: %q", told)
	return nil
}
