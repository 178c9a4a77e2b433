// SPDX-License-Identifier: Apache-2.0

package enrich

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/cluster"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/probe/socket"
)

// boxes are namespaces of pods.
type boxes struct {
	pods       map[uint32]string
	learnt     map[uint32]string
	since      map[uint32]int64
	generation uint64
}

func (b *boxes) Pod(netns uint32) (string, bool) {
	uid, ok := b.pods[netns]
	return uid, ok
}

func (b *boxes) Netns(uid string) (uint32, bool) {
	for netns, u := range b.pods {
		if u == uid {
			return netns, true
		}
	}
	return 0, false
}
func (b *boxes) Own(path string) bool            { return strings.HasPrefix(path, "/kubepods/") }
func (b *boxes) Generation() uint64              { return b.generation }
func (b *boxes) Learn(netns uint32, path string) { b.learnt[netns] = cgroup.Parse(path).PodUID }

func (b *boxes) Since(netns uint32) int64 { return b.since[netns] }

func (b *boxes) bind(netns uint32, uid string) {
	b.pods[netns] = uid
	b.generation++
}

// host translates.
type host struct {
	wanted  []event.Conn
	own     []bool
	answers map[event.Conn]*event.Translation
	// What it knows at once.
	now map[event.Conn]*event.Translation
}

func (h *host) Now(c event.Conn, _ bool) (*event.Translation, bool) {
	t, ok := h.now[c]
	return t, ok
}

func (h *host) Want(c event.Conn, own bool) {
	h.wanted, h.own = append(h.wanted, c), append(h.own, own)
}

func (h *host) Answers(take func(event.Conn, *event.Translation)) {
	for c, t := range h.answers {
		take(c, t)
	}
	clear(h.answers)
}

// table is connections, as the store keeps them.
type table struct {
	flows   map[event.Conn]*event.Flow
	retired []*event.Flow
	// How many times a translation was told of.
	translated int
}

func (t *table) Get(c event.Conn) *event.Flow { return t.flows[c] }

func (t *table) Each(visit func(*event.Flow)) {
	for _, f := range t.flows {
		visit(f)
	}
}

func (t *table) Retire(c event.Conn) {
	t.retired = append(t.retired, t.flows[c])
	delete(t.flows, c)
}

func (t *table) Carry(c event.Conn) { t.flows[c].Carried = true }

func (t *table) Translate(f *event.Flow, by *event.Translation) {
	f.NAT = by
	t.translated++
}

// node is an agent's node in Kubernetes, and who tells it what.
type node struct {
	*Enricher
	t      *testing.T
	m      *cluster.Map
	socks  *sockets
	boxes  *boxes
	host   *host
	table  *table
	now    float64
	synced bool
	port   uint16
}

// The pods, namespaces and groups of the tests.
const (
	uidA, uidB, uidH, uidI, uidS = "aaaaaaaa-0000-0000-0000-000000000000", "bbbbbbbb-0000-0000-0000-000000000000", "cccccccc-0000-0000-0000-000000000000", "dddddddd-0000-0000-0000-000000000000", "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"

	netnsA, netnsB = 100, 101

	groupA, groupA2, groupB, groupH, groupI, groupS, groupForeign = 20, 21, 22, 23, 24, 25, 26
)

func hex64(s string) string { return strings.Repeat(s, 64) }

func kubepods(uid, id string) string { return "/kubepods/burstable/pod" + uid + "/" + id }

