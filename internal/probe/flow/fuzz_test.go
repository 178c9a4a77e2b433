// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/orb8/orb8/internal/event"
)

// stats builds an RTM_NEWSTATS body with one attribute.
func stats(index uint32, attr, length uint16, counters ...uint64) []byte {
	b := make([]byte, sizeofIfStats)
	binary.NativeEndian.PutUint32(b[4:], index)
	b = binary.NativeEndian.AppendUint16(b, length)
	b = binary.NativeEndian.AppendUint16(b, attr)
	for _, c := range counters {
		b = binary.NativeEndian.AppendUint64(b, c)
	}
	return b
}

func TestParseStats(t *testing.T) {
	whole := stats(7, linkStats64, 4+8*8, 1, 2, 300, 400, 5, 6, 7, 8)
	want := deviceCounters{rx: event.Counter{Packets: 1, Bytes: 300}, tx: event.Counter{Packets: 2, Bytes: 400}, txDropped: 8}
	if index, c, ok := parseStats(whole); index != 7 || c != want || !ok {
		t.Errorf("%d %+v %v", index, c, ok)
	}
	for name, b := range map[string][]byte{
		"nothing":         nil,
		"no attribute":    whole[:sizeofIfStats],
		"another one":     stats(7, 2, 4+8*8, 1, 2, 3, 4, 5, 6, 7, 8),
		"too few":         stats(7, linkStats64, 4+8*7, 1, 2, 3, 4, 5, 6, 7),
		"longer than it":  stats(7, linkStats64, 4+8*40, 1, 2, 3, 4, 5, 6, 7, 8),
		"shorter than it": stats(7, linkStats64, 3, 1, 2, 3, 4, 5, 6, 7, 8),
	} {
		if _, c, ok := parseStats(b); ok {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

func FuzzParseStats(f *testing.F) {
	f.Add(stats(7, linkStats64, 4+8*8, 1, 2, 3, 4, 5, 6, 7, 8))
	f.Add(stats(7, linkStats64, 4+8*40, 1, 2, 3, 4, 5, 6, 7, 8))
	f.Add(stats(7, 2, 0, 1))
	f.Add(stats(7, 2, 5, 1)[:sizeofIfStats+5]) // its padding is missing
	f.Add(append(stats(7, 2, 12, 1), stats(7, linkStats64, 4+8*8, 1, 2, 3, 4, 5, 6, 7, 8)[sizeofIfStats:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, c, ok := parseStats(b); !ok && c != (deviceCounters{}) {
			t.Errorf("counters of what could not be read: %+v", c)
		}
	})
}

// A table entry is the kernel's own bytes; whatever they are, the delta has the
// same numbers and is of the time that has passed.
func FuzzDecode(f *testing.F) {
	const keySize, valueSize = unsafe.Sizeof(kernelFlowKey{}), unsafe.Sizeof(kernelFlowValue{})
	f.Add(make([]byte, keySize+valueSize), uint32(0))
	ones := make([]byte, keySize+valueSize)
	for i := range ones {
		ones[i] = 0xff
	}
	f.Add(ones, uint32(5))
	f.Fuzz(func(t *testing.T, b []byte, jiffy uint32) {
		var entry [keySize + valueSize]byte
		copy(entry[:], b)
		var k kernelFlowKey
		var v kernelFlowValue
		copy((*[keySize]byte)(unsafe.Pointer(&k))[:], entry[:keySize])
		copy((*[valueSize]byte)(unsafe.Pointer(&v))[:], entry[keySize:])
		tap := &Tap{clock: clock{tick: 4e6, jiffy: jiffy, wall: 1e18}}
		tap.decode(&k, &v)
		d := &tap.delta
		if string(d.Conn.Local[:]) != string(entry[:16]) || string(d.Conn.Remote[:]) != string(entry[16:32]) ||
			d.Conn.LocalPort != binary.BigEndian.Uint16(entry[32:]) || d.Conn.RemotePort != binary.BigEndian.Uint16(entry[34:]) {
			t.Errorf("connection %+v of % x", d.Conn, entry[:keySize])
		}
		if d.Traffic != (event.Traffic{TxBytes: v.Tx.Bytes, TxPackets: v.Tx.Packets, RxBytes: v.Rx.Bytes, RxPackets: v.Rx.Packets}) ||
			d.Segmentation.TxPackets<<segShift|d.Segmentation.TxBytes != v.Tx.Seg || d.Segmentation.RxPackets<<segShift|d.Segmentation.RxBytes != v.Rx.Seg ||
			d.Cookie != v.Cookie || d.Cgroup != v.Cgroup {
			t.Errorf("delta %+v of %+v", d, v)
		}
		conn, sum := d.Conn, d.Traffic
		if reflect(d); d.Traffic != sum.Reversed() || d.Conn.Local != conn.Remote || d.Conn.Remote != conn.Local {
			t.Errorf("%+v became %+v", conn, d)
		}
		if d.First > tap.clock.wall || d.Last > tap.clock.wall {
			t.Errorf("%d to %d is in the future of %d", d.First, d.Last, tap.clock.wall)
		}
	})
}

// Flags and bytes are two forms of one thing.
func TestFlags(t *testing.T) {
	for want := range 256 {
		var seen [8]uint8
		for bit := range seen {
			seen[bit] = uint8(want) >> bit & 1
		}
		if got := flags(&seen); got != uint8(want) {
			t.Errorf("%08b of %v, want %08b", got, seen, want)
		}
	}
}

// Notes are read back by another process, perhaps after a crash while writing.
func FuzzReadNotes(f *testing.F) {
	f.Add([]byte("4026531840 2\n4026531840 3\n"))
	f.Add([]byte("4026531840 2\n40265"))
	f.Add([]byte("-1 99999999999\n\n \n"))
	path := filepath.Join(f.TempDir(), "clsact-notes")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readNotes(path); err != nil {
			t.Error(err)
		}
	})
}

// BenchmarkDecode is the first step of an update; the rest is measured beside
// the pipeline.
func BenchmarkDecode(b *testing.B) {
	tap := &Tap{clock: clock{tick: 4e6, wall: 1e18}}
	var k kernelFlowKey
	var v kernelFlowValue
	v.Tx.Packets, v.Rx.Packets = 1, 1
	b.ReportAllocs()
	for b.Loop() {
		tap.decode(&k, &v)
	}
}

// FuzzCopy: a record of any bytes is refused, or within its bounds.
func FuzzCopy(f *testing.F) {
	f.Add(make([]byte, copyHead))
	f.Add(append(make([]byte, copyHead-12), 5, 0, 0, 0, 3, 0, 2, copySent|copyRemoteDNS, 0, 0, 0, 0, 'd', 'n', 's'))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c Copy
		if c.decode(b) == nil && (len(c.Data) > c.Length || len(c.Data)+copyHead > len(b)) {
			t.Errorf("%d bytes of %d, from a record of %d", len(c.Data), c.Length, len(b))
		}
	})
}
