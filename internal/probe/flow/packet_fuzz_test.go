// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"encoding/binary"
	"testing"

	. "github.com/orb8/orb8/internal/bpftest"
)

// outer is a fuzz test whose help is used inside of its target as well, where it
// may not say that it is help.
type outer struct{ testing.TB }

func (outer) Helper() {}

// The kernel side reads any frame as a second parser does, and counts it once.
// The seeds are a packet of each kind that has headers of its own.
func FuzzPacket(f *testing.F) {
	RequireKernel(f, BPF)
	k := &kernel{ns: NewNetns(outer{f})}
	k.ns.Do(func() {
		tap, err := Open(Config{TableEntries: 100, StateDir: f.TempDir()})
		if err != nil {
			f.Fatal(err)
		}
		k.tap = tap
	})
	f.Cleanup(func() { _ = k.tap.Close() })
	instances := map[uint32]*instance{}
	for _, link := range []uint32{etherHeader, unknownHeader} {
		i, err := k.tap.kernel.instance(constants{netns: k.tap.own.inode, linkHeader: link})
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(func() { _ = i.Close() })
		instances[link] = i
	}
	f.Fuzz(func(t *testing.T, frame []byte, egress bool) {
		if len(frame) <= etherHeader || len(frame) > 3000 {
			return // a test run refuses them
		}
		k.t = t
		want := read(frame, etherHeader, binary.BigEndian.Uint16(frame[12:]))
		if frame[12] < 6 { // a length: 802.3
			want = reading{class: classNotIP}
		}
		for link, i := range instances {
			k.instance = i
			if !k.attempt(egress, frame, nil) {
				return
			}
			if err := k.compare(&want, len(frame), egress); err != nil {
				t.Errorf("link %d: %v\n% x", link, err, frame)
			}
		}
	})
}
