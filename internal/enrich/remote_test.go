// SPDX-License-Identifier: Apache-2.0

package enrich

import (
	"testing"

	"github.com/orb8/orb8/internal/cluster"
	"github.com/orb8/orb8/internal/event"
)

const (
	ipA, ipB, ipC          = "10.1.0.7", "10.1.0.8", "10.2.0.9"
	ipN1, ipN2, ipCP       = "192.0.2.1", "192.0.2.2", "192.0.2.3"
	clusterIP, apiIP, ipLB = "10.96.0.10", "10.96.0.1", "203.0.113.9"
	ipAPI                  = "192.0.2.99" // of an API server that is on no node
)

// town is a node in a cluster of three with some pods and Services.
func town(t *testing.T) *node {
	n := newNode(t)
	n.boxes.bind(netnsB, uidB)
	c := podChange("c", "c", ipC)
	c.Pod.Node = "n2"
	kubernetes := serviceChange("kubernetes", 0, apiIP)
	kubernetes.Key, kubernetes.Service.Namespace = "default/kubernetes", "default"
	n.tell(
		nodeChange("n1", "z1", ipN1), nodeChange("n2", "z2", ipN2), nodeChange("cp", "", ipCP),
		podChange(uidA, "a", ipA), podChange(uidB, "b", ipB), c, podChange(uidH, "h", ""),
		serviceChange("web", 30080, clusterIP, ipLB), endpointsChange("ns", "web", 8080, ipB, ipC, ipN2),
		kubernetes, endpointsChange("default", "kubernetes", 6443, ipCP, ipAPI),
		serviceChange("db", 0), endpointsChange("ns", "db", 5432, ipC, ipB),
		serviceChange("both", 0), endpointsChange("ns", "both", 5432, ipB),
	)
	return n
}