func newNode(t *testing.T) *node {
	n := &node{
		t: t, m: cluster.New(cluster.Config{Node: "n1"}), socks: &sockets{generation: 1, owners: map[uint64]socket.Owner{}},
		boxes: &boxes{pods: map[uint32]string{netnsA: uidA}, learnt: map[uint32]string{}},
		host:  &host{answers: map[event.Conn]*event.Translation{}},
		table: &table{flows: map[event.Conn]*event.Flow{}}, synced: true, now: 1000,
	}
	n.Enricher = New(Config{
		Node: "n1", Netns: hostNetns, Sockets: n.socks, Cluster: n.m, Sandboxes: n.boxes, Translations: n.host, Flows: n.table,
		Own: func(ip event.IP) bool { return ip == addr("192.0.2.1") || ip == addr("10.1.0.1") },
		Cgroups: groups{
			sshGroup: "/system.slice/ssh.service",
			groupA:   kubepods(uidA, hex64("a")), groupA2: kubepods(uidA, hex64("9")), groupB: kubepods(uidB, hex64("b")),
			groupH: kubepods(uidH, hex64("c")), groupI: kubepods(uidI, hex64("d")), groupS: kubepods(uidS, hex64("e")),
			groupForeign: "/other" + kubepods(uidH, hex64("f")),
		},
	})
	return n
}

func addr(s string) event.IP { return event.IPFrom(netip.MustParseAddr(s)) }

func at(s float64) int64 { return 1_700_000_000e9 + int64(s*1e9) }

// tell passes changes on, a tenth of a second after the last.
func (n *node) tell(changes ...cluster.Change) {
	n.now += 0.1
	for i := range changes {
		changes[i].At = at(n.now)
	}
	n.Update(changes, n.synced, time.Unix(0, at(n.now)))
}

func podChange(uid, name, ip string) cluster.Change {
	p := &cluster.Pod{UID: uid, Namespace: "ns", Name: name, Node: "n1", Created: at(10), Networked: at(11)}
	if ip == "" {
		p.HostNetwork, p.IPs = true, []event.IP{addr("192.0.2.1")}
	} else {
		p.IPs = []event.IP{addr(ip)}
	}
	return cluster.Change{Kind: cluster.KindPod, Key: uid, Pod: p}
}

func (n *node) podGone(uid string) cluster.Change {
	return cluster.Change{Kind: cluster.KindPod, Key: uid}
}

func nodeChange(name, zone, ip string) cluster.Change {
	return cluster.Change{Kind: cluster.KindNode, Key: name, Node: &cluster.Node{Name: name, Zone: zone, IPs: []event.IP{addr(ip)}}}
}

func serviceChange(name string, nodePort uint16, ips ...string) cluster.Change {
	s := &cluster.Service{Namespace: "ns", Name: name, Ports: []cluster.Port{{Protocol: event.TCP, Port: 80, NodePort: nodePort}}}
	for _, ip := range ips {
		s.IPs = append(s.IPs, addr(ip))
	}
	s.Headless = len(ips) == 0
	return cluster.Change{Kind: cluster.KindService, Key: "ns/" + name, Service: s}
}

func endpointsChange(namespace, service string, port uint16, ips ...string) cluster.Change {
	e := &cluster.Endpoints{Namespace: namespace, Service: service, Ports: []cluster.Port{{Protocol: event.TCP, Port: port}}}
	for _, ip := range ips {
		e.IPs = append(e.IPs, addr(ip))
	}
	return cluster.Change{Kind: cluster.KindEndpoints, Key: namespace + "/" + service + "-x", Endpoints: e}
}

// talk is a connection from a pod or the host to somewhere, seen now.
func (n *node) talk(netns uint32, local, remote string, port uint16) *event.Flow {
	n.port++
	f := &event.Flow{
		Conn:  event.Conn{Local: addr(local), Remote: addr(remote), LocalPort: 40000 + n.port, RemotePort: port, Netns: netns, Protocol: event.TCP},
		First: at(n.now), OpenedBy: event.OpenerLocal,
	}
	n.table.flows[f.Conn] = f
	return f
}

// seen identifies a connection.
func (n *node) seen(f *event.Flow) *event.Flow {
	n.Identify(f)
	return f
}

// said is an identity in one word.
func said(id *event.Identity) string {
	if id == nil {
		return "nil"
	}
	s := string(id.Class)
	for _, part := range []string{id.Namespace, id.Pod, id.Container, id.Unit, id.Process} {
		if part != "" {
			s += "/" + part
		}
	}
	if id.Class == event.ClassPod && id.Pod == "" {
		s += "/" + id.PodUID[:1]
	}
	if id.Class == event.ClassNode || id.Class == event.ClassAPIServer {
		s += "/" + id.Node
	}
	if id.Service != "" {
		s += " by " + id.Service
	}
	return s
}

