// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

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
	f := &follower{tap: t, wake: make(chan struct{}, 1), notices: map[*space]*notice{}}
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
			f.settle()
		case <-t.added:
			// First what came before: an interface that has moved is let go where
			// it was before it is attached where it is.
			f.settle()
			t.takeUp()
		case <-tick.C:
			f.look(deaf)
		}
	}
}

// follower is who attaches and detaches, one thing after the other. What it
// hears meanwhile it keeps as a list of namespaces to look at: one look answers
// all that was told of one.
type follower struct {
	tap  *Tap
	turn int // which part of the namespaces is looked at next
	wake chan struct{}

	mu      sync.Mutex
	dirty   []*space // in the order in which they were told of
	notices map[*space]*notice
	doubted []*space
	lost    bool
}

// hear notes what a change asks for. It is called by the reader of the socket
// and must not wait: what the socket's buffer has no room for is lost.
func (f *follower) hear(c *change) {
	t := f.tap
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
		f.doubted = append(f.doubted, s)
		t.locked(func() { s.nsid = unknownNsid })
	default:
		if !f.note(t.byNsid(c.nsid), c) {
			return
		}
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
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
	f.tap.hearOf(s, c)
	n := f.notices[s]
	if n == nil {
		n = &notice{links: map[uint32]bool{}}
		f.notices[s] = n
		f.dirty = append(f.dirty, s)
	}
	if address {
		n.survey = true
	} else {
		// Filters come and go: whether the tap is still there, and in front.
		chain := c.kind == unix.RTM_DELQDISC || c.kind == unix.RTM_DELTFILTER || c.kind == unix.RTM_NEWTFILTER
		n.links[c.index] = n.links[c.index] || chain
	}
	return true
}

// settle does what was asked for.
func (f *follower) settle() {
	f.mu.Lock()
	dirty, notices, doubted, lost := f.dirty, f.notices, f.doubted, f.lost
	f.dirty, f.notices, f.doubted, f.lost = nil, map[*space]*notice{}, nil, false
	f.mu.Unlock()
	for _, s := range doubted {
		f.sync(s, nil)
	}
	if lost {
		f.tap.log.Warn("changes of interfaces came faster than they were read, looking at all of them")
		f.look(true)
		return
	}
	for _, s := range dirty {
		if !slices.Contains(doubted, s) {
			f.sync(s, notices[s])
		}
	}
}

// look synchronises the own namespace and all others, or a part of them.
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
		f.sync(s, nil)
	}
}

func (f *follower) sync(s *space, n *notice) {
	if s == nil {
		return
	}
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

// hearOf notes when an interface was first heard of, and the counters that one
// takes leave with: it cannot be asked any more.
func (t *Tap) hearOf(s *space, c *change) {
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
	case c.kind == unix.RTM_NEWLINK && (p == nil || p.How == ""):
		if _, known := s.heard[c.index]; !known && len(s.heard) < maxQueue {
			s.heard[c.index] = time.Now()
		}
	}
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
