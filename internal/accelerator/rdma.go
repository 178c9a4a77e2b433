// SPDX-License-Identifier: Apache-2.0

package accelerator

import (
	"slices"
	"strings"

	"github.com/orb8/orb8/internal/event"
)

// rdma says who uses which RDMA device, and tells the holders of GPUs what moved.
func (t *Tracker) rdma(r *Round) []event.RDMADevice {
	list := slices.Clone(r.RDMA)
	for i := range list {
		d := &list[i]
		if d.Netns != 0 && !d.Shared {
			d.Holders = nil
			if r.Netns != nil {
				d.Holders = t.users(d.Holders, r.Netns(d.Netns))
			}
			t.moves(d, len(d.Holders) == 1)
			continue
		}
		users, strangers := t.usersOf(d, r)
		d.Holders = users
		t.moves(d, len(users) == 1 && !strangers)
	}
	return list
}

// usersOf a device of the host's namespace are whose processes have queue pairs,
// and to whom the kubelet has given it: SR-IOV's plugins name a device by its
// address. strangers: a process of nobody that is known has queue pairs, too.
func (t *Tracker) usersOf(d *event.RDMADevice, r *Round) (users []*event.Identity, strangers bool) {
	for _, pid := range d.PIDs {
		var who *event.Identity
		if r.Process != nil {
			who, _ = r.Process(pid)
		}
		if who == nil || who.Class == event.ClassUnknown {
			strangers = true
			continue
		}
		users = t.users(users, who)
	}
	for i := range r.Held {
		if h := &r.Held[i]; d.PCI != "" && h.Who != nil && strings.EqualFold(h.ID, d.PCI) {
			users = t.users(users, h.Who)
		}
	}
	return users, strangers
}

// users are those, and who, as holders are shown.
func (t *Tracker) users(list []*event.Identity, who *event.Identity) []*event.Identity {
	if who == nil {
		return list
	}
	k := keyOf(who)
	if slices.ContainsFunc(list, func(o *event.Identity) bool { return keyOf(o) == k }) {
		return list
	}
	if h := t.holders[k]; h != nil {
		who = h.who
	}
	return append(list, who)
}

// moves tells the device's users among the holders what moved; of several, nobody
// knows how much each.
func (t *Tracker) moves(d *event.RDMADevice, alone bool) {
	for _, who := range d.Holders {
		h := t.holders[keyOf(who)]
		if h == nil {
			continue
		}
		u := &h.rdma
		u.Devices = append(u.Devices, d.Name)
		u.Shared = u.Shared || d.Netns == 0 || d.Shared
		counted := false
		for i := range d.Ports {
			if p := &d.Ports[i]; alone && p.MovedKnown {
				u.Moved.Add(p.Moved)
				counted = true
			}
		}
		h.rdmaUnknown = h.rdmaUnknown || !counted
		u.Known = !h.rdmaUnknown
	}
}
