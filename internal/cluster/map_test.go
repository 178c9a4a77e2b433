// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orb8/orb8/internal/event"
)

func ip(s string) event.IP { return event.IPFrom(netip.MustParseAddr(s)) }

// sec is a time of the tests.
func sec(s float64) int64 { return 1_700_000_000*second + int64(s*1e9) }

// pod has its network from a time on, and was made two seconds before.
func pod(uid string, networked float64, ips ...string) *Pod {
	p := &Pod{UID: uid, Namespace: "ns", Name: "pod-" + uid, Node: "n1", Phase: "Running", Created: sec(networked - 2), Networked: sec(networked)}
	for _, s := range ips {
		p.IPs = append(p.IPs, ip(s))
	}
	return p
}

func (p *Pod) endedAt(s float64) *Pod {
	q := *p
	q.Ended, q.Phase = sec(s), "Succeeded"
	return &q
}

func tell(p *Pod, at float64) Change {
	return Change{Kind: KindPod, Key: p.UID, Pod: p, At: sec(at)}
}

func gone(uid string, at float64) Change { return Change{Kind: KindPod, Key: uid, At: sec(at)} }

// who is the pod or node that has an address, "?" between two, "" nobody.
func who(m *Map, addr string, at float64) string {
	id, standing := m.Holder(m.At(ip(addr)), sec(at))
	switch {
	case standing == Between:
		return "?"
	case id == nil:
		return ""
	case id.Class == event.ClassNode:
		return id.Node
	}
	return id.PodUID
}