func TestRemote(t *testing.T) {
	type opts struct {
		opened event.Opener
		nat    string // the backend, to a pod
		asked  string // the Service's address, to the host
		port   uint16
	}
	for name, c := range map[string]struct {
		netns  uint32
		local  string
		remote string
		port   uint16
		opts   opts
		want   string
		wants  bool
	}{
		"a pod on this node":                  {netnsA, ipA, ipB, 80, opts{}, "pod/ns/b", false},
		"a pod on another":                    {netnsA, ipA, ipC, 80, opts{}, "pod/ns/c", false},
		"the own node":                        {netnsA, ipA, ipN1, 10250, opts{}, "node/n1", false},
		"another of its addresses":            {netnsA, ipA, "10.1.0.1", 33000, opts{opened: event.OpenerRemote}, "node/n1", false},
		"another node":                        {netnsA, ipA, ipN2, 22, opts{}, "node/n2", false},
		"a node that translates":              {netnsA, ipA, ipN2, 33000, opts{opened: event.OpenerRemote}, "node/n2", false},
		"the same, by the port of a NodePort": {netnsA, ipA, ipN2, 30080, opts{opened: event.OpenerRemote}, "node/n2", false},
		"of who has no address yet":           {netnsA, "::", "::", 30080, opts{}, "unknown", false},
		"to who has no address yet":           {netnsA, ipA, "::", 30080, opts{}, "unknown", false},
		"a group":                             {netnsA, "fe80::1", "ff02::16", 0, opts{}, "unknown", false},
		"a group of IPv4":                     {netnsA, ipA, "239.1.1.1", 0, opts{}, "unknown", false},
		"all":                                 {netnsA, ipA, "255.255.255.255", 67, opts{}, "unknown", false},
		"a neighbour":                         {netnsA, "fe80::1", "fe80::2", 0, opts{}, "unknown", false},
		"outside":                             {netnsA, ipA, "198.51.100.1", 443, opts{}, "external", false},
		"a Service":                           {netnsA, ipA, clusterIP, 80, opts{}, "service/ns by ns/web", true},
		"a Service, answered":                 {netnsA, ipA, clusterIP, 80, opts{nat: ipC, port: 8080}, "pod/ns/c by ns/web", false},
		"a Service, on the own node":          {netnsA, ipA, clusterIP, 80, opts{nat: ipB, port: 8080}, "pod/ns/b by ns/web", false},
		"a Service served by a node":          {netnsA, ipA, clusterIP, 80, opts{nat: ipN2, port: 8080}, "node/n2 by ns/web", false},
		"a Service served from outside":       {netnsA, ipA, clusterIP, 80, opts{nat: "198.51.100.1", port: 80}, "external by ns/web", false},
		"itself through a Service":            {netnsB, ipB, clusterIP, 80, opts{nat: ipB, port: 8080}, "pod/ns/b by ns/web", false},
		"itself":                              {netnsB, ipB, ipB, 80, opts{opened: event.OpenerRemote}, "pod/ns/b", false},
		"localhost":                           {netnsB, "127.0.0.1", "127.0.0.1", 80, opts{}, "pod/ns/b", false},
		"localhost, IPv6":                     {netnsB, "::1", "::1", 80, opts{}, "pod/ns/b", false},
		"localhost, of the host":              {hostNetns, "127.0.0.1", "127.0.0.2", 80, opts{}, "host", false},
		"a load balancer's address":           {netnsA, ipA, ipLB, 80, opts{}, "service/ns by ns/web", true},
		"a Service's other port":              {netnsA, ipA, clusterIP, 81, opts{}, "service/ns by ns/web", false},
		"a NodePort":                          {netnsA, ipA, ipN2, 30080, opts{}, "service/ns by ns/web", true},
		"a NodePort, answered":                {netnsA, ipA, ipN2, 30080, opts{nat: ipC, port: 8080}, "pod/ns/c by ns/web", false},
		"the own NodePort":                    {netnsA, ipA, "10.1.0.1", 30080, opts{}, "service/ns by ns/web", true},
		"the API server":                      {netnsA, ipA, ipCP, 6443, opts{}, "apiserver/cp", false},
		"its node":                            {netnsA, ipA, ipCP, 22, opts{}, "node/cp", false},
		"its node, to us":                     {netnsA, ipA, ipCP, 6443, opts{opened: event.OpenerRemote}, "node/cp", false},
		"the API server by its Service":       {netnsA, ipA, apiIP, 80, opts{nat: ipCP, port: 6443}, "apiserver/cp by default/kubernetes", false},
		"the API server, on no node":          {netnsA, ipA, ipAPI, 6443, opts{}, "apiserver/", false},
		"the same, by its Service":            {netnsA, ipA, apiIP, 80, opts{nat: ipAPI, port: 6443}, "apiserver/ by default/kubernetes", false},
		"the same, to us":                     {hostNetns, ipN1, ipAPI, 55900, opts{opened: event.OpenerRemote}, "apiserver/", false},
		"the same, at another port":           {netnsA, ipA, ipAPI, 22, opts{}, "apiserver/", false},
		"a headless Service":                  {netnsA, ipA, ipC, 5432, opts{}, "pod/ns/c by ns/db", false},
		"several":                             {netnsA, ipA, ipB, 5432, opts{}, "pod/ns/b", false},
		"an endpoint that calls":              {netnsA, ipA, ipC, 5432, opts{opened: event.OpenerRemote}, "pod/ns/c", false},
		"a backend, of a pod":                 {netnsA, ipA, ipC, 8080, opts{}, "pod/ns/c", false},
		"a backend, of the host":              {hostNetns, ipN1, ipC, 8080, opts{}, "pod/ns/c", true},
		"the same, asked as a Service":        {hostNetns, ipN1, ipC, 8080, opts{asked: clusterIP, port: 80}, "pod/ns/c by ns/web", false},
		"the same, asked as a NodePort":       {hostNetns, ipN1, ipC, 8080, opts{asked: ipN2, port: 30080}, "pod/ns/c by ns/web", false},
		"the same, calling":                   {hostNetns, ipN1, ipC, 8080, opts{opened: event.OpenerRemote}, "pod/ns/c", false},
		"the API server, of the host":         {hostNetns, ipN1, ipCP, 6443, opts{asked: apiIP, port: 80}, "apiserver/cp by default/kubernetes", false},
		"a pod, of the host":                  {hostNetns, ipN1, ipC, 22, opts{}, "pod/ns/c", false},
	} {
		n := town(t)
		f := n.talk(c.netns, c.local, c.remote, c.port)
		if c.opts.opened != event.OpenerUnknown {
			f.OpenedBy = c.opts.opened
		}
		n.seen(f)
		if c.opts.nat != "" || c.opts.asked != "" {
			if len(n.host.wanted) != 1 || n.host.own[0] != (c.netns == hostNetns) {
				t.Errorf("%s: asked of %v, %v", name, n.host.wanted, n.host.own)
			}
			answer := &event.Translation{Local: f.Conn.Local, Remote: addr(c.opts.nat + c.opts.asked), LocalPort: f.Conn.LocalPort, RemotePort: c.opts.port, OfSocket: c.opts.asked != ""}
			n.host.answers[f.Conn] = answer
			n.host.wanted = nil
			if n.tell(); f.NAT != answer {
				t.Errorf("%s: the translation is not kept", name)
			}
			// The same, where the host answers at once.
			g := *f
			g.NAT, g.Remote, g.Local = nil, nil, nil
			n.host.now = map[event.Conn]*event.Translation{f.Conn: answer}
			if n.seen(&g); said(g.Remote) != said(f.Remote) || g.NAT != answer || len(n.host.wanted) > 0 {
				t.Errorf("%s, at once: %s, want %s", name, said(g.Remote), said(f.Remote))
			}
			if n.table.translated != 2 {
				t.Errorf("%s: the table was told %d times, want each", name, n.table.translated)
			}
		}
		if got := said(f.Remote); got != c.want || (len(n.host.wanted) > 0) != c.wants {
			t.Errorf("%s: %s, asked of %d; want %s, %v", name, got, len(n.host.wanted), c.want, c.wants)
		}
	}
}

