// SPDX-License-Identifier: Apache-2.0

package cluster

import "github.com/orb8/orb8/internal/event"

// Touched is what changed in a Map: whom to look at again. Most addresses have
// not been touched, and to say so takes one bit.
type Touched struct {
	// Something changed that concerns everybody.
	All       bool
	bits      [touchedBits / 64]uint64
	addresses map[event.IP]struct{}
	pods      map[string]struct{}
}

const touchedBits = 1 << 16

// Any tells that something is to be looked at.
func (t *Touched) Any() bool { return t.All || len(t.addresses) > 0 || len(t.pods) > 0 }

// Address tells that another may have an address, or that there is more to tell
// of who has it.
func (t *Touched) Address(ip event.IP) bool {
	if t.All {
		return true
	}
	bit := bitOf(ip)
	if t.bits[bit/64]&(1<<(bit%64)) == 0 {
		return false
	}
	_, ok := t.addresses[ip]
	return ok
}

// Pods tells that pods of this node have been touched.
func (t *Touched) Pods() bool { return t.All || len(t.pods) > 0 }

// Pod tells that there is something else to tell of a pod of this node, by its
// UID or the one that the node gave it.
func (t *Touched) Pod(uid string) bool {
	_, ok := t.pods[uid]
	return ok || t.All
}

func (t *Touched) address(ip event.IP) {
	if t.addresses == nil {
		t.addresses = map[event.IP]struct{}{}
	}
	t.addresses[ip] = struct{}{}
	bit := bitOf(ip)
	t.bits[bit/64] |= 1 << (bit % 64)
}

func (t *Touched) pod(uid string) {
	if t.pods == nil {
		t.pods = map[string]struct{}{}
	}
	t.pods[uid] = struct{}{}
}

func (t *Touched) reset() {
	if len(t.addresses) > 0 {
		clear(t.bits[:])
	}
	t.All, t.addresses, t.pods = false, nil, nil
}

// bitOf: what changes most between addresses of one network is at their end.
func bitOf(ip event.IP) uint { return uint(ip[14])<<8 | uint(ip[15]) }
