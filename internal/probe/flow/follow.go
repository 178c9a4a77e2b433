// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// What the kernel could not tell is found by looking: the own namespace and
	// a part of the others each time, all of them once in looks times.
	lookInterval = 30 * time.Second
	looks        = 10
)

const deafNote = "new interfaces in other network namespaces, and so new pods, are tapped up to 30 s late: give the agent the capability NET_BROADCAST"

// Follow keeps the tap on the interfaces as they and their namespaces come and
// go, until ctx ends.
func (t *Tap) Follow(ctx context.Context) error {
	for {
		if err := t.follow(ctx); err != nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// follow is one subscription, until it breaks or ctx ends.
func (t *Tap) follow(ctx context.Context) error {
	var w *watch
	var deaf bool
	if err := t.own.do(func() (err error) {
		w, deaf, err = openWatch(t.cfg.FromOutside == nil)
		return err
	}); err != nil {
		return err
	}
	if t.deaf.Swap(deaf) != deaf {
		t.log.Warn(deafNote)
	}
	f := &follower{tap: t, wake: make(chan struct{}, 1), notices: map[*space]*notice{}, working: map[*space]bool{}}
	f.workers.SetLimit(maxWorkers)
	defer f.workers.Wait()
	broken := make(chan error, 1)
	go func() { broken <- w.run(f.hear) }()
	defer func() { _ = w.file.Close() }()
	f.look(true)
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			_ = w.file.Close()
			return <-broken
		case err := <-broken:
			t.log.Warn("lost track of interfaces, looking again", "error", err)
			return nil
		case <-f.wake:
		case <-t.added:
			for _, s := range t.takeUp() {
				f.doubt(s)
			}
		case <-tick.C:
			f.look(deaf)
		}
		f.settle()
	}
}

// maxWorkers bounds how many namespaces are looked at at once: all of them wait
// for the same lock most of the time.
const maxWorkers = 16

// follower is who attaches and detaches. What it hears meanwhile it keeps as a
// list of namespaces to look at: one look answers all that was told of one.
type follower struct {
	tap     *Tap
	turn    int // which part of the namespaces is looked at next
	wake    chan struct{}
	workers errgroup.Group

	mu      sync.Mutex
	dirty   []*space // in the order in which they were told of
	notices map[*space]*notice
	working map[*space]bool
	moved   []*port // to be let go before anything is attached
	lost    bool
}

// hear notes what a change asks for. It is called by the reader of the socket
// and must not wait: what the socket's buffer has no room for is lost.
func (f *follower) hear(c *change) {
	t := f.tap
	if c != nil && c.kind == unix.RTM_NEWTFILTER && c.filter != "" && c.filter == t.owner.name() {
		return // it is the tap that attaches
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case c == nil:
		f.lost = true
	case c.kind == unix.RTM_NEWNSID:
		if t.byNsid(c.nsid) == nil {
			t.cfg.Stranger()
		}
		return
	case c.kind == unix.RTM_DELNSID:
		// Names are used again at once: whether it is the one that has it now is
		// seen by entering.
		s := t.byNsid(c.nsid)
		if s == nil {
			return
		}
		f.noticeOf(s).all = true
		t.locked(func() { s.nsid = unknownNsid })
	default:
		if !f.note(t.byNsid(c.nsid), c) {
			return
		}
	}
	f.rouse()
}

func (f *follower) rouse() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// doubt has all of a namespace looked at.
func (f *follower) doubt(s *space) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.noticeOf(s).all = true
}

// noticeOf is for who holds mu.
func (f *follower) noticeOf(s *space) *notice {
	n := f.notices[s]
	if n == nil {
		n = &notice{links: map[uint32]linkNotice{}}
		f.notices[s] = n
		f.dirty = append(f.dirty, s)
	}
	return n
}

// note adds a change to what is known of a namespace, and tells whether anything
// is to be done about it.
func (f *follower) note(s *space, c *change) bool {
	address := c.kind == unix.RTM_NEWADDR || c.kind == unix.RTM_DELADDR
	if s == nil || address && !s.own && (*f.tap.layout.Load())[s.Netns] == nil {
		return false
	}
	if address && s.own && c.address != nil {
		f.tap.addAddress(*c.address)
	}
	if p := f.tap.hearOf(s, c); p != nil {
		f.moved = append(f.moved, p)
	}
	var told linkNotice
	var pending bool
	if n := f.notices[s]; n != nil {
		told, pending = n.links[c.index]
	}
	switch c.kind {
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		f.noticeOf(s).survey = true
		return true
	case unix.RTM_NEWLINK:
		if told.link, told.gone = c.link(), false; !pending && f.tap.isAsTold(s, told.link) {
			return false
		}
	case unix.RTM_DELLINK:
		told.link, told.gone = nil, true
	default: // filters come and go: whether the tap is still there, and in front
		told.recheck = true
	}
	f.noticeOf(s).links[c.index] = told
	return true
}

