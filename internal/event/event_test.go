// SPDX-License-Identifier: Apache-2.0

package event

import (
	"net/netip"
	"testing"
	"unsafe"
)

func ip(s string) IP { return IPFrom(netip.MustParseAddr(s)) }

// The table's memory is counted in these.
func TestSizes(t *testing.T) {
	if n := unsafe.Sizeof(Conn{}); n != 48 {
		t.Errorf("Conn has %d bytes", n)
	}
	if n := unsafe.Sizeof(Flow{}); n > 224 {
		t.Errorf("Flow has %d bytes", n)
	}
}

func TestIDIsTheSameAtBothEnds(t *testing.T) {
	a := Conn{Local: ip("10.0.0.1"), Remote: ip("10.0.0.2"), LocalPort: 40000, RemotePort: 80, Ifindex: 2, Netns: 1, Protocol: TCP}
	b := Conn{Local: a.Remote, Remote: a.Local, LocalPort: 80, RemotePort: 40000, Ifindex: 9, Netns: 3, Protocol: TCP}
	if a.ID() != b.ID() {
		t.Error("the two ends of a connection differ")
	}
	// Published: other programs compute it (docs/api.md).
	if got := a.ID(); got != 0x457727c9069f9a26 {
		t.Errorf("ID is %#x", got)
	}
	echo := Conn{Local: ip("fd00::1"), Remote: ip("fd00::2"), LocalPort: 77, Protocol: ICMPv6, Kind: ConnEchoOpenedLocal}
	answer := Conn{Local: echo.Remote, Remote: echo.Local, LocalPort: 77, Protocol: ICMPv6, Kind: ConnEchoOpenedRemote}
	if echo.ID() != answer.ID() {
		t.Error("the two ends of an echo differ")
	}
	seen := map[uint64]Conn{}
	for _, c := range []Conn{
		a, echo,
		{Local: a.Local, Remote: a.Remote, LocalPort: 40000, RemotePort: 80, Protocol: UDP},
		{Local: a.Local, Remote: a.Remote, LocalPort: 80, RemotePort: 40000, Protocol: TCP},
		{Local: a.Local, Remote: a.Remote, LocalPort: 40001, RemotePort: 80, Protocol: TCP},
		{Local: a.Local, Remote: a.Remote, Protocol: UDP},
		{Local: a.Local, Remote: a.Remote, Protocol: UDP, Kind: ConnFragment},
	} {
		if other, dup := seen[c.ID()]; dup {
			t.Errorf("%+v and %+v have one ID", c, other)
		}
		seen[c.ID()] = c
	}
}

func TestPortsOfAnEchoAreNone(t *testing.T) {
	c := Conn{LocalPort: 77, Protocol: ICMP, Kind: ConnEchoOpenedLocal}
	if l, r := c.Ports(); l != 0 || r != 0 {
		t.Errorf("ports %d and %d", l, r)
	}
}

func TestProtocolNames(t *testing.T) {
	for p, want := range map[Protocol]string{TCP: "TCP", UDP: "UDP", ICMP: "ICMP", ICMPv6: "ICMPv6", SCTP: "SCTP", 47: "47"} {
		if got := p.String(); got != want {
			t.Errorf("%d reads %q, want %q", uint8(p), got, want)
		}
		if back, ok := ParseProtocol(p.String()); !ok || back != p {
			t.Errorf("%q is not read back", p)
		}
	}
	for _, bad := range []string{"", "tpc", "256", "-1"} {
		if _, ok := ParseProtocol(bad); ok {
			t.Errorf("%q is not a protocol", bad)
		}
	}
}

func TestTrafficAddsAndSubtracts(t *testing.T) {
	a, b := Traffic{1, 2, 3, 4}, Traffic{10, 20, 30, 40}
	sum := a
	sum.Add(b)
	if sum != (Traffic{11, 22, 33, 44}) || sum.Bytes() != 44 || sum.Packets() != 66 {
		t.Errorf("sum is %+v", sum)
	}
	sum.Sub(b)
	if sum != a {
		t.Errorf("difference is %+v", sum)
	}
}
