// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"errors"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/netns"
)

// loopback has this index in every namespace.
const loopback = 1

// space is a network namespace that the tap is in, or is to be in. Nothing of
// it stays open: an open descriptor would keep a dead one alive.
type space struct {
	event.Namespace
	// Held by whoever changes what is attached in it: see busyWith.
	busy    sync.Mutex
	own     bool
	cleaned bool // of what killed processes left
	// Tells it from a later one with the same inode number; 0 before kernel 5.14.
	cookie uint64
	// What the own namespace calls it; unknownNsid before it was asked.
	nsid  int
	ports map[uint32]*port
	// Its loopback, where that is not tapped and only listened to; else nil.
	ear *port
	// When interfaces were first heard of that are not tapped yet.
	heard map[uint32]time.Time
	// Loaded while it is being synchronised, and kept in the own namespace.
	programs map[constants]*instance
}

// The kernel's words for a namespace without a name, and for no answer yet.
const unknownNsid = -1

func newSpace(inode uint32, own bool) *space {
	return &space{
		Namespace: event.Namespace{Netns: inode, Own: own, Since: time.Now()},
		own:       own,
		nsid:      unknownNsid,
		ports:     make(map[uint32]*port),
		heard:     make(map[uint32]time.Time),
		programs:  make(map[constants]*instance),
	}
}

// addition is a namespace that the follower has not taken up yet.
type addition struct {
	netns uint32
	name  string
	since time.Time
}

// maxQueue bounds the namespaces that wait to be tapped; what is beyond it is
// found again by the next look.
const maxQueue = 16384

// Add has another namespace tapped, by Follow. name is how people know it, since
// when it is there; it may carry packets from then on. It tells whether there
// was room to remember it.
func (t *Tap) Add(netns uint32, name string, since time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || len(t.queue) >= maxQueue {
		return false
	}
	t.queue = append(t.queue, addition{netns, name, since})
	select {
	case t.added <- struct{}{}:
	default:
	}
	return true
}

// takeUp gives what was added, to be tapped.
func (t *Tap) takeUp() (taken []*space) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	for _, a := range t.queue {
		s := t.spaces[a.netns]
		if s == nil {
			s = newSpace(a.netns, false)
			t.spaces[a.netns] = s
		}
		if !s.own {
			s.Name, s.Since = a.name, a.since
		}
		taken = append(taken, s)
	}
	t.queue = nil
	return taken
}

// Sync makes what is attached match the interfaces that exist, in all
// namespaces. It returns an error only when those of the own namespace cannot
// be listed; what cannot be tapped is reported by Interfaces and Namespaces,
// and the rest goes on.
func (t *Tap) Sync() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return errClosed
	}
	own := t.spaces[t.own.inode]
	others := make([]*space, 0, len(t.spaces))
	for _, s := range t.spaces {
		if s != own {
			others = append(others, s)
		}
	}
	t.mu.Unlock()
	err := t.syncSpace(own)
	for _, s := range append(t.takeUp(), others...) {
		_ = t.syncSpace(s) // noted in the space
	}
	return err
}

// notice is what was told of a namespace: of its interfaces; that it may look
// different as a whole; that all of it is to be looked at.
type notice struct {
	links  map[uint32]linkNotice
	survey bool
	all    bool
}

// linkNotice is what was told of an interface last.
type linkNotice struct {
	link    netlink.Link // nil: to be asked for
	gone    bool
	recheck bool // what is attached to it is in doubt
}

// syncSpace is Sync for one namespace, syncNoticed for what was told of it.
func (t *Tap) syncSpace(s *space) error { return t.syncNoticed(s, nil) }

func (t *Tap) syncNoticed(s *space, n *notice) error {
	err := t.syncLocked(s, n)
	if errors.Is(err, netns.ErrGone) || errors.Is(err, errReplaced) {
		t.depart(s)
	}
	return err
}

// errReplaced: inode numbers are used again at once. The namespace that has it
// now is found anew.
var errReplaced = errors.New("another network namespace has the number")

// same tells whether the thread is in the namespace that was meant.
func (s *space) same() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true // nothing says otherwise
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return true
	}
	if s.cookie == 0 {
		s.cookie = cookie
	}
	return s.cookie == cookie
}