func TestHolder(t *testing.T) {
	const x = "10.1.0.7"
	a, b := pod("a", 10, x), pod("b", 110, x)
	b.Created = sec(100)
	node := Change{Kind: KindNode, Key: "n9", Node: &Node{Name: "n9", IPs: []event.IP{ip(x)}}, At: sec(50)}
	host := pod("h", 10, x)
	host.HostNetwork = true
	late := pod("l", 0, x)
	late.Created, late.Networked = 0, 0
	early := pod("e", 90, x) // its state says that its network was there before a had ended
	hasty := pod("f", 101, x)
	hasty.Created = sec(101)
	for name, c := range map[string]struct {
		told []Change
		want map[float64]string
	}{
		"nobody":                        {nil, map[float64]string{5: ""}},
		"one that lives, at any time":   {[]Change{tell(a, 11)}, map[float64]string{-1e6: "a", 10: "a", 1e6: "a"}},
		"its node's address":            {[]Change{tell(host, 11), node}, map[float64]string{60: "n9"}},
		"a pod of its node, alone":      {[]Change{tell(host, 11)}, map[float64]string{60: ""}},
		"ended, not followed":           {[]Change{tell(a, 11), tell(a.endedAt(100), 103)}, map[float64]string{99: "a", 100.9: "a", 101: "?"}},
		"ended, and says no address":    {[]Change{tell(a, 11), tell(pod("a", 10).endedAt(100), 103)}, map[float64]string{100.9: "a", 101: "?"}},
		"its end told within a second":  {[]Change{tell(a, 11), tell(a.endedAt(100), 100.4)}, map[float64]string{100.3: "a", 100.4: "?"}},
		"gone without an end":           {[]Change{tell(a, 11), gone("a", 100.4)}, map[float64]string{100.3: "a", 100.4: "?"}},
		"ended by a clock that is fast": {[]Change{tell(a, 11), tell(a.endedAt(5000), 103)}, map[float64]string{102: "a", 103: "?"}},
		"followed: what is between goes to the new one": {
			[]Change{tell(a, 11), tell(a.endedAt(100), 100.4), gone("a", 100.5), tell(b, 111)},
			map[float64]string{100.3: "a", 100.4: "b", 109: "b", 120: "b", 11: "a", -1e6: "a"},
		},
		"followed by one that was made later": {
			[]Change{tell(a, 11), tell(a.endedAt(98), 103), tell(b, 111)},
			map[float64]string{98.9: "a", 99.5: "?", 100: "b"},
		},
		"the new one is told of first": {
			[]Change{tell(a, 11), tell(b, 111)},
			map[float64]string{109.9: "a", 110: "b"},
		},
		"and then the end of the old one": {
			[]Change{tell(a, 11), tell(b, 111), tell(a.endedAt(100), 112)},
			map[float64]string{100.9: "a", 101: "b", 110: "b"},
		},
		"both claim a part of a second": {
			[]Change{tell(a, 11), tell(a.endedAt(101), 103), tell(hasty, 104)},
			map[float64]string{100.9: "a", 101: "?", 101.9: "?", 102: "f"},
		},
		"both claim more: the old one ran until it ended": {
			[]Change{tell(a, 11), tell(a.endedAt(100), 103), tell(early, 104)},
			map[float64]string{91: "a", 99.9: "a", 100: "?", 101: "e"},
		},
		"a clock that is ahead does not take from the new one": {
			[]Change{tell(a, 11), gone("a", 50), tell(b, 60)}, // b says that it was made at 100
			map[float64]string{49: "a", 51: "b", 60: "b"},
		},
		"without times": {
			[]Change{tell(a, 11), gone("a", 50), tell(late, 60)},
			map[float64]string{49: "a", 50: "l"},
		},
		"a node takes a pod's address": {
			[]Change{tell(a, 11), gone("a", 40), node},
			map[float64]string{39: "a", 45: "n9", 60: "n9"},
		},
		"a node has its address whoever claims it": {
			[]Change{node, tell(b, 111)}, map[float64]string{120: "n9"},
		},
		"a node that is gone, and a pod": {
			[]Change{node, {Kind: KindNode, Key: "n9", At: sec(70)}, tell(b, 111)},
			map[float64]string{60: "n9", 80: "?", 100: "b"},
		},
		"a pod that got another address": {
			[]Change{tell(a, 11), tell(pod("a", 60, "10.1.0.8"), 61), tell(b, 111)},
			map[float64]string{60: "a", 62: "?", 100: "b"},
		},
		"told by a watch that is late": {
			[]Change{tell(a, 11), tell(a.endedAt(100), 100.4), tell(a, 101), gone("a", 102), tell(a, 103)},
			map[float64]string{100.3: "a", 200: "?"},
		},
		"three": {
			[]Change{tell(a, 11), tell(a.endedAt(20), 20.5), gone("a", 21), tell(pod("c", 30, x), 31), gone("c", 60), tell(b, 111)},
			map[float64]string{19: "a", 28: "c", 59: "c", 61: "?", 100: "b"},
		},
	} {
		m := New(Config{})
		for _, change := range c.told {
			m.Apply([]Change{change}, false)
		}
		for at, want := range c.want {
			if got := who(m, x, at); got != want {
				t.Errorf("%s: at %v it is %q, want %q", name, at, got, want)
			}
		}
	}
}

func TestNow(t *testing.T) {
	m := New(Config{})
	m.Apply([]Change{tell(pod("a", 10, "10.1.0.7"), 11)}, false)
	if id := m.Now(ip("10.1.0.7")); id == nil || id.PodUID != "a" {
		t.Errorf("is %+v", id)
	}
	m.Apply([]Change{gone("a", 20)}, false)
	if id := m.Now(ip("10.1.0.7")); id != nil || m.Now(ip("10.1.0.8")) != nil {
		t.Errorf("is %+v", id)
	}
}

