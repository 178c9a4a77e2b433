// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
)

// port is one interface that the tap is on, was on, or could not get on.
type port struct {
	event.Interface
	space *space
	kind  string
	asked int // the space's nsid as of the audit that runs, whose it is
	// One for each direction.
	links attachments
	// What the device counted since attaching lies between the two.
	low, high baseline
	// What it counted up to its end; low takes it over before the next swap.
	last   *deviceCounters
	heir   *port // goes on with the account
	begun  bool  // to be attached
	tapped bool  // as long as it is there, and its baselines are good
	// Of earlier times on the same interface only a lower bound is known.
	unread  bool
	gone    time.Time
	slot    bool // it has a place in flow_slots
	moves   int  // how often it was put first again
	rival   string
	removed int // how often another took it off
	// Of another namespace, at the own end of its veth.
	outside bool
}

// attachment is one program on one interface.
type attachment interface {
	io.Closer
	// state tells whether it is still there, and what runs before it.
	state() (attached bool, before string)
}

// syncInside makes the tap match the interfaces of the namespace that the
// thread is in.
func (t *Tap) syncInside(s *space) error {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list interfaces: %w", err)
	}
	if err := t.survey(s, links); err != nil {
		return err
	}
	if !s.cleaned {
		t.clean(s)
	}
	there := make(map[int]netlink.Link, len(links))
	for _, l := range links {
		there[l.Attrs().Index] = l
	}
	find := func(index int) netlink.Link { return there[index] }
	for _, l := range links { // before their bridge is tapped
		t.noteMember(s, l, find)
	}
	for _, l := range links {
		t.consider(s, l, find, true)
	}
	t.listen(s, there[loopback]) // when what carries pods' packets is tapped
	if s.own {
		t.leaveEnds(there)
		t.forgetMembers(there)
	}
	for index, p := range s.ports {
		if there[int(index)] == nil {
			t.leave(p, gone)
		}
	}
	return nil
}

// syncSome does it for those of which something was told: a namespace that
// leads to hundreds of containers is not listed for each of them.
func (t *Tap) syncSome(s *space, n *notice) error {
	survey := n.survey
	for index, told := range n.links {
		l, err := told.look(index)
		switch {
		case errors.As(err, &netlink.LinkNotFoundError{}):
			if p := s.ports[index]; p != nil {
				survey = survey || stacks(p.kind)
				t.leave(p, gone)
			}
			if s.own {
				t.leaveEnd(index)
				t.setMember(index, false)
			}
		case err != nil:
			return fmt.Errorf("look at interface %d: %w", index, err)
		default:
			survey = survey || stacks(l.Type())
			t.consider(s, l, master, told.recheck)
		}
	}
	if !survey {
		return nil
	}
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list interfaces: %w", err)
	}
	return t.survey(s, links)
}

// look gives an interface as it was told of; asking takes the lock of all network
// configuration.
func (n *linkNotice) look(index uint32) (netlink.Link, error) {
	switch {
	case n.gone:
		return nil, netlink.LinkNotFoundError{}
	case n.link != nil:
		return n.link, nil
	}
	return netlink.LinkByIndex(int(index))
}

func master(index int) netlink.Link {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return nil
	}
	return l
}

// consider has an interface tapped, or not, as it should be.
func (t *Tap) consider(s *space, l netlink.Link, master func(int) netlink.Link, recheck bool) {
	if s.own {
		defer t.considerEnd(l, recheck)
	}
	t.noteMember(s, l, master)
	if reason := t.untapped(l, master); reason != "" {
		t.leave(s.ports[uint32(l.Attrs().Index)], reason)
		return
	}
	t.keep(s, l, recheck)
}

// keep has an interface tapped, if it is not.
func (t *Tap) keep(s *space, l netlink.Link, recheck bool) {
	p := s.ports[uint32(l.Attrs().Index)]
	if p != nil && p.gone.IsZero() {
		t.renamed(p, l.Attrs().Name)
		if p.How != "" && (!recheck || t.recheck(p)) {
			return
		}
		t.release(p)
	}
	t.attach(s, l)
}

