// SPDX-License-Identifier: Apache-2.0

package enrich

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/cluster"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/probe/socket"
)

// made is a pod that was made and had its network some time ago.
func (n *node) made(uid, name, ip string, ago float64) cluster.Change {
	c := podChange(uid, name, ip)
	c.Pod.Node = "n2"
	c.Pod.Networked = at(float64(int(n.now - ago)))
	c.Pod.Created = c.Pod.Networked
	return c
}

// An address goes from one pod to another while a connection moves data to it.
func TestAnAddressIsUsedAgain(t *testing.T) {
	n := town(t)
	old := n.seen(n.talk(netnsA, ipA, ipC, 80))
	through := n.seen(n.talk(netnsA, ipA, clusterIP, 80))
	n.host.answers[through.Conn] = &event.Translation{Local: addr(ipA), Remote: addr(ipC), RemotePort: 8080}
	other := n.seen(n.talk(netnsA, ipA, ipB, 80))
	n.tell(n.podGone("c"))
	n.now += 2
	between := n.seen(n.talk(netnsA, ipA, ipC, 81))
	n.expect("gone, and nobody new", between, "pod/ns/a", "unknown")
	n.expect("gone", old, "pod/ns/a", "pod/ns/c")
	n.now += 2
	young := n.seen(n.talk(netnsA, ipA, ipC, 82))
	n.expect("the new one is not told of", young, "pod/ns/a", "unknown")
	n.now += 0.5
	n.tell(n.made("d", "d", ipC, 1))
	n.expect("the old one's", old, "pod/ns/a", "pod/ns/c")
	n.expect("the old one's, through a Service", through, "pod/ns/a", "pod/ns/c by ns/web")
	n.expect("nobody's", between, "pod/ns/a", "unknown")
	n.expect("the new one's", young, "pod/ns/a", "pod/ns/d")
	for what, f := range map[string]*event.Flow{"old": old, "between": between, "through": through} {
		if n.table.Get(f.Conn) != nil {
			t.Errorf("%s: what moves now still counts for it", what)
		}
	}
	if n.table.Get(young.Conn) == nil || n.table.Get(other.Conn) == nil || len(n.table.retired) != 3 {
		t.Errorf("%d retired", len(n.table.retired))
	}
	// It goes on, as a connection of its own.
	next := &event.Flow{Conn: old.Conn, First: at(n.now), OpenedBy: event.OpenerLocal}
	n.table.flows[next.Conn] = next
	n.expect("it goes on", n.seen(next), "pod/ns/a", "pod/ns/d")
	n.tell()
	if len(n.table.retired) != 3 {
		t.Errorf("%d retired", len(n.table.retired))
	}
}

// A connection of the epoch in which the new holder was told of is met after it.
func TestAConnectionIsOlderThanWhatIsKnown(t *testing.T) {
	n := town(t)
	f := n.talk(netnsA, ipA, ipC, 80)
	n.now += 3
	n.tell(n.podGone("c"))
	n.now += 3
	n.tell(n.made("d", "d", ipC, 1))
	n.expect("first seen before", n.seen(f), "pod/ns/a", "pod/ns/c")
	g := n.seen(n.talk(netnsA, ipA, ipC, 81))
	n.expect("first seen after", g, "pod/ns/a", "pod/ns/d")
	if n.tell(); len(n.table.retired) != 1 || n.table.retired[0] != f || n.table.Get(g.Conn) == nil {
		t.Errorf("%d retired", len(n.table.retired))
	}
}

// The number of a namespace is used again.
func TestANamespaceIsUsedAgain(t *testing.T) {
	n := town(t)
	old := n.seen(n.talk(netnsA, ipA, ipC, 80))
	n.boxes.bind(netnsA, "new")
	n.tell()
	n.expect("the old one's", old, "pod/ns/a", "pod/ns/c")
	if len(n.table.retired) != 1 || n.table.Get(old.Conn) != nil {
		t.Errorf("%d retired", len(n.table.retired))
	}
	young := n.seen(n.talk(netnsA, ipA, ipC, 80))
	n.expect("the new one's", young, "pod/n", "pod/ns/c")
	// The namespace of a static pod is known by the other UID.
	s := podChange("mirror", "s", ipB)
	s.Pod.StaticUID = "new"
	n.tell(s)
	n.expect("a static pod's", young, "pod/ns/s", "pod/ns/c")
	n.boxes.generation++
	if n.tell(); len(n.table.retired) != 1 {
		t.Error("retired without another pod")
	}
	delete(n.boxes.pods, netnsA)
	n.boxes.generation++
	n.tell()
	n.expect("gone", young, "pod/ns/s", "pod/ns/c")
}