func TestIdentityOfAPod(t *testing.T) {
	m := New(Config{Node: "n1"})
	p := pod("a", 10, "10.1.0.7", "fd00::7")
	p.StaticUID = "hash"
	p.Workload, p.Labels = event.Workload{Kind: "Deployment", Name: "web"}, map[string]string{"app": "web"}
	p.Containers = []Container{{Name: "main", ID: "c1"}}
	m.Apply([]Change{tell(p, 11)}, false)
	want := event.Identity{Class: event.ClassPod, Namespace: "ns", Pod: "pod-a", PodUID: "a", Node: "n1", Workload: p.Workload, Labels: p.Labels}
	if diff := cmp.Diff(&want, m.Identity("a")); diff != "" || m.Identity("a") != m.Identity("hash") {
		t.Error(diff)
	}
	if m.Pod("hash").Container("c1") != "main" || m.Pod("a").Container("c2") != "" || m.Pod("b") != nil || m.Identity("b") != nil {
		t.Error("names of containers")
	}
	before := m.Identity("a")
	// What says nothing new changes nothing.
	again := *p
	again.Phase = "Odd"
	if touched := m.Apply([]Change{tell(&again, 12)}, false); touched.Any() || m.Identity("a") != before || m.Pod("a").Phase != "Odd" {
		t.Error("changed")
	}
	touched := m.Apply([]Change{{Kind: KindNode, Key: "n1", Node: &Node{Name: "n1", Zone: "z1", IPs: []event.IP{ip("192.0.2.1")}}, At: sec(13)}}, false)
	if !touched.All || m.Identity("a").Zone != "z1" || before.Zone != "" || m.NodeIdentity("n1").Zone != "z1" || m.NodeIdentity("n2") != nil {
		t.Errorf("zones: %+v", m.Identity("a"))
	}
	more := *p
	more.Containers = []Container{{Name: "main", ID: "c1"}, {Name: "debug", ID: "c2"}}
	touched = m.Apply([]Change{tell(&more, 14)}, false)
	if touched.All || !touched.Pod("a") || !touched.Pod("hash") || touched.Pod("b") || !touched.Address(ip("fd00::7")) || touched.Address(ip("192.0.2.1")) {
		t.Errorf("touched %+v", touched)
	}
	if touched = m.Apply(nil, true); !touched.All || !m.Synced() {
		t.Error("the start is complete, which nobody was told")
	}
	if touched = m.Apply(nil, true); touched.Any() {
		t.Error("told twice")
	}
}

func TestPodsAreBounded(t *testing.T) {
	m := New(Config{Node: "own", MaxPods: 10, Keep: time.Minute})
	now := 0.0
	name := func(i int) string { return fmt.Sprint("p", i) }
	for i := range 12 {
		now++
		m.Apply([]Change{tell(pod(name(i), now, fmt.Sprintf("10.0.0.%d", i)), now)}, false)
	}
	if l := m.Losses(); m.Len() != 10 || len(l) != 1 || l[0].Count != 2 || l[0].Stage != "pods" {
		t.Errorf("%d pods, %+v", m.Len(), l)
	}
	// Those that are gone make room, the first of them first; then those that have ended.
	m.Apply([]Change{gone(name(3), now), tell(m.Pod(name(1)).endedAt(now), now), gone(name(5), now+1)}, false)
	for i, want := range []string{"p3", "p5", "p1"} {
		if m.Identity(want) == nil {
			t.Fatalf("%s is forgotten already", want)
		}
		m.Apply([]Change{tell(pod(fmt.Sprint("new", i), now, fmt.Sprintf("10.0.2.%d", i)), now)}, false)
		if m.Identity(want) != nil || m.Len() != 10 {
			t.Errorf("%s is still there, %d pods", want, m.Len())
		}
	}
	own := pod("own", now, "10.0.1.1")
	own.Node = "own"
	if m.Apply([]Change{tell(own, now)}, false); m.Identity("own") == nil {
		t.Error("an own pod found no room")
	}
	n := 0
	for range m.Pods {
		n++
	}
	if n != m.Len() || m.Len() > 11 {
		t.Errorf("%d pods, says %d", n, m.Len())
	}
}

