// SPDX-License-Identifier: Apache-2.0

package accelerator

import (
	"slices"

	"github.com/orb8/orb8/internal/event"
)

// Round makes of what is known of a second what each holder has and does, and what
// has happened: Xids, throttling, findings, and a sample of each holder.
func (t *Tracker) Round(r *Round) (*event.GPUView, []event.GPUEvent) {
	if t.view != nil && r.At == t.at {
		return t.again(r)
	}
	t.before = t.at
	t.begin(r)
	t.give(r.Held)
	t.place(r.Process)
	t.remember(r.Process)
	t.divide()
	for i := range t.devices {
		d := &t.devices[i]
		d.settle(t.unknown)
		d.split(t.unknown)
	}
	view := &event.GPUView{At: r.At, Status: r.Status, GPUs: r.GPUs, Samples: r.Samples}
	view.RDMA = t.rdma(r)
	t.count(r)
	events := t.throttles()
	events = append(t.xids(r), events...)
	events = t.rows(view, events)
	view.Modes = make([]event.GPUMode, len(r.GPUs))
	for i := range t.devices {
		view.Modes[i] = t.devices[i].mode
	}
	view.Accounts = t.accounts.view()
	view.Losses = t.losses(r.Losses)
	t.view = view
	return view, events
}

// again is of a second that was told of: the devices have said nothing since, but
// for what has happened. The network's second goes on.
func (t *Tracker) again(r *Round) (*event.GPUView, []event.GPUEvent) {
	for i := range r.Xids {
		t.countXid(&r.Xids[i])
	}
	view := *t.view
	view.Status, view.Losses, view.Accounts = r.Status, t.losses(r.Losses), t.accounts.view()
	t.view = &view
	return t.view, t.xids(r)
}

// rows are the view's holders, the unattributed one last.
func (t *Tracker) rows(view *event.GPUView, events []event.GPUEvent) []event.GPUEvent {
	order := t.present()
	t.kernel.network.second(t.at)
	view.Holders = make([]event.GPUHolder, 0, len(order))
	for _, h := range order {
		view.Holders = append(view.Holders, t.row(h))
		row := &view.Holders[len(view.Holders)-1]
		if h != t.unknown {
			for _, f := range h.finder.look(row, h.network, t.samples) {
				events = append(events, event.GPUEvent{Holders: []*event.Identity{h.who}, Finding: f})
			}
		}
		events = append(events, event.GPUEvent{Holders: []*event.Identity{h.who}, Sample: row})
	}
	return t.leave(events)
}

// present is who has a share in this round.
func (t *Tracker) present() (order []*holder) {
	t.pods = 0
	for i := range t.devices {
		d := &t.devices[i]
		for j := range d.users {
			u := &d.users[j]
			h := u.holder
			if len(h.shares) == 0 {
				order = append(order, h)
				h.state = 0
			}
			h.shares = append(h.shares, u.share)
			h.state = max(h.state, t.state(d, h))
		}
	}
	for _, h := range order {
		if h.pod() {
			t.pods++
		}
	}
	slices.SortFunc(order, func(a, b *holder) int {
		if (a == t.unknown) != (b == t.unknown) {
			if a == t.unknown {
				return 1
			}
			return -1
		}
		return a.key.compare(&b.key)
	})
	return order
}

// state is what the holder does with the device, as far as that is told by who has
// it.
func (t *Tracker) state(d *device, h *holder) event.GPUHolderState {
	state := max(d.sample.State, event.GPUOK)
	if d.parent != nil {
		switch p := d.parent.sample.State; {
		case p == event.GPULost || state == event.GPULost:
			state = event.GPULost
		default:
			state = max(state, p)
		}
	}
	switch state {
	case event.GPULost:
		return event.HolderLost
	case event.GPUHung:
		return event.HolderHung
	}
	for i := range d.users {
		if u := &d.users[i]; u.holder == h && len(u.share.PIDs) > 0 {
			return event.HolderActive
		}
	}
	switch {
	case h.network == nil:
		return 0 // what is unattributed was given to nobody
	case d.sample.ProcessesKnown, t.idled(d, h):
		return event.HolderAllocated
	}
	return event.HolderActive
}

// row takes what the round has of the holder.
func (t *Tracker) row(h *holder) event.GPUHolder {
	row := event.GPUHolder{
		Who: h.who, At: t.at, Shares: h.shares, State: h.state, RDMA: h.rdma,
		Start: min(max(t.before, h.since), t.at), End: t.at,
	}
	h.shares, h.rdma, h.rdmaUnknown = nil, event.RDMAUse{}, false
	if h.network != nil {
		row.Network, row.Resent = h.network.second(t.at)
		// What it moved before it was known, nobody has told.
		row.NetworkKnown = h.pod() && h.watched
		h.watched = true
	}
	return row
}

// leave ends what goes on of those who have nothing any more, and forgets them.
func (t *Tracker) leave(events []event.GPUEvent) []event.GPUEvent {
	for k, h := range t.holders {
		if h.seen == t.at {
			continue
		}
		row := t.row(h)
		for _, f := range h.finder.look(&row, h.network, t.samples) {
			events = append(events, event.GPUEvent{Holders: []*event.Identity{h.who}, Finding: f})
		}
		delete(t.holders, k)
		delete(t.byUID, k.uid)
		t.changed = true
	}
	if t.changed {
		clear(t.cache)
		t.changed = false
	}
	return events
}

// lost counts what is not told apart in the round.
type lost struct {
	holders, devices uint64
}

func (t *Tracker) losses(others []event.Loss) []event.Loss {
	list := slices.Clone(others)
	for _, l := range []event.Loss{
		{Stage: "gpu_devices", Count: t.lost.devices, Hint: "Devices that the kubelet has given, by names that are not known to be a GPU's here: they count as not given. Say which device plugin gives them."},
		{Stage: "gpu_holders", Count: t.lost.holders, Hint: "More than 1,024 pods and processes have GPUs: the rest of them is unattributed."},
		{Stage: "gpu_accounts", Count: t.accounts.refused, Hint: "More than 1,024 holders of GPUs came in a short time: what the last of them used is not counted since the agent began."},
	} {
		if l.Count > 0 {
			list = append(list, l)
		}
	}
	return list
}
