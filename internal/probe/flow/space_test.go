// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"errors"
	"log/slog"
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

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
	orb8netns "github.com/orb8/orb8/internal/netns"
)

// doors are namespaces that a tap may enter.
type doors struct {
	mu   sync.Mutex
	open map[uint32]*bpftest.Netns
	gone atomic.Uint32
	err  error // instead of entering
}

func newDoors(namespaces ...*bpftest.Netns) *doors {
	d := &doors{open: map[uint32]*bpftest.Netns{}}
	for _, ns := range namespaces {
		d.open[ns.Inode()] = ns
	}
	return d
}

func (d *doors) config(cfg Config) Config {
	cfg.Enter = func(inode uint32, fn func() error) (err error) {
		d.mu.Lock()
		ns, refused := d.open[inode], d.err
		d.mu.Unlock()
		if refused != nil {
			return refused
		}
		ns.Do(func() { err = fn() })
		return err
	}
	cfg.Gone = d.gone.Store
	return cfg
}

func (d *doors) refuse(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

// host opens a tap whose own namespace is ns, with a follower.
func host(t *testing.T, ns *bpftest.Netns, cfg Config) *live {
	t.Helper()
	l := &live{t: t, ns: ns, flows: map[event.Conn]*event.Delta{}}
	cfg.StateDir = t.TempDir()
	ns.Do(func() {
		var err error
		if l.tap, err = Open(cfg); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(l.close)
	l.sync()
	return l
}

// tapped is the interface of a name in a namespace, once it is attached.
func (l *live) tapped(ns *bpftest.Netns, name string) event.Interface {
	l.t.Helper()
	var found event.Interface
	bpftest.Eventually(l.t, name+" to be tapped", func() bool {
		for _, i := range l.tap.Interfaces() {
			if i.Iface.Netns == ns.Inode() && i.Name == name && i.How != "" {
				found = i
				return true
			}
		}
		return false
	})
	return found
}

// An interface that moves takes its programs along; they are let go, and those
// of the namespace that it is in now are attached: nothing is counted twice, and
// nothing under the wrong namespace.
func TestInterfaceMoves(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		p, pod := bpftest.NewPair(t), bpftest.NewNetns(t)
		d := newDoors(pod)
		l := host(t, p.A.Netns, d.config(Config{Attach: how}))
		l.follow()
		l.tap.Add(pod.Inode(), "pod", time.Now())
		l.tapped(p.A.Netns, p.A.Name)
		before := hooked(t, p.A.Netns, p.A.Name)
		p.A.Do(func() {
			veth, err := netlink.LinkByName(p.A.Name)
			if err == nil {
				err = netlink.LinkSetNsFd(veth, int(handle(t, pod)))
			}
			if err != nil {
				t.Fatal(err)
			}
		})
		moved := l.tapped(pod, p.A.Name)
		bpftest.Eventually(t, "the old programs to go", func() bool { return hooked(t, pod, p.A.Name) == before })
		pod.Do(func() {
			veth, err := netlink.LinkByName(p.A.Name)
			if err == nil {
				err = netlink.AddrAdd(veth, &netlink.Addr{IPNet: netlink.NewIPNet(p.A.IP4.AsSlice())})
			}
			if err == nil {
				err = netlink.LinkSetUp(veth)
			}
			if err == nil {
				err = netlink.RouteAdd(&netlink.Route{LinkIndex: veth.Attrs().Index, Dst: netlink.NewIPNet(p.B.IP4.AsSlice())})
			}
			if err != nil {
				t.Fatal(err)
			}
		})
		end := p.A
		end.Netns = pod
		c := end.UDP(false)
		to := p.B.DrainUDP(false)
		const sent = 50
		for range sent {
			if _, err := c.WriteTo(make([]byte, 10), net.UDPAddrFromAddrPort(to)); err != nil {
				t.Fatal(err)
			}
		}
		bpftest.Eventually(t, "all packets, in the namespace where they were sent", func() bool {
			l.epoch() // they may have waited for the neighbour's address
			n := uint64(0)
			for conn, f := range l.flows {
				if conn.Protocol == event.UDP && conn.RemotePort == to.Port() {
					n += f.Traffic.TxPackets
					if conn.Netns != moved.Iface.Netns {
						t.Errorf("counted in %d, not in %d", conn.Netns, moved.Iface.Netns)
					}
				}
			}
			if n > sent {
				t.Errorf("sent %d packets, counted %d", sent, n)
			}
			return n == sent
		})
	})
}

// handle opens a namespace from within, for as long as the test runs.
func handle(t *testing.T, ns *bpftest.Netns) (h netns.NsHandle) {
	t.Helper()
	ns.Do(func() {
		var err error
		if h, err = netns.Get(); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// A namespace ends with its last process, tapped or not: the other end of its
// veth is gone within a second.
func TestNamespaceIsNotKept(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		ns := bpftest.NewNetns(t)
		var pid int
		d := newDoors()
		cfg := d.config(Config{Attach: how, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
		cfg.Enter = func(_ uint32, fn func() error) error { return inProcess(pid, fn) }
		l := host(t, ns, cfg)
		l.follow()
		sleep := exec.Command("sleep", "60")
		sleep.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		if err := sleep.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = sleep.Process.Kill(); _ = sleep.Wait() })
		pid = sleep.Process.Pid
		var inode uint32
		if err := inProcess(pid, func() (err error) { inode, err = threadNetns(); return err }); err != nil {
			t.Fatal(err)
		}
		l.link(func() error {
			return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "near"}, PeerName: "far", PeerNamespace: netlink.NsPid(pid)})
		})
		l.tap.Add(inode, "short", time.Now())
		bpftest.Eventually(t, "both ends to be tapped", func() bool { return l.tappedNames()["near"] != "" && l.tappedNames()["far"] != "" })
		l.epoch()
		start := time.Now()
		_ = sleep.Process.Kill()
		_ = sleep.Wait()
		bpftest.Eventually(t, "the veth to go", func() bool {
			var err error
			ns.Do(func() { _, err = netlink.LinkByName("near") })
			return err != nil
		})
		t.Logf("the namespace lived on for %s", time.Since(start)) // of one that is held it would be for ever
		bpftest.Eventually(t, "the tap to hear of it", func() bool { return d.gone.Load() == inode })
		for _, n := range l.tap.Namespaces() {
			if n.Netns == inode {
				t.Errorf("still listed: %+v", n)
			}
		}
	})
}