func TestSweep(t *testing.T) {
	m := New(Config{Keep: time.Minute})
	const x = "10.1.0.7"
	a := pod("a", 10, x)
	sweep := func(at float64) { m.Sweep(time.Unix(0, sec(at))) }
	m.Apply([]Change{tell(a, 11), tell(a.endedAt(20), 20.5), tell(pod("b", 10, "10.1.0.8"), 11)}, false)
	m.Apply([]Change{gone("b", 30)}, false)
	sweep(80)
	if who(m, x, 15) != "a" || who(m, "10.1.0.8", 15) != "b" {
		t.Error("forgotten too early")
	}
	sweep(81)
	if who(m, x, 15) != "" || m.Pod("a") == nil || who(m, "10.1.0.8", 15) != "b" {
		t.Error("who has ended keeps its name and loses its address")
	}
	// A late word of it does not bring the address back.
	changed := *a.endedAt(20)
	changed.Labels = map[string]string{"x": "y"}
	if m.Apply([]Change{tell(&changed, 82)}, false); who(m, x, 15) != "" {
		t.Error("the address is back")
	}
	if sweep(91); m.Pod("b") != nil || m.Len() != 1 || len(m.addresses) != 0 {
		t.Errorf("%d pods, %d addresses", m.Len(), len(m.addresses))
	}
	m.Apply([]Change{gone("a", 92)}, false)
	if sweep(200); m.Len() != 0 || m.gone.len+m.ended.len+m.past.len != 0 {
		t.Errorf("%d pods are left", m.Len())
	}
	// At the start: it ended long ago.
	if m.Apply([]Change{tell(a.endedAt(20), 500)}, false); who(m, x, 15) != "" || m.Pod("a") == nil {
		t.Error("an address of long ago")
	}
}

func TestHoldersOfAnAddressAreBounded(t *testing.T) {
	m := New(Config{})
	for i := range 100 {
		uid, at := fmt.Sprint("p", i), float64(10*i)
		m.Apply([]Change{tell(pod(uid, at, "10.1.0.7"), at+1)}, false)
		m.Apply([]Change{gone(uid, at+5)}, false)
	}
	if n := len(m.At(ip("10.1.0.7")).spans); n != maxHolders || who(m, "10.1.0.7", 990) != "p99" {
		t.Errorf("%d holders", n)
	}
	if m.Sweep(time.Unix(0, sec(1e6))); len(m.addresses) != 0 || m.Len() != 0 {
		t.Errorf("%d addresses, %d pods", len(m.addresses), m.Len())
	}
}

func TestInbox(t *testing.T) {
	a := pod("a", 10, "10.1.0.7")
	for name, c := range map[string]struct {
		put  []Change
		pod  bool
		gone bool
	}{
		"there":                  {[]Change{tell(a, 11)}, true, false},
		"came and went":          {[]Change{tell(a, 11), gone("a", 12)}, true, true},
		"a watch that is late":   {[]Change{tell(a, 11), gone("a", 12), tell(a, 13)}, true, true},
		"only the end":           {[]Change{gone("a", 12)}, false, true},
		"the end, and then more": {[]Change{gone("a", 12), tell(a, 13)}, true, true},
		"twice":                  {[]Change{tell(a, 11), gone("a", 12), gone("a", 13)}, true, true},
	} {
		var in Inbox
		in.Put(c.put...)
		got, synced := in.Take()
		if len(got) != 1 || (got[0].Pod != nil) != c.pod || got[0].gone() != c.gone || synced {
			t.Errorf("%s: %+v", name, got)
		}
		m := New(Config{})
		if m.Apply(got, false); c.pod != (m.Pod("a") != nil) || c.pod && c.gone && who(m, "10.1.0.7", 500) != "?" {
			t.Errorf("%s: remembered as %q", name, who(m, "10.1.0.7", 500))
		}
	}
	var in Inbox
	s := &Service{Namespace: "n", Name: "s"}
	in.Put(Change{Kind: KindService, Key: "n/s"}, Change{Kind: KindService, Key: "n/s", Service: s})
	in.Synced()
	if got, synced := in.Take(); len(got) != 1 || got[0].gone() || !synced {
		t.Errorf("a Service that was made again: %+v", got)
	}
}

