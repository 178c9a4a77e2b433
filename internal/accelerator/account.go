// SPDX-License-Identifier: Apache-2.0

package accelerator

import (
	"maps"
	"slices"
	"time"

	"github.com/orb8/orb8/internal/event"
)

const (
	mostAccounts = 1024
	// Of one account; there are some 150.
	mostXids = 256
	// A device that was not sampled for so long has done for nobody that is known what
	// it did meanwhile.
	gap = 10 * time.Second
)

// accounts is what was counted since the agent began, in the order in which it was
// first counted.
type accounts struct {
	by   map[accountKey]*account
	list []*account
	// What found no room.
	refused uint64
}

type accountKey struct {
	uuid, container string
	holder          holderKey
}

type account struct {
	event.GPUAccount
	key  accountKey
	seen int64
}

// counter is what a GPU had counted when it was last sampled.
type counter struct {
	gpu    *event.GPU
	at     int64
	seen   int64
	energy event.Reading
	links  [mostLinks]struct{ sent, received event.Reading }
	// Since when each reason throttles; 0 is not.
	throttled [event.GPUThrottleReasons]int64
}

// mostLinks bounds the NVLinks of a device; there are 18.
const mostLinks = 32

// moved is what a counter counted since it was last read. One that went back began
// again, when is not known, and nothing is known of it this once.
func moved(last *event.Reading, now event.Reading) (by float64, ok bool) {
	if !now.Known {
		return 0, false
	}
	if last.Known && now.Value >= last.Value {
		by = now.Value - last.Value
	}
	*last = now
	return by, true
}

// account is the holder's account of a device; nil where there is no room.
func (t *Tracker) account(d *device, h *holder, container string) *account {
	k := accountKey{uuid: d.gpu.UUID, container: container, holder: h.key}
	a := t.accounts.by[k]
	if a == nil {
		if len(t.accounts.by) >= mostAccounts {
			t.accounts.refused++
			return nil
		}
		a = &account{key: k}
		t.accounts.by[k] = a
		t.accounts.list = append(t.accounts.list, a)
	}
	a.GPU, a.Who, a.Container, a.Mode, a.seen = d.gpu, h.who, container, d.mode, t.at
	return a
}

// ofOwner is the account of what the driver does not split: of who has the device
// alone, else of nobody that is known.
func (t *Tracker) ofOwner(d *device) *account {
	if d.owner == nil {
		return t.account(d, t.unknown, "")
	}
	container := ""
	for i := range d.users {
		u := &d.users[i]
		if u.holder != d.owner {
			continue
		}
		if i > 0 && u.share.Container != container {
			container = ""
			break
		}
		container = u.share.Container
	}
	return t.account(d, d.owner, container)
}

// count adds what the devices counted since the round before to the accounts.
func (t *Tracker) count(r *Round) {
	for i := range t.devices {
		d := &t.devices[i]
		for j := range d.users {
			t.account(d, d.users[j].holder, d.users[j].share.Container)
		}
		if d.parent == nil {
			t.countGPU(d)
		}
	}
	for i := range r.Xids {
		t.countXid(&r.Xids[i])
	}
	t.drop(t.at - int64(t.config.Grace))
}

// drop forgets accounts and counters of what has not been there since a time.
func (t *Tracker) drop(before int64) {
	t.accounts.list = slices.DeleteFunc(t.accounts.list, func(a *account) bool {
		if d := t.byUUID[a.key.uuid]; d != nil && d.has(&a.key.holder) {
			a.GPU, a.seen = d.gpu, t.at
		}
		if a.seen >= before {
			return false
		}
		delete(t.accounts.by, a.key)
		return true
	})
	for uuid, c := range t.counters {
		if c.seen < before {
			delete(t.counters, uuid)
		}
	}
}

// has tells whether somebody has the device; what is unattributed may always come.
func (d *device) has(k *holderKey) bool {
	return k.class == event.ClassUnknown ||
		slices.ContainsFunc(d.users, func(u user) bool { return u.holder.key == *k })
}

func (t *Tracker) countGPU(d *device) {
	c := t.counters[d.gpu.UUID]
	if c == nil {
		c = &counter{at: d.sample.At}
		t.counters[d.gpu.UUID] = c
	}
	c.gpu, c.seen = d.gpu, t.at
	if d.sample.State != event.GPUOK {
		return
	}
	lasted := time.Duration(d.sample.At - c.at)
	c.at = d.sample.At
	if joules, ok := moved(&c.energy, d.sample.Energy); ok {
		if lasted > gap {
			t.account(d, t.unknown, "").spend(joules)
		} else {
			t.spend(d, joules)
		}
	}
	sent, received, some := 0.0, 0.0, false
	for i := range d.sample.Links {
		if l := &d.sample.Links[i]; l.Link < mostLinks {
			s, told := moved(&c.links[l.Link].sent, l.Sent)
			r, also := moved(&c.links[l.Link].received, l.Received)
			sent, received, some = sent+s, received+r, some || told || also
		}
	}
	on := d
	if lasted > gap {
		on = &device{gpu: d.gpu, sample: d.sample}
	}
	if some {
		if a := t.ofOwner(on); a != nil {
			a.NVLinkKnown = true
			a.NVLinkSent += uint64(sent)
			a.NVLinkReceived += uint64(received)
		}
	}
	throttle := d.sample.Throttle &^ event.ThrottleIdle
	if lasted <= 0 || lasted > gap || !d.sample.ThrottleKnown || throttle == 0 {
		return
	}
	if a := t.ofOwner(d); a != nil {
		for bit := range a.Throttled {
			if throttle&(1<<bit) != 0 {
				a.Throttled[bit] += lasted.Seconds()
			}
		}
	}
}

// spend splits a GPU's energy as its power is.
func (t *Tracker) spend(gpu *device, joules float64) {
	for i := range t.devices {
		d := &t.devices[i]
		if d != gpu && d.parent != gpu || !d.told {
			continue
		}
		left := joules * d.part
		for j := range d.users {
			u := &d.users[j]
			if !d.parted || u.holder == t.unknown {
				continue
			}
			t.account(d, u.holder, u.share.Container).spend(joules * d.part * u.part)
			left -= joules * d.part * u.part
		}
		if left > tiny {
			t.account(d, t.unknown, "").spend(left)
		}
	}
}

func (a *account) spend(joules float64) {
	if a != nil {
		a.EnergyKnown = true
		a.Energy += joules
	}
}

// countXid: an Xid of an instance is its holder's.
func (t *Tracker) countXid(x *event.GPUXid) {
	d := t.failed(x)
	if d == nil {
		return
	}
	a := t.ofOwner(d)
	if a == nil {
		return
	}
	if a.Xids[x.Code] == 0 && len(a.Xids) >= mostXids {
		t.accounts.refused++
		return
	}
	// A view has the map that it was before.
	a.Xids = maps.Clone(a.Xids)
	if a.Xids == nil {
		a.Xids = map[uint32]uint64{}
	}
	a.Xids[x.Code]++
}

// view is a copy of the accounts.
func (a *accounts) view() []event.GPUAccount {
	list := make([]event.GPUAccount, len(a.list))
	for i, one := range a.list {
		list[i] = one.GPUAccount
	}
	return list
}