// A network card outlives its namespace: it is back in the first one within a
// second of the last process, tapped or not.
func TestCardComesBack(t *testing.T) {
	if !bpftest.Emulated() {
		t.Skip("no network card to spare; the machine of the matrix has one")
	}
	root, err := netns.GetFromPid(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	first, err := netlink.NewHandleAt(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(first.Close)
	bothWays(t, func(t *testing.T, how Attach) {
		card, err := first.LinkByName("eth0")
		if err != nil {
			t.Fatalf("the card of the matrix: %v", err)
		}
		sleep := exec.Command("/proc/self/exe")
		sleep.Env = append(os.Environ(), childEnv+"=sleep:")
		sleep.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		stdin, err := sleep.StdinPipe()
		if err == nil {
			err = sleep.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = stdin.Close(); _ = sleep.Process.Kill(); _ = sleep.Wait() })
		pid := sleep.Process.Pid
		if err := first.LinkSetNsPid(card, pid); err != nil {
			t.Fatal(err)
		}
		var inode uint32
		if err := inProcess(pid, func() (err error) { inode, err = threadNetns(); return err }); err != nil {
			t.Fatal(err)
		}
		cfg := newDoors().config(Config{Attach: how})
		cfg.Enter = func(_ uint32, fn func() error) error { return inProcess(pid, fn) }
		l := host(t, bpftest.NewNetns(t), cfg)
		l.tap.Add(inode, "card", time.Now())
		l.sync()
		if l.tappedNames()["eth0"] != string(how) {
			t.Fatalf("not tapped: %+v", l.tap.Interfaces())
		}
		l.epoch()
		start := time.Now()
		_ = sleep.Process.Kill()
		_ = sleep.Wait()
		bpftest.Eventually(t, "the card to come back", func() bool {
			_, err := first.LinkByName("eth0")
			return err == nil
		})
		t.Logf("the card was away for %s", time.Since(start))
	})
}

func inProcess(pid int, fn func() error) error {
	h, err := netns.GetFromPid(pid)
	if err != nil {
		return errors.Join(orb8netns.ErrGone, err)
	}
	defer h.Close()
	runtime.LockOSThread()
	origin, err := netns.Get()
	if err != nil {
		return err
	}
	defer origin.Close()
	if err := netns.Set(h); err != nil {
		return err
	}
	defer func() {
		if netns.Set(origin) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return fn()
}

// A namespace that cannot be entered is said, the others go on, and it is tapped
// once it can be.
func TestNamespaceThatCannotBeEntered(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	for _, refusal := range []error{unix.EPERM, unix.EMFILE} {
		t.Run(refusal.Error(), func(t *testing.T) {
			p := bpftest.NewPair(t)
			d := newDoors(p.B.Netns)
			l := host(t, p.A.Netns, d.config(Config{}))
			d.refuse(refusal)
			l.tap.Add(p.B.Inode(), "shut", time.Now())
			l.sync()
			if l.tappedNames()[p.A.Name] == "" {
				t.Error("the own namespace is not tapped any more")
			}
			status := func() event.Namespace {
				for _, n := range l.tap.Namespaces() {
					if n.Name == "shut" {
						return n
					}
				}
				t.Fatal("not listed")
				return event.Namespace{}
			}
			if n := status(); !n.Tapped.IsZero() || !strings.Contains(n.Problem, refusal.Error()) {
				t.Errorf("%+v, want the problem %q", n, refusal)
			}
			d.refuse(nil)
			l.sync()
			if n := status(); n.Tapped.IsZero() || n.Problem != "" || n.Untapped <= 0 {
				t.Errorf("%+v, want it tapped", n)
			}
		})
	}
}

// Who takes the tap off an interface, or steps in front of it, is noticed; the
// tap is attached again, and status says so.
func TestOthersInTheChain(t *testing.T) {
	t.Run("qdisc removed", func(t *testing.T) {
		bpftest.RequireKernel(t, bpftest.BPF)
		p := bpftest.NewPair(t)
		l := host(t, bpftest.NewNetns(t), newDoors(p.A.Netns).config(Config{Attach: AttachClsact}))
		l.follow()
		l.tap.Add(p.A.Inode(), "pod", time.Now())
		l.tapped(p.A.Netns, p.A.Name)
		l.epoch()
		c, to := p.A.UDP(false), net.UDPAddrFromAddrPort(p.B.DrainUDP(false))
		for range 50 { // counted, and not read before the tap is gone
			if _, err := c.WriteTo(make([]byte, 10), to); err != nil {
				t.Fatal(err)
			}
		}
		p.A.Do(func() {
			if err := netlink.QdiscDel(clsact(p.A.Index)); err != nil {
				t.Fatal(err)
			}
		})
		bpftest.Eventually(t, "the filters to be back", func() bool { return hooked(t, p.A.Netns, p.A.Name) == 2 })
		bpftest.Eventually(t, "status to say so", func() bool {
			return strings.Contains(l.tapped(p.A.Netns, p.A.Name).Note, "removed by another")
		})
		l.epoch()
		if e := l.tapped(p.A.Netns, p.A.Name).Egress; e.DeviceLow.Packets > 50 || e.DeviceHigh.Packets < 50 {
			t.Errorf("50 packets are not between %d and %d", e.DeviceLow.Packets, e.DeviceHigh.Packets)
		}
	})
	t.Run("in front", func(t *testing.T) {
		bpftest.RequireKernel(t, bpftest.BPF, bpftest.TCX)
		p := bpftest.NewPair(t)
		l := tapOn(t, p.A.Netns, Config{Attach: AttachTCX})
		for round := range maxMoves + 1 {
			prog := nothing(t)
			p.A.Do(func() {
				other, err := link.AttachTCX(link.TCXOptions{Interface: p.A.Index, Program: prog, Attach: ebpf.AttachTCXIngress, Anchor: link.Head()})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = other.Close() })
			})
			l.sync()
			if first := firstProgram(t, p.A); (first == "foreign") != (round == maxMoves) {
				t.Errorf("round %d: %s is first", round, first)
			}
		}
		if note := l.tapped(p.A.Netns, p.A.Name).Note; !strings.Contains(note, "runs after foreign") {
			t.Errorf("note %q", note)
		}
	})
	// What stands in front of all filters makes the tap a link, too.
	t.Run("TCX in a container", func(t *testing.T) {
		bpftest.RequireKernel(t, bpftest.BPF, bpftest.TCX)
		p := bpftest.NewPair(t)
		l := tapOn(t, p.A.Netns, fromOutside(p.A.Netns, Config{}))
		if how := l.tappedNames()[p.A.Name]; how != string(AttachClsact) {
			t.Fatalf("attached by %q", how)
		}
		prog := nothing(t)
		p.A.Do(func() {
			other, err := link.AttachTCX(link.TCXOptions{Interface: p.A.Index, Program: prog, Attach: ebpf.AttachTCXEgress})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = other.Close() })
		})
		l.sync()
		if how := l.tappedNames()[p.A.Name]; how != string(AttachTCX) {
			t.Errorf("attached by %q, with a foreign link in front", how)
		}
	})
}