// big is a cluster as large as an agent is to stand by itself.
func big(pods, services int) *Map {
	m := New(Config{Node: "node-0", MaxPods: pods})
	var in Inbox
	for i := range pods {
		p := &Pod{
			UID: fmt.Sprintf("01234567-89ab-cdef-0123-%012d", i), Namespace: fmt.Sprintf("team-%d", i%50), Name: fmt.Sprintf("worker-%d-abcde", i),
			Node: fmt.Sprintf("node-%d", i/100), IPs: []event.IP{event.IPFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))},
			Workload: event.Workload{Kind: "Job", Name: fmt.Sprintf("train-%d", i/20)}, Created: sec(1), Networked: sec(2), Phase: "Running",
			Containers: []Container{{Name: "main", ID: fmt.Sprintf("%064d", i)}},
		}
		in.Put(tell(p, 3))
	}
	for i := range services {
		name := fmt.Sprintf("service-%d", i)
		key := "team-1/" + name
		in.Put(Change{Kind: KindService, Key: key, Service: &Service{
			Namespace: "team-1", Name: name, Ports: []Port{{Protocol: event.TCP, Port: 80}},
			IPs: []event.IP{event.IPFrom(netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}))},
		}})
		e := &Endpoints{Namespace: "team-1", Service: name, Ports: []Port{{Protocol: event.TCP, Port: 8080}}}
		for j := range 10 {
			n := i*10 + j
			e.IPs = append(e.IPs, event.IPFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})))
		}
		in.Put(Change{Kind: KindEndpoints, Key: key + "-x", Endpoints: e})
	}
	for i := range pods/100 + 1 {
		name := fmt.Sprintf("node-%d", i)
		in.Put(Change{Kind: KindNode, Key: name, Node: &Node{Name: name, Zone: "z", IPs: []event.IP{event.IPFrom(netip.AddrFrom4([4]byte{192, 168, byte(i >> 8), byte(i)}))}}})
	}
	in.Synced()
	m.Apply(in.Take())
	return m
}

func TestMemory(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	before := heap()
	m := big(10_000, 1000)
	for range m.Pods {
		break
	}
	for uid := range m.pods {
		m.Identity(uid)
	}
	took := heap() - before
	t.Logf("10,000 pods and 1,000 Services take %.1f MiB", float64(took)/(1<<20))
	if took > 20<<20 {
		t.Errorf("%d bytes", took)
	}
	if m.Len() != 10_000 || len(m.Losses()) != 0 {
		t.Errorf("%d pods, %+v", m.Len(), m.Losses())
	}
	runtime.KeepAlive(m)
}

func BenchmarkHolder(b *testing.B) {
	m := big(10_000, 1000)
	var ips []event.IP
	for ip := range m.addresses {
		ips = append(ips, ip)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m.Holder(m.At(ips[i%len(ips)]), sec(5))
	}
}

func BenchmarkApply(b *testing.B) {
	for b.Loop() {
		big(10_000, 1000)
	}
}

// What is told of a node is its last word, also where nobody is named otherwise
// by it.
func TestNode(t *testing.T) {
	m := New(Config{Node: "n1"})
	told := func(n *Node) { m.Apply([]Change{{Kind: KindNode, Key: "n1", Node: n, At: sec(1)}}, false) }
	if m.Node("n1") != nil {
		t.Error("a node of which nobody has told")
	}
	ips := []event.IP{ip("192.0.2.1")}
	told(&Node{Name: "n1", IPs: ips})
	id := m.NodeIdentity("n1")
	told(&Node{Name: "n1", IPs: ips, Labels: map[string]string{"a": "1"}})
	if n := m.Node("n1"); n == nil || n.Labels["a"] != "1" || m.NodeIdentity("n1") != id {
		t.Errorf("the node is %+v, its identity %p after %p", n, m.NodeIdentity("n1"), id)
	}
	told(nil)
	if m.Node("n1") != nil {
		t.Error("a node that is gone")
	}
}
