// SPDX-License-Identifier: Apache-2.0

package render

import (
	"io"
	"strconv"
	"strings"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// LookupTable shows look-ups in the DNS as they end, one a row.
type LookupTable struct {
	table   *Table
	columns []lookupColumn
	style   Style
}

type lookupColumn struct {
	wide bool
	column
	cell func(Style, *orb8v1.Event) cell
}

func lookupText(of func(*orb8v1.DnsLookup) string) func(Style, *orb8v1.Event) cell {
	return func(_ Style, e *orb8v1.Event) cell { return cell{text: of(e.GetDns())} }
}

func lookupFlow(of func(*orb8v1.FlowRecord) string) func(Style, *orb8v1.Event) cell {
	return func(_ Style, e *orb8v1.Event) cell { return cell{text: of(e.GetFlow())} }
}

// lookupColumns are all there are, in their order.
func lookupColumns() []lookupColumn {
	return []lookupColumn{
		{false, column{title: "TIME", usual: 12, usualRaw: 24}, func(s Style, e *orb8v1.Event) cell { return flowRow{style: s, time: e.GetTimeNs()}.clock() }},
		{true, column{title: "NODE"}, lookupFlow((*orb8v1.FlowRecord).GetNode)},
		{true, column{title: "NETNS", usual: 10}, lookupFlow(func(f *orb8v1.FlowRecord) string { return netnsName(f.GetTap()) })},
		{true, column{title: "SIDE", usual: 6}, lookupText(func(l *orb8v1.DnsLookup) string { return dnsSide(l.GetSide()) })},
		{false, column{title: "CLIENT", fit: true, usual: 20}, func(_ Style, e *orb8v1.Event) cell {
			client, _ := dnsEnds(e)
			return cell{text: dnsClient(client)}
		}},
		{true, column{title: "CLIENT_IP"}, func(_ Style, e *orb8v1.Event) cell {
			client, _ := dnsEnds(e)
			return cell{text: client.GetIp()}
		}},
		{false, column{title: "SERVER", fit: true, usual: 20}, func(_ Style, e *orb8v1.Event) cell {
			_, server := dnsEnds(e)
			return cell{text: DNSServer(server)}
		}},
		{true, column{title: "SERVER_IP"}, func(_ Style, e *orb8v1.Event) cell {
			_, server := dnsEnds(e)
			return cell{text: server.GetIp()}
		}},
		{true, column{title: "PROTO"}, lookupFlow(func(f *orb8v1.FlowRecord) string { return protocolName(f.GetProtocol()) })},
		{false, column{title: "TYPE", usual: 5}, lookupText((*orb8v1.DnsLookup).GetType)},
		{false, column{title: "NAME", fit: true, usual: 28}, lookupText((*orb8v1.DnsLookup).GetName)},
		{false, column{title: "RCODE", usual: 8}, lookupCode},
		{false, column{title: "LATENCY", raw: "LATENCY_US", right: true, usual: 7}, lookupLatency},
		{true, column{title: "TRIES", right: true}, func(s Style, e *orb8v1.Event) cell { return s.count(uint64(e.GetDns().GetTries())) }},
		{true, column{title: "TRUNCATED"}, lookupText(cutAnswer)},
		{true, column{title: "UPSTREAM"}, lookupText(func(l *orb8v1.DnsLookup) string { return yes(l.GetUpstream()) })},
		{true, column{title: "SEARCH", right: true}, func(s Style, e *orb8v1.Event) cell { return s.count(uint64(e.GetDns().GetSearchMisses())) }},
		{true, column{title: "SEARCH_DOMAINS"}, lookupText(func(l *orb8v1.DnsLookup) string { return strings.Join(l.GetSearchDomains(), ",") })},
		{false, column{title: "ANSWERS", fit: true, usual: 15}, lookupText(lookupAnswers)},
	}
}

func lookupCode(_ Style, e *orb8v1.Event) cell {
	c := cell{text: e.GetDns().GetRcode()}
	switch c.text {
	case "NOERROR":
	case "NXDOMAIN":
		c.tone = yellow
	default:
		c.tone = red
	}
	return c
}

func lookupLatency(s Style, e *orb8v1.Event) cell {
	switch ns := e.GetDns().LatencyNs; {
	case ns == nil:
		return cell{}
	case s.Human:
		return cell{text: Span(*ns)}
	default:
		return cell{text: strconv.FormatInt(*ns/1000, 10)}
	}
}

// cutAnswer: over UDP the answer was cut; over TCP it is the question that was
// asked again for that.
func cutAnswer(l *orb8v1.DnsLookup) string {
	switch {
	case l.GetTcpRetry():
		return "retried"
	case l.GetTruncated():
		return "yes"
	}
	return ""
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

// lookupAnswers are the addresses and names, of other records their types.
func lookupAnswers(l *orb8v1.DnsLookup) string {
	var list []string
	for _, a := range l.GetAnswers() {
		data := a.GetData()
		if data == "" {
			data = a.GetType()
		}
		list = append(list, data)
	}
	if rest := int64(l.GetAnswerCount()) - int64(len(list)); rest > 0 {
		list = append(list, "+"+strconv.FormatInt(rest, 10))
	}
	return strings.Join(list, ",")
}

// NewLookupTable makes a table that may go on for ever.
func NewLookupTable(style Style) *LookupTable {
	t := &LookupTable{style: style}
	var columns []column
	for _, c := range lookupColumns() {
		if !c.wide || style.Wide {
			t.columns = append(t.columns, c)
			columns = append(columns, c.column)
		}
	}
	t.table = newTable(style, columns)
	t.table.reserve()
	return t
}

// Add takes an event.
func (t *LookupTable) Add(e *orb8v1.Event) {
	cells := make([]cell, len(t.columns))
	for i, c := range t.columns {
		cells[i] = c.cell(t.style, e)
	}
	t.table.add(cells)
}

// Flush writes what was added.
func (t *LookupTable) Flush(w io.Writer) error { return t.table.Flush(w) }
