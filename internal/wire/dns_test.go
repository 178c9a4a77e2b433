// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/store"
)

func asked() *event.Lookup {
	return &event.Lookup{
		Conn: event.Conn{Local: ip("10.1.0.5"), Remote: ip("10.96.0.10"), LocalPort: 40000, RemotePort: 53, Protocol: event.TCP, Netns: 7},
		Role: event.RoleClient, Name: "s3.amazonaws.com", Type: 28, RCode: 3, Asked: 100, Answered: 350, Tries: 2, AnswerCount: 3, TCPRetry: true,
		Answers: []event.Answer{
			{Type: 5, TTL: 60, Target: "s3-w.amazonaws.com"}, {Type: 28, TTL: 5, Addr: netip.MustParseAddr("2001:db8::1")}, {Type: 16, TTL: 1},
		},
		SearchMisses: 2, SearchDomains: []string{"shop.svc.cluster.local", "a\xff"},
	}
}

func TestLookupEvent(t *testing.T) {
	s := Source{Node: "n1"}
	l := asked()
	e := &event.Event{Kind: event.KindDNS, Time: 350, Lookup: l, Flow: event.Flow{
		Conn: l.Conn, Local: &event.Identity{Namespace: "shop", Pod: "web-0", Class: event.ClassPod}, Remote: &event.Identity{Service: "kube-system/kube-dns", Class: event.ClassService},
		Last: 9, State: event.StateEstablished,
	}}
	m := s.Event(e)
	if m.Kind != pb.EventKind_EVENT_KIND_DNS || m.TimeNs != 350 || m.Flow.Local.Pod != "web-0" || m.Flow.Remote.Service != "kube-system/kube-dns" ||
		m.Flow.Remote.Port != 53 || m.Flow.Protocol != 6 || m.Flow.Total != nil || m.Flow.State != "" || m.Flow.LastSeenNs != 0 {
		t.Errorf("event %v", m)
	}
	d := m.Dns
	if d.Name != "s3.amazonaws.com" || d.Type != "AAAA" || d.Rcode != "NXDOMAIN" || d.Side != pb.DnsSide_DNS_SIDE_CLIENT || d.AskedNs != 100 || d.LatencyNs == nil || *d.LatencyNs != 250 ||
		d.Tries != 2 || !d.Tcp || !d.TcpRetry || d.Truncated || d.AnswerCount != 3 || d.SearchMisses != 2 || d.SearchDomains[1] != "a\uFFFD" {
		t.Errorf("look-up %v", d)
	}
	var answers []string
	for _, a := range d.Answers {
		answers = append(answers, a.Type+" "+a.Data)
	}
	if want := []string{"CNAME s3-w.amazonaws.com", "AAAA 2001:db8::1", "TXT "}; !slices.Equal(answers, want) {
		t.Errorf("answers %q", answers)
	}
	l.Answered, l.RCode, l.Role = 0, event.RCodeTimeout, event.RoleServer
	if d = s.Event(e).Dns; d.LatencyNs != nil || d.Rcode != "TIMEOUT" || d.Side != pb.DnsSide_DNS_SIDE_SERVER {
		t.Errorf("without an answer: %v", d)
	}
}

func TestLookupRow(t *testing.T) {
	s := Source{Node: "n1"}
	row := &store.LookupRow{
		Role: event.RoleServer, Client: &event.Identity{Namespace: "shop", Pod: "web-0", Container: "main", Process: "curl", PID: 9, Class: event.ClassPod}, ClientIP: ip("10.1.0.5"),
		Queries: 10, Lookups: 9, Timeouts: 1, RCodes: map[event.RCode]uint64{0: 5, 3: 2, 4000: 1}, PerSecond: 1.5, First: 1, Last: 2, SearchDomain: "d", SearchName: "n",
	}
	row.Upstream.Add(20e6)
	row.Upstream.Add(20e6)
	row.Upstream.Add(3e3)
	r := s.LookupRow(row)
	if r.Node != "n1" || r.Side != pb.DnsSide_DNS_SIDE_SERVER || r.Client.Pod != "web-0" || r.Client.Container != "" || r.Client.Pid != 0 || r.Client.Ip != "10.1.0.5" ||
		r.Server.Class != "unknown" || r.Server.Ip != "" || r.Rcodes["NOERROR"] != 5 || r.Rcodes["RCODE4000"] != 1 || r.QueriesPerSecond != 1.5 || r.Latency != nil {
		t.Errorf("row %v", r)
	}
	if u := r.Upstream; !slices.Equal(u.Buckets, []uint32{3, uint32(event.LatencyBucket(20e6))}) || !slices.Equal(u.Counts, []uint64{1, 2}) || u.SumUs != 40_003 {
		t.Errorf("latencies %v", r.Upstream)
	}
}

