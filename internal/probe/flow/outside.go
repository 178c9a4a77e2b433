// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"

	"github.com/orb8/orb8/internal/event"
)

// Without SYS_ADMIN no other namespace can be entered. Then they are tapped from
// outside, at the own ends of their veths, where the programs change places:
// what the own end receives is what the namespace sends, its socket still
// attached. A connection has the same key as inside but for the interface, which
// is the own end.

// fromOutside tells whether a namespace is tapped so.
func (t *Tap) fromOutside(s *space) bool { return !s.own && t.cfg.FromOutside != nil }

const (
	atOwnEnd = "tapped from outside, at the other end of its veth"
	noOwnEnd = "cannot be entered without the capability SYS_ADMIN, and no veth leads to it"
)

// Notes says what the tap cannot see, each as a sentence.
func (t *Tap) Notes() []string {
	if t.deaf.Load() {
		return []string{deafNote}
	}
	if t.cfg.FromOutside == nil {
		return nil
	}
	return []string{"without the capability SYS_ADMIN, other network namespaces are tapped at the other ends of their veths: " +
		"what they send over SR-IOV, macvlan and ipvlan interfaces and over loopback is not seen, " +
		"and which sockets there are the kernel's own (NFS) is not known"}
}

// syncOutside makes the tap match the own ends of a namespace's veths.
func (t *Tap) syncOutside(s *space) error {
	nsid, err := t.identify(s)
	if err != nil {
		return err
	}
	for index, p := range s.ports {
		if leads, there := t.ends[index]; !there || leads != nsid {
			t.leave(p, gone)
		}
	}
	for index, leads := range t.ends {
		if leads != nsid {
			continue
		}
		l, err := netlink.LinkByIndex(int(index))
		switch {
		case errors.As(err, &netlink.LinkNotFoundError{}): // of which the kernel tells
		case err != nil:
			return fmt.Errorf("look at interface %d: %w", index, err)
		default:
			t.keep(s, l, true)
		}
	}
	return nil
}

// identify finds out what the own namespace calls another.
func (t *Tap) identify(s *space) (nsid int, err error) {
	f, err := t.cfg.FromOutside(s.Netns)
	if err != nil {
		return unknownNsid, err
	}
	defer f.Close()
	nsid, err = t.own.nsid(int(f.Fd()))
	if err != nil {
		return unknownNsid, fmt.Errorf("name of network namespace %d: %w", s.Netns, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.nsid != unknownNsid && s.nsid != nsid {
		return unknownNsid, errReplaced
	}
	s.nsid = nsid
	return nsid, nil
}

// considerEnd has the namespace tapped that an interface of the own one leads
// to, where that is known.
func (t *Tap) considerEnd(l netlink.Link, recheck bool) {
	if t.cfg.FromOutside == nil {
		return
	}
	index, nsid := uint32(l.Attrs().Index), l.Attrs().NetNsID
	if l.Type() != "veth" {
		nsid = unknownNsid
	}
	if old, known := t.ends[index]; known && old != nsid {
		t.leaveEnd(index) // its other end has moved
	}
	if nsid == unknownNsid {
		return
	}
	t.ends[index] = nsid
	if s := t.byNsid(nsid); s != nil && !s.own {
		t.keep(s, l, recheck)
		t.conclude(s, nil)
	}
}

// leaveEnd notes that an interface is not, or no more, the own end of a veth.
func (t *Tap) leaveEnd(index uint32) {
	delete(t.ends, index)
	t.mu.Lock()
	p := t.onEnd(index)
	t.mu.Unlock()
	if p != nil {
		t.leave(p, gone)
		t.conclude(p.space, nil)
	}
}

// leaveEnds does it for those that are not there any more.
func (t *Tap) leaveEnds(there map[int]netlink.Link) {
	for index := range t.ends {
		if there[int(index)] == nil {
			t.leaveEnd(index)
		}
	}
}

// onEnd gives the port of another namespace at an interface of the own one.
// Callers hold mu.
func (t *Tap) onEnd(index uint32) *port {
	if t.cfg.FromOutside == nil {
		return nil
	}
	for _, s := range t.spaces {
		if p := s.ports[index]; p != nil && p.outside && p.gone.IsZero() {
			return p
		}
	}
	return nil
}

// device is where the interface itself is.
func (t *Tap) device(p *port) event.Iface {
	if p.outside {
		return event.Iface{Netns: t.own.inode, Index: p.Iface.Index}
	}
	return p.Iface
}

// counted is what a device's counters say of a port.
func (p *port) counted(c deviceCounters) deviceCounters {
	if p.outside {
		return deviceCounters{rx: c.tx, tx: c.rx, rxDropped: c.txDropped, txDropped: c.rxDropped}
	}
	return c
}

// read is readDevice for a port.
func (p *port) read() (deviceCounters, error) {
	c, err := readDevice(p.Iface.Index)
	return p.counted(c), err
}
