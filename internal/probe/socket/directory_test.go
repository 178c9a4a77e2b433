// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"testing"
	"testing/iotest"
	"time"
	"unsafe"

	"github.com/orb8/orb8/internal/event"
)

func addr(s string) event.IP {
	if s == "" {
		return event.IP{}
	}
	return event.IPFrom(netip.MustParseAddr(s))
}

func tcp(local string, port uint16, remote string, remotePort uint16) event.Conn {
	return event.Conn{Local: addr(local), LocalPort: port, Remote: addr(remote), RemotePort: remotePort, Netns: 1, Protocol: event.TCP}
}

func udp(local string, port uint16) event.Conn {
	return event.Conn{Local: addr(local), LocalPort: port, Netns: 1, Protocol: event.UDP}
}

func name(s string) (n Name) {
	copy(n[:], s)
	return n
}

func process(pid uint32, called string, start uint64) Process {
	return Process{PID: pid, Name: name(called), Start: start, Cgroup: uint64(pid) + 1000}
}

// probeOf answers from a listing that never was.
func probeOf(held, kernel []record) *Probe {
	p := &Probe{}
	d := newDirectory(100)
	for i := range held {
		d.add(&held[i])
	}
	d.seal()
	for i := range kernel {
		kernel[i].kernel = true
		d.addKernel(&kernel[i])
	}
	p.now.Store(d)
	return p
}

func TestWhoHoldsASocketOfSeveral(t *testing.T) {
	systemd, server := process(1, "systemd", 1), process(10, "nginx", 100)
	worker, twin := process(11, "nginx", 200), process(12, "nginx", 200)
	for name, c := range map[string]struct {
		holders []Process
		want    uint32
	}{
		"one":                       {[]Process{server}, 10},
		"systemd alone":             {[]Process{systemd}, 1},
		"systemd and a service":     {[]Process{systemd, server}, 10},
		"a service, then systemd":   {[]Process{server, systemd}, 10},
		"a server and its worker":   {[]Process{server, worker}, 11},
		"a worker and its server":   {[]Process{worker, server}, 11},
		"two of one moment":         {[]Process{twin, worker}, 12},
		"all, in whichever order":   {[]Process{worker, systemd, twin, server}, 12},
		"systemd later than others": {[]Process{server, {PID: 1, Start: 9999}}, 10},
	} {
		conn := tcp("10.0.0.1", 80, "10.0.0.2", 5000)
		var held []record
		for _, p := range c.holders {
			held = append(held, record{conn: conn, process: p, cookie: 7, inode: 70, state: 1})
		}
		p := probeOf(held, nil)
		o, ok := p.Owner(7)
		f, found := p.Find(&conn)
		if !ok || !found || o.PID != c.want || f != o || !o.Final || o.Kernel {
			t.Errorf("%s: %+v, %+v", name, o, f)
		}
	}
}

func TestFind(t *testing.T) {
	server, other := process(10, "nginx", 1), process(20, "dns", 1)
	held := []record{
		{conn: tcp("", 80, "", 0), process: server, inode: 1, state: stateListen},
		{conn: tcp("10.0.0.1", 80, "10.0.0.2", 5000), process: process(11, "nginx", 2), inode: 2, cookie: 5, state: 1},
		{conn: tcp("10.0.0.1", 90, "", 0), process: other, inode: 3, state: 7}, // bound only
		{conn: tcp("0.0.0.0", 81, "", 0), process: other, inode: 4, state: stateListen},
		{conn: tcp("", 82, "", 0), process: other, inode: 5, state: stateListen, v6only: true},
		{conn: udp("10.0.0.1", 53), process: other, inode: 6, state: 7},
		{conn: udp("", 9000), process: process(30, "many", 1), inode: 7, state: 7},
		{conn: udp("", 9000), process: process(31, "many", 2), inode: 8, state: 7},
		{conn: udp("", 9000), process: process(32, "many", 3), inode: 9, state: 7},
		{conn: udp("", 9001), process: process(30, "a", 1), inode: 10, state: 7},
		{conn: udp("", 9001), process: process(31, "b", 2), inode: 11, state: 7},
		{conn: udp("", 0), process: other, inode: 12, state: 7}, // never bound
	}
	kernel := []record{
		{conn: tcp("10.0.0.1", 800, "10.0.0.9", 2049), cookie: 99, state: 1},
		{conn: udp("", 4789), cookie: 98, state: 7},
		{conn: tcp("10.0.0.1", 80, "10.0.0.2", 5001), cookie: 97, state: 1},  // waits to be accepted
		{conn: tcp("10.0.0.1", 80, "10.0.0.2", 5000), cookie: 5, state: 1},   // held
		{conn: tcp("10.0.0.1", 2049, "10.0.0.3", 900), cookie: 96, state: 1}, // nfsd
		{conn: tcp("", 2049, "", 0), cookie: 95, state: stateListen},         // nfsd
	}
	p := probeOf(held, kernel)
	for _, c := range []struct {
		conn      event.Conn
		want      Owner
		listening bool
	}{
		{tcp("10.0.0.1", 80, "10.0.0.2", 5000), Owner{Process: process(11, "nginx", 2), Final: true}, true},
		{tcp("10.0.0.1", 80, "10.0.0.2", 5001), Owner{Process: server}, true}, // too young: who listens
		{tcp("fd00::1", 80, "fd00::2", 5001), Owner{Process: server}, true},
		{tcp("10.0.0.1", 90, "10.0.0.2", 5001), Owner{}, false},
		{tcp("10.0.0.1", 81, "10.0.0.2", 5001), Owner{Process: other}, true},
		{tcp("fd00::1", 81, "fd00::2", 5001), Owner{}, false},
		{tcp("10.0.0.1", 82, "10.0.0.2", 5001), Owner{}, false},
		{tcp("fd00::1", 82, "fd00::2", 5001), Owner{Process: other}, true},
		{udp("10.0.0.1", 53), Owner{Process: other, Final: true}, true},
		{udp("10.0.0.2", 53), Owner{}, false},
		{udp("10.0.0.1", 9000), Owner{Process: Process{Name: name("many")}, Final: true}, true},
		{udp("10.0.0.1", 9001), Owner{}, true},
		{udp("10.0.0.1", 0), Owner{}, false},
		{udp("10.0.0.1", 4789), Owner{Kernel: true, Final: true}, true},
		{tcp("10.0.0.1", 800, "10.0.0.9", 2049), Owner{Kernel: true, Final: true}, false},
		{tcp("10.0.0.1", 2049, "10.0.0.3", 900), Owner{Kernel: true, Final: true}, true},
		{event.Conn{Local: addr("10.0.0.1"), LocalPort: 53, Netns: 2, Protocol: event.UDP}, Owner{}, false},
		{event.Conn{Local: addr("10.0.0.1"), LocalPort: 53, Netns: 1, Protocol: event.UDP, Kind: event.ConnFragment}, Owner{}, false},
	} {
		c.conn.Ifindex = 3 // of no interest
		if o, ok := p.Find(&c.conn); o != c.want || ok != (c.want != Owner{}) {
			t.Errorf("%+v:\n got %+v\nwant %+v", c.conn, o, c.want)
		}
		if got := p.Listening(&c.conn); got != c.listening {
			t.Errorf("%+v listening: %v", c.conn, got)
		}
	}
	if o, ok := p.Owner(5); !ok || o.PID != 11 {
		t.Errorf("the kernel took a socket of %+v", o)
	}
	if o, ok := p.Owner(97); ok {
		t.Errorf("a child that waits is %+v", o)
	}
	if _, ok := p.Owner(0); ok {
		t.Error("no cookie has an owner")
	}
}