func TestZones(t *testing.T) {
	n := town(t)
	f := n.seen(n.talk(netnsA, ipA, ipC, 80))
	g := n.seen(n.talk(hostNetns, ipN1, ipN2, 80))
	if f.Local.Zone != "z1" || f.Remote.Zone != "z2" || g.Local.Zone != "z1" || g.Remote.Zone != "z2" || g.Remote.Node != "n2" {
		t.Errorf("%+v → %+v, %+v → %+v", f.Local, f.Remote, g.Local, g.Remote)
	}
	n.tell(nodeChange("n2", "z9", ipN2), nodeChange("n1", "z8", ipN1))
	if f.Local.Zone != "z8" || f.Remote.Zone != "z9" || g.Local.Zone != "z8" || g.Remote.Zone != "z9" {
		t.Errorf("%+v → %+v, %+v → %+v", f.Local, f.Remote, g.Local, g.Remote)
	}
}

// Before the start is complete an address is nobody's; then it is outside. Names
// come when they are told.
func TestLateNames(t *testing.T) {
	n := newNode(t)
	n.synced = false
	n.tell()
	f, g, s := n.seen(n.talk(netnsA, ipA, ipB, 80)), n.seen(n.talk(netnsA, ipA, "198.51.100.1", 80)), n.seen(n.talk(netnsA, ipA, clusterIP, 80))
	n.expect("at first", f, "pod/a", "unknown")
	n.tell(podChange(uidB, "b", ipB))
	n.expect("the other told", f, "pod/a", "pod/ns/b")
	n.tell(podChange(uidA, "a", ipA))
	n.expect("both told", f, "pod/ns/a", "pod/ns/b")
	n.expect("not complete", g, "pod/ns/a", "unknown")
	n.synced = true
	n.tell()
	n.expect("complete", g, "pod/ns/a", "external")
	n.expect("complete", f, "pod/ns/a", "pod/ns/b")
	n.expect("a Service that is not told of", s, "pod/ns/a", "external")
	n.tell(serviceChange("web", 0, clusterIP))
	n.expect("a Service", s, "pod/ns/a", "service/ns by ns/web")
	if len(n.host.wanted) != 1 {
		t.Errorf("asked %d times", len(n.host.wanted))
	}
	// A namespace whose it is is known late.
	h := n.seen(n.talk(netnsB, ipB, ipA, 80))
	n.expect("nobody's", h, "unknown", "pod/ns/a")
	n.boxes.bind(netnsB, uidB)
	n.tell()
	n.expect("its pod's", h, "pod/ns/b", "pod/ns/a")
}