func TestHello(t *testing.T) {
	s := Source{}
	f := &event.Flow{TLS: &event.Hello{ServerName: "a\xff", ALPN: []string{"h2"}, Version: 0x0304, ECH: true}, Remote: &event.Identity{FQDN: "a.example.com", FQDNSource: event.NameSNI}}
	r := s.Flow(f)
	if r.Tls.GetServerName() != "a\uFFFD" || r.Tls.GetVersion() != "TLS 1.3" || !r.Tls.GetEch() || r.Tls.GetAlpn()[0] != "h2" || r.Remote.Fqdn != "a.example.com" || r.Remote.FqdnSource != "sni" {
		t.Errorf("record %v", r)
	}
	if r := s.Flow(&event.Flow{}); r.Tls != nil {
		t.Errorf("nothing was said: %v", r.Tls)
	}
	if v := s.Flow(&event.Flow{TLS: &event.Hello{}}).Tls.GetVersion(); v != "" {
		t.Errorf("version %q", v)
	}
}

func TestLookupFilters(t *testing.T) {
	f, err := Lookups(nil, nil)
	if err != nil || !f.Match(asked()) {
		t.Errorf("everything that clients ask: %v", err)
	}
	server := asked()
	server.Role = event.RoleServer
	if f.Match(server) {
		t.Error("what servers answered is asked for by name")
	}
	f, err = Lookups(&pb.DnsFilter{
		Names: []string{"*.AmazonAWS.com"}, Rcodes: []string{"nxdomain", "TIMEOUT"}, Types: []string{"aaaa"}, SlowerThanNs: 249,
		Sides: []pb.DnsSide{pb.DnsSide_DNS_SIDE_CLIENT, pb.DnsSide_DNS_SIDE_SERVER},
	}, &pb.DnsFilter{Names: []string{"x"}})
	if err != nil || !f.Match(asked()) || !f.Match(server) {
		t.Errorf("%+v, %v", f, err)
	}
	for want, bad := range map[string][2]*pb.DnsFilter{
		`include_dns: rcodes: "NXDOMAN"`:        {{Rcodes: []string{"NXDOMAN"}}, nil},
		`exclude_dns: types: "B"`:               {nil, {Types: []string{"B"}}},
		"include_dns: names: a pattern is":      {{Names: []string{""}}, nil},
		"include_dns: slower_than_ns: -1":       {{SlowerThanNs: -1}, nil},
		"include_dns: sides: 7":                 {{Sides: []pb.DnsSide{7}}, nil},
		"exclude_dns: names: 101 patterns, the": {nil, {Names: make([]string, 101)}},
		"exclude_dns: rcodes: 1001 values, the": {nil, {Rcodes: make([]string, 1001)}},
	} {
		if got, err := Lookups(bad[0], bad[1]); err == nil || !strings.HasPrefix(err.Error(), want) || len(got.Include.Names) != 0 {
			t.Errorf("%q: %v", want, err)
		}
	}
	if _, err := Pods(&pb.EndFilter{Fqdns: []string{"*"}}, nil); err == nil {
		t.Error("a pod has no name outside")
	}
	if _, err := Filter(&pb.Filter{To: &pb.EndFilter{Fqdns: []string{""}}}, nil); err == nil || err.Error() != "include: to: fqdns: a pattern is empty (as *.example.com; * is any characters, ? is one)" {
		t.Error(err)
	}
	if roles, err := Roles(nil); err != nil || !slices.Equal(roles, []event.Role{event.RoleClient}) {
		t.Error(roles, err)
	}
}

// Anybody may send a filter: it is refused, or it is bounded and can be asked.
func FuzzLookups(f *testing.F) {
	for _, d := range []*pb.DnsFilter{{}, {Names: []string{"*.a", ""}, Rcodes: []string{"RCODE4095"}, Types: []string{"TYPE65535"}, SlowerThanNs: 1}, {Sides: []pb.DnsSide{1, 2, 3}}} {
		b, err := proto.Marshal(d)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, b)
	}
	f.Fuzz(func(t *testing.T, include, exclude []byte) {
		var in, ex pb.DnsFilter
		if proto.Unmarshal(include, &in) != nil || proto.Unmarshal(exclude, &ex) != nil {
			return
		}
		got, err := Lookups(&in, &ex)
		if err != nil {
			return
		}
		if len(got.Include.Names) > maxGlobs || len(got.Exclude.RCodes) > maxValues {
			t.Errorf("%d names, %d codes", len(got.Include.Names), len(got.Exclude.RCodes))
		}
		got.Match(asked())
		ex.ProtoReflect().SetUnknown(nil)
		// What is let through is not left out by the same filter.
		if same, err := Lookups(&ex, &ex); err == nil && proto.Size(&ex) > 0 && same.Match(asked()) {
			t.Errorf("let through and left out by %v", &ex)
		}
	})
}
