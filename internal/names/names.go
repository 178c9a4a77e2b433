// SPDX-License-Identifier: Apache-2.0

// Package names holds which client was answered which address by which name, so
// that a connection to the outside carries the name that its own client asked
// for. It never passes a name from one client to another, asks nobody, and reads
// no clock: time comes with what is told and asked. The pipeline's goroutine owns
// it; look-ups feed it, the enricher reads it.
package names

import (
	"hash/maphash"
	"time"

	"github.com/orb8/orb8/internal/event"
)

// Who is a client: a network namespace, and in the host's, where many live, the
// cgroup.
type Who struct {
	Netns uint32
	// 0 unless it is the host's namespace.
	Cgroup uint64
}

// Config of a table. The zero value works.
type Config struct {
	// Names of addresses that are remembered; 0 means 100,000.
	Max int
	// Bytes that the texts of all names may take; 0 means 8 MiB.
	MaxText int
	// How long an answer holds at least: connections are made long after its TTL,
	// by pools and by clients that remember. 0 means 5 minutes.
	Floor time.Duration
	// How long an answer is remembered, and the longest that it holds; 0 means 1 hour.
	Keep time.Duration
}

const (
	// A client has at most so many names for an address: behind one of a large
	// provider's are thousands.
	perAddress = 8
	none       = ^uint32(0)
)

// key of an address as a client was answered it.
type key struct {
	who  Who
	addr event.IP
}

// entry is a name of an address of a client's. Numbers are places in the table.
type entry struct {
	key key
	// The answers for it held from since to until, without looking at gaps; the
	// last came at last.
	since, until, last int64
	name               uint32
	// The neighbours by the time of the answer.
	older, newer uint32
}

// Table is for one goroutine.
type Table struct {
	cfg     Config
	seed    maphash.Seed
	index   chains
	entries []entry
	free    []uint32
	// By the time of the answer.
	oldest, newest uint32
	texts          texts
	evicted        uint64
}

// New makes an empty table.
func New(cfg Config) *Table {
	if cfg.Max <= 0 {
		cfg.Max = 100_000
	}
	if cfg.MaxText <= 0 {
		cfg.MaxText = 8 << 20
	}
	if cfg.Floor <= 0 {
		cfg.Floor = 5 * time.Minute
	}
	if cfg.Keep <= 0 {
		cfg.Keep = time.Hour
	}
	seed := maphash.MakeSeed()
	return &Table{cfg: cfg, seed: seed, oldest: none, newest: none, texts: texts{seed: seed}}
}

// Len is how many names of addresses are remembered.
func (t *Table) Len() int { return len(t.entries) - len(t.free) }

// Learn takes in what a client was answered. The name is copied.
func (t *Table) Learn(who Who, answer Answer) {
	if answer.Name == "" {
		return
	}
	hold := min(max(time.Duration(answer.TTL)*time.Second, t.cfg.Floor), t.cfg.Keep)
	k, at := key{who, answer.Addr}, answer.At
	i, old := t.find(&k, answer.Name)
	if i == none {
		if old != none {
			t.drop(old)
		}
		i = t.add(&k, answer.Name)
		t.entries[i].since = at
	} else {
		t.unlink(i)
	}
	e := &t.entries[i]
	if e.since = min(e.since, at); at > e.until {
		e.since = at // it lapsed in between
	}
	e.last, e.until = max(e.last, at), max(e.until, at+int64(hold))
	t.link(i)
	for t.Len() > t.cfg.Max || t.texts.bytes > t.cfg.MaxText && t.Len() > 1 {
		t.drop(t.oldest)
		t.evicted++
	}
}

// Answer is an address that a client was answered.
type Answer struct {
	Addr event.IP
	// The name that it asked for.
	Name string
	// Seconds.
	TTL uint32
	// Unix nanoseconds.
	At int64
}

// Name gives the name of the most recent answer that held at a time. ok is false
// where there is none: what came later names nothing.
func (t *Table) Name(who Who, addr event.IP, at int64) (name string, ok bool) {
	k := key{who, addr}
	best, last := none, int64(0)
	for i := t.index.first(t.hash(&k)); i != none; i = t.index.after(i) {
		e := &t.entries[i]
		if e.key != k || e.since > at || at >= e.until {
			continue
		}
		told := e.last
		if told > at {
			told = e.since // of what came in between the times are not kept
		}
		if best == none || told > last {
			best, last = e.name, told
		}
	}
	if best == none {
		return "", false
	}
	return t.texts.all[best].text, true
}

// Has tells whether a client was ever answered an address for a name, as far as
// that is remembered.
func (t *Table) Has(who Who, addr event.IP, name string) bool {
	k := key{who, addr}
	for i := t.index.first(t.hash(&k)); i != none; i = t.index.after(i) {
		if e := &t.entries[i]; e.key == k && t.texts.all[e.name].text == name {
			return true
		}
	}
	return false
}

// Only gives the one name that a client ever got for an address, as far as that
// is remembered: for connections that began before. ok is false where there is
// none, and where there are two.
func (t *Table) Only(who Who, addr event.IP) (name string, ok bool) {
	k := key{who, addr}
	only := none
	for i := t.index.first(t.hash(&k)); i != none; i = t.index.after(i) {
		if t.entries[i].key != k {
			continue
		}
		if only != none {
			return "", false
		}
		only = t.entries[i].name
	}
	if only == none {
		return "", false
	}
	return t.texts.all[only].text, true
}

// Forget forgets all clients of a namespace that is gone: its number will be
// another's.
func (t *Table) Forget(netns uint32) {
	for i := range t.entries {
		if e := &t.entries[i]; e.key.who.Netns == netns && e.name != none {
			t.drop(uint32(i))
		}
	}
}

// Sweep forgets answers that came too long ago.
func (t *Table) Sweep(now int64) {
	for t.oldest != none && t.entries[t.oldest].last+int64(t.cfg.Keep) < now {
		t.drop(t.oldest)
	}
}

// Losses tells of names that made room for others.
func (t *Table) Losses() []event.Loss {
	if t.evicted == 0 {
		return nil
	}
	return []event.Loss{{
		Stage: "names", Count: t.evicted,
		Hint: "clients were answered more addresses than are remembered by name, and connections to some of them have no name: orb8 dns shows who asks for so many",
	}}
}
