// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/store"
)

func TestDns(t *testing.T) {
	n := newFakeNode()
	n.lookups = Lookups{
		LookupAnswer: store.LookupAnswer{
			Rows: []store.LookupRow{
				{Role: event.RoleClient, Client: &event.Identity{Pod: "web-0"}, Queries: 3},
				{Role: event.RoleClient, Client: &event.Identity{Pod: "web-1"}, Queries: 2},
			},
			Matched: 2, Known: 5,
		},
		Start: time.Unix(100, 0), End: time.Unix(200, 0), Losses: []event.Loss{{Stage: "dns", Count: 2}},
	}
	c := pb.NewObserverClient(dial(t, n))
	for _, q := range []struct {
		sides []pb.DnsSide
		asked []event.Role
	}{
		{nil, []event.Role{event.RoleClient}},
		{[]pb.DnsSide{pb.DnsSide_DNS_SIDE_SERVER}, []event.Role{event.RoleServer}},
	} {
		stream, err := c.Dns(t.Context(), &pb.DnsRequest{Sides: q.sides, Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if d := m.GetDns(); d.GetClient().GetPod() != "web-0" || d.GetQueries() != 3 || d.GetNode() != "n1" {
			t.Errorf("row %v", d)
		}
		if m, err = stream.Recv(); err != nil {
			t.Fatal(err)
		}
		if s := m.GetSummary(); s.GetMatched() != 2 || s.GetKnown() != 5 || s.GetStartNs() != 100e9 || s.GetEndNs() != 200e9 || len(s.GetNodes()) != 1 || len(s.GetLosses()) != 1 {
			t.Errorf("summary %v", s)
		}
		if !slices.Equal(n.askedLookups, q.asked) {
			t.Errorf("asked for %v", n.askedLookups)
		}
	}
	for _, bad := range []*pb.DnsRequest{{Sides: []pb.DnsSide{7}}, {Include: &pb.Filter{Fqdns: []string{""}}}, {Include: &pb.Filter{Labels: []string{"other"}}}} {
		stream, err := c.Dns(t.Context(), bad)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// Nothing asked, and nothing known of what is asked, are two answers.
func TestLookupsThatAreNotTold(t *testing.T) {
	c := pb.NewObserverClient(dial(t, newFakeNode()))
	stream, err := c.Dns(t.Context(), &pb.DnsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = stream.Recv(); status.Code(err) != codes.FailedPrecondition {
		t.Error(err)
	}
	for _, q := range []struct {
		kinds []pb.EventKind
		want  codes.Code
	}{
		{[]pb.EventKind{pb.EventKind_EVENT_KIND_DNS}, codes.FailedPrecondition},
		{[]pb.EventKind{pb.EventKind_EVENT_KIND_DNS, pb.EventKind_EVENT_KIND_DROP}, codes.FailedPrecondition},
		{[]pb.EventKind{pb.EventKind_EVENT_KIND_DNS, pb.EventKind_EVENT_KIND_OPENED}, codes.OK},
	} {
		events, err := c.Events(t.Context(), &pb.EventsRequest{Kinds: q.kinds})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = events.Recv(); status.Code(err) != q.want {
			t.Errorf("%v: %v", q.kinds, err)
		}
	}
}

// Who follows look-ups is sent those that pass both filters, and who does not
// follow them is sent none.
func TestLookupEvents(t *testing.T) {
	n := newFakeNode()
	n.feed = store.NewFeed(store.FeedConfig{})
	n.lookups.Start = time.Unix(100, 0)
	c := pb.NewObserverClient(dial(t, n))
	follow := func(q *pb.EventsRequest) func() *pb.Event {
		stream, err := c.Events(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil { // it listens
			t.Fatal(err)
		}
		return func() *pb.Event {
			m, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			return m.GetEvent()
		}
	}
	dns := []pb.EventKind{pb.EventKind_EVENT_KIND_DNS}
	named := follow(&pb.EventsRequest{Kinds: dns, IncludeDns: &pb.DnsFilter{Names: []string{"*.EXAMPLE.com"}}, ExcludeDns: &pb.DnsFilter{Rcodes: []string{"SERVFAIL"}}})
	served := follow(&pb.EventsRequest{Kinds: dns, IncludeDns: &pb.DnsFilter{Sides: []pb.DnsSide{pb.DnsSide_DNS_SIDE_SERVER}}})
	all := follow(&pb.EventsRequest{})
	others := follow(&pb.EventsRequest{Kinds: []pb.EventKind{pb.EventKind_EVENT_KIND_OPENED}, IncludeDns: &pb.DnsFilter{Names: []string{"nothing"}}})

	f := *n.apply(delta(40000))
	for _, l := range []*event.Lookup{
		{Role: event.RoleClient, Name: "other.org", Asked: 1, Answered: 2},
		{Role: event.RoleClient, Name: "a.example.com", Asked: 1, Answered: 2, RCode: 2},
		{Role: event.RoleServer, Name: "b.example.com", Asked: 1, Answered: 2},
		{Role: event.RoleClient, Name: "c.example.com", Asked: 1, Answered: 7},
	} {
		n.publish(1<<event.KindDNS, &event.Event{Flow: f, Lookup: l}, 1)
	}
	n.publish(1<<event.KindOpened, &event.Event{Flow: f}, 1)

	if e := named(); e.GetDns().GetName() != "c.example.com" || e.GetTimeNs() != 7 || e.GetKind() != pb.EventKind_EVENT_KIND_DNS || e.GetFlow().GetLocal().GetPort() != 40000 {
		t.Errorf("by name: %v", e)
	}
	if e := served(); e.GetDns().GetName() != "b.example.com" {
		t.Errorf("what a server answered: %v", e)
	}
	for _, want := range []string{"other.org", "a.example.com", "c.example.com", ""} {
		if e := all(); e.GetDns().GetName() != want {
			t.Errorf("all: %v, want %q", e, want)
		}
	}
	if e := others(); e.GetKind() != pb.EventKind_EVENT_KIND_OPENED {
		t.Errorf("connections: %v", e)
	}
	stream, err := c.Events(t.Context(), &pb.EventsRequest{Kinds: dns, IncludeDns: &pb.DnsFilter{Rcodes: []string{"NXDOMAN"}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
}
