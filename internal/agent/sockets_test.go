// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/bpftest"
)

// sockets gives what the agent knows of namespaces, by their names.
func (p *running) sockets(req *pb.SocketsRequest) (map[string]*pb.SocketsRecord, *pb.SocketsSummary) {
	p.t.Helper()
	stream, err := pb.NewObserverClient(p.dial()).Sockets(p.t.Context(), req)
	if err != nil {
		p.t.Fatal(err)
	}
	list := map[string]*pb.SocketsRecord{}
	var sum *pb.SocketsSummary
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return list, sum
		}
		if err != nil {
			p.t.Fatal(err)
		}
		if s := m.GetSockets(); s != nil {
			list[s.GetName()] = s
		}
		sum = m.GetSummary()
	}
}

// TestSocketsOfNamespaces: what goes wrong in a namespace that has a name and no
// process is told of that one, and of no other.
func TestSocketsOfNamespaces(t *testing.T) {
	w := newWorld(t)
	a := w.agent(t.TempDir())
	a.listens()
	w.run(`for i in 1 2; do
		ip netns add c$i; ip link add v$i type veth peer name eth0 netns c$i; ip link set v$i up; ip -n c$i link set eth0 up
	done`)
	bpftest.Eventually(t, "all to be tapped", func() bool { return tapped(a.status()) == 3 })
	noRoute := func(n int) {
		w.run(fmt.Sprintf("for i in $(seq %d); do ip netns exec c1 bash -c 'echo hello >/dev/udp/192.0.2.1/9' 2>/dev/null || true; done", n))
	}
	count := func(list map[string]*pb.SocketsRecord, name string) *pb.Finding {
		for _, f := range list[name].GetFindings() {
			if f.GetCounter() == "IpOutNoRoutes" {
				return f
			}
		}
		return nil
	}
	bpftest.Eventually(t, "the first reading", func() bool {
		noRoute(1)
		list, _ := a.sockets(&pb.SocketsRequest{})
		return count(list, "c1").GetSinceSeen() > 0
	})
	before, _ := a.sockets(&pb.SocketsRequest{})
	noRoute(5)
	after, sum := a.sockets(&pb.SocketsRequest{})
	was, is := count(before, "c1"), count(after, "c1")
	if is.GetCount() != was.GetCount()+5 || is.GetLastMinute() != was.GetLastMinute()+5 || !is.GetCurrent() || !strings.HasPrefix(is.GetMeaning(), fmt.Sprint(is.GetCount())) {
		t.Errorf("%v, then %v", was, is)
	}
	if count(after, "c2") != nil || count(after, "") != nil {
		t.Error("told of another namespace, too")
	}
	if sum.GetKnown() != 3 || sum.GetMatched() != 3 || after[""].GetOwner().GetClass() != "host" || after["c1"].GetOwner().GetClass() != "unknown" {
		t.Errorf("%v, %v", sum, after)
	}
	if list, sum := a.sockets(&pb.SocketsRequest{Include: &pb.EndFilter{Pods: []string{"web"}}}); len(list) != 0 || sum.GetMatched() != 0 || sum.GetKnown() != 3 {
		t.Errorf("%v, %v", list, sum)
	}
	w.run("ip netns del c1")
	bpftest.Eventually(t, "it to be forgotten", func() bool {
		_, sum := a.sockets(&pb.SocketsRequest{})
		return sum.GetKnown() == 2
	})
}

// TestSocketsFromOutside: an agent that does not enter namespaces says so of
// each, and never shows its own numbers as theirs.
func TestSocketsFromOutside(t *testing.T) {
	w := newWorld(t)
	w.run("ip netns add c1; ip link add v1 type veth peer name eth0 netns c1; ip link set v1 up; ip -n c1 link set eth0 up")
	a := w.agent(t.TempDir(), "ORB8_NETNS=ends")
	a.listens()
	bpftest.Eventually(t, "c1 to be known", func() bool {
		list, _ := a.sockets(&pb.SocketsRequest{})
		return list["c1"] != nil
	})
	list, _ := a.sockets(&pb.SocketsRequest{})
	if c := list["c1"]; !strings.Contains(c.GetProblem(), "may not enter") || len(c.GetCounters()) > 0 || c.GetTcpInUse() > 0 {
		t.Errorf("%v", c)
	}
	if own := list[""]; own.GetProblem() != "" || own.GetTcpInUse() == 0 {
		t.Errorf("%v", own)
	}
	if notes := strings.Join(a.status().Notes, "\n"); !strings.Contains(notes, "orb8 health knows the node's own sockets only") {
		t.Error(notes)
	}
}