// leave ends the tap on an interface that is gone or is not to be tapped.
func (t *Tap) leave(p *port, reason string) {
	if p == nil {
		return
	}
	switch {
	case !p.gone.IsZero():
	case reason == gone && !p.outside: // that one's device is not the port's
		t.lose(p)
	default:
		t.detach(p)
	}
	t.locked(func() {
		p.Problem, p.Left = reason, true
		// Let go while it was there: what it counts since is not the tap's.
		p.tapped = p.tapped && reason == gone
	})
}

func (t *Tap) locked(do func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	do()
}

// gone is the reason for not tapping an interface that does not exist.
const gone = "gone"

// untapped: loopback is counted only on request; a member of a bridge, bond or
// team is not a place where this namespace sends or receives. A member of a VRF
// is, and the VRF is not: what comes in passes by its member only.
func (t *Tap) untapped(l netlink.Link, master func(int) netlink.Link) string {
	a := l.Attrs()
	if a.RawFlags&unix.IFF_LOOPBACK != 0 && !t.cfg.Loopback {
		return "loopback"
	}
	if l.Type() == "vrf" {
		return "a VRF; its members are tapped"
	}
	if a.MasterIndex == 0 {
		return ""
	}
	m := master(a.MasterIndex)
	if m == nil {
		return "member of another interface"
	}
	if m.Type() == "vrf" {
		return ""
	}
	return "member of " + m.Attrs().Name
}

func (t *Tap) renamed(p *port, name string) {
	if p.Name != name {
		t.log.Info("interface renamed", "from", p.Name, "to", name)
		t.locked(func() { p.Name = name })
	}
}

// attach taps one interface in both directions or not at all.
func (t *Tap) attach(s *space, l netlink.Link) {
	a := l.Attrs()
	p := &port{space: s, kind: l.Type(), outside: t.fromOutside(s), Interface: event.Interface{
		Iface: event.Iface{Netns: s.Netns, Index: uint32(a.Index)},
		Name:  a.Name,
		// It counts its own messages, keepalives and handshakes among them.
		OwnMessages: l.Type() == "wireguard",
		Unread:      true, // until the next audit
	}}
	if p.outside {
		p.Note = atOwnEnd
	}
	old := s.ports[p.Iface.Index]
	if old == nil {
		old = t.takeLeft(p.Iface)
	}
	if old != nil {
		// It left a bridge, say, or is the first interface of a namespace whose
		// number another had before: the account goes on.
		p.unread = old.unread || old.Unread && !old.gone.IsZero()
		p.low, p.high, p.slot, p.moves, p.removed, p.rival = old.low, old.high, old.slot, old.moves, old.removed, old.rival
		p.Note = old.Note
		t.locked(func() { old.heir = p })
	}
	err := t.attachBoth(s, p, l, old != nil && old.gone.IsZero())
	t.mu.Lock()
	defer t.mu.Unlock()
	s.ports[p.Iface.Index] = p
	switch {
	case err == nil:
		p.tapped = true
		late := time.Duration(0)
		if old == nil {
			late = t.late(s, p.Iface.Index)
		}
		t.log.Info("Attached flow probe", "interface", p.Name, "netns", s.Netns, "by", p.How, "after", late.Round(time.Millisecond))
	case errors.Is(err, unix.ENODEV), errors.As(err, &netlink.LinkNotFoundError{}):
		// Gone between listing and attaching. One direction may have counted.
		if p.Problem, p.Left, p.gone = gone, true, time.Now(); old == nil && !p.begun {
			delete(s.ports, p.Iface.Index)
		}
	default:
		p.Problem = err.Error()
		if old == nil || old.Problem != p.Problem {
			t.log.Warn("Not attached: flow probe", "interface", p.Name, "netns", s.Netns, "error", err)
		}
	}
}

