// SPDX-License-Identifier: Apache-2.0

package rdma

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// round is what the sampler's goroutine knows from one round to the next.
type round struct {
	Settings
	crew  *crew
	kinds *kinds
	// Asks the kernel who has queue pairs on a device of the host's.
	ask func(device string) ([]uint32, error)
	now func() time.Time

	host   *place
	places map[uint32]*place
	// The file system of the host's sysfs.
	hostDev uint64
	devices map[deviceKey]*device
	// Those of devices in the order in which they are told; and those that are gone,
	// but have not come back from being read.
	order []*device
	limbo int
	// Beyond the bounds in this round.
	over uint64
	// Why the kernel does not tell queue pairs.
	pairsErr error
}

// hungAfter is in how many rounds a device has to come back from being read.
const hungAfter = 2

type deviceKey struct {
	netns uint32
	name  string
}

func newRound(s Settings) *round {
	return &round{
		Settings: s, crew: newCrew(), kinds: newKinds(), ask: askPairs, now: time.Now,
		host: &place{}, places: map[uint32]*place{}, devices: map[deviceKey]*device{},
	}
}

// sample is one round.
func (r *round) sample() *Snapshot {
	now := r.now()
	r.over = 0
	r.crew.settle()
	r.look(r.host, now)
	if r.host.busy { // the first, or one that hangs
		r.crew.wait(r.Deadline / 2)
	}
	// Where the kernel has no RDMA, no namespace has.
	if !r.host.none {
		r.findPlaces()
		for _, p := range r.places {
			if !now.Before(p.due) {
				r.look(p, now)
			}
		}
		r.crew.wait(r.Deadline / 2)
	}
	r.reconcile(now)
	for _, d := range r.order {
		r.read(d, now)
		r.askFor(d, now)
	}
	r.crew.wait(r.Deadline)
	return r.snapshot(now)
}

// findPlaces has a place for each namespace that is listed.
func (r *round) findPlaces() {
	if r.Roots == nil {
		return
	}
	for _, p := range r.places {
		p.listed = false
	}
	for _, root := range r.Roots() {
		p := r.places[root.Netns]
		switch {
		case root.Netns == 0:
			continue
		case p == nil && len(r.places) >= mostPlaces:
			r.over++
			continue
		case p == nil:
			p = &place{root: root}
			r.places[root.Netns] = p
		case !p.listed && !p.busy:
			p.root = root
		}
		p.listed = true
	}
	for netns, p := range r.places {
		if !p.listed {
			delete(r.places, netns)
			p.gone = true
			if !p.busy {
				p.close()
			}
		}
	}
}

func (r *round) look(p *place, now time.Time) {
	if p.busy {
		return
	}
	hostDev := r.hostDev
	p.busy = r.crew.begin(true, func() { p.look(&r.Settings, hostDev) }, func() {
		p.busy = false
		if p.gone {
			p.close()
		} else if p.host() && p.tree != nil {
			r.hostDev = p.tree.dev
		}
	})
	if p.busy {
		p.since = now
	}
}

// reconcile has a device for each that was found. The kernel gives no name
// twice: what is in two lists is the host's, which shares it, or on its way from
// one to the other.
func (r *round) reconcile(now time.Time) {
	taken := map[string]bool{}
	r.order = r.order[:0]
	here := make([]*place, 0, len(r.places)+1)
	here = append(here, r.host)
	for _, p := range r.places {
		if p.busy || len(p.found) > 0 || p.tree != nil {
			here = append(here, p)
		}
	}
	slices.SortFunc(here, func(a, b *place) int { return cmp.Compare(a.root.Netns, b.root.Netns) })
	for _, p := range here {
		if p.busy {
			r.keep(p, taken)
			continue
		}
		slices.SortFunc(p.found, func(a, b found) int { return byNumber(a.name, b.name) })
		own := 0
		for _, f := range p.found {
			if !taken[f.name] {
				taken[f.name] = true
				own++
				r.take(p, f)
			}
		}
		switch {
		case own > 0:
			p.wait = 0
		case !p.host():
			p.rest(now, r.Retry)
		}
	}
	for _, p := range r.places {
		if !p.busy && p.tree == nil && !now.Before(p.due) {
			p.rest(now, r.Retry)
		}
	}
	for key, d := range r.devices {
		if !slices.Contains(r.order, d) {
			r.release(key, d)
		}
	}
}

