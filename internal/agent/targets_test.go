// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/orb8/orb8/internal/cluster"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/filter"
	"github.com/orb8/orb8/internal/observer"
)

func podAt(node, namespace, name, ip string) *cluster.Pod {
	return &cluster.Pod{
		UID: name, Namespace: namespace, Name: name, Node: node, HostNetwork: name == "nfs-0",
		IPs: []event.IP{event.IPFrom(netip.MustParseAddr(ip))}, Labels: map[string]string{"app": name[:3]},
		Workload: event.Workload{Kind: "Deployment", Name: name[:3]},
	}
}

// The pods of a cluster of two nodes; the namespace of each of n1 is its place.
var somePods = []*cluster.Pod{
	podAt("n1", "shop", "web-0", "10.1.0.1"),
	podAt("n1", "shop", "web-1", "10.1.0.2"),
	podAt("n1", "data", "sql-0", "10.1.0.3"),
	podAt("n1", "data", "nfs-0", "192.0.2.1"),
	podAt("n2", "shop", "web-2", "10.2.0.1"),
}

const ownNetns = 100

func someInterfaces() (list []event.Interface) {
	for n := range 3 {
		list = append(list, event.Interface{Iface: event.Iface{Netns: uint32(n), Index: 2}, Name: "eth0", How: "tcx"})
	}
	return append(list,
		event.Interface{Iface: event.Iface{Netns: ownNetns, Index: 2}, Name: "ens1", How: "tcx"},
		event.Interface{Iface: event.Iface{Netns: ownNetns, Index: 3}, Name: "gone", How: "tcx", Left: true},
		event.Interface{Iface: event.Iface{Netns: ownNetns, Index: 4}, Name: "cannot"})
}

func chosen(f filter.Filter) (*targets, map[event.Iface]place, []string, error) {
	n := &node{pipeline: &pipeline{cfg: Config{Node: "n1"}}, kube: &kubernetes{}}
	t, err := n.newTargets(&f)
	if err != nil {
		return nil, nil, nil, err
	}
	t.owner = func(netns uint32) *event.Identity {
		if netns == ownNetns {
			return &event.Identity{Class: event.ClassHost, Node: "n1"}
		}
		return identityOf(somePods[netns])
	}
	found, notes, err := t.choose(someInterfaces(), somePods)
	return t, found, notes, err
}

func TestTargets(t *testing.T) {
	end := func(pods ...string) filter.End { return filter.End{Pods: pods} }
	for name, c := range map[string]struct {
		f    filter.Filter
		want string
		note string
	}{
		"everything":          {filter.Filter{}, "data/sql-0 eth0,ens1,shop/web-0 eth0,shop/web-1 eth0", ""},
		"a port":              {filter.Filter{Include: filter.Fields{Ports: []uint16{1}}}, "data/sql-0 eth0,ens1,shop/web-0 eth0,shop/web-1 eth0", ""},
		"pod":                 {filter.Filter{Include: filter.Fields{Pods: []string{"shop/web-0", "web-2"}}}, "shop/web-0 eth0", ""},
		"namespace and pod":   {filter.Filter{Include: filter.Fields{Namespaces: []string{"data"}, Pods: []string{"web-0"}}}, "", ""},
		"workload":            {filter.Filter{Include: filter.Fields{Workloads: []string{"deployment/web"}}}, "shop/web-0 eth0,shop/web-1 eth0", ""},
		"label":               {filter.Filter{Include: filter.Fields{Labels: []filter.Label{{Key: "app", Value: "sql", Wanted: filter.LabelSame}}}}, "data/sql-0 eth0", ""},
		"some have the host":  {filter.Filter{Include: filter.Fields{Namespaces: []string{"data"}}}, "data/sql-0 eth0", "left out: data/nfs-0: on the node's"},
		"not a pod":           {filter.Filter{Exclude: filter.Fields{Pods: []string{"web-0"}}}, "data/sql-0 eth0,ens1,shop/web-1 eth0", ""},
		"not one of the host": {filter.Filter{Exclude: filter.Fields{Namespaces: []string{"data"}}}, "ens1,shop/web-0 eth0,shop/web-1 eth0", "not left out: data/nfs-0"},
		"another node":        {filter.Filter{Include: filter.Fields{Nodes: []string{"n2"}}}, "", ""},
		"sent by":             {filter.Filter{Include: filter.Fields{From: end("web-0")}}, "shop/web-0 eth0", ""},
		"sent from one to":    {filter.Filter{Include: filter.Fields{From: end("web-2"), To: end("sql-0")}}, "data/sql-0 eth0", ""},
		"not sent by":         {filter.Filter{Exclude: filter.Fields{From: end("web-0")}}, "data/sql-0 eth0,ens1,shop/web-0 eth0,shop/web-1 eth0", ""},
	} {
		_, found, notes, err := chosen(c.f)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, p := range found {
			got = append(got, p.name())
		}
		slices.Sort(got)
		if s := strings.Join(got, ","); s != c.want {
			t.Errorf("%s: %s, not %s", name, s, c.want)
		}
		if s := strings.Join(notes, "; "); (s == "") != (c.note == "") || !strings.HasPrefix(s, c.note) {
			t.Errorf("%s: notes %q", name, s)
		}
	}
}

