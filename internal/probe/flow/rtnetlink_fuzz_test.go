// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
)

// The seeds in testdata are messages as kernels write them, and each cut or
// changed where a length, a type or a name of a namespace decides.

// Whatever is heard, each change is of a message that is there, and only a
// deleted interface has last counters.
func FuzzParseChanges(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte, nsid int) {
		heard := 0
		parseChanges(b, nsid, func(c *change) {
			heard++
			switch c.kind {
			case unix.RTM_NEWNSID, unix.RTM_DELNSID:
				if nsid != unknownNsid {
					t.Errorf("%+v: another namespace's names", c)
				}
			case unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR, unix.RTM_DELADDR, unix.RTM_DELQDISC, unix.RTM_DELTFILTER, unix.RTM_NEWTFILTER:
				if c.nsid != nsid || !bytes.Contains(b, binary.NativeEndian.AppendUint32(nil, c.index)) {
					t.Errorf("%+v of a message from %d", c, nsid)
				}
			default:
				t.Errorf("%+v is nothing that is followed", c)
			}
			if c.last != nil {
				checkCounters(t, b, c.last)
			}
			if c.last != nil && c.kind != unix.RTM_DELLINK {
				t.Errorf("%+v has last counters", c)
			}
		})
		if heard > len(b)/unix.SizeofNlMsghdr {
			t.Errorf("%d changes in %d bytes", heard, len(b))
		}
	})
}

// checkCounters expects counters that stand in b as the kernel orders them.
func checkCounters(t *testing.T, b []byte, c *deviceCounters) {
	t.Helper()
	var want []byte
	for _, v := range []uint64{c.rx.Packets, c.tx.Packets, c.rx.Bytes, c.tx.Bytes} {
		want = binary.NativeEndian.AppendUint64(want, v)
	}
	if !bytes.Contains(b, want) {
		t.Errorf("%+v is not in the message", c)
	}
}

func FuzzParseNsid(f *testing.F) {
	f.Fuzz(func(t *testing.T, oob []byte) {
		nsid := parseNsid(oob)
		if nsid != unknownNsid && !bytes.Contains(oob, binary.NativeEndian.AppendUint32(nil, uint32(nsid))) {
			t.Errorf("%d is not in % x", nsid, oob)
		}
		if len(oob) < unix.SizeofCmsghdr+4 && nsid != unknownNsid {
			t.Errorf("%d of %d bytes", nsid, len(oob))
		}
	})
}

// An attribute's value follows a header of its type and length.
func FuzzAttribute(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte, kind uint16) {
		value, ok := attribute(b, kind)
		if !ok {
			if value != nil {
				t.Errorf("% x of what is not there", value)
			}
			return
		}
		size := binary.NativeEndian.AppendUint16(nil, uint16(len(value)+unix.SizeofRtAttr))
		found := false
		for _, flagged := range []uint16{0, unix.NLA_F_NESTED, unix.NLA_F_NET_BYTEORDER, unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER} {
			found = found || bytes.Contains(b, slices.Concat(size, binary.NativeEndian.AppendUint16(nil, kind|flagged), value))
		}
		if !found {
			t.Errorf("attribute %d: % x is not in % x", kind, value, b)
		}
	})
}

func FuzzLinkCounters(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		if c := linkCounters(body); c != nil {
			checkCounters(t, body, c)
		}
	})
}

// An answer fills the places of the questions that were asked and no others,
// however late, twice or false it is.
func FuzzAnswer(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte, first uint32, questions uint8) {
		n := int(questions) % (askAtOnce + 1)
		out := make([]*deviceCounters, n+2)
		other := &deviceCounters{rx: event.Counter{Packets: 1}}
		out[0], out[n+1] = other, other
		which := make([]int, n)
		for i := range which {
			which[i] = i + 1
		}
		answered := (&counterReader{}).answer(b, first, which, out)
		if answered > len(b)/unix.SizeofNlMsghdr || n == 0 && answered > 0 {
			t.Errorf("%d answers to %d questions in %d bytes", answered, n, len(b))
		}
		if out[0] != other || out[n+1] != other {
			t.Error("an answer to what was not asked")
		}
		for _, c := range out[1 : n+1] {
			if c != nil {
				checkCounters(t, b, c)
			}
		}
	})
}
