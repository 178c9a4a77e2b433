// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// DNSView is which rows a table has, and so which columns.
type DNSView struct {
	// A row is a server, with all of its clients.
	ByServer bool
	// What servers answered, and not what clients asked.
	OfServers bool
}

// DNSRow is all look-ups of one client at one server, or of so many clients.
type DNSRow struct {
	*orb8v1.DnsRecord
	Clients uint64
}

// DNSTable shows what was asked of the DNS, and how it was answered.
type DNSTable struct {
	table   *Table
	columns []dnsColumn
	style   Style
}

type dnsColumn struct {
	// not: where it is not shown.
	not  dnsView
	wide bool
	column
	cell func(Style, DNSRow) cell
}

type dnsView uint8

const (
	byClient dnsView = 1 << iota
	byServer
	ofClients
	ofServers
)

func (v DNSView) bits() (b dnsView) {
	b = byClient | ofClients
	if v.ByServer {
		b = b&^byClient | byServer
	}
	if v.OfServers {
		b = b&^ofClients | ofServers
	}
	return b
}

func dnsText(of func(*orb8v1.DnsRecord) string) func(Style, DNSRow) cell {
	return func(_ Style, r DNSRow) cell { return cell{text: of(r.DnsRecord)} }
}

func dnsCount(of func(*orb8v1.DnsRecord) uint64, t tone) func(Style, DNSRow) cell {
	return func(s Style, r DNSRow) cell {
		c := s.count(of(r.DnsRecord))
		if of(r.DnsRecord) > 0 {
			c.tone = t
		}
		return c
	}
}

func dnsCode(code string, t tone) func(Style, DNSRow) cell {
	return dnsCount(func(r *orb8v1.DnsRecord) uint64 { return r.GetRcodes()[code] }, t)
}

func dnsLatency(of func(*orb8v1.DnsRecord) *orb8v1.Latencies, q float64) func(Style, DNSRow) cell {
	return func(s Style, r DNSRow) cell {
		us, ok := quantile(of(r.DnsRecord), q)
		switch {
		case !ok:
			return cell{}
		case s.Human:
			return cell{text: Micros(uint32(min(us, math.MaxUint32)))}
		}
		return cell{text: strconv.FormatUint(us, 10)}
	}
}

func dnsDate(of func(*orb8v1.DnsRecord) int64) func(Style, DNSRow) cell {
	return func(s Style, r DNSRow) cell { return cell{text: s.date(of(r.DnsRecord))} }
}

// dnsColumns are all there are, in their order in every view.
func dnsColumns() []dnsColumn {
	latency, upstream := (*orb8v1.DnsRecord).GetLatency, (*orb8v1.DnsRecord).GetUpstream
	num := func(title, raw string, drop int) column {
		return column{title: title, raw: raw, right: true, drop: drop}
	}
	return []dnsColumn{
		{byServer, true, column{title: "NODE"}, dnsText((*orb8v1.DnsRecord).GetNode)},
		{byServer, false, column{title: "CLIENT", fit: true}, dnsText(func(r *orb8v1.DnsRecord) string { return dnsClient(r.GetClient()) })},
		{byServer, true, column{title: "CLIENT_IP"}, dnsText(func(r *orb8v1.DnsRecord) string { return r.GetClient().GetIp() })},
		{byServer, true, column{title: "WORKLOAD"}, dnsText(func(r *orb8v1.DnsRecord) string { return workloadName(r.GetClient().GetWorkload()) })},
		{0, false, column{title: "SERVER", fit: true}, dnsText(func(r *orb8v1.DnsRecord) string { return DNSServer(r.GetServer()) })},
		{0, true, column{title: "SERVER_IP"}, dnsText(func(r *orb8v1.DnsRecord) string { return r.GetServer().GetIp() })},
		{byClient, false, num("CLIENTS", "", 2), func(s Style, r DNSRow) cell { return s.count(r.Clients) }},
		{0, false, num("QUERIES", "", 0), dnsCount((*orb8v1.DnsRecord).GetQueries, plain)},
		{0, true, num("LOOKUPS", "", 0), dnsCount((*orb8v1.DnsRecord).GetLookups, plain)},
		{0, false, num("/S", "", 4), dnsRate},
		{ofServers, false, num("P50", "P50_US", 0), dnsLatency(latency, 0.5)},
		{ofServers, false, num("P99", "P99_US", 0), dnsLatency(latency, 0.99)},
		{ofClients, false, num("CACHED_P50", "CACHED_P50_US", 0), dnsLatency(latency, 0.5)},
		{ofClients, false, num("CACHED_P99", "CACHED_P99_US", 0), dnsLatency(latency, 0.99)},
		{ofClients, false, num("UPSTREAM_P50", "UPSTREAM_P50_US", 0), dnsLatency(upstream, 0.5)},
		{ofClients, false, num("UPSTREAM_P99", "UPSTREAM_P99_US", 0), dnsLatency(upstream, 0.99)},
		{0, false, num("NXDOMAIN", "", 3), dnsCode("NXDOMAIN", plain)},
		{0, false, num("SERVFAIL", "", 0), dnsCode("SERVFAIL", red)},
		{0, false, num("OTHER", "", 1), dnsCount(dnsOther, yellow)},
		{0, false, num("TIMEOUTS", "", 0), dnsCount((*orb8v1.DnsRecord).GetTimeouts, red)},
		{0, true, num("TRUNCATED", "", 0), dnsCount((*orb8v1.DnsRecord).GetTruncated, plain)},
		{0, true, num("TCP_RETRIES", "", 0), dnsCount((*orb8v1.DnsRecord).GetTcpRetries, plain)},
		{ofServers, false, num("SEARCH", "", 0), dnsCount((*orb8v1.DnsRecord).GetSearchMisses, yellow)},
		{ofServers | byServer, true, column{title: "SEARCH_DOMAIN"}, dnsText((*orb8v1.DnsRecord).GetSearchDomain)},
		{ofServers | byServer, true, column{title: "SEARCH_NAME"}, dnsText((*orb8v1.DnsRecord).GetSearchName)},
		{0, true, column{title: "FIRST"}, dnsDate((*orb8v1.DnsRecord).GetFirstNs)},
		{0, true, column{title: "LAST"}, dnsDate((*orb8v1.DnsRecord).GetLastNs)},
	}
}

