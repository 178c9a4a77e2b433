// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/tls"
	"fmt"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/filter"
	"github.com/orb8/orb8/internal/l7/dns"
	"github.com/orb8/orb8/internal/store"
)

// maxGlobs bounds how many patterns a list may have: each is compared with each
// name, letter by letter.
const maxGlobs = 100

// Lookups reads which look-ups a client wants to see.
func Lookups(include, exclude *pb.DnsFilter) (filter.Lookups, error) {
	var r reader
	out := filter.Lookups{Include: r.lookups("include_dns: ", include), Exclude: r.lookups("exclude_dns: ", exclude)}
	if r.err != nil {
		return filter.Lookups{}, r.err
	}
	if len(out.Include.Roles) == 0 {
		out.Include.Roles = []event.Role{event.RoleClient}
	}
	return out, nil
}

// Roles reads which ends of look-ups are wanted; without any, who asked.
func Roles(sides []pb.DnsSide) ([]event.Role, error) {
	var r reader
	roles := list(&r, "sides", sides, role)
	if len(roles) == 0 {
		roles = []event.Role{event.RoleClient}
	}
	return roles, r.err
}

func (r *reader) lookups(name string, f *pb.DnsFilter) filter.LookupFields {
	if f.GetSlowerThanNs() < 0 && r.err == nil {
		r.err = fmt.Errorf("%sslower_than_ns: %d is no time", name, f.GetSlowerThanNs())
	}
	return filter.LookupFields{
		Names:      r.globs(name+"names", f.GetNames()),
		RCodes:     list(r, name+"rcodes", f.GetRcodes(), rcode),
		Types:      list(r, name+"types", f.GetTypes(), recordType),
		Roles:      list(r, name+"sides", f.GetSides(), role),
		SlowerThan: f.GetSlowerThanNs(),
	}
}

func (r *reader) globs(field string, patterns []string) []filter.Glob {
	if len(patterns) > maxGlobs && r.err == nil {
		r.err = fmt.Errorf("%s: %d patterns, the most is %d", field, len(patterns), maxGlobs)
	}
	return list(r, field, patterns, filter.NewGlob)
}

func rcode(s string) (event.RCode, error) {
	if r, ok := dns.RCodeNumber(s); ok {
		return r, nil
	}
	return 0, fmt.Errorf("%q is no response code (NOERROR, NXDOMAIN, SERVFAIL, REFUSED, TIMEOUT, ...)", s)
}

func recordType(s string) (uint16, error) {
	if t, ok := dns.TypeNumber(s); ok {
		return t, nil
	}
	return 0, fmt.Errorf("%q is no type of record (A, AAAA, SRV, TYPE65280, ...)", s)
}

func role(s pb.DnsSide) (event.Role, error) {
	switch s {
	case pb.DnsSide_DNS_SIDE_CLIENT:
		return event.RoleClient, nil
	case pb.DnsSide_DNS_SIDE_SERVER:
		return event.RoleServer, nil
	}
	return 0, fmt.Errorf("%d is no side of a look-up", s)
}

func side(r event.Role) pb.DnsSide {
	switch r {
	case event.RoleClient:
		return pb.DnsSide_DNS_SIDE_CLIENT
	case event.RoleServer:
		return pb.DnsSide_DNS_SIDE_SERVER
	}
	return pb.DnsSide_DNS_SIDE_UNSPECIFIED
}

// looked gives a look-up, and its connection as far as that tells who the ends are.
func (s *Source) looked(e *event.Event) *pb.Event {
	r := s.Flow(&e.Flow)
	r.Total, r.Health, r.FirstSeenNs, r.LastSeenNs, r.DurationNs, r.State = nil, nil, 0, 0, nil, ""
	return &pb.Event{Kind: pb.EventKind_EVENT_KIND_DNS, TimeNs: e.Time, Flow: r, Dns: lookup(e.Lookup)}
}

func lookup(l *event.Lookup) *pb.DnsLookup {
	m := &pb.DnsLookup{
		Name:          Text(l.Name),
		Type:          dns.TypeName(l.Type),
		Rcode:         dns.RCodeName(l.RCode),
		Side:          side(l.Role),
		AskedNs:       l.Asked,
		AnswerCount:   uint32(l.AnswerCount),
		Tries:         uint32(l.Tries),
		Tcp:           l.Conn.Protocol == event.TCP,
		Truncated:     l.Truncated,
		TcpRetry:      l.TCPRetry,
		Upstream:      l.Upstream,
		SearchMisses:  uint32(l.SearchMisses),
		SearchDomains: Texts(l.SearchDomains),
	}
	if l.Answered != 0 {
		m.LatencyNs = new(l.Latency())
	}
	for _, a := range l.Answers {
		data := Text(a.Target)
		if a.Addr.IsValid() {
			data = a.Addr.String()
		}
		m.Answers = append(m.Answers, &pb.DnsAnswer{Type: dns.TypeName(a.Type), Data: data, Ttl: a.TTL})
	}
	return m
}

// LookupRow gives the record of the look-ups of one client at one server.
func (s *Source) LookupRow(row *store.LookupRow) *pb.DnsRecord {
	r := &pb.DnsRecord{
		Node:             Text(s.Node),
		Side:             side(row.Role),
		Client:           asker(row.ClientIP, row.Client),
		Server:           asker(row.ServerIP, row.Server),
		Queries:          row.Queries,
		Lookups:          row.Lookups,
		Timeouts:         row.Timeouts,
		Rcodes:           map[string]uint64{},
		SearchMisses:     row.SearchMisses,
		Truncated:        row.Truncated,
		TcpRetries:       row.TCPRetries,
		QueriesPerSecond: row.PerSecond,
		Latency:          latencies(&row.Latency),
		Upstream:         latencies(&row.Upstream),
		FirstNs:          row.First,
		LastNs:           row.Last,
		SearchDomain:     Text(row.SearchDomain),
		SearchName:       Text(row.SearchName),
	}
	for code, n := range row.RCodes {
		r.Rcodes[dns.RCodeName(code)] += n
	}
	return r
}

// asker is an end of all look-ups of a pod, whichever of its containers it was.
func asker(ip event.IP, id *event.Identity) *pb.End {
	e := end(ip, id)
	if ip == (event.IP{}) {
		e.Ip = ""
	}
	if e.GetPod() != "" {
		e.Container, e.Process, e.Pid, e.Unit = "", "", 0, ""
	}
	return e
}

// latencies leaves out the buckets that are empty; it is nil when all are.
func latencies(l *event.Latencies) *pb.Latencies {
	if l.Count == 0 {
		return nil
	}
	m := &pb.Latencies{SumUs: l.Sum}
	for i, n := range l.Counts {
		if n > 0 {
			m.Buckets, m.Counts = append(m.Buckets, uint32(i)), append(m.Counts, uint64(n))
		}
	}
	return m
}

// hello is absent where it was not seen.
func hello(h *event.Hello) *pb.Tls {
	if h == nil {
		return nil
	}
	m := &pb.Tls{ServerName: Text(h.ServerName), Alpn: Texts(h.ALPN), Ech: h.ECH}
	if h.Version != 0 {
		m.Version = tls.VersionName(h.Version)
	}
	return m
}
