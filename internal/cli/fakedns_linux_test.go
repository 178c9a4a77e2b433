// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"path"
	"slices"

	"google.golang.org/grpc"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

const millisecond = second / 1000

// Ends of look-ups: a Service with who serves it, the same seen from its node, a
// server outside, pods that ask, and a process with a name of its own making.
func kubeDNS() *orb8v1.End {
	return &orb8v1.End{Ip: "10.96.0.10", Namespace: "kube-system", Pod: "coredns-7db6d8ff4d-2xq8r", PodUid: "u-dns", Node: "gpu-1", Class: "pod", Service: "kube-system/kube-dns"}
}

func coreDNS() *orb8v1.End {
	return &orb8v1.End{Ip: "10.244.0.3", Namespace: "kube-system", Pod: "coredns-7db6d8ff4d-2xq8r", PodUid: "u-dns", Node: "gpu-1", Class: "pod"}
}

func outsideDNS() *orb8v1.End { return &orb8v1.End{Ip: "192.0.2.53", Class: "external"} }

func podEnd(ip, name, uid string) *orb8v1.End {
	return &orb8v1.End{Ip: ip, Namespace: "shop", Pod: name, PodUid: uid, Node: "gpu-1", Class: "pod", Workload: &orb8v1.Workload{Kind: "Deployment", Name: "web"}}
}

func web() *orb8v1.End  { return podEnd("10.244.0.5", "web-7f9c-x2x7q", "u-web") }
func cart() *orb8v1.End { return podEnd("10.244.0.6", "cart-0", "u-cart") }

func evil() *orb8v1.End {
	return &orb8v1.End{Ip: "127.0.0.1", Process: hostile, Pid: 666, Node: "gpu-1", Class: "host"}
}

// spread is a histogram: so many in each of some buckets.
func spread(of ...uint32) *orb8v1.Latencies {
	l := &orb8v1.Latencies{}
	for i, n := range of {
		if n > 0 {
			l.Buckets, l.Counts = append(l.Buckets, uint32(60+10*i)), append(l.Counts, uint64(n))
			l.SumUs += uint64(n) << (6 + i)
		}
	}
	return l
}

// resolving is an agent whose pods ask the DNS: one for names that only its search
// list made up, one a server that does not answer; and on whose node is a server.
func resolving() *fake {
	f := healthy()
	asked := func(client, server *orb8v1.End, r *orb8v1.DnsRecord) {
		r.Node, r.Client, r.Server = "gpu-1", client, server
		if r.Side == 0 {
			r.Side = orb8v1.DnsSide_DNS_SIDE_CLIENT
		}
		r.FirstNs, r.LastNs = noon-3600*second, noon
		f.dns = append(f.dns, r)
	}
	asked(web(), kubeDNS(), &orb8v1.DnsRecord{
		Queries: 12_000, Lookups: 11_998, Timeouts: 2, Rcodes: map[string]uint64{"NOERROR": 2896, "NXDOMAIN": 9100}, SearchMisses: 9000,
		QueriesPerSecond: 3.25, Latency: spread(11_000, 900, 96), SearchDomain: "shop.svc.cluster.local", SearchName: "api.example.com", Truncated: 3, TcpRetries: 3,
	})
	asked(cart(), kubeDNS(), &orb8v1.DnsRecord{
		Queries: 500, Lookups: 500, Rcodes: map[string]uint64{"NOERROR": 490, "SERVFAIL": 7, "REFUSED": 2, "RCODE4095": 1}, QueriesPerSecond: 0.1, Latency: spread(0, 0, 500),
	})
	asked(cart(), outsideDNS(), &orb8v1.DnsRecord{Queries: 120, Lookups: 60, Timeouts: 40, Rcodes: map[string]uint64{"NOERROR": 20}, Latency: spread(0, 0, 0, 20)})
	asked(evil(), &orb8v1.End{Ip: "127.0.0.53", Process: hostile, Class: "host", Node: "gpu-1"}, &orb8v1.DnsRecord{
		Queries: 110, Lookups: 110, Rcodes: map[string]uint64{hostile: 110}, SearchMisses: 105, SearchDomain: hostile, SearchName: hostile,
		Latency: &orb8v1.Latencies{Buckets: []uint32{1 << 31, 0, 7}, Counts: []uint64{1 << 63, 1 << 63}},
	})
	asked(web(), coreDNS(), &orb8v1.DnsRecord{
		Side: orb8v1.DnsSide_DNS_SIDE_SERVER, Queries: 12_000, Lookups: 11_998, Rcodes: map[string]uint64{"NOERROR": 2896, "NXDOMAIN": 9102},
		QueriesPerSecond: 200.4, Latency: spread(11_900), Upstream: spread(0, 0, 0, 98),
	})
	f.events = append(f.events, lookups()...)
	return f
}

