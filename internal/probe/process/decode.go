// SPDX-License-Identifier: Apache-2.0

package process

import "encoding/binary"

// The kernel's enum event_kind.
const (
	execEvent   = 1
	cgroupEvent = 2
)

// Sizes and offsets of the kernel's structs.
const (
	execSize   = 24
	cgroupSize = 16 + pathBytes + 8
	pathBytes  = 512
	pathAt     = 16
)

// event is either of the two. Its path is the ring's memory, valid until the
// next read.
type event struct {
	kind       uint32
	netns, pid uint32
	cgroup     uint64 // of the process, or the new one
	path       []byte
	cut        bool
}

// decode reads a sample in place; false where it is of no known kind or size.
// The ring rounds sizes up, so a sample may be longer.
func decode(b []byte) (event, bool) {
	if len(b) < execSize {
		return event{}, false
	}
	order := binary.NativeEndian
	e := event{kind: order.Uint32(b)}
	switch e.kind {
	case execEvent:
		e.netns, e.pid, e.cgroup = order.Uint32(b[4:]), order.Uint32(b[8:]), order.Uint64(b[16:])
		return e, true
	case cgroupEvent:
		length := int(order.Uint16(b[4:]))
		if len(b) < cgroupSize || length > pathBytes {
			return event{}, false
		}
		e.cgroup, e.cut = order.Uint64(b[8:]), order.Uint16(b[6:]) != 0
		e.path = b[pathAt : pathAt+length]
		return e, true
	}
	return event{}, false
}

// name copies the path.
func (e *event) name() string {
	if e.cut {
		return string(e.path) + Cut
	}
	return string(e.path)
}
