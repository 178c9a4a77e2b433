// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"errors"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What a tc program says of a packet: leave it to the next one, or let it pass
// at once.
const (
	Next int32 = -1
	Pass int32 = 0
)

// Program is a tc program of somebody else. It counts what it sees.
type Program struct {
	prog  *ebpf.Program
	count *ebpf.Map
}

// CountingProgram counts packets and ends with a verdict.
func (n *Netns) CountingProgram(verdict int32) *Program {
	n.t.Helper()
	return n.program(asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()})
}

// RedirectProgram counts packets and sends those that are IP out of another
// interface by bpf_redirect_neigh: past the host's stack, as CNIs do.
func (n *Netns) RedirectProgram(to string) *Program {
	n.t.Helper()
	index := n.Link(to).Attrs().Index
	return n.program(asm.Instructions{
		asm.LoadMem(asm.R2, asm.R6, 16, asm.Word), // protocol, big-endian
		asm.JEq.Imm(asm.R2, 0x0008, "ip"),
		asm.JNE.Imm(asm.R2, 0xdd86, "next"),
		// The pod asks for its gateway by ICMPv6, the next header at byte 6.
		asm.LoadAbs(14+6, asm.Byte),
		asm.JNE.Imm(asm.R0, unix.IPPROTO_ICMPV6, "ip"),
		asm.Mov.Imm(asm.R0, Next).WithSymbol("next"),
		asm.Return(),
		asm.Mov.Imm(asm.R1, int32(index)).WithSymbol("ip"),
		asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Imm(asm.R3, 0),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnRedirectNeigh.Call(),
		asm.Return(),
	})
}

// program loads what counts and then does the rest, with the packet in R6.
func (n *Netns) program(rest asm.Instructions) *Program {
	n.t.Helper()
	count, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	n.check(err)
	n.t.Cleanup(func() { _ = count.Close() })
	rest[0] = rest[0].WithSymbol("rest")
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "somebody_else", Type: ebpf.SchedCLS, License: "GPL",
		Instructions: append(asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.StoreImm(asm.RFP, -4, 0, asm.Word),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
			asm.LoadMapPtr(asm.R1, count.FD()),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "rest"),
			asm.Mov.Imm(asm.R1, 1),
			asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, 0),
		}, rest...),
	})
	n.check(err)
	n.t.Cleanup(func() { _ = prog.Close() })
	return &Program{prog: prog, count: count}
}

// Packets is how many the program has seen.
func (p *Program) Packets() (n uint64, err error) {
	err = p.count.Lookup(uint32(0), &n)
	return n, err
}

// Hook is a place for a tc program.
type Hook struct {
	Device string
	Egress bool
	// By a clsact filter and not by TCX.
	Clsact bool
	// Behind those that are there already; with clsact at the last priority but
	// one, or with After at the last.
	Last, After bool
}

// Attach puts the program on a hook until the test ends.
func (n *Netns) Attach(p *Program, h Hook) {
	n.t.Helper()
	var l link.Link
	n.Do(func() {
		if !h.Clsact {
			var err error
			l, err = attachTCX(n.lookup(h.Device), p, h)
			n.check(err)
			return
		}
		n.check(attachFilter(n.lookup(h.Device), p, h))
	})
	if l != nil {
		n.t.Cleanup(func() { _ = l.Close() })
	}
}

func attachTCX(dev netlink.Link, p *Program, h Hook) (link.Link, error) {
	opts := link.TCXOptions{Interface: dev.Attrs().Index, Program: p.prog, Attach: ebpf.AttachTCXIngress, Anchor: link.Head()}
	if h.Egress {
		opts.Attach = ebpf.AttachTCXEgress
	}
	if h.Last {
		opts.Anchor = link.Tail()
	}
	return link.AttachTCX(opts)
}

func attachFilter(dev netlink.Link, p *Program, h Hook) error {
	index := dev.Attrs().Index
	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
	if err := netlink.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	f := &netlink.BpfFilter{
		FilterAttrs:  netlink.FilterAttrs{LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
		Fd:           p.prog.FD(),
		Name:         "somebody_else",
		DirectAction: true,
	}
	if h.Egress {
		f.Parent = netlink.HANDLE_MIN_EGRESS
	}
	if h.Last {
		f.Priority = 0xfff0
		if h.After {
			f.Priority++
		}
	}
	return netlink.FilterAdd(f)
}
