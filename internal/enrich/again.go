// SPDX-License-Identifier: Apache-2.0

package enrich

import (
	"time"

	"github.com/orb8/orb8/internal/cluster"
	"github.com/orb8/orb8/internal/event"
)

// again is why connections are looked at more than once.
type again struct {
	// Namespaces that were met; those of which it has become known whose they are.
	spaces map[uint32]*space
	moved  map[uint32]move
	// As of which connections are, and how often the own pods have changed.
	generation, version uint64
	// Connections that began with a holder of an address that has gone, as far as
	// is known: when there is another, it is not theirs.
	former []event.Conn
	// Connections of which the host was asked, and when.
	asked   map[event.Conn]int64
	unasked uint64
	now     int64
	swept   int64
}

const (
	// Namespaces remembered: beyond, they are met again.
	maxSpaces = 8192
	// Connections with a former holder that are met in one epoch.
	maxFormer = 8192
	// After so long no answer comes.
	noAnswer = int64(10 * time.Second)
)

func newAgain() again {
	return again{spaces: map[uint32]*space{}, moved: map[uint32]move{}, asked: map[event.Conn]int64{}}
}

// space is a network namespace, and whose it is.
type space struct {
	pod pod
	// As of which that is.
	generation, version uint64
	// Whose it was when all connections were last looked at.
	was string
}

// move is that a namespace is a pod's now, and was another's or nobody's.
type move struct {
	rebound bool
	uid     string
}

// space gives a namespace as it is now: it was asked for, and nothing has
// changed since.
func (a *again) space(e *Enricher, netns uint32) *space {
	generation := e.cfg.Sandboxes.Generation()
	s := a.spaces[netns]
	if s != nil && s.generation == generation && s.version == a.version {
		return s
	}
	uid, ok := e.cfg.Sandboxes.Pod(netns)
	if s == nil {
		if len(a.spaces) >= maxSpaces {
			clear(a.spaces)
		}
		s = &space{was: uid}
		a.spaces[netns] = s
	}
	s.generation, s.version, s.pod = generation, a.version, pod{}
	if ok {
		s.pod = e.podBy(uid)
	}
	return s
}

// late notes a connection that is older than who has its other side's address.
func (a *again) late(c event.Conn) {
	if len(a.former) < maxFormer {
		a.former = append(a.former, c)
	}
}

// Update takes in what an Inbox of the cluster gave, which namespaces have
// become whose, and how connections are translated, and looks again at the
// connections that this concerns. Call it once an epoch, before its connections
// are identified, and before a question. Who was told to be an end of a
// connection stays it; a new holder of its address begins with a new connection.
func (e *Enricher) Update(changes []cluster.Change, synced bool, now time.Time) {
	m := e.cfg.Cluster
	if m == nil {
		return
	}
	e.again.now = now.UnixNano()
	touched := m.Apply(changes, synced)
	m.Sweep(now)
	if own := m.NodeIdentity(e.cfg.Node); own != nil && own.Zone != e.host.Zone {
		e.settle(own.Zone)
	}
	if touched.Pods() {
		e.again.version++
	}
	if e.movedSpaces() || touched.Any() {
		e.cfg.Flows.Each(func(f *event.Flow) { e.look(f, touched) })
		clear(e.again.moved)
	}
	for _, c := range e.again.former {
		if f := e.cfg.Flows.Get(c); f != nil && e.succeeded(f) {
			e.retire(c)
		}
	}
	e.again.former = e.again.former[:0]
	if e.cfg.Translations != nil {
		e.cfg.Translations.Answers(e.answer)
		e.sweepAsked()
	}
}

// movedSpaces finds the namespaces that are another pod's than they were, or of
// which it has become known whose they are.
func (e *Enricher) movedSpaces() bool {
	a := &e.again
	if e.cfg.Sandboxes == nil {
		return false
	}
	generation := e.cfg.Sandboxes.Generation()
	if generation == a.generation {
		return false
	}
	a.generation = generation
	for netns, s := range a.spaces {
		if uid, _ := e.cfg.Sandboxes.Pod(netns); uid != s.was && uid != "" {
			a.moved[netns] = move{rebound: s.was != "", uid: uid}
			s.was = uid
		}
	}
	return len(a.moved) > 0
}

