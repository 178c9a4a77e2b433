// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"github.com/vishvananda/netlink"

	"github.com/orb8/orb8/internal/event"
)

// listen has what is asked over a loopback copied: a resolver of the namespace's
// own may be there. It is not counted, and none of the interfaces that the tap
// tells of.
func (t *Tap) listen(s *space, l netlink.Link) {
	if l == nil || t.cfg.Loopback || len(t.cfg.DNSPorts) == 0 {
		return
	}
	if s.ear != nil {
		if attached, _ := s.ear.links[0].state(); attached {
			return
		}
		s.ear.drop().close()
	}
	p := &port{space: s, kind: l.Type(), Interface: event.Interface{
		Iface: event.Iface{Netns: s.Netns, Index: loopback}, Name: l.Attrs().Name,
	}}
	prog, err := t.kernel.listener(s.Netns)
	if err == nil {
		defer prog.Egress.Close() // what is attached keeps its own reference
		err = t.attachPrograms(p, prog, t.cfg.Attach == AttachTCX || t.mayTCX() && s.own)
	}
	s.ear = nil
	if err == nil {
		s.ear = p
		return
	}
	p.drop().close()
	t.log.Warn("look-ups on loopback are not seen", "netns", s.Netns, "error", explain(err))
}

// deafen forgets the loopback of a namespace that is gone.
func (t *Tap) deafen(s *space) {
	if s.ear != nil {
		s.ear.drop().abandon()
		s.ear = nil
	}
}
