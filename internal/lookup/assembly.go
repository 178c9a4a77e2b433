// SPDX-License-Identifier: Apache-2.0

package lookup

import (
	"bytes"
	"slices"
)

const (
	// Segments of one direction that wait for one before them, and how far ahead
	// they may be.
	maxHeld  = 16
	maxAhead = 1 << 20
)

// piece is payload of a segment: length bytes from seq on, of which data are the
// first.
type piece struct {
	seq    uint32
	length int
	data   []byte
}

// from takes off what is before a place in the stream. It tells whether anything
// is left.
func (s *piece) from(seq uint32) bool {
	old := int(int32(seq - s.seq))
	if old <= 0 {
		return true
	}
	if old >= s.length {
		return false
	}
	s.seq, s.length, s.data = seq, s.length-old, s.data[min(old, len(s.data)):]
	return true
}

// assembly puts the segments of one direction in order. What came first holds.
type assembly struct {
	// What comes next; it is known once the assembly has begun.
	next  uint32
	begun bool
	held  []piece
}

// hold keeps a segment until those before it are there; ok is false where there
// is no room, or what is missing will hardly come. It tells how many bytes that
// takes.
func (a *assembly) hold(s piece) (size int, ok bool) {
	if len(a.held) == maxHeld || a.begun && int32(s.seq-a.next) > maxAhead {
		return 0, false
	}
	s.data = bytes.Clone(s.data)
	a.held = append(a.held, s)
	return cap(s.data), true
}

// ready gives what was held and is next by now, and how many bytes that took.
func (a *assembly) ready() (s piece, size int, ok bool) {
	for i := 0; i < len(a.held); {
		s = a.held[i]
		if int32(s.seq-a.next) > 0 {
			i++
			continue
		}
		a.held = slices.Delete(a.held, i, i+1)
		size += cap(s.data)
		if s.from(a.next) {
			return s, size, true
		}
	}
	return piece{}, size, false
}

// waiting is how many bytes wait.
func (a *assembly) waiting() (n int) {
	for i := range a.held {
		n += cap(a.held[i].data)
	}
	return n
}
