// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net/netip"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
)

// asks tells whether any field is set, the ends' own included.
func asks(f *pb.Filter) bool {
	f = proto.Clone(f).(*pb.Filter)
	f.ProtoReflect().SetUnknown(nil)
	for _, e := range []**pb.EndFilter{&f.From, &f.To} {
		if *e != nil {
			(*e).ProtoReflect().SetUnknown(nil)
			if proto.Size(*e) == 0 {
				*e = nil
			}
		}
	}
	return proto.Size(f) > 0
}

// Anybody may send a filter: it is refused, or it is bounded and can be asked
// about any flow.
func FuzzFilter(f *testing.F) {
	add := func(include, exclude *pb.Filter) {
		a, err1 := proto.Marshal(include)
		b, err2 := proto.Marshal(exclude)
		if err1 != nil || err2 != nil {
			f.Fatal(err1, err2)
		}
		f.Add(a, b)
	}
	add(&pb.Filter{}, &pb.Filter{Pods: []string{""}})
	add(&pb.Filter{Namespaces: []string{"a", "b"}, Protocols: []uint32{6, 255}, Ports: []uint32{0, 65535}}, &pb.Filter{Directions: []string{"egress"}})
	add(&pb.Filter{Ips: []string{"10.0.0.0/8", "fe80::1%eth0", "::ffff:1.2.3.4", "::/0"}}, &pb.Filter{SrcIps: []string{"1.2.3.4/33"}})
	add(&pb.Filter{Protocols: []uint32{256}}, &pb.Filter{DstPorts: []uint32{65536}})
	add(&pb.Filter{Labels: []string{"a=b", "c"}, Services: []string{"x/y"}}, &pb.Filter{From: &pb.EndFilter{Labels: []string{"a!=b"}, Nodes: []string{"n"}}})
	add(&pb.Filter{Labels: []string{"="}}, &pb.Filter{To: &pb.EndFilter{Labels: []string{"a in (b)"}, Pods: []string{"b"}}})
	flow := &event.Flow{
		Conn:  event.Conn{Local: event.IPFrom(netip.MustParseAddr("10.1.2.3")), Remote: event.IPFrom(netip.MustParseAddr("fd00::1")), LocalPort: 1, RemotePort: 2, Protocol: event.TCP},
		Local: &event.Identity{Namespace: "a", Pod: "b"}, Remote: &event.Identity{},
	}
	f.Fuzz(func(t *testing.T, include, exclude []byte) {
		var in, ex pb.Filter
		if proto.Unmarshal(include, &in) != nil || proto.Unmarshal(exclude, &ex) != nil {
			return
		}
		got, err := Filter(&in, &ex)
		if err != nil {
			if !got.Match(flow) {
				t.Errorf("a filter that was refused leaves out: %+v", got)
			}
			return
		}
		for sent, kept := range map[*pb.Filter]int{&in: len(got.Include.IPs), &ex: len(got.Exclude.IPs)} {
			if kept != len(sent.GetIps()) || kept > maxValues {
				t.Errorf("%d prefixes of %d", kept, len(sent.GetIps()))
			}
		}
		for _, p := range append(append(got.Include.IPs, got.Include.SrcIPs...), got.Exclude.DstIPs...) {
			if !p.IsValid() || p.Addr().Zone() != "" {
				t.Errorf("prefix %v", p)
			}
		}
		got.Match(flow)
		// What is let through is not left out by the same filter.
		if same, err := Filter(&in, &in); err == nil && asks(&in) && same.Match(flow) {
			t.Errorf("let through and left out by %v", &in)
		}
	})
}
