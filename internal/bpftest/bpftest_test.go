// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"net/netip"
	"testing"
	"unsafe"

	"github.com/vishvananda/netlink"
)

func TestSkBuffLayout(t *testing.T) {
	var s SkBuff
	for name, got := range map[string][2]uintptr{
		"size":     {unsafe.Sizeof(s), 192},
		"ifindex":  {unsafe.Offsetof(s.Ifindex), 40},
		"gso_segs": {unsafe.Offsetof(s.GSOSegs), 164},
		"gso_size": {unsafe.Offsetof(s.GSOSize), 176},
	} {
		if got[0] != got[1] {
			t.Errorf("%s is %d, want %d", name, got[0], got[1])
		}
	}
}

func TestPacketNamesWhatFollows(t *testing.T) {
	src, dst := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	b := Packet(Ether{}, VLAN{ID: 7}, IPv4{Src: src, Dst: dst}, UDP{Src: 1, Dst: 2}, Zeros(3))
	if len(b) != 14+4+20+8+3 {
		t.Fatalf("%d bytes", len(b))
	}
	for at, want := range map[int]byte{12: 0x81, 13: 0, 16: 0x08, 17: 0, 18: 0x45, 21: 31, 27: 17} {
		if b[at] != want {
			t.Errorf("byte %d is %#x, want %#x", at, b[at], want)
		}
	}
	if checksum(b[18:38]) != 0 {
		t.Error("the header's checksum is wrong")
	}
}

func TestParseVersion(t *testing.T) {
	for release, want := range map[string][2]int{
		"6.18.44-cloud": {6, 18}, "5.10": {5, 10}, "6.1-rc3": {6, 1}, "": {0, 0},
	} {
		if major, minor := parseVersion(release); major != want[0] || minor != want[1] {
			t.Errorf("%q is %d.%d", release, major, minor)
		}
	}
}

// What happens in a namespace stays there, and a pair talks.
func TestPair(t *testing.T) {
	RequireKernel(t)
	before := len(links(t))
	p := NewPair(t)
	if p.A.Inode() == p.B.Inode() {
		t.Error("one namespace twice")
	}
	if got := len(links(t)); got != before {
		t.Errorf("%d interfaces outside, had %d", got, before)
	}
	for _, v6 := range []bool{false, true} {
		server := p.B.ListenTCP(v6, ServeDiscard)
		conn := p.A.DialTCP(server)
		if _, err := conn.Write([]byte("hello")); err != nil {
			t.Error(err)
		}
		if n := p.A.Ping(p.B.IP(v6), 3); n != 3 {
			t.Errorf("%d answers of 3", n)
		}
	}
	if a, b := p.A.Counters(), p.B.Counters(); a.TxPackets == 0 || a.TxPackets != b.RxPackets || a.TxBytes != b.RxBytes {
		t.Errorf("the ends disagree: %+v %+v", a, b)
	}
	if got := p.A.SNMP("Tcp: OutSegs"); got[0] == 0 {
		t.Error("no segments sent")
	}
	p.A.Offload(false, TSO, GSO, GRO)
	p.A.Offload(true, TSO, GSO)
}

func links(t *testing.T) []netlink.Link {
	t.Helper()
	l, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	return l
}