// NewDNSTable makes a table.
func NewDNSTable(style Style, view DNSView) *DNSTable {
	t := &DNSTable{style: style}
	var columns []column
	for _, c := range dnsColumns() {
		if c.not&view.bits() == 0 && (!c.wide || style.Wide) {
			t.columns = append(t.columns, c)
			columns = append(columns, c.column)
		}
	}
	t.table = newTable(style, columns)
	return t
}

// Add takes a row.
func (t *DNSTable) Add(r DNSRow) {
	cells := make([]cell, len(t.columns))
	for i, c := range t.columns {
		cells[i] = c.cell(t.style, r)
	}
	t.table.add(cells)
}

// Flush writes what was added.
func (t *DNSTable) Flush(w io.Writer) error { return t.table.Flush(w) }

// dnsClient is who asked: a pod, a process of the host, an address.
func dnsClient(e *orb8v1.End) string {
	name := Name(e)
	if name == "" && e.GetPodUid() != "" {
		return "pod/" + e.GetPodUid()
	}
	return name
}

// DNSServer is whom it was asked of; of a Service also who serves it. The port is
// worth a word where it is another than that of the DNS.
func DNSServer(e *orb8v1.End) string {
	return whoServes(&orb8v1.FlowRecord{Remote: e}, e.GetPort() != 0 && e.GetPort() != 53)
}

// dnsOther are the answers that no other column has.
func dnsOther(r *orb8v1.DnsRecord) (n uint64) {
	for code, count := range r.GetRcodes() {
		switch code {
		case "NOERROR", "NXDOMAIN", "SERVFAIL":
		default:
			n += count
		}
	}
	return n
}

func dnsRate(s Style, r DNSRow) cell {
	n := r.GetQueriesPerSecond()
	switch {
	case n <= 0 || math.IsNaN(n):
		return cell{text: "0"}
	case s.Human && n >= 100:
		return cell{text: Count(uint64(min(n, math.MaxInt64)))}
	}
	return cell{text: strconv.FormatFloat(math.Round(n*10)/10, 'f', -1, 64)}
}

// DNSSummary says in one line what an answer holds, and what it does not. shown is
// the number of rows before it.
func DNSSummary(s *orb8v1.DnsSummary, shown uint64) string {
	line := plural(s.GetMatched(), "pair") + " of client and server"
	if s.GetKnown() != s.GetMatched() {
		line = fmt.Sprintf("%s of %s of client and server", group(s.GetMatched()), plural(s.GetKnown(), "pair"))
	}
	if s.GetStartNs() > 0 && s.GetEndNs() > s.GetStartNs() {
		line += " in " + Age(time.Duration(s.GetEndNs()-s.GetStartNs()))
	}
	if shown < s.GetMatched() {
		line += fmt.Sprintf("; the %s with the most queries shown, more: --limit", group(shown))
	}
	return line
}