func firstProgram(t *testing.T, e bpftest.End) (name string) {
	t.Helper()
	e.Do(func() {
		r, err := link.QueryPrograms(link.QueryOptions{Target: e.Index, Attach: ebpf.AttachTCXIngress})
		if err != nil || len(r.Programs) == 0 {
			t.Fatalf("programs %+v: %v", r, err)
		}
		name = programName(r.Programs[0].ID)
	})
	return name
}

// Loopback is tapped on request: each end has its record, complete, and the sum
// is what the device counted.
func TestLoopback(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		ns := bpftest.NewNetns(t)
		ns.Do(func() {
			if err := netlink.LinkSetUp(byName("lo")); err != nil {
				t.Fatal(err)
			}
		})
		l := host(t, ns, Config{Attach: how, Loopback: true})
		localhost := netip.MustParseAddr("127.0.0.1")
		lo := &bpftest.End{Netns: ns, Name: "lo", IP4: localhost, IP6: localhost}
		c := lo.DialTCP(lo.ListenTCP(false, bpftest.ServeDiscard))
		bulk(t, c, 1<<20)
		_ = c.Close()
		bpftest.Eventually(t, "both ends, and as much as the device counted", func() bool {
			l.epoch()
			var ends []*event.Delta
			// A super-packet may be cut before the device counts it.
			var most, least event.Counter
			for conn, f := range l.flows {
				if conn.Protocol == event.TCP {
					ends = append(ends, f)
				}
				most.Packets += f.Traffic.TxPackets
				least.Packets += f.Traffic.TxPackets - f.Segmentation.TxPackets
			}
			i := l.tapped(ns, "lo")
			device := i.Egress.DeviceHigh.Packets
			return len(ends) == 2 && ends[0].Traffic == ends[1].Traffic.Reversed() && ends[0].Traffic.Bytes() > 1<<20 &&
				device >= least.Packets && device <= most.Packets && i.Ingress.DeviceHigh == i.Egress.DeviceHigh
		})
	})
}