func TestEndsOfTargets(t *testing.T) {
	targets, found, _, err := chosen(filter.Filter{
		Include: filter.Fields{From: filter.End{Namespaces: []string{"shop"}}},
		Exclude: filter.Fields{To: filter.End{Namespaces: []string{"data"}, Pods: []string{"web-2"}}},
	})
	if err != nil || len(found) != 2 {
		t.Fatal(found, err)
	}
	p := found[event.Iface{Netns: 0, Index: 2}].target
	if from := p.Include.From; !from.Set || !from.Local || len(from.Remote) != 3 {
		t.Errorf("from %+v", from)
	}
	// One field is enough; who has the node's address cannot be told by it.
	if to := p.Exclude.To; !to.Set || to.Local || len(to.Remote) != 2 {
		t.Errorf("not to %+v", to)
	}
	if p.Include.To.Set || p.Exclude.From.Set {
		t.Errorf("asked %+v", p)
	}
	if notes := targets.note(targets.note(nil, "a", "b"), "a", "b"); len(notes) != 1 {
		t.Error("a note is told twice")
	}
}

func TestTargetsRefused(t *testing.T) {
	_, _, _, err := chosen(filter.Filter{Include: filter.Fields{Pods: []string{"nfs-0"}}})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "data/nfs-0: on the node's network") {
		t.Error(err)
	}
	n := &node{pipeline: &pipeline{cfg: Config{Node: "n1"}}}
	for _, f := range []filter.Filter{
		{Include: filter.Fields{Pods: []string{"a"}}},
		{Exclude: filter.Fields{Labels: []filter.Label{{Key: "a"}}}},
		{Exclude: filter.Fields{To: filter.End{Pods: []string{"a"}}}},
	} {
		if _, err := n.newTargets(&f); status.Code(err) != codes.InvalidArgument {
			t.Errorf("no pods are known: %v", err)
		}
	}
	if _, err := n.newTargets(&filter.Filter{Include: filter.Fields{Nodes: []string{"n1"}}}); err != nil {
		t.Error(err)
	}
}

func TestWhoMayCapture(t *testing.T) {
	tcp := func(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }
	for name, c := range map[string]struct {
		listen      string
		addr, local net.Addr
		ok          bool
	}{
		"unix socket":                  {"0.0.0.0", unixPeer{7, 8}, nil, true},
		"loopback":                     {"127.0.0.1", tcp("127.0.0.1:5"), tcp("127.0.0.1:9090"), true},
		"localhost, IPv6":              {"localhost", tcp("[::1]:5"), tcp("[::1]:9090"), true},
		"all addresses, from loopback": {"0.0.0.0", tcp("127.0.0.1:5"), tcp("127.0.0.1:9090"), false},
		"all addresses":                {"", tcp("10.0.0.1:5"), tcp("10.0.0.2:9090"), false},
		"an address":                   {"10.0.0.2", tcp("10.0.0.1:5"), tcp("10.0.0.2:9090"), false},
	} {
		ctx := peer.NewContext(context.Background(), &peer.Peer{Addr: c.addr, LocalAddr: c.local})
		n := &node{pipeline: &pipeline{cfg: Config{Listen: c.listen, AllowCapture: true}}}
		who, err := n.mayCapture(ctx)
		if (err == nil) != c.ok || !c.ok && status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v", name, err)
		}
		if who != c.addr.String() {
			t.Errorf("%s: asked by %s", name, who)
		}
		n.cfg.AllowCapture = false
		if _, err := n.mayCapture(ctx); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "ORB8_ALLOW_CAPTURE") {
			t.Errorf("%s, not allowed: %v", name, err)
		}
	}
	n := &node{pipeline: &pipeline{cfg: Config{AllowCapture: true}}}
	ctx := peer.NewContext(context.Background(), &peer.Peer{Addr: unixPeer{}})
	for i := range maxCaptures + 1 {
		if _, err := n.mayCapture(ctx); (err == nil) != (i < maxCaptures) || err != nil && status.Code(err) != codes.ResourceExhausted {
			t.Errorf("capture %d: %v", i, err)
		}
	}
	n.captures.end()
	if _, err := n.mayCapture(ctx); err != nil {
		t.Error(err)
	}
	if _, err := n.mayCapture(context.Background()); status.Code(err) != codes.PermissionDenied {
		t.Error(err)
	}
}

func TestCaptureBounds(t *testing.T) {
	if b := bounded(observer.CaptureBounds{}); b != captureDefaults {
		t.Errorf("%+v", b)
	}
	most := captureMost
	most.Packets++
	if b := bounded(most); b != captureMost {
		t.Errorf("%+v", b)
	}
}