func TestListingIsBounded(t *testing.T) {
	d := newDirectory(3)
	for i := range uint16(10) {
		d.add(&record{conn: udp("", i+1), inode: uint64(i) + 1, cookie: uint64(i) + 1})
	}
	if len(d.sockets) != 3 || d.cut != 7 || len(d.cookies) != 3 {
		t.Errorf("%d sockets, %d cut", len(d.sockets), d.cut)
	}
}

func TestInterval(t *testing.T) {
	for cost, want := range map[time.Duration]time.Duration{
		0: time.Second, 10 * time.Millisecond: time.Second, 50 * time.Millisecond: 5 * time.Second,
	} {
		if got := interval(cost); got != want {
			t.Errorf("a listing of %v comes again after %v, want %v", cost, got, want)
		}
	}
}

func raw(k kernelSocketRecord) []byte {
	return (*[recordSize]byte)(unsafe.Pointer(&k))[:]
}

func TestReadRecords(t *testing.T) {
	k := kernelSocketRecord{Cookie: 1, Protocol: protocolMPTCP, RemotePortBe: 0x5000, LocalPort: 7, Tgid: 9, State: stateListen}
	var got []record
	keep := func(r *record) { got = append(got, *r) }
	two := append(raw(k), raw(k)...)
	if err := readRecords(iotest.OneByteReader(bytes.NewReader(two)), keep); err != nil || len(got) != 2 {
		t.Fatalf("%d records, %v", len(got), err)
	}
	if r := got[1]; r.conn.Protocol != event.TCP || r.conn.RemotePort != 0x50 || r.conn.LocalPort != 7 || r.process.PID != 9 {
		t.Errorf("%+v", r)
	}
	if err := readRecords(bytes.NewReader(two[:recordSize+1]), keep); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half a record: %v", err)
	}
}

// Whatever the kernel writes, the record has the same numbers, and a directory
// takes it.
func FuzzDecode(f *testing.F) {
	f.Add(make([]byte, recordSize))
	f.Add(bytes.Repeat([]byte{0xff}, recordSize))
	f.Add(raw(kernelSocketRecord{Inode: 1, LocalPort: 80, Protocol: 6, State: stateListen}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var whole [recordSize]byte
		copy(whole[:], b)
		k := *(*kernelSocketRecord)(unsafe.Pointer(&whole))
		r := decode(&whole)
		if r.cookie != k.Cookie || r.process.PID != k.Tgid || r.conn.LocalPort != k.LocalPort || r.conn.Netns != k.Netns ||
			byte(r.conn.RemotePort) != byte(k.RemotePortBe>>8) || len(r.process.Name.String()) > 16 {
			t.Errorf("%+v of %+v", r, k)
		}
		if r.conn.Ifindex != 0 || r.conn.Kind != 0 {
			t.Errorf("%+v has more than names a socket", r.conn)
		}
		d := newDirectory(2)
		d.add(&r)
		d.seal()
		d.addKernel(&r)
		if len(d.sockets) > 2 {
			t.Errorf("%d sockets of one", len(d.sockets))
		}
	})
}
