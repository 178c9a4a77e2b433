// SPDX-License-Identifier: Apache-2.0

package store

import "github.com/orb8/orb8/internal/event"

// Limit changes how many connections are remembered. With a lower limit those
// beyond it are forgotten over the next epochs, counted as evicted, and then
// what they took is free for the garbage collector.
func (s *Flows) Limit(n int) {
	n = max(n, 1)
	s.shrinking = n < s.limits.Flows || s.shrinking && n == s.limits.Flows
	s.limits.Flows = n
}

// shrinkStep is how many connections one epoch forgets at the least: about 3 ms.
const shrinkStep = 16 * chunk

// shrink forgets a part of what is beyond the limit: connections that did not
// move in the last epoch go first.
func (s *Flows) shrink() {
	over := len(s.index) - s.limits.Flows
	for range min(over, max(shrinkStep, over/4)) {
		_ = s.evictOne(s.epoch) || s.evictOne(s.epoch+1)
	}
	if len(s.index) > s.limits.Flows {
		return
	}
	s.shrinking = false
	// A limit that was halved leaves half of the slots empty: those are what it
	// was halved for.
	if spare := int(s.used) - len(s.index); spare > len(s.index)/4+chunk {
		s.compact()
	}
}

// giveBack makes what many connections took free after they are over. It does
// not for a few: the next ones would take it again.
func (s *Flows) giveBack() {
	if int(s.used) > 4*len(s.index)+16*chunk {
		s.compact()
	}
}

// compact moves the flows together: maps do not shrink by themselves, and a
// chunk is free only when nothing in it is used. Nobody holds a flow between
// two epochs.
func (s *Flows) compact() {
	old := s.slab
	used := s.used
	s.index = make(map[event.Conn]uint32, len(s.index))
	received := s.replies
	s.replies = make(map[event.Conn]uint32, len(received))
	s.slab, s.free, s.used, s.hand = nil, nil, 0, 0
	for i := range used {
		if f := &old[i/chunk][i%chunk]; f.Epoch != 0 {
			to := s.slot()
			*s.at(to) = *f
			s.index[f.Conn] = to
			if c, other := replies(f); other {
				if had, ok := received[c]; ok && had == i {
					s.replies[c] = to
				}
			}
		}
	}
}