func (n *node) expect(what string, f *event.Flow, local, remote string) {
	n.t.Helper()
	if l, r := said(f.Local), said(f.Remote); l != local || r != remote {
		n.t.Errorf("%s: it is\n%s → %s, want\n%s → %s", what, l, r, local, remote)
	}
}

func TestLocalPod(t *testing.T) {
	short := func(s string) string { return hex64(s) }
	for name, c := range map[string]struct {
		netns   uint32
		group   uint64
		kernel  bool
		carried bool
		want    string
		untold  string
	}{
		"by its namespace":                    {netns: netnsA, want: "pod/ns/a", untold: "pod/a"},
		"with its container":                  {netns: netnsA, group: groupA, want: "pod/ns/a/main/curl", untold: "pod/" + short("a") + "/curl/a"},
		"with another container":              {netns: netnsA, group: groupA2, want: "pod/ns/a/side/curl", untold: "pod/" + short("9") + "/curl/a"},
		"a process of another pod in it":      {netns: netnsA, group: groupB, want: "pod/ns/a/curl", untold: "pod/curl/a"},
		"a process of the host in it":         {netns: netnsA, group: sshGroup, want: "pod/ns/a/curl", untold: "pod/curl/a"},
		"a namespace that is nobody's yet":    {netns: netnsB, group: groupB, want: "pod/ns/b/" + short("b") + "/curl", untold: "pod/" + short("b") + "/curl/b"},
		"a namespace of who is elsewhere":     {netns: netnsB, group: groupA, want: "unknown", untold: "unknown"},
		"a namespace that is nobody's":        {netns: netnsB, want: "unknown", untold: "unknown"},
		"a pod with the host's network":       {netns: hostNetns, group: groupH, want: "pod/ns/h/agent/curl", untold: "pod/" + short("c") + "/curl/c"},
		"another on the same node":            {netns: hostNetns, group: groupI, want: "pod/ns/i/" + short("d") + "/curl", untold: "pod/" + short("d") + "/curl/d"},
		"a static pod":                        {netns: hostNetns, group: groupS, want: "pod/ns/s/etcd/curl", untold: "pod/" + short("e") + "/curl/e"},
		"a pod of another node's":             {netns: hostNetns, group: groupForeign, want: "host/curl", untold: "host/curl"},
		"a pod's socket carried by the host":  {netns: hostNetns, group: groupB, carried: true, want: "nil", untold: "pod/" + short("b") + "/curl/b"},
		"the same, known by the machine":      {netns: hostNetns, group: groupA, carried: true, want: "nil", untold: "nil"},
		"a process of the host":               {netns: hostNetns, group: sshGroup, want: "host/ssh.service/curl", untold: "host/ssh.service/curl"},
		"the host":                            {netns: hostNetns, want: "host", untold: "host"},
		"the kernel, in a pod":                {netns: netnsA, group: groupA, kernel: true, want: "kernel:nfs", untold: "kernel:nfs"},
		"the kernel, in the host's namespace": {netns: hostNetns, group: groupB, kernel: true, want: "kernel:nfs", untold: "kernel:nfs"},
	} {
		n := newNode(t)
		remote := uint16(443)
		if c.kernel {
			remote = 2049
		}
		f := n.talk(c.netns, "10.1.0.7", "198.51.100.1", remote)
		if c.group != 0 {
			f.Cookie, f.Cgroup = 7, c.group
			n.socks.owners[7] = owner(31, "curl", 0, true)
		}
		if c.kernel {
			n.socks.owners[7] = socket.Owner{Kernel: true, Final: true}
		}
		n.seen(f)
		if got := said(f.Local); got != c.untold {
			t.Errorf("%s, before the cluster has told: %s, want %s", name, got, c.untold)
		}
		a, s, h := podChange(uidA, "a", "10.1.0.7"), podChange("real", "s", ""), podChange(uidH, "h", "")
		a.Pod.Containers = []cluster.Container{{Name: "main", ID: hex64("a")}, {Name: "side", ID: hex64("9")}}
		h.Pod.Containers = []cluster.Container{{Name: "agent", ID: hex64("c")}}
		s.Pod.StaticUID, s.Pod.Containers = uidS, []cluster.Container{{Name: "etcd", ID: hex64("e")}}
		n.tell(a, podChange(uidB, "b", "10.1.0.8"), h, podChange(uidI, "i", ""), s)
		if got := said(f.Local); !c.carried && got != c.want || f.Carried != c.carried {
			t.Errorf("%s: %s, carried %v, want %s, %v", name, got, f.Carried, c.want, c.carried)
		}
		if c.netns == netnsB && c.group == groupB && n.boxes.learnt[netnsB] != uidB {
			t.Errorf("%s: nobody learnt whose it is", name)
		}
	}
}