// What an agent without the cluster's words knows of its own pods is kept: the
// API server may be away for as long as it likes.
func TestWithoutTheCluster(t *testing.T) {
	n := newNode(t)
	n.synced = false
	for range 5 {
		n.tell()
	}
	f := n.talk(netnsA, ipA, ipB, 80)
	f.Cookie, f.Cgroup = 7, groupA
	n.seen(f)
	if f.Local.PodUID != uidA || f.Local.Container != hex64("a") || f.Local.Node != "n1" || f.Remote.Class != event.ClassUnknown {
		t.Errorf("%+v → %+v", f.Local, f.Remote)
	}
}

func TestQuestionsAreBounded(t *testing.T) {
	n := town(t)
	n.cfg.Pending = 4
	for range 7 {
		f := n.seen(n.talk(netnsA, ipA, clusterIP, 80))
		n.seen(f) // is not asked twice
	}
	if len(n.host.wanted) != 4 || n.again.unasked != 6 {
		t.Errorf("asked %d times, %d not", len(n.host.wanted), n.again.unasked)
	}
	found := false
	for _, l := range n.Losses() {
		found = found || l.Stage == "translation" && l.Count == 6
	}
	if !found {
		t.Errorf("losses are %+v", n.Losses())
	}
	// An answer that nothing is known of is one; one that does not come is not
	// waited for.
	n.host.answers[n.host.wanted[0]] = nil
	if n.tell(); len(n.again.asked) != 3 {
		t.Errorf("%d are waited for", len(n.again.asked))
	}
	n.now += 30
	if n.tell(); len(n.again.asked) != 0 {
		t.Errorf("%d are waited for", len(n.again.asked))
	}
	n.host.answers[event.Conn{}] = &event.Translation{} // of a connection that is forgotten
	n.tell()
}

func TestWhatIsNotAsked(t *testing.T) {
	n := town(t)
	for _, change := range []func(f *event.Flow){
		func(f *event.Flow) { f.Conn.Kind, f.Conn.RemotePort = event.ConnFragment, 0 },
		func(f *event.Flow) {
			f.Conn.Kind, f.Conn.RemotePort, f.Conn.Protocol = event.ConnEchoOpenedLocal, 0, event.ICMP
		},
		func(f *event.Flow) { f.Conn.Netns = hostNetns },
	} {
		f := n.talk(netnsA, ipA, clusterIP, 80)
		delete(n.table.flows, f.Conn)
		change(f)
		if n.seen(f); said(f.Remote) != "service/ns by ns/web" || len(n.host.wanted) != 0 {
			t.Errorf("%s, asked %d times", said(f.Remote), len(n.host.wanted))
		}
	}
}

func TestNamespacesMetAreBounded(t *testing.T) {
	n := town(t)
	a := &n.again
	for i := range uint32(3 * maxSpaces) {
		a.space(n.Enricher, i)
		a.late(event.Conn{Netns: i})
	}
	if len(a.spaces) > maxSpaces || len(a.former) > maxFormer {
		t.Errorf("%d and %d", len(a.spaces), len(a.former))
	}
}

// city is a steady cluster of 10,000 pods, 1,000 Services, and connections from
// 100 pods of this node to all others, a third of them through Services.
func city(tb testing.TB) (*node, []*event.Flow) {
	n := newNode(nil)
	n.now = 20
	info := cgroup.Parse(kubepods(uidA, hex64("a")))
	n.cfg.Cgroups = one{&info}
	podIP := func(i int) event.IP { return event.IPFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})) }
	uid := func(i int) string { return fmt.Sprintf("01234567-89ab-cdef-0123-%012d", i) }
	var changes []cluster.Change
	for i := range 10_000 {
		c := podChange(uid(i), fmt.Sprint("pod-", i), "10.0.0.1")
		c.Pod.IPs[0] = podIP(i)
		if c.Pod.Node = "n1"; i >= 100 {
			c.Pod.Node = fmt.Sprint("node-", i/100)
		} else {
			n.boxes.pods[uint32(1000+i)] = uid(i)
		}
		changes = append(changes, c)
	}
	for i := range 1000 {
		c := serviceChange(fmt.Sprint("s", i), 0, "10.96.0.1")
		c.Service.IPs[0] = event.IPFrom(netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}))
		changes = append(changes, c, endpointsChange("ns", c.Service.Name, 8080, podIP(i*10).Addr().String()))
	}
	n.tell(changes...)
	var flows []*event.Flow
	for i := range 10_000 {
		f := n.talk(uint32(1000+i%100), "10.0.0.1", "10.0.0.1", 443)
		delete(n.table.flows, f.Conn)
		f.Conn.Local, f.Conn.Remote = podIP(i%100), podIP((i+101)%10_000)
		f.Cookie, f.Cgroup = uint64(i)+1, groupA
		n.socks.owners[f.Cookie] = owner(uint32(i%50)+1, "worker", groupA, true)
		if i%3 == 0 {
			f.Conn.Remote, f.Conn.RemotePort = event.IPFrom(netip.AddrFrom4([4]byte{10, 96, byte(i % 1000 >> 8), byte(i % 1000)})), 80
			f.NAT = &event.Translation{Local: f.Conn.Local, Remote: podIP(i % 1000 * 10), RemotePort: 8080}
		}
		n.table.flows[f.Conn] = f
		if n.seen(f); f.Local.Class != event.ClassPod || f.Remote.Class != event.ClassPod || i%3 == 0 && f.Remote.Service == "" {
			tb.Fatalf("%s → %s", said(f.Local), said(f.Remote))
		}
		flows = append(flows, f)
	}
	return n, flows
}

