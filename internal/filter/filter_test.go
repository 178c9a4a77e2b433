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
		Local: &event.Identity{
			Namespace: "shop", Pod: "web-0", Node: "n1", Workload: event.Workload{Kind: "StatefulSet", Name: "web"},
			Labels: map[string]string{"app": "web", "canary": ""}, Service: "shop/front",
		},
		Remote: &event.Identity{Class: event.ClassExternal},
		NAT: &event.Translation{
			Local: event.IPFrom(netip.MustParseAddr("172.16.0.9")), LocalPort: 8443,
			Remote: event.IPFrom(netip.MustParseAddr("fd00::2")), RemotePort: 50000,
		},
	}
}

func labels(l Label) []Label { return []Label{{Key: "none"}, l} }

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
	{"pod with namespace", Fields{Pods: []string{"shop/web-0"}}, true},
	{"pod of another namespace", Fields{Pods: []string{"x/web-0", "Shop/web-0", "web-0/shop", "shop", "shop/"}}, false},
	{"workload", Fields{Workloads: []string{"web"}}, true},
	{"workload with kind in other letters", Fields{Workloads: []string{"statefulset/web"}}, true},
	{"workload whose name is in other letters", Fields{Workloads: []string{"StatefulSet/Web", "Web"}}, false},
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
	{"translated port", Fields{Ports: []uint16{8443}}, true},
	{"translated destination port", Fields{DstPorts: []uint16{8443}}, true},
	{"translated port is not the source's", Fields{SrcPorts: []uint16{8443}}, false},
	{"translated ip", Fields{IPs: prefixes("172.16.0.0/12")}, true},
	{"translated destination ip", Fields{DstIPs: prefixes("172.16.0.9/32")}, true},
	{"translated ip is not the source's", Fields{SrcIPs: prefixes("172.16.0.9/32")}, false},
	{"label", Fields{Labels: labels(Label{Key: "app", Value: "web", Wanted: LabelSame})}, true},
	{"label with another value", Fields{Labels: labels(Label{Key: "app", Value: "db", Wanted: LabelSame})}, false},
	{"empty label", Fields{Labels: labels(Label{Key: "canary", Wanted: LabelSame})}, true},
	{"label that is not there", Fields{Labels: labels(Label{Key: "team", Wanted: LabelSame})}, false},
	{"label that is there", Fields{Labels: labels(Label{Key: "canary"})}, true},
	{"label that is not there at all", Fields{Labels: labels(Label{Key: "team"})}, false},
	{"label with a value that is not", Fields{Labels: labels(Label{Key: "app", Value: "db", Wanted: LabelOther})}, true},
	{"label without it", Fields{Labels: labels(Label{Key: "team", Value: "db", Wanted: LabelOther})}, true},
	{"label with a value that is", Fields{Labels: labels(Label{Key: "app", Value: "web", Wanted: LabelOther})}, false},
	{"service", Fields{Services: []string{"front"}}, true},
	{"service with namespace", Fields{Services: []string{"x/front", "shop/front"}}, true},
	{"service of another namespace", Fields{Services: []string{"x/front"}}, false},
	{"service by its namespace", Fields{Services: []string{"shop"}}, false},
	{"no service", Fields{Services: []string{""}}, false},
	{"to", Fields{To: End{Namespaces: []string{"shop"}, Pods: []string{"web-0"}, Workloads: []string{"web"}, Nodes: []string{"n1"}, Services: []string{"front"}}}, true},
	{"to a pod with namespace", Fields{To: End{Pods: []string{"shop/web-0"}}}, true},
	{"from a pod with namespace", Fields{From: End{Pods: []string{"shop/web-0"}}}, false},
	{"to a workload with kind", Fields{To: End{Workloads: []string{"statefulSet/web"}}}, true},
	{"to a label", Fields{To: End{Labels: labels(Label{Key: "app"})}}, true},
	{"from is the opener", Fields{From: End{Namespaces: []string{"shop"}}}, false},
	{"what is no pod has no labels", Fields{From: End{Labels: labels(Label{Key: "app", Value: "db", Wanted: LabelOther})}}, false},
	{"to another node", Fields{To: End{Nodes: []string{"n2"}}}, false},
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

func TestServiceThatIsNotKnown(t *testing.T) {
	const unknown = "unknown (socket LB)"
	f := flow()
	for _, id := range []*event.Identity{f.Local, f.Remote} {
		id.Service = ""
	}
	match := func() bool { return (&Filter{Include: Fields{Services: []string{unknown}}}).Match(f) }
	if match() {
		t.Error("there is none")
	}
	if f.Remote.Service = unknown; !match() {
		t.Error("not found by what is known")
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

// TestExcludeOfTwoEndFields: one is enough, as of all others.
func TestExcludeOfTwoEndFields(t *testing.T) {
	if (&Filter{Exclude: Fields{To: End{Pods: []string{"web-0"}, Nodes: []string{"n9"}}}}).Match(flow()) {
		t.Error("one field of exclude is enough")
	}
	if (&Filter{Include: Fields{To: End{Pods: []string{"web-0"}, Nodes: []string{"n9"}}}}).Match(flow()) {
		t.Error("every field of include must hold")
	}
}

func TestPods(t *testing.T) {
	pod := flow().Local
	for name, c := range map[string]struct {
		f    Pods
		want bool
	}{
		"all":       {Pods{}, true},
		"namespace": {Pods{Include: End{Namespaces: []string{"shop"}}}, true},
		"both":      {Pods{Include: End{Namespaces: []string{"shop"}, Nodes: []string{"n2"}}}, false},
		"qualified": {Pods{Include: End{Pods: []string{"shop/web-0"}, Workloads: []string{"statefulset/web"}}}, true},
		"elsewhere": {Pods{Include: End{Pods: []string{"x/web-0"}}}, false},
		"left out":  {Pods{Exclude: End{Pods: []string{"web-0"}, Nodes: []string{"n2"}}}, false},
	} {
		if got := c.f.Match(pod); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// full asks about everything, and lets flow() through.
func full() *Filter {
	return &Filter{
		Include: Fields{
			Namespaces: []string{"shop"}, IPs: prefixes("10.0.0.0/8"), Ports: []uint16{443}, Services: []string{"shop/front"},
			Workloads: []string{"StatefulSet/web"}, Labels: labels(Label{Key: "app", Value: "web", Wanted: LabelSame}),
			To: End{Labels: labels(Label{Key: "app"}), Services: []string{"front"}, Workloads: []string{"StatefulSet/web"}},
		},
		Exclude: Fields{Pods: []string{"shop/x"}, DstIPs: prefixes("fd00::/8"), From: End{Nodes: []string{"n1"}}},
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	f, fl := full(), flow()
	if !f.Match(fl) {
		t.Error("the filter must ask about everything")
	}
	if n := testing.AllocsPerRun(100, func() { f.Match(fl) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkMatch(b *testing.B) {
	fl := flow()
	for name, f := range map[string]*Filter{
		"everything": full(),
		"nothing":    {},
		"namespace":  {Include: Fields{Namespaces: []string{"shop"}}},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f.Match(fl)
			}
		})
	}
}