// A port of storage says nothing of who is in a pod's namespace: until the
// sockets are listed it is the pod's, and the name stays when nobody is left.
func TestStoragePortInAPod(t *testing.T) {
	n := newNode(t)
	n.tell(podChange(uidA, "a", "10.1.0.7"))
	f := n.talk(netnsA, "10.1.0.7", "10.1.0.9", 7000)
	f.Cookie, f.Cgroup = 7, groupA
	n.seen(f)
	n.expect("before a listing", f, "pod/ns/a/"+hex64("a"), "external")
	n.socks.owners[7] = owner(31, "curl", 0, true)
	n.seen(f)
	n.expect("listed", f, "pod/ns/a/"+hex64("a")+"/curl", "external")
	delete(n.socks.owners, 7)
	n.seen(f)
	n.expect("its process is gone", f, "pod/ns/a/"+hex64("a")+"/curl", "external")
	n.socks.owners[7] = socket.Owner{Kernel: true, Final: true}
	n.seen(f)
	n.expect("it was the kernel's", f, "kernel:ceph", "external")
	g := n.talk(hostNetns, "192.0.2.1", "10.1.0.9", 7000)
	n.seen(g)
	n.expect("on the host", g, "unknown", "external")
}

// The number of a namespace goes to another pod before an epoch tells of the
// first one's connection.
func TestNamespaceOfTwoInOneEpoch(t *testing.T) {
	n := newNode(t)
	n.tell(podChange(uidA, "a", "10.1.0.7"), podChange(uidB, "b", "10.1.0.8"))
	n.boxes.since = map[uint32]int64{netnsA: at(n.now + 5)}
	f := n.talk(netnsA, "10.1.0.8", "10.1.0.9", 443)
	f.Cookie, f.Cgroup = 7, groupB
	n.socks.owners[7] = owner(31, "curl", 0, true)
	n.seen(f)
	n.expect("the first one's", f, "pod/ns/b/"+hex64("b")+"/curl", "external")
	n.now += 10
	g := n.talk(netnsA, "10.1.0.7", "10.1.0.9", 443)
	g.Cookie, g.Cgroup = 7, groupB
	n.seen(g)
	n.expect("a guest of the second", g, "pod/ns/a/curl", "external")
}

func TestPodIsWhole(t *testing.T) {
	n := newNode(t)
	n.tell(nodeChange("n1", "z1", "192.0.2.1"))
	f := n.talk(netnsA, "10.1.0.7", "10.1.0.8", 80)
	f.Cookie, f.Cgroup = 7, groupA
	n.socks.owners[7] = owner(31, "curl", 0, true)
	n.seen(f)
	a := podChange(uidA, "a", "10.1.0.7")
	a.Pod.Labels, a.Pod.Workload = map[string]string{"app": "x"}, event.Workload{Kind: "ReplicaSet", Name: "a-5"}
	n.tell(a)
	want := event.Identity{
		Class: event.ClassPod, Namespace: "ns", Pod: "a", PodUID: uidA, Container: hex64("a"), Node: "n1", Zone: "z1",
		Labels: a.Pod.Labels, Workload: a.Pod.Workload, Process: "curl", PID: 31,
	}
	if diff := cmp.Diff(&want, f.Local); diff != "" {
		t.Error(diff)
	}
	// The owner and the container are told later, and one that was said does not change.
	before, copied := f.Local, *f.Local
	later := *a.Pod
	later.Workload, later.Containers = event.Workload{Kind: "Deployment", Name: "a"}, []cluster.Container{{Name: "main", ID: hex64("a")}}
	a.Pod = &later
	n.tell(a)
	want.Workload, want.Container = later.Workload, "main"
	if diff := cmp.Diff(&want, f.Local); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(&copied, before); diff != "" || before == f.Local {
		t.Error("an identity was changed", diff)
	}
}