// lookups are events: answered, not there, cut, asked again by TCP, never answered,
// hostile, and what a server asked somebody else for.
func lookups() []*orb8v1.EventsResponse {
	at := func(client, server *orb8v1.End, l *orb8v1.DnsLookup) *orb8v1.EventsResponse {
		client.Port, server.Port = 40123, 53
		f := &orb8v1.FlowRecord{
			ConnectionId: 0xd45, Node: "gpu-1", Tap: &orb8v1.Tap{Netns: 4026532777, Ifindex: 2, Interface: "eth0", Namespace: "cni-1234"},
			Protocol: 17, OpenedBy: orb8v1.Opener_OPENER_LOCAL, Local: client, Remote: server,
		}
		if l.Tcp {
			f.Protocol = 6
		}
		if l.Side == orb8v1.DnsSide_DNS_SIDE_SERVER {
			f.Local, f.Remote, f.OpenedBy = server, client, orb8v1.Opener_OPENER_REMOTE
		} else {
			l.Side = orb8v1.DnsSide_DNS_SIDE_CLIENT
		}
		l.AskedNs = noon
		l.Tries = max(l.Tries, 1)
		return &orb8v1.EventsResponse{Message: &orb8v1.EventsResponse_Event{
			Event: &orb8v1.Event{Kind: orb8v1.EventKind_EVENT_KIND_DNS, TimeNs: noon + l.GetLatencyNs(), Flow: f, Dns: l},
		}}
	}
	return []*orb8v1.EventsResponse{
		at(web(), kubeDNS(), &orb8v1.DnsLookup{
			Name: "s3.eu-central-1.amazonaws.com", Type: "A", Rcode: "NOERROR", LatencyNs: new(12*millisecond + 345_678), AnswerCount: 20, SearchMisses: 3,
			SearchDomains: []string{"shop.svc.cluster.local", "svc.cluster.local", "cluster.local"},
			Answers:       []*orb8v1.DnsAnswer{{Type: "CNAME", Data: "s3-r-w.eu-central-1.amazonaws.com", Ttl: 60}, {Type: "A", Data: "203.0.113.9", Ttl: 5}},
		}),
		at(web(), kubeDNS(), &orb8v1.DnsLookup{Name: "api.example.com.shop.svc.cluster.local", Type: "AAAA", Rcode: "NXDOMAIN", LatencyNs: new(321_000 * int64(1))}),
		at(cart(), outsideDNS(), &orb8v1.DnsLookup{Name: "db.example.com", Type: "SRV", Rcode: "TIMEOUT", Tries: 3}),
		at(cart(), kubeDNS(), &orb8v1.DnsLookup{Name: "big.example.com", Type: "TXT", Rcode: "NOERROR", LatencyNs: new(2 * millisecond), Truncated: true}),
		at(cart(), kubeDNS(), &orb8v1.DnsLookup{
			Name: "big.example.com", Type: "TXT", Rcode: "NOERROR", LatencyNs: new(3 * millisecond), Tcp: true, TcpRetry: true, AnswerCount: 1, Answers: []*orb8v1.DnsAnswer{{Type: "TXT", Ttl: 30}},
		}),
		at(evil(), outsideDNS(), &orb8v1.DnsLookup{
			Name: hostile, Type: hostile, Rcode: hostile, LatencyNs: new(int64(-5)), AnswerCount: 1, SearchDomains: []string{hostile}, Answers: []*orb8v1.DnsAnswer{{Type: hostile, Data: hostile}},
		}),
		at(web(), coreDNS(), &orb8v1.DnsLookup{
			Side: orb8v1.DnsSide_DNS_SIDE_SERVER, Name: "s3.eu-central-1.amazonaws.com", Type: "A", Rcode: "NOERROR", LatencyNs: new(12 * millisecond), Upstream: true,
			AnswerCount: 1, Answers: []*orb8v1.DnsAnswer{{Type: "A", Data: "203.0.113.9", Ttl: 5}},
		}),
	}
}

