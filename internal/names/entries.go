// SPDX-License-Identifier: Apache-2.0

package names

import (
	"hash/maphash"
	"strings"
)

func (t *Table) hash(k *key) uint64 { return maphash.Comparable(t.seed, *k) }

// find gives the place of a name of an address; where it is not there, the one
// that has to go for it, the address's oldest, or none.
func (t *Table) find(k *key, name string) (at, old uint32) {
	old = none
	n := 0
	for i := t.index.first(t.hash(k)); i != none; i = t.index.after(i) {
		e := &t.entries[i]
		if e.key != *k {
			continue
		}
		if t.texts.all[e.name].text == name {
			return i, none
		}
		if old == none || e.last < t.entries[old].last {
			old = i
		}
		n++
	}
	if n < perAddress {
		old = none
	}
	return none, old
}

// add makes an entry, in no order yet.
func (t *Table) add(k *key, name string) uint32 {
	e := entry{key: *k, name: t.texts.hold(name)}
	var i uint32
	if n := len(t.free); n > 0 {
		i, t.free = t.free[n-1], t.free[:n-1]
		t.entries[i] = e
	} else {
		i = uint32(len(t.entries))
		t.entries = append(t.entries, e)
	}
	t.index.put(i, t.hash(k))
	return i
}

// drop forgets an entry.
func (t *Table) drop(i uint32) {
	t.unlink(i)
	t.index.take(i)
	t.texts.release(t.entries[i].name)
	t.entries[i] = entry{name: none}
	t.free = append(t.free, i)
}

// link puts an entry where its time is: nearly always that is the end.
func (t *Table) link(i uint32) {
	after := t.newest
	for steps := 0; after != none && t.entries[after].last > t.entries[i].last && steps < 16; steps++ {
		after = t.entries[after].older
	}
	e := &t.entries[i]
	if e.older = after; after == none {
		e.newer, t.oldest = t.oldest, i
	} else {
		e.newer = t.entries[after].newer
		t.entries[after].newer = i
	}
	if e.newer == none {
		t.newest = i
	} else {
		t.entries[e.newer].older = i
	}
}

func (t *Table) unlink(i uint32) {
	e := &t.entries[i]
	if e.older == none {
		t.oldest = e.newer
	} else {
		t.entries[e.older].newer = e.newer
	}
	if e.newer == none {
		t.newest = e.older
	} else {
		t.entries[e.newer].older = e.older
	}
}

// texts keeps each name once, however many addresses have it.
type texts struct {
	seed  maphash.Seed
	index chains
	all   []text
	free  []uint32
	bytes int
}

type text struct {
	text  string
	users uint32
}

func (s *texts) hold(name string) uint32 {
	hash := maphash.String(s.seed, name)
	for i := s.index.first(hash); i != none; i = s.index.after(i) {
		if s.all[i].text == name {
			s.all[i].users++
			return i
		}
	}
	name = strings.Clone(name) // it may be a part of something long
	var i uint32
	if n := len(s.free); n > 0 {
		i, s.free = s.free[n-1], s.free[:n-1]
		s.all[i] = text{name, 1}
	} else {
		i = uint32(len(s.all))
		s.all = append(s.all, text{name, 1})
	}
	s.index.put(i, hash)
	s.bytes += len(name)
	return i
}

func (s *texts) release(i uint32) {
	t := &s.all[i]
	if t.users--; t.users > 0 {
		return
	}
	s.index.take(i)
	s.bytes -= len(t.text)
	*t = text{}
	s.free = append(s.free, i)
}