// A pod is gone, and so are its process, its socket, its group and its namespace:
// its connections are still its own, and the cluster's late words find them.
func TestAPodThatIsGone(t *testing.T) {
	for name, bound := range map[string]bool{"known by its namespace": true, "by its group alone": false} {
		n := newNode(t)
		a := podChange(uidA, "a", "10.1.0.7")
		a.Pod.Containers = []cluster.Container{{Name: "main", ID: hex64("a")}}
		if !bound {
			delete(n.boxes.pods, netnsA)
		}
		f := n.talk(netnsA, "10.1.0.7", "198.51.100.1", 443)
		f.Cookie, f.Cgroup = 7, groupA
		n.socks.owners[7] = owner(31, "curl", 0, true)
		n.seen(f)
		clear(n.socks.owners)
		clear(n.boxes.pods)
		n.boxes.generation++
		n.cfg.Cgroups = groups{}
		want := "pod/ns/a/main/curl"
		check := func(when string) {
			t.Helper()
			if got := said(f.Local); got != want || f.Local.PID != 31 {
				t.Errorf("%s, %s: %s", name, when, got)
			}
		}
		n.tell(a)
		check("told of afterwards")
		n.tell(n.podGone(uidA))
		n.tell(nodeChange("n1", "z1", "192.0.2.1"))
		check("gone")
		if f.Local.Zone != "z1" {
			t.Errorf("%s: zone %q", name, f.Local.Zone)
		}
		n.seen(f)
		check("asked again")
		n.now += 1000
		n.tell(nodeChange("n2", "z2", "192.0.2.2"))
		if n.seen(f); n.m.Pod(uidA) != nil || said(f.Local) != want {
			t.Errorf("%s, forgotten: %s", name, said(f.Local))
		}
		if len(n.table.retired) != 0 {
			t.Errorf("%s: retired", name)
		}
	}
}

// A pod with the host's network is gone with its group.
func TestAHostNetworkPodThatIsGone(t *testing.T) {
	n := newNode(t)
	n.tell(podChange(uidH, "h", ""))
	f := n.talk(hostNetns, "192.0.2.1", "198.51.100.1", 443)
	f.Cookie, f.Cgroup = 7, groupH
	n.socks.owners[7] = owner(31, "curl", 0, true)
	n.seen(f)
	clear(n.socks.owners)
	n.cfg.Cgroups = groups{}
	n.tell(n.podGone(uidH), nodeChange("n1", "z1", "192.0.2.1"))
	if n.seen(f); said(f.Local) != "pod/ns/h/"+hex64("c")+"/curl" || f.Local.Zone != "z1" {
		t.Errorf("it is %s", said(f.Local))
	}
}

// What is known of a process of the host is not looked for again when its node's
// zone is told.
func TestZoneOfTheHost(t *testing.T) {
	n := newNode(t)
	f := n.talk(hostNetns, "192.0.2.1", "198.51.100.1", 443)
	f.Cookie, f.Cgroup = 7, sshGroup
	n.socks.owners[7] = owner(31, "sshd", 0, true)
	n.seen(f)
	clear(n.socks.owners)
	n.tell(nodeChange("n1", "z1", "192.0.2.1"))
	if said(f.Local) != "host/ssh.service/sshd" || f.Local.Zone != "z1" || f.Local.PID != 31 {
		t.Errorf("it is %s in %q", said(f.Local), f.Local.Zone)
	}
}
