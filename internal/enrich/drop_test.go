// SPDX-License-Identifier: Apache-2.0

package enrich

import (
	"testing"

	"github.com/orb8/orb8/internal/cluster"
	"github.com/orb8/orb8/internal/event"
)

func (n *node) drop(netns uint32, local, remote string) event.Flow {
	d := event.Drop{Conn: event.Conn{Netns: netns, Ifindex: 2, Protocol: event.TCP, LocalPort: 40000, RemotePort: 80}, First: at(n.now), Last: at(n.now)}
	if local != "" {
		d.Conn.Local, d.Conn.Remote = addr(local), addr(remote)
	}
	return n.Dropped(&d)
}

func who(id *event.Identity) string {
	switch {
	case id == nil:
		return "nobody at all"
	case id.Pod != "":
		return id.Pod
	case id.Service != "":
		return id.Service
	}
	return string(id.Class)
}

func TestWhomADropMet(t *testing.T) {
	n := newNode(t)
	elsewhere := podChange("ffffffff-0000-0000-0000-000000000000", "pod-e", "10.1.1.9")
	elsewhere.Pod.Node = "n2"
	n.tell(podChange(uidA, "pod-a", "10.1.0.5"), podChange(uidB, "pod-b", "10.1.0.6"), elsewhere, serviceChange("shop", 0, "10.96.0.10"))
	n.boxes.bind(netnsB, uidB)
	for _, c := range []struct {
		name               string
		netns              uint32
		local, remote      string
		wantLocal, wantRem string
		met                string
	}{
		{"in a pod", netnsA, "10.1.0.5", "10.1.1.9", "pod-a", "pod-e", "pod-a"},
		{"in a pod, by an address that is not its own", netnsA, "10.5.5.5", "10.1.0.6", "pod-a", "pod-b", "pod-a"},
		{"in a pod, to a Service", netnsA, "10.1.0.5", "10.96.0.10", "pod-a", "ns/shop", "pod-a"},
		{"in a pod, of anybody", netnsA, "", "", "pod-a", "unknown", "pod-a"},
		{"in a namespace of nobody", 999, "10.9.0.1", "10.1.0.5", "unknown", "pod-a", "unknown"},
		{"at the host", hostNetns, "192.0.2.1", "10.1.1.9", "host", "pod-e", "host"},
		{"at the host, the other way round", hostNetns, "10.1.1.9", "192.0.2.1", "host", "pod-e", "host"},
		{"through the host, to a pod of it", hostNetns, "10.1.1.9", "10.1.0.5", "pod-a", "pod-e", "pod-a"},
		{"through the host, from a pod of it", hostNetns, "10.1.0.5", "10.1.1.9", "pod-a", "pod-e", "pod-a"},
		{"through the host, between its pods", hostNetns, "10.1.0.6", "10.1.0.5", "pod-b", "pod-a", "pod-b"},
		{"through the host, between others", hostNetns, "10.1.1.9", "198.51.100.1", "pod-e", "external", "host"},
		{"nowhere", 0, "10.1.0.5", "10.1.1.9", "pod-a", "pod-e", "pod-a"},
		{"nowhere, between others", 0, "10.1.1.9", "198.51.100.1", "pod-e", "external", "unknown"},
		{"nowhere, of anybody", 0, "", "", "unknown", "unknown", "unknown"},
	} {
		f := n.drop(c.netns, c.local, c.remote)
		if who(f.Local) != c.wantLocal || who(f.Remote) != c.wantRem || who(n.Met(&f)) != c.met {
			t.Errorf("%s: %s - %s, met %s; want %s - %s, %s", c.name, who(f.Local), who(f.Remote), who(n.Met(&f)), c.wantLocal, c.wantRem, c.met)
		}
		if f.Local == nil || f.Remote == nil {
			t.Fatal(c.name)
		}
	}
	if len(n.host.wanted) > 0 {
		t.Errorf("the host was asked for %v", n.host.wanted)
	}
}

// A connection that the tap has seen is named as it is there, and its pod keeps
// its name when it is gone.
func TestDropOfAKnownConnection(t *testing.T) {
	n := newNode(t)
	n.tell(podChange(uidA, "pod-a", "10.1.0.5"))
	f := n.talk(netnsA, "10.1.0.5", "10.1.1.9", 80)
	n.Identify(f)
	made := *f.Local
	made.Process = "curl"
	f.Local = &made
	n.table.flows[f.Conn] = f
	d := event.Drop{Conn: f.Conn}
	got := n.Dropped(&d)
	if got.Local != f.Local {
		t.Errorf("%+v", got.Local)
	}
	if met := n.Met(&got); met.Pod != "pod-a" || met.Process != "" {
		t.Errorf("met %+v", met)
	}
	n.tell(cluster.Change{Kind: cluster.KindPod, Key: uidA})
	if met := n.Met(&got); met.Pod != "pod-a" {
		t.Errorf("met %+v", met)
	}
}

func TestDropWithoutACluster(t *testing.T) {
	e := New(Config{Node: "n1", Netns: hostNetns, Own: func(ip event.IP) bool { return ip == addr("192.0.2.1") }})
	d := event.Drop{Conn: event.Conn{Netns: hostNetns, Local: addr("192.0.2.1"), Remote: addr("192.0.2.9")}}
	f := e.Dropped(&d)
	if who(f.Local) != "host" || who(f.Remote) != "external" || who(e.Met(&f)) != "host" {
		t.Errorf("%+v %+v", f.Local, f.Remote)
	}
}
