// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// Every topology carries what it should, and every interface on the way counts
// each packet once: tests of the tap rest on that.
func TestTopologies(t *testing.T) {
	for _, l := range Layouts() {
		t.Run(l.Name, func(t *testing.T) {
			topo := l.Topology(t)
			for _, v6 := range topo.Families() {
				checkTopology(t, topo, v6)
			}
		})
	}
}

func checkTopology(t *testing.T, topo *Topology, v6 bool) {
	const n, size = 100, 200
	udp := topo.Server.EchoUDP(v6)
	to := topo.Reach(udp.Addr)
	topo.Client.AskUDP(to, 1, size) // neighbours and handshakes
	strays := listenForStrays(t, topo.Client)
	before := Settle(t, topo.Places)
	client := topo.Client.AskUDP(to, n, size)
	after := Settle(t, topo.Places)
	for i, p := range topo.Places {
		rx, tx := after[i].RxPackets-before[i].RxPackets, after[i].TxPackets-before[i].TxPackets
		if rx != n || tx != n {
			t.Errorf("IPv6 %v: %s (%s, number %d on the way) received %d and sent %d of %d packets", v6, p.Name, p.Role, i+1, rx, tx, n)
		}
		if b := after[i].TxBytes - before[i].TxBytes; b < n*size {
			t.Errorf("%s sent %d bytes in %d packets", p.Name, b, n)
		}
	}
	if t.Failed() {
		strays()
	}
	asked := 0
	for from, k := range udp.From() {
		asked += k
		if k == n && from.Port() != client.Port() && from.Addr() == client.Addr() && !topo.Translates {
			t.Errorf("asked by %v, seen as %v", client, from)
		}
	}
	if asked != n+1 {
		t.Errorf("%d datagrams of %d came", asked, n+1)
	}
	tcp := topo.Server.EchoTCP(v6)
	topo.Client.AskTCP(topo.Reach(tcp.Addr), 100_000)
	if got := len(tcp.From()); got != 1 {
		t.Errorf("%d connections came", got)
	}
}

// listenForStrays keeps what passes an interface and tells, when asked, what is
// no datagram of the talk.
func listenForStrays(t *testing.T, e *End) (tell func()) {
	t.Helper()
	const everything = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8
	fd := -1
	e.Do(func() {
		var err error
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, everything)
		e.check(err)
	})
	t.Cleanup(func() { _ = unix.Close(fd) })
	return func() {
		for b := make([]byte, 2048); ; {
			n, from, err := unix.Recvfrom(fd, b, 0)
			if err != nil {
				return
			}
			if l := from.(*unix.SockaddrLinklayer); n < 200 {
				t.Logf("interface %d, type %d, protocol %#x: %x", l.Ifindex, l.Pkttype, binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, l.Protocol)), b[:min(n, 64)])
			}
		}
	}
}