func TestIdentifyPodsAllocatesNothing(t *testing.T) {
	n, flows := city(t)
	i := 0
	if a := testing.AllocsPerRun(20_000, func() {
		n.Identify(flows[i%len(flows)])
		i++
	}); a != 0 {
		t.Errorf("%v allocations", a)
	}
}

// Both ends of connections of pods, in a cluster of 10,000; who holds the socket
// is known.
func BenchmarkIdentifyPods(b *testing.B) {
	n, flows := city(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		n.Identify(flows[i%len(flows)])
	}
}

// The look-up alone: the owner of the socket is given. Each connection is to
// another of 10,000 pods, so that nothing is near at hand.
func BenchmarkIdentifyEnds(b *testing.B) {
	n, flows := city(b)
	o := socket.Owner{Process: socket.Process{PID: 5, Cgroup: groupA}, Final: true}
	var direct, served []*event.Flow
	for _, f := range flows {
		if f.NAT == nil {
			direct = append(direct, f)
		} else {
			served = append(served, f)
		}
	}
	for name, flows := range map[string][]*event.Flow{"to=pod": direct, "to=service": served} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				f := flows[i%len(flows)]
				f.Local = n.local(f, o, true)
				f.Remote = n.remote(f)
			}
		})
	}
}

// A pod comes or goes: all connections are gone through once.
func BenchmarkUpdate(b *testing.B) {
	n, _ := city(b)
	c := podChange("x", "x", "10.9.9.9")
	now := time.Unix(0, at(n.now))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		p := *c.Pod
		p.Workload.Name = fmt.Sprint(i)
		c.Pod, c.At = &p, at(n.now)
		n.Update([]cluster.Change{c}, true, now)
	}
}

// The machine's clock jumps by an hour, either way: nothing loses its name, and
// what comes afterwards has the right one.
func TestClockJumps(t *testing.T) {
	for _, jump := range []float64{3600, -3600} {
		n := town(t)
		n.now += 10_000
		n.tell()
		pod := n.seen(n.talk(netnsA, ipA, ipC, 80))
		served := n.seen(n.talk(netnsA, ipA, clusterIP, 80))
		n.host.answers[served.Conn] = &event.Translation{Local: addr(ipA), Remote: addr(ipB), RemotePort: 8080}
		node := n.seen(n.talk(netnsA, ipA, ipN2, 22))
		n.now++
		n.tell(n.podGone("c"))
		check := func(when string) {
			t.Helper()
			n.tell(nodeChange("n3", fmt.Sprint(n.now), "192.0.2.33")) // all are looked at again
			n.expect(when, pod, "pod/ns/a", "pod/ns/c")
			n.expect(when, served, "pod/ns/a", "pod/ns/b by ns/web")
			n.expect(when, node, "pod/ns/a", "node/n2")
		}
		check("before")
		n.now += jump
		check("after")
		n.expect("new", n.seen(n.talk(netnsA, ipA, ipB, 80)), "pod/ns/a", "pod/ns/b")
		n.now += 2
		n.tell(n.made("d", "d", ipC, 1))
		n.now++
		check("the address has another holder")
		n.expect("the new one's", n.seen(n.talk(netnsA, ipA, ipC, 80)), "pod/ns/a", "pod/ns/d")
		n.now -= jump
		check("back")
		n.expect("back", n.seen(n.talk(netnsA, ipA, ipC, 80)), "pod/ns/a", "pod/ns/d")
		n.expect("back", n.seen(n.talk(netnsA, ipA, ipB, 80)), "pod/ns/a", "pod/ns/b")
		n.now += 1000
		if n.tell(); n.m.Pod("c") != nil {
			t.Errorf("by %v: c is remembered for ever", jump)
		}
	}
}
