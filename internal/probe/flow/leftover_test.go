// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
)

// hooked counts the programs on an interface, by TCX and by clsact, both ways.
func hooked(t *testing.T, ns *bpftest.Netns, name string) int {
	t.Helper()
	n := 0
	ns.Do(func() {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return // not there just now
		}
		for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			// Kernels without TCX have none.
			if r, err := link.QueryPrograms(link.QueryOptions{Target: l.Attrs().Index, Attach: at}); err == nil {
				n += len(r.Programs)
			}
		}
		if filters, err := clsactFilters(l.Attrs().Index); err == nil {
			n += len(filters)
		}
	})
	return n
}

func qdisc(t *testing.T, ns *bpftest.Netns, name string) (has bool) {
	t.Helper()
	index := ns.Link(name).Attrs().Index
	ns.Do(func() {
		var err error
		if has, err = hasClsact(index); err != nil {
			t.Fatal(err)
		}
	})
	return has
}

// nothing is a foreign program that does nothing.
func nothing(t *testing.T) *ebpf.Program {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "foreign", Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = prog.Close() })
	return prog
}

// addForeign puts somebody else's filter on the qdisc of an interface.
func addForeign(t *testing.T, e *bpftest.End, priority, protocol uint16) {
	t.Helper()
	prog := nothing(t)
	e.Do(func() {
		if has, err := hasClsact(e.Index); err != nil || !has {
			if err := netlink.QdiscAdd(clsact(e.Index)); err != nil {
				t.Fatal(err)
			}
		}
		err := netlink.FilterAdd(&netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{
				LinkIndex: e.Index, Parent: netlink.HANDLE_MIN_INGRESS,
				Handle: 1, Protocol: protocol, Priority: priority,
			},
			Fd: prog.FD(), Name: "foreign", DirectAction: true,
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// The qdisc goes when the tap made it and nobody else uses it, and stays
// otherwise.
func TestQdiscOfOthersStays(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	for _, c := range []struct {
		name          string
		before, after bool // a foreign filter is added before, after the tap
	}{{"alone", false, false}, {"they came first", true, false}, {"they came later", false, true}} {
		t.Run(c.name, func(t *testing.T) {
			p := bpftest.NewPair(t)
			if c.before {
				addForeign(t, &p.A, 1, unix.ETH_P_ALL)
			}
			l := tapOn(t, p.A.Netns, Config{Attach: AttachClsact})
			if l.tappedNames()[p.A.Name] == "" {
				t.Fatalf("not attached: %+v", l.tap.Interfaces())
			}
			if c.after {
				addForeign(t, &p.A, 7, unix.ETH_P_ALL)
			}
			l.close()
			want := 0
			if c.before || c.after {
				want = 1
			}
			if n := hooked(t, p.A.Netns, p.A.Name); n != want {
				t.Errorf("%d filters left, want %d", n, want)
			}
			if has := qdisc(t, p.A.Netns, p.A.Name); has != (want == 1) {
				t.Errorf("the qdisc is there: %v", has)
			}
		})
	}
}

// Somebody else has the first priority for one protocol: the tap still gets on.
func TestPriorityTaken(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p := bpftest.NewPair(t)
	addForeign(t, &p.A, 1, unix.ETH_P_IP)
	l := tapQuiet(t, &p.A, Config{Attach: AttachClsact})
	if l.tappedNames()[p.A.Name] == "" {
		t.Fatalf("not attached: %+v", l.tap.Interfaces())
	}
	p.A.Ping(p.B.IP4, 3)
	l.settle()
	l.checkConserved(&p.A)
}

// The older kind of qdisc cannot share its place: the status says so, and the
// tap leaves nothing.
func TestIngressQdiscInTheWay(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p := bpftest.NewPair(t)
	p.A.Do(func() {
		q := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: p.A.Index,
			Handle:    netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS,
		}}
		if err := netlink.QdiscAdd(q); err != nil {
			t.Fatal(err)
		}
	})
	l := tapOn(t, p.A.Netns, Config{Attach: AttachClsact})
	places := l.tap.Interfaces()
	if len(places) != 1 || places[0].How != "" || !strings.Contains(places[0].Problem, "ingress qdisc") {
		t.Errorf("interfaces %+v", places)
	}
	if n := hooked(t, p.A.Netns, p.A.Name); n != 0 {
		t.Errorf("%d filters", n)
	}
}

// Two taps on one interface share the qdisc, and the last one removes it.
func TestLastOneRemovesQdisc(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p := bpftest.NewPair(t)
	cfg := Config{Attach: AttachClsact, StateDir: t.TempDir()}
	first, second := tapOn(t, p.A.Netns, cfg), tapOn(t, p.A.Netns, cfg)
	first.close()
	if n := hooked(t, p.A.Netns, p.A.Name); n != 2 {
		t.Errorf("%d filters of the second tap", n)
	}
	second.close()
	if qdisc(t, p.A.Netns, p.A.Name) {
		t.Error("nobody removed the qdisc")
	}
}

// With TCX the tap runs before what was there already.
func TestFirstInChain(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF, bpftest.TCX)
	p := bpftest.NewPair(t)
	prog := nothing(t)
	p.A.Do(func() {
		other, err := link.AttachTCX(link.TCXOptions{Interface: p.A.Index, Program: prog, Attach: ebpf.AttachTCXIngress})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = other.Close() })
	})
	l := tapOn(t, p.A.Netns, Config{})
	info, err := l.tap.spaces[l.tap.own.inode].programs[constants{netns: l.tap.own.inode, linkHeader: etherHeader, forwards: true}].Ingress.Info()
	if err != nil {
		t.Fatal(err)
	}
	own, _ := info.ID()
	p.A.Do(func() {
		r, err := link.QueryPrograms(link.QueryOptions{Target: p.A.Index, Attach: ebpf.AttachTCXIngress})
		if err != nil || len(r.Programs) != 2 || r.Programs[0].ID != own {
			t.Errorf("programs %+v, want %d first (%v)", r, own, err)
		}
	})
}