// keep has the devices of a place that does not answer as they were.
func (r *round) keep(p *place, taken map[string]bool) {
	for key, d := range r.devices {
		if key.netns == p.root.Netns && !taken[key.name] {
			taken[key.name] = true
			r.order = append(r.order, d)
		}
	}
	slices.SortStableFunc(r.order, func(a, b *device) int {
		return cmp.Or(cmp.Compare(a.netns, b.netns), byNumber(a.name, b.name))
	})
}

func (r *round) take(p *place, f found) {
	key := deviceKey{p.root.Netns, f.name}
	d := r.devices[key]
	if d != nil && d.inode != f.inode {
		r.release(key, d)
		d = nil
	}
	if d == nil {
		if len(r.devices)+r.limbo >= mostDevices {
			r.over++
			return
		}
		tree, err := p.tree.again()
		if err != nil {
			r.over++
			return
		}
		d = &device{found: f, netns: p.root.Netns, tree: tree, kinds: r.kinds, buf: make([]byte, 256)}
		r.devices[key] = d
	}
	r.order = append(r.order, d)
}

func (r *round) release(key deviceKey, d *device) {
	delete(r.devices, key)
	d.gone = true
	if d.busy {
		r.limbo++
		return
	}
	d.close()
}

func (r *round) read(d *device, now time.Time) {
	if d.busy {
		return
	}
	d.busy = r.crew.begin(true, func() { d.read(now) }, func() {
		d.busy = false
		d.last = reading{device: d.sample, ok: d.ok, fresh: true, lost: d.lost}
		if d.gone {
			r.limbo--
			d.close()
		}
	})
	if d.busy {
		d.since = now
	}
}

func (r *round) snapshot(now time.Time) *Snapshot {
	s := &Snapshot{At: now.UnixNano(), Lost: r.over + r.host.lost}
	say := func(format string, args ...any) { s.Problems = append(s.Problems, fmt.Sprintf(format, args...)) }
	switch {
	case r.host.busy:
		say("RDMA devices: to list them has not come back since %s", r.host.since.Format(time.TimeOnly))
	case r.host.err != nil:
		say("RDMA devices: %v", r.host.err)
	}
	r.sayPlaces(s, say)
	for _, d := range r.order {
		// One that is slow is a second behind.
		if d.busy && now.Sub(d.since) >= hungAfter*r.Every {
			say("RDMA device %q: to read it has not come back since %s; it is skipped until it does",
				d.name, d.since.Format(time.TimeOnly))
			continue
		}
		s.Lost += d.last.lost
		if !d.last.ok {
			continue
		}
		told := d.last.tell()
		told.PIDs, told.QueuePairsKnown = d.pairs.told()
		s.Devices = append(s.Devices, told)
	}
	r.sayPairs(now, say)
	return s
}

// sayPlaces tells of one namespace of those that have the same trouble.
func (r *round) sayPlaces(s *Snapshot, say func(string, ...any)) {
	var hung, barred *place
	for _, p := range r.places {
		switch {
		case p.busy:
			hung = p
		case p.err != nil:
			barred = p
		default:
			s.Lost += p.lost
		}
	}
	if hung != nil {
		say("RDMA devices of network namespace %d: to list them has not come back since %s",
			hung.root.Netns, hung.since.Format(time.TimeOnly))
	}
	if barred != nil {
		say("RDMA devices of network namespace %d: %v; the agent needs SYS_PTRACE to look into pods",
			barred.root.Netns, barred.err)
	}
}

func (r *round) close() {
	for _, d := range r.devices {
		if !d.busy {
			d.close()
		}
	}
	for _, p := range r.places {
		if !p.busy {
			p.close()
		}
	}
	if !r.host.busy {
		r.host.close()
	}
}
