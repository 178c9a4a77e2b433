// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"net/netip"
	"testing"
	"time"

	. "github.com/orb8/orb8/internal/bpftest"
)

// overlay joins the ends of a pair by a VXLAN as well, and gives the ends of
// that.
func overlay(p *Pair) [2]*End {
	ends := [2]*End{{Netns: p.A.Netns}, {Netns: p.B.Netns}}
	under := [2]*End{&p.A, &p.B}
	for i, e := range ends {
		e.Name, e.IP4 = "vxlan0", netip.AddrFrom4([4]byte{10, 99, 0, byte(1 + i)})
		local, remote := under[i].IP4.String(), under[1-i].IP4.String()
		e.Command("ip", "link", "add", e.Name, "type", "vxlan", "id", "7", "dstport", "4789", "local", local, "remote", remote, "dev", under[i].Name)
		// No router solicitations: the test reads a quiet interface.
		e.Sysctl("ipv6/conf/"+e.Name+"/disable_ipv6", "1")
		e.Command("ip", "addr", "add", e.IP4.String()+"/24", "dev", e.Name)
		e.Command("ip", "link", "set", e.Name, "up")
	}
	return ends
}

// The segments of a super-packet in a tunnel carry the headers of both layers.
// Where they are cut before the device, the device says how many bytes.
func TestTunnelledSegments(t *testing.T) {
	RequireKernel(t, BPF, TunnelLength)
	p := NewPair(t)
	inner := overlay(p)
	for _, e := range []*End{&p.A, &p.B} {
		e.Offload(false, TSO, GRO)
		e.Offload(true, GSO)
	}
	a := tapQuiet(t, &p.A, Config{})
	stop := a.every(100 * time.Millisecond)
	bulk(t, inner[0].DialTCP(inner[1].ListenTCP(false, ServeDiscard)), 16<<20)
	stop()
	a.settle()
	_, tx := a.accounts(p.A.Name)
	if tx.seg.Packets == 0 {
		t.Error("a weak test: no super-packets")
	}
	if tx.wire() != tx.device {
		t.Errorf("on the wire %+v, the device counted %+v", tx.wire(), tx.device)
	}
}