// A TCX link ends with its process, however that ends.
func TestKilledTCXLeavesNothing(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF, bpftest.TCX)
	p := bpftest.NewPair(t)
	dir := t.TempDir()
	kill := startChild(t, p.A.Netns, AttachTCX, dir)
	if n := hooked(t, p.A.Netns, p.A.Name); n != 2 {
		t.Fatalf("%d programs attached", n)
	}
	kill()
	bpftest.Eventually(t, "the links to end", func() bool { return hooked(t, p.A.Netns, p.A.Name) == 0 })
	if files, _ := os.ReadDir(dir); len(files) != 0 || qdisc(t, p.A.Netns, p.A.Name) {
		t.Errorf("left: %v", files)
	}
}

// What a killed process left by clsact is removed by the next one, while what a
// living one holds, in the same place, stays.
func TestCleanup(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p := bpftest.NewPair(t)
	dir := t.TempDir()
	kill := startChild(t, p.A.Netns, AttachClsact, dir)
	living := startChild(t, p.A.Netns, AttachClsact, dir)
	cleanup(t, p.A.Netns, dir, 0)
	if n := hooked(t, p.A.Netns, p.A.Name); n != 4 {
		t.Fatalf("%d filters of two living processes", n)
	}
	kill()
	if n := hooked(t, p.A.Netns, p.A.Name); n != 4 {
		t.Fatalf("%d filters after one was killed: nothing to clean up", n)
	}
	cleanup(t, p.A.Netns, dir, 2) // the qdisc is still used
	if n := hooked(t, p.A.Netns, p.A.Name); n != 2 || !qdisc(t, p.A.Netns, p.A.Name) {
		t.Errorf("%d filters of a living process", n)
	}
	living()
	cleanup(t, p.A.Netns, dir, 3)
	if n := hooked(t, p.A.Netns, p.A.Name); n != 0 || qdisc(t, p.A.Netns, p.A.Name) {
		t.Errorf("%d filters left, qdisc %v", n, qdisc(t, p.A.Netns, p.A.Name))
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(files) != 0 {
		t.Errorf("left: %v", files)
	}
	cleanup(t, p.A.Netns, dir, 0)
}

// Who keeps his notes elsewhere is known to live by the kernel.
func TestCleanupAsksTheKernel(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p := bpftest.NewPair(t)
	kill := startChild(t, p.A.Netns, AttachClsact, t.TempDir())
	elsewhere := t.TempDir()
	cleanup(t, p.A.Netns, elsewhere, 0)
	kill()
	cleanup(t, p.A.Netns, elsewhere, 2)
}

// What is somebody else's is never removed.
func TestCleanupLeavesOthers(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p := bpftest.NewPair(t)
	dir := t.TempDir()
	kill := startChild(t, p.A.Netns, AttachClsact, dir)
	addForeign(t, &p.A, 1, unix.ETH_P_ALL) // at the first handle, as most do
	kill()
	cleanup(t, p.A.Netns, dir, 2)
	if n := hooked(t, p.A.Netns, p.A.Name); n != 1 || !qdisc(t, p.A.Netns, p.A.Name) {
		t.Errorf("%d filters left, want the foreign one and its qdisc", n)
	}
}

func cleanup(t *testing.T, ns *bpftest.Netns, dir string, want int) {
	t.Helper()
	ns.Do(func() {
		left := FindLeftovers(dir)
		removed, err := left.Clean()
		err = errors.Join(err, left.Forget())
		if err != nil || len(removed) != want {
			t.Errorf("removed %q (%v), want %d things", strings.Join(removed, "; "), err, want)
		}
	})
}
