// SPDX-License-Identifier: Apache-2.0

package drop

import (
	"net/netip"
	"testing"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

// What finds no room with its connection keeps its addresses, and so the pod that
// it met.
func TestConnectionsWithoutRoom(t *testing.T) {
	pair := bpftest.NewPair(t)
	const room, ports = 8, 100
	s := openFor(t, room)
	from := pair.A.UDP(false)
	for port := range uint16(ports) {
		// Connected sockets would hear of the answers.
		if _, err := from.WriteToUDPAddrPort([]byte("?"), netip.AddrPortFrom(pair.B.IP4, 20000+port)); err != nil {
			t.Fatal(err)
		}
	}
	var got uint64
	bpftest.Eventually(t, "all to be told", func() bool {
		got, _ = s.in(pair.B.Netns, "NO_SOCKET")
		return got >= ports
	})
	if got != ports {
		t.Errorf("%d of %d drops%s", got, ports, s.tell(pair.B.Netns))
	}
	var folded uint64
	for _, d := range s.drops {
		if d.Conn.Netns != pair.B.Inode() || d.Reason != "NO_SOCKET" {
			continue
		}
		if d.Folded != (d.Conn.LocalPort == 0) {
			t.Errorf("folded %v: %+v", d.Folded, d.Conn)
		}
		if d.Conn.Local != event.IPFrom(pair.B.IP4) || d.Conn.Remote != event.IPFrom(pair.A.IP4) || d.Conn.Protocol != event.UDP {
			t.Errorf("whom it met is not known: %+v", d.Conn)
		}
		if d.Folded {
			folded += d.Amount.Packets
		}
	}
	if folded == 0 {
		t.Error("there was room for all of them")
	}
}
