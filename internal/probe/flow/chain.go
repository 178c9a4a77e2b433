// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

// A program that runs before the tap may redirect or drop a packet, and the tap
// never sees it. So it attaches in front of all others, and looks again now and
// then whether it still is there and in front.

// Where the kernel leaves the choice: a TCX link ends with its process, however
// that ends, and runs before any filter, but takes two grace periods of RCU,
// 20 ms or so, under the lock that all changes of interfaces need. That is right
// for the few interfaces that the node keeps. Those of containers, and what
// leads to them, come in hundreds and take their filters along when they end;
// there TCX is for going in front of another's.

// behindTCX tells whether another's TCX program runs before all filters.
func behindTCX(index int) bool {
	return tcxProgram(index, netlink.HANDLE_MIN_INGRESS) != "" || tcxProgram(index, netlink.HANDLE_MIN_EGRESS) != ""
}

// maxMoves is how often the tap goes to the front again before it lets another
// have it, who may insist as well.
const maxMoves = 3

// recheck tells whether a port may stay as it is; if not it is to be attached
// anew.
func (t *Tap) recheck(p *port) bool {
	before := ""
	for _, l := range p.links {
		attached, ahead := l.state()
		if !attached {
			p.removed++
			t.log.Warn("the flow probe was removed by another, attaching it again", "interface", p.Name, "netns", p.Iface.Netns)
			t.note(p, before)
			return false
		}
		if ahead != "" {
			before = ahead
		}
	}
	if before != "" && p.moves < maxMoves {
		p.moves++
		p.rival = before
		t.note(p, "")
		t.log.Info("going in front of another program", "interface", p.Name, "netns", p.Iface.Netns, "other", before)
		return false
	}
	t.note(p, before)
	return true
}

// tcxProgram is the first foreign program in a TCX chain; those run before any
// filter.
func tcxProgram(index int, parent uint32) string {
	at := ebpf.AttachTCXIngress
	if parent == netlink.HANDLE_MIN_EGRESS {
		at = ebpf.AttachTCXEgress
	}
	chain, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: at})
	if err != nil {
		return "" // no TCX
	}
	for _, other := range chain.Programs {
		if name := programName(other.ID); !strings.HasPrefix(name, "flow_") {
			return name
		}
	}
	return ""
}

// note is what status says of a port.
func (t *Tap) note(p *port, before string) {
	var notes []string
	if p.outside {
		notes = append(notes, atOwnEnd)
	}
	if before != "" {
		notes = append(notes, "runs after "+before+", which may hide packets")
	}
	if before == "" && p.moves > 0 {
		notes = append(notes, "went in front of "+p.rival)
	}
	switch {
	case p.removed == 1:
		notes = append(notes, "was removed by another and attached again")
	case p.removed > 1:
		notes = append(notes, fmt.Sprintf("was removed by another and attached again, %d times", p.removed))
	}
	t.locked(func() { p.Note = strings.Join(notes, "; ") })
}

// hook is a program with its places.
type hook struct {
	program *ebpf.Program
	tcx     ebpf.AttachType
	clsact  uint32
}

// hooks are both directions. What leaves by loopback comes in by it, so there
// one tells all.
func hooks(p *port, progs *instance) []hook {
	if p.outside { // what this end receives, the other has sent
		progs = &instance{Ingress: progs.Egress, Egress: progs.Ingress}
	}
	both := []hook{
		{progs.Egress, ebpf.AttachTCXEgress, netlink.HANDLE_MIN_EGRESS},
		{progs.Ingress, ebpf.AttachTCXIngress, netlink.HANDLE_MIN_INGRESS},
	}
	if p.Iface.Index == loopback {
		return both[:1]
	}
	return both
}

func attachTCX(p *port, progs *instance) error {
	for _, h := range hooks(p, progs) {
		l, err := link.AttachTCX(link.TCXOptions{
			Interface: int(p.Iface.Index),
			Program:   h.program,
			Attach:    h.tcx,
			Anchor:    link.Head(),
		})
		if err != nil {
			return err
		}
		p.links = append(p.links, tcxLink{l, h.tcx})
	}
	p.How = string(AttachTCX)
	return nil
}

// tcxLink ends with the process, and from any namespace.
type tcxLink struct {
	link.Link
	at ebpf.AttachType
}

// state asks in the namespace of the interface.
func (l tcxLink) state() (attached bool, before string) {
	info, err := l.Info()
	if err != nil || info.TCX() == nil {
		return true, "" // not told; nothing says that it is gone
	}
	index := info.TCX().Ifindex
	if index == 0 {
		return false, ""
	}
	chain, err := link.QueryPrograms(link.QueryOptions{Target: int(index), Attach: l.at})
	if err != nil {
		return true, ""
	}
	for _, other := range chain.Programs {
		if id, ok := other.LinkID(); ok && id == info.ID {
			break
		}
		if name := programName(other.ID); !strings.HasPrefix(name, "flow_") {
			return true, name
		}
	}
	return true, ""
}

// programName is how a program is called in messages. Those of another orb8
// begin with flow_, and hide nothing.
func programName(id ebpf.ProgramID) string {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return fmt.Sprintf("program %d", id)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil || info.Name == "" {
		return fmt.Sprintf("program %d", id)
	}
	return info.Name
}
