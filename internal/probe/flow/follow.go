// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// What the kernel could not tell is found by looking: the own namespace and
	// a part of the others each time, all of them once in looks times.
	lookInterval = 30 * time.Second
	looks        = 10
	// Changes that wait while interfaces are being attached.
	maxChanges = 4096
)

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
	if err := t.own.do(func() (err error) {
		w, err = openWatch()
		return err
	}); err != nil {
		return err
	}
	changes := make(chan *change, maxChanges)
	broken := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		broken <- w.run(func(c *change) {
			select {
			case changes <- c:
			case <-ctx.Done():
			}
		})
		close(changes)
	}()
	defer func() {
		cancel()
		_ = w.file.Close()
		<-broken
	}()
	f := follower{tap: t, changes: changes}
	f.look(true)
	return f.run(ctx)
}

// follower is who attaches and detaches, one thing after the other.
type follower struct {
	tap     *Tap
	changes <-chan *change
	turn    int // which part of the namespaces is looked at next
	lost    bool
	dirty   []*space
}

func (f *follower) run(ctx context.Context) error {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case c, open := <-f.changes:
			if !open {
				f.tap.log.Warn("lost track of interfaces, looking again")
				return nil
			}
			f.take(c)
			f.settle()
		case <-f.tap.added:
			// First what came before: an interface that has moved is let go where
			// it was before it is attached where it is.
			f.settle()
			f.tap.takeUp()
		case <-tick.C:
			f.look(false)
		}
	}
}

// settle takes what else has arrived, and does what it asks for: one look at a
// namespace answers all that was told of it.
func (f *follower) settle() {
	for more := true; more; {
		select {
		case c, open := <-f.changes:
			if more = open; open {
				f.take(c)
			}
		default:
			more = false
		}
	}
	if f.lost {
		f.lost = false
		f.tap.log.Warn("changes of interfaces came faster than they were read, looking at all of them")
		f.dirty = f.dirty[:0]
		f.look(true)
	}
	for _, s := range f.dirty {
		f.sync(s)
	}
	f.dirty = f.dirty[:0]
}

// take notes what a change asks for.
func (f *follower) take(c *change) {
	t := f.tap
	switch {
	case c == nil:
		f.lost = true
		return
	case c.kind == unix.RTM_NEWNSID:
		if t.byNsid(c.nsid) == nil {
			t.cfg.Stranger()
		}
		return
	case c.kind == unix.RTM_DELNSID:
		if s := t.byNsid(c.nsid); s != nil {
			t.depart(s)
		}
		return
	}
	s := t.byNsid(c.nsid)
	if s == nil || (c.kind == unix.RTM_NEWADDR || c.kind == unix.RTM_DELADDR) && !s.own && (*t.layout.Load())[s.Netns] == nil {
		return
	}
	if c.last != nil {
		t.lastWords(s, c)
	}
	for _, d := range f.dirty {
		if d == s {
			return
		}
	}
	f.dirty = append(f.dirty, s)
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
		f.sync(s)
	}
}

func (f *follower) sync(s *space) {
	if s == nil {
		return
	}
	if err := f.tap.syncSpace(s); err != nil && s.own && !errors.Is(err, errClosed) {
		f.tap.log.Warn("interfaces not followed", "error", err)
	}
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

// lastWords reads the counters that an interface takes leave with: it cannot
// be asked any more.
func (t *Tap) lastWords(s *space, c *change) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := s.ports[c.index]; p != nil && (p.How != "" || p.unread) {
		p.unread = false
		p.low.read(*c.last)
		p.high.read(*c.last)
	}
}
