// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/render"
)

// server is what makes a server one and not another, seen from wherever. A pod has
// one address or the other, and the same one of loopback is of each node its own.
type server struct{ name, uid, ip, node string }

func serverOf(r *orb8v1.DnsRecord) server {
	e := r.GetServer()
	s := server{name: render.DNSServer(e), uid: e.GetPodUid(), node: e.GetNode()}
	if e.GetPod() == "" {
		s.ip = e.GetIp()
	}
	if a, err := netip.ParseAddr(e.GetIp()); err == nil && a.IsLoopback() && s.node == "" {
		s.node = r.GetNode()
	}
	return s
}

// byServer makes one row of all rows of a server, the most queries first.
func byServer(rows []render.DNSRow) []render.DNSRow {
	sums := map[server]*render.DNSRow{}
	var order []*render.DNSRow
	for _, r := range rows {
		key := serverOf(r.DnsRecord)
		sum := sums[key]
		if sum == nil {
			sum = &render.DNSRow{DnsRecord: &orb8v1.DnsRecord{Side: r.GetSide(), Server: r.GetServer(), Rcodes: map[string]uint64{}}}
			sums[key] = sum
			order = append(order, sum)
		}
		addDNS(sum, r)
	}
	out := make([]render.DNSRow, len(order))
	for i, sum := range order {
		out[i] = *sum
	}
	slices.SortStableFunc(out, func(a, b render.DNSRow) int { return cmp.Compare(b.GetQueries(), a.GetQueries()) })
	return out
}

func addDNS(to *render.DNSRow, r render.DNSRow) {
	to.Clients += r.Clients
	to.Queries += r.GetQueries()
	to.Lookups += r.GetLookups()
	to.Timeouts += r.GetTimeouts()
	to.SearchMisses += r.GetSearchMisses()
	to.Truncated += r.GetTruncated()
	to.TcpRetries += r.GetTcpRetries()
	to.QueriesPerSecond += r.GetQueriesPerSecond()
	for code, n := range r.GetRcodes() {
		to.Rcodes[code] += n
	}
	to.Latency = render.AddLatencies(to.GetLatency(), r.GetLatency())
	to.Upstream = render.AddLatencies(to.GetUpstream(), r.GetUpstream())
	if to.FirstNs == 0 || r.GetFirstNs() != 0 && r.GetFirstNs() < to.FirstNs {
		to.FirstNs = r.GetFirstNs()
	}
	to.LastNs = max(to.LastNs, r.GetLastNs())
}

const (
	// A hint is worth a line when it is about that many queries, and more than that
	// share of all.
	worthMisses, worthShare = 100, 0.25
	worthTimeouts           = 10
	timeoutShare            = 0.01
	// Hints of a kind.
	maxHints = 3
)

// dnsHints say what is in vain, and what to do about it: of a pod, whichever server
// it asked.
func dnsHints(rows []render.DNSRow, ofServers bool) []string {
	var misses, timeouts hints
	for _, r := range perClient(rows) {
		who, queries, missed := render.Name(r.GetClient()), r.GetQueries(), r.GetSearchMisses()
		if missed > worthMisses && float64(missed) > worthShare*float64(queries) && !ofServers {
			misses.add("%s: %d of %d queries only tried its search list%s: end the name with a dot, or set %s",
				who, missed, queries, searched(r.DnsRecord), fewerDots(r.GetClient()))
		}
	}
	for _, r := range rows {
		who, n := render.Name(r.GetClient()), r.GetTimeouts()
		if n >= worthTimeouts && float64(n) > timeoutShare*float64(r.GetLookups()) {
			timeouts.add("%s: %d of %d look-ups had no answer of %s: is it up, and may it be reached? which: orb8 trace dns --rcode TIMEOUT",
				who, n, r.GetLookups(), render.DNSServer(r.GetServer()))
		}
	}
	return append(misses.lines(), timeouts.lines()...)
}

// perClient sums up what a client asked of all its servers. The search domain is
// that of the most misses.
func perClient(rows []render.DNSRow) []render.DNSRow {
	type client struct{ name, uid, ip, node string }
	at := map[client]int{}
	var out []render.DNSRow
	for _, r := range rows {
		c := r.GetClient()
		key := client{render.Name(c), c.GetPodUid(), c.GetIp(), r.GetNode()}
		i, known := at[key]
		if !known {
			i = len(out)
			at[key] = i
			out = append(out, render.DNSRow{DnsRecord: &orb8v1.DnsRecord{
				Client: c, SearchDomain: r.GetSearchDomain(), SearchName: r.GetSearchName(), Rcodes: map[string]uint64{},
			}})
		}
		addDNS(&out[i], r)
	}
	slices.SortStableFunc(out, func(a, b render.DNSRow) int { return cmp.Compare(b.GetSearchMisses(), a.GetSearchMisses()) })
	return out
}

// searched is where it looked in vain, and for what.
func searched(r *orb8v1.DnsRecord) string {
	switch {
	case r.GetSearchDomain() == "":
		return ""
	case r.GetSearchName() == "":
		return fmt.Sprintf(", most often %s", r.GetSearchDomain())
	}
	return fmt.Sprintf(", most often %s, last for %s", r.GetSearchDomain(), r.GetSearchName())
}

// fewerDots is where to say that a name with a dot in it is whole.
func fewerDots(e *orb8v1.End) string {
	if e.GetPod() == "" {
		return "options ndots:1 in its resolv.conf"
	}
	return "dnsConfig.options ndots:1"
}

// hints are the first of a kind, and how many more there are.
type hints struct {
	first []string
	more  int
}

func (h *hints) add(format string, args ...any) {
	if len(h.first) == maxHints {
		h.more++
		return
	}
	h.first = append(h.first, fmt.Sprintf(format, args...))
}

func (h *hints) lines() []string {
	if h.more > 0 {
		return append(h.first, fmt.Sprintf("%d more like these: see the table", h.more))
	}
	return h.first
}