// takeLeft takes an interface out of the list of those whose namespace is gone.
func (t *Tap) takeLeft(i event.Iface) (old *port) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.left = slices.DeleteFunc(t.left, func(p *port) bool {
		if p.Iface == i {
			old = p
		}
		return p.Iface == i
	})
	return old
}

func (t *Tap) attachBoth(s *space, p *port, l netlink.Link, again bool) error {
	prog, err := t.program(s, l)
	if err != nil {
		return explain(err)
	}
	before, err := p.before(s, l, again)
	if err != nil {
		return err
	}
	p.begun = true
	if s.own && !p.slot {
		p.slot = t.takeSlot(p.Iface.Index)
	}
	if again {
		// Taken off since the last reading: up to now it may have been tapped.
		p.high.read(before)
	}
	if err := t.attachPrograms(p, prog, t.cfg.Attach == AttachTCX || t.mayTCX() && s.own && l.Type() != "veth"); err != nil {
		p.drop().close()
		return explain(err)
	}
	after, err := p.read()
	if err != nil {
		p.drop().close()
		return err
	}
	// What is counted between the two readings may or may not have been tapped.
	p.low.start(after)
	p.high.start(before)
	return nil
}

// before reads the counters before the tap is on. Of those that come with pods,
// what came with their names is good enough, and waited for already.
func (p *port) before(s *space, l netlink.Link, again bool) (deviceCounters, error) {
	st := l.Attrs().Statistics
	if s.own && l.Type() != "veth" || again || st == nil {
		return p.read()
	}
	return p.counted(deviceCounters{
		rx: event.Counter{Bytes: st.RxBytes, Packets: st.RxPackets},
		tx: event.Counter{Bytes: st.TxBytes, Packets: st.TxPackets},

		txDropped: st.TxDropped,
	}), nil
}

// program returns the instance for an interface. Only the own namespace
// forwards: there the packets of others pass through. Nothing passes through
// loopback.
func (t *Tap) program(s *space, l netlink.Link) (*instance, error) {
	a := l.Attrs()
	c := constants{netns: s.Netns, linkHeader: linkHeader(a.EncapType), forwards: s.own && a.Index != loopback, bridge: s.own && l.Type() == "bridge"}
	if p, ok := s.programs[c]; ok {
		return p, nil
	}
	p, err := t.kernel.instance(c)
	if err != nil {
		return nil, err
	}
	s.programs[c] = p
	return p, nil
}

func (t *Tap) attachPrograms(p *port, progs *instance, tcx bool) error {
	if tcx {
		err := attachTCX(p, progs)
		if err == nil || t.cfg.Attach == AttachTCX {
			return err
		}
		p.drop().close()
		if !errors.Is(err, ebpf.ErrNotSupported) {
			return err
		}
		t.refused.Store(true)
		t.log.Info("this kernel has no TCX (6.6 has), attaching by clsact")
	}
	// Whether another's TCX program runs before it is asked last: nearly always
	// there is none, and asking takes as long as attaching.
	if err := t.attachClsact(p, progs); err != nil || !t.mayTCX() || !behindTCX(int(p.Iface.Index)) {
		return err
	}
	p.drop().close()
	return attachTCX(p, progs)
}

// mayTCX tells whether the choice is the tap's, and TCX is one.
func (t *Tap) mayTCX() bool { return t.cfg.Attach == AttachAuto && !t.refused.Load() }

// clean removes what killed processes left in the namespace, if it is as old.
func (t *Tap) clean(s *space) {
	s.cleaned = true
	if !s.own && s.Since.After(t.opened) {
		return
	}
	removed, err := t.leftovers.Clean()
	for _, r := range removed {
		t.log.Info("removed what an earlier agent left", "what", r, "netns", s.Netns)
	}
	if err != nil {
		t.log.Warn("cannot look for what an earlier agent left", "error", err)
	}
}