// look looks at a connection again, if what was touched concerns it. What has
// been retired keeps the names that it had.
func (e *Enricher) look(f *event.Flow, touched *cluster.Touched) {
	c := f.Conn
	if c.Reserved != [2]byte{} || f.Local == nil {
		return
	}
	to, moved := e.again.moved[c.Netns]
	if to.rebound && f.Local.PodUID != "" && !e.is(f.Local.PodUID, to.uid) {
		e.retire(c)
		return
	}
	remote := touched.Address(c.Remote) || f.NAT != nil && touched.Address(f.NAT.Remote)
	local := moved || touched.Pods() && touched.Pod(f.Local.PodUID)
	if !local && !remote {
		return
	}
	switch {
	case moved, f.Local.Class == event.ClassUnknown:
		e.identify(f)
	case local && !e.refit(f):
		e.cfg.Flows.Carry(c)
	default:
		f.Remote = e.remote(f)
	}
	if remote && !f.Carried && e.succeeded(f) {
		e.retire(c)
	}
}

// refit tells more of a local end that is known: the process may have ended
// since, and nobody can say again what it was. false: it is in another namespace.
func (e *Enricher) refit(f *event.Flow) (here bool) {
	was := f.Local
	if was.Class != event.ClassPod {
		if was.Zone != e.host.Zone {
			f.Local = e.fitted(fit{was: was, base: e.host})
		}
		return true
	}
	told := e.cfg.Cluster.Pod(was.PodUID)
	if told == nil {
		return true
	}
	if f.Conn.Netns == e.cfg.Netns && !told.HostNetwork {
		return false
	}
	f.Local = e.fitted(fit{was: was, base: e.cfg.Cluster.Identity(was.PodUID)})
	return true
}

// fit is an identity, and what is known now of what it is of.
type fit struct{ was, base *event.Identity }

func (e *Enricher) fitted(k fit) *event.Identity {
	id := e.fits.get(k)
	if id != nil {
		return id
	}
	made := *k.was
	if made.Zone = k.base.Zone; k.was.Class == event.ClassPod {
		made = *k.base
		made.Container, made.Process, made.PID = k.was.Container, k.was.Process, k.was.PID
		if name := e.cfg.Cluster.Pod(made.PodUID).Container(made.Container); name != "" {
			made.Container = name
		}
	}
	e.fits.put(k, &made)
	return &made
}

// is tells whether two UIDs are one pod's: a static pod has two.
func (e *Enricher) is(a, b string) bool {
	if a == b {
		return true
	}
	p := e.cfg.Cluster.Pod(b)
	return p != nil && p.UID == a
}

// succeeded: the address of the other side has another holder than when the
// connection began.
func (e *Enricher) succeeded(f *event.Flow) bool {
	ip := f.Conn.Remote
	if f.NAT != nil && !f.NAT.OfSocket {
		ip = f.NAT.Remote
	}
	now := e.cfg.Cluster.Now(ip)
	if now == nil || f.Remote == nil {
		return false
	}
	then := f.Remote
	if then.Class == event.ClassService || ip == f.Conn.Local {
		return false
	}
	return then.PodUID != now.PodUID || then.Node != now.Node
}

func (e *Enricher) retire(c event.Conn) {
	delete(e.pending, c)
	delete(e.again.asked, c)
	e.cfg.Flows.Retire(c)
}

// want asks the host for a connection's translation; true: there it is.
func (e *Enricher) want(f *event.Flow) bool {
	a := &e.again
	if e.cfg.Translations == nil || f.Conn.Kind != event.ConnPlain || f.Conn.RemotePort == 0 || f.Conn.Reserved != [2]byte{} {
		return false
	}
	if _, already := a.asked[f.Conn]; already {
		return false
	}
	host := f.Conn.Netns == e.cfg.Netns
	// That there is none is believed of who takes the time to ask twice.
	if other, ok := e.cfg.Translations.Now(f.Conn, host); ok && other != nil {
		e.cfg.Flows.Translate(f, other)
		return true
	}
	if len(a.asked) >= e.cfg.Pending {
		a.unasked++
		return false
	}
	a.asked[f.Conn] = a.now
	e.cfg.Translations.Want(f.Conn, host)
	return false
}

func (e *Enricher) answer(c event.Conn, other *event.Translation) {
	delete(e.again.asked, c)
	if other == nil {
		return
	}
	if f := e.cfg.Flows.Get(c); f != nil && f.Local != nil {
		e.cfg.Flows.Translate(f, other)
		f.Remote = e.remote(f)
	}
}

// Asking tells whether the host has been asked how it translates a connection,
// and has not answered.
func (e *Enricher) Asking() bool { return len(e.again.asked) > 0 }

// sweepAsked forgets what was asked and had no answer: there was no room for the
// question.
func (e *Enricher) sweepAsked() {
	a := &e.again
	if a.now-a.swept < noAnswer && a.now >= a.swept {
		return
	}
	a.swept = a.now
	for c, at := range a.asked {
		if a.now-at > noAnswer || at > a.now {
			delete(a.asked, c)
		}
	}
}