// What a connection was said to be it stays when others go.
func TestNamesStay(t *testing.T) {
	n := town(t)
	f, s, d := n.seen(n.talk(netnsA, ipA, ipC, 80)), n.seen(n.talk(netnsA, ipA, clusterIP, 80)), n.seen(n.talk(netnsA, ipA, ipC, 5432))
	served := n.seen(n.talk(netnsA, ipA, clusterIP, 80))
	n.host.answers[served.Conn] = &event.Translation{Local: addr(ipA), Remote: addr(ipC), RemotePort: 8080}
	check := func(when string) {
		n.t.Helper()
		n.expect(when, f, "pod/ns/a", "pod/ns/c")
		n.expect(when, s, "pod/ns/a", "service/ns by ns/web")
		n.expect(when, d, "pod/ns/a", "pod/ns/c by ns/db")
		n.expect(when, served, "pod/ns/a", "pod/ns/c by ns/web")
	}
	n.tell()
	check("at first")
	n.tell(
		n.podGone("c"),
		cluster.Change{Kind: cluster.KindService, Key: "ns/web"}, cluster.Change{Kind: cluster.KindService, Key: "ns/db"},
		cluster.Change{Kind: cluster.KindEndpoints, Key: "ns/web-x"}, cluster.Change{Kind: cluster.KindEndpoints, Key: "ns/db-x"},
	)
	check("gone")
	n.now += 1000
	n.tell()
	if n.m.Pod("c") != nil {
		t.Fatal("c is remembered")
	}
	n.tell(nodeChange("n3", "z3", "192.0.2.33")) // all are looked at again
	check("forgotten")
	if len(n.table.retired) != 0 {
		t.Errorf("%d retired", len(n.table.retired))
	}
}

// A load balancer at the sockets leaves no trace of the Service but that it may
// have been asked for.
func TestSocketLoadBalancer(t *testing.T) {
	n := town(t)
	balancing := true
	n.cfg.SocketLB = func() bool { return balancing }
	called := n.talk(netnsA, ipA, ipC, 8080)
	called.OpenedBy = event.OpenerRemote
	for what, c := range map[string]struct {
		f    *event.Flow
		want string
	}{
		"a backend":                {n.talk(netnsA, ipA, ipC, 8080), "pod/ns/c by unknown (socket LB)"},
		"a backend, of the host":   {n.talk(hostNetns, ipN1, ipC, 8080), "pod/ns/c by unknown (socket LB)"},
		"the API server":           {n.talk(netnsA, ipA, ipCP, 6443), "apiserver/cp by unknown (socket LB)"},
		"another port":             {n.talk(netnsA, ipA, ipC, 22), "pod/ns/c"},
		"a headless Service":       {n.talk(netnsA, ipA, ipC, 5432), "pod/ns/c by ns/db"},
		"a backend that calls":     {called, "pod/ns/c"},
		"an address of a Service":  {n.talk(netnsA, ipA, clusterIP, 80), "service/ns by ns/web"},
		"an address outside of it": {n.talk(netnsA, ipA, "198.51.100.1", 8080), "external"},
	} {
		if got := said(n.seen(c.f).Remote); got != c.want {
			t.Errorf("%s: %s, want %s", what, got, c.want)
		}
	}
	// What the host knows goes first.
	f := n.seen(n.talk(hostNetns, ipN1, ipC, 8080))
	n.host.answers[f.Conn] = &event.Translation{Local: f.Conn.Local, Remote: addr(clusterIP), RemotePort: 80, OfSocket: true}
	n.tell()
	n.expect("asked as a Service", f, "host", "pod/ns/c by ns/web")
	balancing = false
	n.expect("no more", n.seen(n.talk(netnsA, ipA, ipC, 8080)), "pod/ns/a", "pod/ns/c")
}