func (t *Tap) syncLocked(s *space, n *notice) error {
	defer t.busyWith(s)()
	if t.isClosed() {
		return errClosed
	}
	err := t.enter(s, func() error {
		if t.fromOutside(s) {
			return t.syncOutside(s)
		}
		if !s.same() {
			return errReplaced
		}
		t.name(s)
		if n != nil && !n.all && !s.Tapped.IsZero() {
			return t.syncSome(s, n)
		}
		return t.syncInside(s)
	})
	t.conclude(s, err)
	return err
}

// busyWith waits for its turn to change what is attached in a namespace, until
// done is called. Each call that attaches waits for the lock of all network
// configuration, which is never free for long where pods start: one namespace
// after the other would wait for that as often as all of them together.
func (t *Tap) busyWith(s *space) (done func()) {
	t.attaching.RLock()
	busy := &s.busy
	if t.cfg.FromOutside != nil { // the own namespace's interfaces are others' ends
		busy = &t.serial
	}
	busy.Lock()
	return func() {
		busy.Unlock()
		t.attaching.RUnlock()
	}
}

// conclude notes how a namespace is after it was looked at.
func (t *Tap) conclude(s *space, err error) {
	if !s.own {
		for c, p := range s.programs {
			_ = p.Close() // what is attached keeps its own reference
			delete(s.programs, c)
		}
	}
	problem := ""
	if err != nil {
		problem = explain(err).Error()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.Problem != problem && problem != "" && !errors.Is(err, netns.ErrGone) && !errors.Is(err, errReplaced) {
		t.log.Warn("network namespace not tapped", "netns", s.Netns, "name", s.Name, "error", err)
	}
	tapped := 0
	for _, p := range s.ports {
		switch {
		case p.How != "":
			tapped++
		case problem == "" && !p.Left:
			problem = p.Name + ": " + p.Problem
		}
	}
	if problem == "" && tapped == 0 && t.fromOutside(s) {
		problem = noOwnEnd
	}
	if s.Problem = problem; problem == "" && s.Tapped.IsZero() {
		s.Tapped = time.Now()
	}
}

// late notes how long an interface carried packets before it was tapped: from
// when it was heard of, or from the beginning of its namespace. Callers hold mu.
func (t *Tap) late(s *space, index uint32) (d time.Duration) {
	from, known := s.heard[index]
	delete(s.heard, index)
	if !known && s.Tapped.IsZero() {
		from, known = s.Since, true
	}
	if known {
		d = time.Since(from)
		s.Untapped = max(s.Untapped, d)
	}
	return d
}

// enter runs fn on a thread that is in the namespace.
func (t *Tap) enter(s *space, fn func() error) error {
	if s.own || t.fromOutside(s) {
		return t.own.do(fn)
	}
	if t.cfg.Enter == nil {
		return errors.New("other namespaces cannot be entered here")
	}
	return t.cfg.Enter(s.Netns, fn)
}

// name asks what the own namespace calls the one that the thread is in, and has
// it named where it has no name: links tell by it where they are.
func (t *Tap) name(s *space) {
	if s.own || s.nsid != unknownNsid {
		return
	}
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return
	}
	defer f.Close()
	nsid, err := t.own.nsid(int(f.Fd()))
	if err != nil {
		t.log.Debug("namespace has no name", "netns", s.Netns, "error", err)
		return
	}
	t.mu.Lock()
	s.nsid = nsid
	t.mu.Unlock()
}

// depart notes that a namespace has died: its interfaces are gone with it.
func (t *Tap) depart(s *space) {
	defer t.busyWith(s)()
	if !t.knows(s) { // it was told of again meanwhile
		return
	}
	if t.fromOutside(s) { // the own ends may be there still
		_ = t.own.do(func() error {
			for _, p := range s.ports {
				t.leave(p, gone)
			}
			return nil
		})
	}
	for _, p := range s.ports {
		t.leave(p, gone)
	}
	t.deafen(s)
	t.mu.Lock()
	delete(t.spaces, s.Netns)
	for _, p := range s.ports {
		t.left = append(t.left, p)
	}
	t.mu.Unlock()
	t.setScene(s.Netns, nil)
	t.log.Info("network namespace is gone", "netns", s.Netns, "name", s.Name)
	t.cfg.Gone(s.Netns)
}

// Namespaces tells which namespaces are tapped, since when, and which are not.
func (t *Tap) Namespaces() []event.Namespace {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]event.Namespace, 0, len(t.spaces))
	for _, s := range t.spaces {
		out = append(out, s.Namespace)
	}
	return out
}