func (f *fake) Dns(q *orb8v1.DnsRequest, stream grpc.ServerStreamingServer[orb8v1.DnsResponse]) error {
	s := &orb8v1.DnsSummary{Nodes: f.summary.GetNodes(), StartNs: noon - 3600*second, EndNs: noon}
	if len(f.dns) > 0 {
		s.Losses = []*orb8v1.Loss{{Stage: "dns", Count: 5, Hint: "no room"}}
	}
	for _, r := range f.dns {
		if !slices.Contains(q.GetSides(), r.GetSide()) {
			continue
		}
		s.Known++
		n := q.GetInclude().GetPods()
		if len(n) > 0 && !slices.Contains(n, r.GetClient().GetPod()) && !slices.Contains(n, r.GetServer().GetPod()) {
			continue
		}
		if s.Matched++; s.Matched > uint64(q.GetLimit()) {
			continue
		}
		if err := stream.Send(&orb8v1.DnsResponse{Message: &orb8v1.DnsResponse_Dns{Dns: r}}); err != nil {
			return err
		}
	}
	return stream.Send(&orb8v1.DnsResponse{Message: &orb8v1.DnsResponse_Summary{Summary: s}})
}

// passes tells whether a look-up is asked for, as an agent would.
func passes(q *orb8v1.EventsRequest, l *orb8v1.DnsLookup) bool {
	in, ex := q.GetIncludeDns(), q.GetExcludeDns()
	named := func(patterns []string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { ok, _ := path.Match(p, l.GetName()); return ok })
	}
	return slices.Contains(in.GetSides(), l.GetSide()) &&
		(len(in.GetNames()) == 0 || named(in.GetNames())) && !named(ex.GetNames()) &&
		(len(in.GetRcodes()) == 0 || slices.Contains(in.GetRcodes(), l.GetRcode())) && !slices.Contains(ex.GetRcodes(), l.GetRcode()) &&
		(len(in.GetTypes()) == 0 || slices.Contains(in.GetTypes(), l.GetType())) && !slices.Contains(ex.GetTypes(), l.GetType()) &&
		(in.GetSlowerThanNs() == 0 || l.LatencyNs == nil || l.GetLatencyNs() > in.GetSlowerThanNs())
}

// named has remote ends outside by names: plain ones, and some that would pass for
// something else.
func named() *fake {
	f := healthy()
	f.flows = nil
	for i, n := range [][2]string{
		{"s3.eu-central-1.amazonaws.com", "dns"},
		{"storage", "cidr"},
		{"kube-system/coredns", "sni"},
		{"10.0.0.1", "dns"},
		{"apiserver", "dns"},
		{hostile, "sni"},
		{"a-very-long-name-of-an-end-that-does-not-end.with-labels.of-sixty.characters-and-more.example.com", "dns"},
	} {
		r := &orb8v1.FlowRecord{
			ConnectionId: uint64(i + 1), Node: "gpu-1", Tap: &orb8v1.Tap{Netns: 4026532777, Ifindex: 2, Interface: "eth0"},
			Protocol: 6, OpenedBy: orb8v1.Opener_OPENER_LOCAL, Local: web(), Remote: &orb8v1.End{Ip: "203.0.113.9", Port: 443, Class: "external", Fqdn: n[0], FqdnSource: n[1]},
			Total: &orb8v1.Traffic{TxBytes: 100, TxPackets: 1}, FirstSeenNs: noon, LastSeenNs: noon, State: "established",
		}
		r.Local.Port = 40000
		if n[1] == "sni" {
			r.Tls = &orb8v1.Tls{ServerName: n[0], Alpn: []string{n[0]}, Version: "TLS 1.2", Ech: true}
		}
		f.flows = append(f.flows, flow(r))
	}
	f.summary.MatchedFlows = uint64(len(f.flows))
	return f
}
