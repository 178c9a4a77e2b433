// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"net/netip"
	"testing"

	"github.com/orb8/orb8/internal/event"
)

func flow() *event.Flow {
	return &event.Flow{
		Conn: event.Conn{
			Local:     event.IPFrom(netip.MustParseAddr("10.0.0.1")),
			Remote:    event.IPFrom(netip.MustParseAddr("fd00::2")),
			LocalPort: 443, RemotePort: 50000, Protocol: event.TCP,
		},
		OpenedBy: event.OpenerRemote,
		Local:    &event.Identity{Namespace: "shop", Pod: "web-0", Node: "n1", Workload: event.Workload{Kind: "StatefulSet", Name: "web"}},
		Remote:   &event.Identity{Class: event.ClassExternal},
	}
}

func prefixes(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }

// cases name a field and whether it holds for flow().
var cases = []struct {
	name   string
	fields Fields
	holds  bool
}{
	{"namespace", Fields{Namespaces: []string{"x", "shop"}}, true},
	{"other namespace", Fields{Namespaces: []string{"x"}}, false},
	{"pod", Fields{Pods: []string{"web-0"}}, true},
	{"workload", Fields{Workloads: []string{"web"}}, true},
	{"workload with kind", Fields{Workloads: []string{"StatefulSet/web"}}, true},
	{"workload of another kind", Fields{Workloads: []string{"Deployment/web"}}, false},
	{"node", Fields{Nodes: []string{"n1"}}, true},
	{"other node", Fields{Nodes: []string{"n2"}}, false},
	{"protocol", Fields{Protocols: []event.Protocol{event.UDP, event.TCP}}, true},
	{"other protocol", Fields{Protocols: []event.Protocol{event.UDP}}, false},
	{"port of either end", Fields{Ports: []uint16{50000}}, true},
	{"source is the opener", Fields{SrcPorts: []uint16{50000}}, true},
	{"source is not the local end", Fields{SrcPorts: []uint16{443}}, false},
	{"destination", Fields{DstPorts: []uint16{443}}, true},
	{"ip of either end", Fields{IPs: prefixes("10.0.0.0/8")}, true},
	{"src ip", Fields{SrcIPs: prefixes("fd00::/64")}, true},
	{"src ip is not the local end", Fields{SrcIPs: prefixes("10.0.0.1/32")}, false},
	{"dst ip", Fields{DstIPs: prefixes("10.0.0.1/32")}, true},
	{"ingress", Fields{Directions: []event.Opener{event.OpenerRemote}}, true},
	{"egress", Fields{Directions: []event.Opener{event.OpenerLocal}}, false},
}

func TestIncludeAndExclude(t *testing.T) {
	for _, c := range cases {
		if got := (&Filter{Include: c.fields}).Match(flow()); got != c.holds {
			t.Errorf("include %s: %v", c.name, got)
		}
		if got := (&Filter{Exclude: c.fields}).Match(flow()); got == c.holds {
			t.Errorf("exclude %s: %v", c.name, got)
		}
	}
}

func TestFieldsCombine(t *testing.T) {
	if !(&Filter{}).Match(flow()) {
		t.Error("the zero filter must let everything through")
	}
	both := Fields{Protocols: []event.Protocol{event.TCP}, Ports: []uint16{80}}
	if (&Filter{Include: both}).Match(flow()) {
		t.Error("every field of include must hold")
	}
	if (&Filter{Exclude: both}).Match(flow()) {
		t.Error("one field of exclude is enough")
	}
	unknown := flow()
	unknown.OpenedBy = event.OpenerUnknown
	if !(&Filter{Include: Fields{SrcPorts: []uint16{443}, Directions: []event.Opener{event.OpenerLocal}}}).Match(unknown) {
		t.Error("where the opener is unknown, the local end counts as the source")
	}
	ping := flow()
	ping.Conn = event.Conn{Protocol: event.ICMP, Kind: event.ConnEchoOpenedLocal, LocalPort: 53}
	if (&Filter{Include: Fields{Ports: []uint16{53}}}).Match(ping) {
		t.Error("an echo id is not a port")
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	f := &Filter{
		Include: Fields{Namespaces: []string{"shop"}, IPs: prefixes("10.0.0.0/8"), Ports: []uint16{443}},
		Exclude: Fields{Pods: []string{"x"}, DstIPs: prefixes("fd00::/8")},
	}
	fl := flow()
	if n := testing.AllocsPerRun(100, func() { f.Match(fl) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