// settle has done what was asked for, each namespace by itself.
func (f *follower) settle() {
	f.mu.Lock()
	moved, lost := f.moved, f.lost
	f.moved, f.lost = nil, false
	f.mu.Unlock()
	for _, p := range moved {
		f.tap.letGo(p)
	}
	if lost {
		f.tap.log.Warn("changes of interfaces came faster than they were read, looking at all of them")
		f.look(true)
	}
	for {
		s, n := f.next()
		if s == nil {
			return
		}
		f.workers.Go(func() error {
			f.sync(s, n)
			f.mu.Lock()
			delete(f.working, s)
			f.mu.Unlock()
			f.rouse() // something may have been told of it meanwhile
			return nil
		})
	}
}

// next is the first namespace that nobody is at. The own one comes last: what it
// has leads to others, of which each packet is a flow.
func (f *follower) next() (*space, *notice) {
	f.mu.Lock()
	defer f.mu.Unlock()
	free := func(s *space) bool { return !f.working[s] && !s.own }
	i := slices.IndexFunc(f.dirty, free)
	if i < 0 {
		i = slices.IndexFunc(f.dirty, func(s *space) bool { return !f.working[s] })
	}
	if i < 0 {
		return nil, nil
	}
	s := f.dirty[i]
	n := f.notices[s]
	f.dirty = slices.Delete(f.dirty, i, i+1)
	delete(f.notices, s)
	f.working[s] = true
	return s, n
}

// look has the own namespace and all others looked at, or a part of them. All of
// them are done when it returns.
func (f *follower) look(all bool) {
	t := f.tap
	if all {
		if err := t.Sync(); err != nil && !errors.Is(err, errClosed) {
			t.log.Warn("interfaces not followed", "error", err)
		}
		return
	}
	t.mu.Lock()
	part := []*space{t.spaces[t.own.inode]}
	for _, s := range t.spaces {
		if !s.own && (int(s.Netns)%looks == f.turn || s.Problem != "" || s.nsid == unknownNsid) {
			part = append(part, s)
		}
	}
	t.mu.Unlock()
	f.turn = (f.turn + 1) % looks
	// By now each namespace was cleaned that can be.
	if err := t.leftovers.Forget(); err != nil {
		t.log.Warn("notes of earlier agents", "error", err)
	}
	for _, s := range part {
		if s != nil {
			f.doubt(s)
		}
	}
}

func (f *follower) sync(s *space, n *notice) {
	if err := f.tap.syncNoticed(s, n); err != nil && s.own && !errors.Is(err, errClosed) {
		f.tap.log.Warn("interfaces not followed", "error", err)
	}
}

// knows tells whether a namespace is still followed: another may have its
// number.
func (t *Tap) knows(s *space) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.spaces[s.Netns] == s
}

// byNsid is the namespace of a name; unknownNsid is the own one.
func (t *Tap) byNsid(nsid int) *space {
	t.mu.Lock()
	defer t.mu.Unlock()
	if nsid == unknownNsid {
		return t.spaces[t.own.inode]
	}
	for _, s := range t.spaces {
		if !s.own && s.nsid == nsid {
			return s
		}
	}
	return nil
}

// isAsTold tells that nothing is to be done about an interface: it is tapped, is
// called that, and is no part of another, nor stands on one.
func (t *Tap) isAsTold(s *space, l netlink.Link) bool {
	if l == nil || t.cfg.FromOutside != nil || stacks(l.Type()) {
		return false
	}
	if l.Attrs().Index == loopback && !t.cfg.Loopback {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p := s.ports[uint32(l.Attrs().Index)]
	return p != nil && p.How != "" && p.Name == l.Attrs().Name && l.Attrs().MasterIndex == 0
}

// hearOf notes when an interface was first heard of, and the counters that one
// takes leave with: it cannot be asked any more. It gives the port of one that
// may have moved and taken the tap along, as TCX links do.
func (t *Tap) hearOf(s *space, c *change) (moved *port) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := s.ports[c.index]
	switch {
	case c.kind == unix.RTM_DELLINK:
		delete(s.heard, c.index)
		t.end(p, c.last)
		if s.own {
			t.end(t.onEnd(c.index), c.last)
		}
		if p != nil && p.How == string(AttachTCX) {
			moved = p
		}
	case c.kind == unix.RTM_NEWLINK && (p == nil || p.How == ""):
		if _, known := s.heard[c.index]; !known && len(s.heard) < maxQueue {
			s.heard[c.index] = time.Now()
		}
	}
	return moved
}

// letGo ends the tap on an interface that was told to be gone. It may be in
// another namespace now, and is attached there after this.
func (t *Tap) letGo(p *port) {
	defer t.busyWith(p.space)()
	if t.isClosed() {
		return
	}
	t.locked(func() {
		for _, l := range p.links {
			_ = l.Close()
		}
	})
}

// end reads a port for the last time. Callers hold mu.
func (t *Tap) end(p *port, last *deviceCounters) {
	if last == nil || p == nil || !p.tapped || p.How == "" && !p.Unread {
		return
	}
	c := p.counted(*last)
	p.Unread = !p.high.end(c)
	t.keepLast(p, c)
}
