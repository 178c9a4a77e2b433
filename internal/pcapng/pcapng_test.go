// SPDX-License-Identifier: Apache-2.0

package pcapng

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
)

// block is one as the specification says how to read it.
type block struct {
	kind    uint32
	body    []byte
	options map[uint16]string
}

// fixed is how long the body is before its options.
var fixed = map[uint32]int{blockSection: 16, blockInterface: 8, blockStatistics: 12, blockPacket: 20}

func readBlocks(t testing.TB, b []byte) (all []block) {
	t.Helper()
	le := binary.LittleEndian
	for len(b) > 0 {
		if len(b) < 12 {
			t.Fatalf("%d bytes at the end are no block", len(b))
		}
		n := le.Uint32(b[4:])
		if n%4 != 0 || n < 12 || int(n) > len(b) || le.Uint32(b[n-4:]) != n {
			t.Fatalf("a block of %d bytes: % x", n, b[:min(64, len(b))])
		}
		k := block{kind: le.Uint32(b), body: b[8 : n-4], options: map[uint16]string{}}
		rest := k.body[fixed[k.kind]:]
		if k.kind == blockPacket {
			rest = rest[(le.Uint32(k.body[12:])+3)/4*4:]
		}
		for {
			code, length := le.Uint16(rest), int(le.Uint16(rest[2:]))
			if code == optEnd {
				if len(rest) != 4 {
					t.Fatalf("%d bytes after the last option", len(rest)-4)
				}
				break
			}
			k.options[code] = string(rest[4 : 4+length])
			rest = rest[4+(length+3)/4*4:]
		}
		all = append(all, k)
		b = b[n:]
	}
	return all
}

func TestBlocks(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out, Section{OS: "Linux", Application: "orb8", Comment: "why"})
	for _, name := range []string{"web-0/eth0", "eth0"} {
		if _, err := w.Interface(Interface{Name: name, Comment: "pod shop/web-0", LinkType: 1, Snaplen: 256}); err != nil {
			t.Fatal(err)
		}
	}
	seven := uint64(7)
	err := errors.Join(
		w.Packet(&Packet{Interface: 1, Time: 1<<32 + 5, Egress: true, Length: 1000, Data: []byte("abcde")}),
		w.Packet(&Packet{Interface: 0, Time: 6, Data: []byte("abcd")}),
		w.Statistics(&Statistics{Interface: 1, Time: 9, Given: &seven}),
		w.Flush(),
	)
	if err != nil || w.Good() != int64(out.Len()) {
		t.Fatal(err, w.Good(), out.Len())
	}
	got := readBlocks(t, out.Bytes())
	le := binary.LittleEndian
	if len(got) != 6 || le.Uint32(got[0].body) != byteOrder || got[0].options[sectionApplication] != "orb8" || got[0].options[optComment] != "why" {
		t.Fatalf("%d blocks, %+v", len(got), got[0])
	}
	if i := got[2]; i.kind != blockInterface || i.options[interfaceName] != "eth0" || i.options[interfaceResolution] != "\x09" || le.Uint32(i.body[4:]) != 256 {
		t.Errorf("interface %+v", i)
	}
	want := "0100000001000000" + "05000000" + "05000000e8030000" + "6162636465000000" + "0200040002000000" + "00000000"
	if p := hex.EncodeToString(got[3].body); p != want {
		t.Errorf("packet %s, not %s", p, want)
	}
	if p := got[4]; p.options[packetFlags] != "\x01\x00\x00\x00" || le.Uint32(p.body[16:]) != 4 {
		t.Errorf("packet %+v", p)
	}
	if s := got[5]; s.options[statisticsGiven] != "\x07\x00\x00\x00\x00\x00\x00\x00" || len(s.options) != 1 {
		t.Errorf("statistics %+v", s)
	}
}

// disk takes so many bytes.
type disk struct {
	bytes.Buffer
	room int
}

var errFull = errors.New("full")

func (d *disk) Write(b []byte) (int, error) {
	n, _ := d.Buffer.Write(b[:min(len(b), d.room-d.Len())])
	if n < len(b) {
		return n, errFull
	}
	return n, nil
}

// TestFullDisk: wherever the disk is full, what is good can be read.
func TestFullDisk(t *testing.T) {
	for room := range 2000 {
		d := &disk{room: room}
		w := NewWriter(d, Section{Application: "orb8"})
		_, err := w.Interface(Interface{Name: "eth0", LinkType: 1})
		for i := 0; i < 20 && err == nil; i++ {
			if err = w.Packet(&Packet{Data: bytes.Repeat([]byte{1}, i*7)}); i%3 == 0 {
				err = errors.Join(err, w.Flush())
			}
		}
		err = errors.Join(err, w.Flush())
		if w.Good() > int64(d.Len()) {
			t.Fatalf("%d bytes are good, of %d", w.Good(), d.Len())
		}
		packets := uint64(0)
		for _, b := range readBlocks(t, d.Bytes()[:w.Good()]) {
			if b.kind == blockPacket {
				packets++
			}
		}
		if w.Packets() != packets {
			t.Fatalf("%d packets, not %d", packets, w.Packets())
		}
		if err == nil {
			if room < 400 {
				t.Errorf("no error with room for %d bytes", room)
			}
			continue
		}
		if !errors.Is(err, errFull) || !errors.Is(w.Flush(), errFull) || !errors.Is(w.Packet(&Packet{}), errFull) {
			t.Errorf("room for %d: %v", room, err)
		}
	}
}

func TestLongTexts(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out, Section{Comment: strings.Repeat("x", 1<<17)})
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := readBlocks(t, out.Bytes()); len(got[0].options[optComment]) != maxText {
		t.Errorf("%d bytes of comment", len(got[0].options[optComment]))
	}
}

func TestPacketAllocatesNothing(t *testing.T) {
	w := NewWriter(io.Discard, Section{})
	p := &Packet{Length: 1500, Data: make([]byte, 128)}
	for range 2000 {
		_ = w.Packet(p)
	}
	if n := testing.AllocsPerRun(2000, func() { _ = w.Packet(p) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPacket(b *testing.B) {
	w := NewWriter(io.Discard, Section{})
	p := &Packet{Length: 1500, Data: make([]byte, 128)}
	b.ReportAllocs()
	for b.Loop() {
		_ = w.Packet(p)
	}
}
