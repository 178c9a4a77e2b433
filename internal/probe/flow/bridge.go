// SPDX-License-Identifier: Apache-2.0

package flow

import "github.com/vishvananda/netlink"

// Ports of the own namespace's bridges: what comes in by one and goes out by
// another is not the bridge's own (bridge.h says when it passes the tap there).

// noteMember notes whether an interface is a port. A member of a bond or team
// may be one as well: nothing is sent that came in by it.
func (t *Tap) noteMember(s *space, l netlink.Link, master func(int) netlink.Link) {
	if !s.own {
		return
	}
	a, member := l.Attrs(), false
	if a.MasterIndex != 0 {
		m := master(a.MasterIndex)
		member = m == nil || m.Type() != "vrf" // whose members are places of their own
	}
	t.setMember(uint32(a.Index), member)
}

// setMember tells the kernel's side.
func (t *Tap) setMember(index uint32, member bool) {
	var err error
	switch was := t.members[index]; {
	case member && !was:
		t.members[index] = true
		err = t.kernel.bridged.Put(index, uint8(0))
	case !member && was:
		delete(t.members, index)
		err = t.kernel.bridged.Delete(index)
	}
	if err != nil {
		t.log.Warn("port of a bridge not noted", "index", index, "error", err)
	}
}

// forgetMembers forgets those that are not there any more.
func (t *Tap) forgetMembers(there map[int]netlink.Link) {
	for index := range t.members {
		if there[int(index)] == nil {
			t.setMember(index, false)
		}
	}
}
