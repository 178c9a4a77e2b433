// SPDX-License-Identifier: Apache-2.0

package render

import (
	"io"
	"math"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
)

// dnsJSON is a row as programs read it. Unknown fields are absent.
type dnsJSON struct {
	Node         string            `json:"node,omitempty"`
	Side         string            `json:"side,omitempty"`
	Client       *endJSON          `json:"client,omitempty"`
	Clients      uint64            `json:"clients,omitempty"`
	Server       endJSON           `json:"server"`
	Queries      uint64            `json:"queries"`
	PerSecond    float64           `json:"queries_per_second"`
	Lookups      uint64            `json:"lookups"`
	Timeouts     uint64            `json:"timeouts"`
	RCodes       map[string]uint64 `json:"rcodes"`
	Latency      *latencyJSON      `json:"latency,omitempty"`
	Upstream     *latencyJSON      `json:"upstream,omitempty"`
	SearchMisses uint64            `json:"search_misses"`
	SearchDomain string            `json:"search_domain,omitempty"`
	SearchName   string            `json:"search_name,omitempty"`
	Truncated    uint64            `json:"truncated"`
	TCPRetries   uint64            `json:"tcp_retries"`
	FirstNS      int64             `json:"first_ns,omitempty"`
	LastNS       int64             `json:"last_ns,omitempty"`
}

// DNSJSON writes a row as one line.
func DNSJSON(w io.Writer, r DNSRow) error {
	j := dnsJSON{
		Node: r.GetNode(), Side: dnsSide(r.GetSide()), Clients: r.Clients, Server: newEndJSON(r.GetServer(), false),
		Queries: r.GetQueries(), PerSecond: rate(r.GetQueriesPerSecond()), Lookups: r.GetLookups(), Timeouts: r.GetTimeouts(),
		RCodes: r.GetRcodes(), Latency: newLatencyJSON(r.GetLatency()), Upstream: newLatencyJSON(r.GetUpstream()),
		SearchMisses: r.GetSearchMisses(), SearchDomain: r.GetSearchDomain(), SearchName: r.GetSearchName(),
		Truncated: r.GetTruncated(), TCPRetries: r.GetTcpRetries(), FirstNS: r.GetFirstNs(), LastNS: r.GetLastNs(),
	}
	if j.RCodes == nil {
		j.RCodes = map[string]uint64{}
	}
	if r.GetClient() != nil {
		client := newEndJSON(r.GetClient(), false)
		j.Client = &client
	}
	return JSON(w, j)
}

// lookupJSON is a look-up as programs read it. Unknown fields are absent.
type lookupJSON struct {
	Event         string       `json:"event"`
	TimeNS        int64        `json:"time_ns"`
	Node          string       `json:"node,omitempty"`
	Netns         uint64       `json:"netns,omitempty"`
	NetnsName     string       `json:"netns_name,omitempty"`
	Interface     string       `json:"interface,omitempty"`
	ConnectionID  string       `json:"connection_id,omitempty"`
	Protocol      string       `json:"protocol"`
	Side          string       `json:"side,omitempty"`
	Client        endJSON      `json:"client"`
	Server        endJSON      `json:"server"`
	Name          string       `json:"name"`
	Type          string       `json:"type"`
	RCode         string       `json:"rcode"`
	AskedNS       int64        `json:"asked_ns,omitempty"`
	LatencyNS     *int64       `json:"latency_ns,omitempty"`
	Answers       []answerJSON `json:"answers"`
	AnswerCount   uint32       `json:"answer_count"`
	Tries         uint32       `json:"tries"`
	Truncated     bool         `json:"truncated"`
	TCPRetry      bool         `json:"tcp_retry"`
	Upstream      *bool        `json:"upstream,omitempty"`
	SearchMisses  uint32       `json:"search_misses"`
	SearchDomains []string     `json:"search_domains,omitempty"`
}

type answerJSON struct {
	Type string `json:"type"`
	Data string `json:"data,omitempty"`
	TTL  uint32 `json:"ttl"`
}

// LookupJSON writes an event of a look-up as one line.
func LookupJSON(w io.Writer, e *orb8v1.Event) error {
	f, l := e.GetFlow(), e.GetDns()
	ports := hasPorts(f)
	client, server := dnsEnds(e)
	j := lookupJSON{
		Event: event.KindDNS.String(), TimeNS: e.GetTimeNs(), Node: f.GetNode(),
		Netns: f.GetTap().GetNetns(), NetnsName: f.GetTap().GetNamespace(), Interface: f.GetTap().GetInterface(),
		ConnectionID: hexID(f.GetConnectionId()), Protocol: protocolName(f.GetProtocol()), Side: dnsSide(l.GetSide()),
		Client: newEndJSON(client, ports), Server: newEndJSON(server, ports),
		Name: l.GetName(), Type: l.GetType(), RCode: l.GetRcode(), AskedNS: l.GetAskedNs(), LatencyNS: l.LatencyNs,
		Answers: []answerJSON{}, AnswerCount: l.GetAnswerCount(), Tries: l.GetTries(),
		Truncated: l.GetTruncated(), TCPRetry: l.GetTcpRetry(), SearchMisses: l.GetSearchMisses(), SearchDomains: l.GetSearchDomains(),
	}
	for _, a := range l.GetAnswers() {
		j.Answers = append(j.Answers, answerJSON{a.GetType(), a.GetData(), a.GetTtl()})
	}
	if l.GetSide() == orb8v1.DnsSide_DNS_SIDE_SERVER { // who asks does not know
		j.Upstream = new(l.GetUpstream())
	}
	return JSON(w, j)
}

// dnsSide is the word of the flag.
func dnsSide(s orb8v1.DnsSide) string {
	switch s {
	case orb8v1.DnsSide_DNS_SIDE_CLIENT:
		return "client"
	case orb8v1.DnsSide_DNS_SIDE_SERVER:
		return "server"
	}
	return ""
}

// dnsEnds of a look-up, of which the flow has a local and a remote one.
func dnsEnds(e *orb8v1.Event) (client, server *orb8v1.End) {
	if e.GetDns().GetSide() == orb8v1.DnsSide_DNS_SIDE_SERVER {
		return e.GetFlow().GetRemote(), e.GetFlow().GetLocal()
	}
	return e.GetFlow().GetLocal(), e.GetFlow().GetRemote()
}

// rate has three digits after the point: JSON has no numbers that are none.
func rate(f float64) float64 {
	if math.IsNaN(f) || f > 1e15 || f < 0 {
		return 0
	}
	return math.Round(f*1000) / 1000
}
