// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"
	"strings"
	"testing"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/l7/dns"
	"github.com/orb8/orb8/internal/render"
)

// The words of the command line are those of the agents.
func TestWordsOfTheDNS(t *testing.T) {
	for n := range 1 << 16 {
		if name := dns.TypeName(uint16(n)); !strings.HasPrefix(name, "TYPE") && !slices.Contains(recordTypes(), name) {
			t.Errorf("%s is not offered", name)
		}
		if name := dns.RCodeName(event.RCode(n)); !strings.HasPrefix(name, "RCODE") && !slices.Contains(rcodes(), name) {
			t.Errorf("%s is not offered", name)
		}
	}
	for _, name := range append(recordTypes(), "TYPE0", "type65535") {
		if _, ok := dns.TypeNumber(name); !ok {
			t.Errorf("agents do not know the type %s", name)
		}
		if got, err := parseRecordType(strings.ToLower(name)); err != nil || got != strings.ToUpper(name) {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	for _, name := range append(rcodes(), "RCODE12", "rcode4095") {
		if _, ok := dns.RCodeNumber(name); !ok {
			t.Errorf("agents do not know the code %s", name)
		}
		if got, err := parseRCode(strings.ToLower(name)); err != nil || got != strings.ToUpper(name) {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	for _, bad := range []string{"", "RCODE", "RCODE4096", "RCODE-1", "RCODE01", "TYPE65536", "TYPE+1", "NXDOMAINS"} {
		if got, err := parseRCode(bad); err == nil {
			t.Errorf("%q is the code %s", bad, got)
		}
		if got, err := parseRecordType(bad); err == nil {
			t.Errorf("%q is the type %s", bad, got)
		}
	}
}

func asked(pod string, server *orb8v1.End, queries, misses uint64) render.DNSRow {
	return render.DNSRow{Clients: 1, DnsRecord: &orb8v1.DnsRecord{
		Client: &orb8v1.End{Namespace: "shop", Pod: pod, PodUid: pod}, Server: server, Queries: queries, Lookups: queries, SearchMisses: misses,
		Rcodes: map[string]uint64{"NOERROR": queries - misses, "NXDOMAIN": misses}, Latency: &orb8v1.Latencies{Buckets: []uint32{5}, Counts: []uint64{queries}},
		FirstNs: int64(queries), LastNs: int64(queries) + 1,
	}}
}

func at(node string, r render.DNSRow) render.DNSRow {
	r.Node = node
	return r
}

// A server is one by its name and address; loopback's is of each node its own.
func TestByServer(t *testing.T) {
	pod := &orb8v1.End{Namespace: "kube-system", Pod: "coredns-0", PodUid: "u", Ip: "10.96.0.10", Service: "kube-system/kube-dns"}
	local := func(node string) *orb8v1.End {
		return &orb8v1.End{Ip: "127.0.0.53", Process: "systemd-resolve", Class: "host", Node: node}
	}
	got := byServer([]render.DNSRow{
		asked("a", pod, 10, 1), asked("b", pod, 20, 2), asked("c", local("n1"), 15, 0), asked("d", local("n2"), 16, 0), asked("e", &orb8v1.End{Ip: "192.0.2.1"}, 40, 0),
		at("n1", asked("f", &orb8v1.End{Ip: "127.0.0.11"}, 3, 0)), at("n2", asked("g", &orb8v1.End{Ip: "127.0.0.11"}, 3, 0)), at("n2", asked("h", &orb8v1.End{Ip: "127.0.0.11"}, 1, 0)),
	})
	var names []string
	for _, r := range got {
		names = append(names, render.DNSServer(r.GetServer()))
	}
	if want := []string{"192.0.2.1", "kube-system/kube-dns→coredns-0", "-/systemd-resolve", "-/systemd-resolve", "127.0.0.11", "127.0.0.11"}; !slices.Equal(names, want) {
		t.Fatalf("servers %q", names)
	}
	r := got[1]
	if r.Clients != 2 || r.GetQueries() != 30 || r.GetRcodes()["NXDOMAIN"] != 3 || r.GetLatency().GetCounts()[0] != 30 || r.GetFirstNs() != 10 || r.GetLastNs() != 21 || r.GetClient() != nil {
		t.Errorf("sum %v", r)
	}
}

func TestHints(t *testing.T) {
	one, two := &orb8v1.End{Ip: "10.96.0.10"}, &orb8v1.End{Ip: "10.96.0.11"}
	// Of both its servers together.
	rows := []render.DNSRow{asked("a", one, 150, 90), asked("a", two, 150, 60), asked("b", one, 1000, 250), asked("c", one, 120, 100)}
	got := dnsHints(rows, false)
	if len(got) != 1 || !strings.HasPrefix(got[0], "shop/a: 150 of 300 queries only tried its search list: end the name with a dot") {
		t.Errorf("hints %q", got)
	}
	if got := dnsHints(rows, true); len(got) != 0 {
		t.Errorf("a server does not know of search lists: %q", got)
	}
	for _, pod := range []string{"d", "e", "f", "g"} {
		r := asked(pod, one, 1000, 900)
		r.Timeouts = 20
		r.SearchDomain, r.SearchName = "svc", "x"
		rows = append(rows, r)
	}
	got = dnsHints(rows, false)
	if len(got) != 8 || !strings.Contains(got[0], "most often svc, last for x:") || !strings.HasPrefix(got[3], "2 more like these") || !strings.HasPrefix(got[7], "1 more like these") ||
		!strings.HasPrefix(got[4], "shop/d: 20 of 1000 look-ups had no answer of 10.96.0.10:") {
		t.Errorf("hints %q", got)
	}
}
