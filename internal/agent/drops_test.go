// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/bpftest"
)

// drops gives what the agent tells of a reason in namespaces, by their names.
func (p *running) drops(reason string) (map[string]*pb.DropRecord, *pb.DropsSummary) {
	p.t.Helper()
	stream, err := pb.NewObserverClient(p.dial()).Drops(p.t.Context(), &pb.DropsRequest{})
	if err != nil {
		p.t.Fatal(err)
	}
	list := map[string]*pb.DropRecord{}
	var sum *pb.DropsSummary
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return list, sum
		}
		if err != nil {
			p.t.Fatal(err)
		}
		if d := m.GetDrop(); d.GetReason() == reason {
			list[d.GetTap().GetNamespace()] = d
		}
		sum = m.GetSummary()
	}
}

// TestDropsOfNamespaces: what is dropped in a namespace is told of that one, with
// its connection; what is dropped elsewhere on the machine is not.
func TestDropsOfNamespaces(t *testing.T) {
	w := newWorld(t)
	bpftest.RequireKernel(t, bpftest.Feature{Name: "reasons of drops", Major: 5, Minor: 17})
	a := w.agent(t.TempDir())
	a.listens()
	w.run(`for i in 1 2; do
		ip netns add c$i; ip link add v$i type veth peer name eth0 netns c$i
		ip addr add 10.7.$i.1/24 dev v$i; ip link set v$i up
		ip -n c$i addr add 10.7.$i.2/24 dev eth0; ip -n c$i link set eth0 up
	done`)
	bpftest.Eventually(t, "all to be tapped", func() bool { return tapped(a.status()) == 3 })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	events, err := pb.NewObserverClient(a.dial()).Events(ctx, &pb.EventsRequest{
		Kinds: []pb.EventKind{pb.EventKind_EVENT_KIND_DROP}, Include: &pb.Filter{DstPorts: []uint32{4000}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := events.Recv(); err != nil { // it listens
		t.Fatal(err)
	}
	elsewhere := bpftest.NewPair(t)
	out := elsewhere.A.UDP(false)
	for range 10 {
		_, _ = out.WriteTo([]byte("there?"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(elsewhere.B.IP4, 9)))
	}
	w.run(`bash -c 'for i in 1 2 3 4 5; do echo hello >/dev/udp/10.7.1.2/4000; done'`)
	var d *pb.DropRecord
	bpftest.Eventually(t, "five drops", func() bool {
		list, _ := a.drops("NO_SOCKET")
		d = list["c1"]
		return d.GetPackets() == 5
	})
	list, sum := a.drops("NO_SOCKET")
	if len(list) != 1 || sum.GetKnownPackets() < 5 || sum.GetStartNs() == 0 || sum.GetEndNs() <= sum.GetStartNs() {
		t.Errorf("%v, %v", list, sum)
	}
	if d.GetBytes() != 5*(14+20+8+6) || d.GetLocation() == "" || d.GetHint() == "" || time.Since(time.Unix(0, d.GetFirstNs())) > time.Minute {
		t.Errorf("%v", d)
	}
	told := uint64(0)
	for told < 5 {
		m, err := events.Recv()
		if err != nil {
			t.Fatal(err)
		}
		e := m.GetEvent()
		if e.GetKind() != pb.EventKind_EVENT_KIND_DROP || e.GetDrop().GetReason() != "NO_SOCKET" || e.GetDrop().GetTap().GetNamespace() != "c1" {
			t.Errorf("%v", e)
		}
		if l, r := e.GetFlow().GetLocal(), e.GetFlow().GetRemote(); l.GetIp() != "10.7.1.2" || l.GetPort() != 4000 || r.GetIp() != "10.7.1.1" {
			t.Errorf("%v - %v", l, r)
		}
		told += e.GetDrop().GetPackets()
	}
}

// TestDropsOfThisNode: several nodes share a kernel, and each tells of its own.
func TestDropsOfThisNode(t *testing.T) {
	at := time.Unix(1000, 0)
	tapped := map[uint32]bool{7: true}
	asked := 0
	taps := func(netns uint32) bool { asked++; return tapped[netns] }
	d := &drops{tapped: map[uint32]time.Time{}}
	if d.isHere(0, taps, at) || !(&drops{strays: true}).isHere(0, taps, at) {
		t.Error("what is nowhere is told by the node that is the whole machine")
	}
	for range 2 {
		if !d.isHere(7, taps, at) {
			t.Error("what is tapped is here")
		}
	}
	if d.isHere(8, taps, at) {
		t.Error("what is not tapped is another's")
	}
	if asked != 2 {
		t.Errorf("asked %d times", asked)
	}
	delete(tapped, 7)
	if !d.isHere(7, taps, at.Add(time.Second)) {
		t.Error("a namespace's last packets are told after its end")
	}
	if d.isHere(7, taps, at.Add(time.Minute)) || len(d.tapped) != 0 {
		t.Error("and its number may be another's later")
	}
	for i := range uint32(3 * maxTapped) {
		tapped[1000+i] = true
		d.isHere(1000+i, taps, at)
	}
	if len(d.tapped) > maxTapped {
		t.Errorf("%d are remembered", len(d.tapped))
	}
}
