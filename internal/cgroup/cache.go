// SPDX-License-Identifier: Apache-2.0

package cgroup

import "time"

// cache keeps what was used last, up to a bound.
type cache struct {
	bound   int
	entries map[uint64]*entry
	// A ring: newest.next is the next newest, newest.prev the oldest.
	newest *entry
}

// entry: info is nil where there is no such group, until expires.
type entry struct {
	id         uint64
	info       *Info
	expires    time.Time
	prev, next *entry
}

func newCache(bound int) *cache {
	return &cache{bound: bound, entries: make(map[uint64]*entry)}
}

func (c *cache) get(id uint64) *entry {
	e := c.entries[id]
	if e != nil && e != c.newest {
		e.unlink()
		c.link(e)
	}
	return e
}

func (c *cache) put(id uint64, info *Info, expires time.Time) {
	e := c.get(id)
	switch {
	case e != nil:
	case len(c.entries) < c.bound:
		e = &entry{id: id}
		c.entries[id] = e
		c.link(e)
	default:
		// The oldest becomes the newest by turning the ring.
		e = c.newest.prev
		delete(c.entries, e.id)
		e.id = id
		c.entries[id] = e
		c.newest = e
	}
	e.info, e.expires = info, expires
}

func (e *entry) unlink() { e.prev.next, e.next.prev = e.next, e.prev }

func (c *cache) link(e *entry) {
	if c.newest == nil {
		e.prev, e.next = e, e
	} else {
		e.next, e.prev = c.newest, c.newest.prev
		e.prev.next, e.next.prev = e, e
	}
	c.newest = e
}
