// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"encoding/json"
	"io"
	"testing"

	"google.golang.org/protobuf/proto"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

func seeds(f *testing.F, messages ...proto.Message) {
	for _, m := range messages {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, "\x1b[31m", true, 80)
		f.Add(b, "a b\n\u202e", false, 0)
	}
}

func FuzzDNS(f *testing.F) {
	seeds(f, &orb8v1.DnsRecord{}, &orb8v1.DnsRecord{
		Side: orb8v1.DnsSide_DNS_SIDE_SERVER, Client: &orb8v1.End{Pod: "a", Namespace: "b"}, Server: &orb8v1.End{Ip: "fd00::1", Service: "x"},
		Queries: 1 << 63, QueriesPerSecond: -1e300, Latency: &orb8v1.Latencies{Buckets: []uint32{1 << 31, 3, 3}, Counts: []uint64{1 << 63, 1 << 63}}, FirstNs: -1 << 63,
		Upstream: &orb8v1.Latencies{Buckets: []uint32{199}, Counts: []uint64{1}},
	})
	f.Fuzz(func(t *testing.T, b []byte, name string, human bool, width int) {
		var r orb8v1.DnsRecord
		if proto.Unmarshal(b, &r) != nil {
			return
		}
		r.Node, r.SearchDomain, r.SearchName, r.Rcodes = name, name, name, map[string]uint64{name: 1}
		for _, e := range []*orb8v1.End{r.GetClient(), r.GetServer()} {
			if e != nil {
				e.Process, e.Fqdn, e.Pod = name, name, ""
			}
		}
		row := DNSRow{DnsRecord: &r, Clients: 1}
		for _, view := range []DNSView{{}, {ByServer: true}, {OfServers: true}, {true, true}} {
			table := NewDNSTable(Style{Human: human, Wide: len(name)%2 == 0, Width: width % 500}, view)
			table.Add(row)
			asTable(t, table.Flush)
		}
		if AddLatencies(r.GetLatency(), r.GetUpstream()) == nil && r.GetLatency() != nil {
			t.Error("a sum of nothing")
		}
		asJSON(t, func(w io.Writer) error { return DNSJSON(w, row) })
	})
}

func FuzzLookup(f *testing.F) {
	seeds(f, &orb8v1.Event{}, &orb8v1.Event{
		TimeNs: 1 << 62, Flow: &orb8v1.FlowRecord{Protocol: 17, Local: &orb8v1.End{Ip: "10.1.2.3", Port: 53}, Remote: &orb8v1.End{Ip: "fd00::1"}},
		Dns: &orb8v1.DnsLookup{Side: orb8v1.DnsSide_DNS_SIDE_SERVER, LatencyNs: new(int64(-1 << 63)), AnswerCount: 1<<32 - 1, Answers: []*orb8v1.DnsAnswer{{}}, Tries: 7},
	})
	f.Fuzz(func(t *testing.T, b []byte, name string, human bool, width int) {
		var e orb8v1.Event
		if proto.Unmarshal(b, &e) != nil {
			return
		}
		if e.GetDns() == nil {
			e.Dns = &orb8v1.DnsLookup{}
		}
		e.Dns.Name, e.Dns.Type, e.Dns.Rcode, e.Dns.SearchDomains = name, name, name, []string{name, name}
		e.Dns.Answers = append(e.Dns.Answers, &orb8v1.DnsAnswer{Type: name, Data: name})
		table := NewLookupTable(Style{Human: human, Wide: len(name)%2 == 0, Width: width % 500})
		table.Add(&e)
		asTable(t, table.Flush)
		asJSON(t, func(w io.Writer) error { return LookupJSON(w, &e) })
	})
}

// asTable checks a table of one row.
func asTable(t *testing.T, flush func(io.Writer) error) {
	t.Helper()
	var out bytes.Buffer
	if err := flush(&out); err != nil {
		t.Fatal(err)
	}
	checkLines(t, out.String(), 2)
}

func asJSON(t *testing.T, write func(io.Writer) error) {
	t.Helper()
	var out bytes.Buffer
	if err := write(&out); err != nil {
		t.Fatal(err)
	}
	checkLines(t, out.String(), 1)
	if !json.Valid(out.Bytes()) {
		t.Errorf("not JSON: %s", &out)
	}
}
