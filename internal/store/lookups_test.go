// SPDX-License-Identifier: Apache-2.0

package store

import (
	"fmt"
	"maps"
	"testing"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/filter"
)

var (
	kubeDNS  = &event.Identity{Class: event.ClassPod, Namespace: "kube-system", Pod: "coredns-0", PodUID: "u9", Service: "kube-system/kube-dns", Node: "n2"}
	external = &event.Identity{Class: event.ClassExternal}
	askedAt  = int64(1_700_000_040) / 60 * minute // a minute begins
)

// asked is answered a millisecond later.
func asked(at int64) *event.Lookup {
	l := &event.Lookup{Role: event.RoleClient, Name: "web.example", Type: 1, Asked: at, Answered: at + 1e6, Tries: 1}
	l.Conn.Local[15], l.Conn.Remote[15] = 5, 10
	return l
}

// to is a look-up at another server's address.
func to(server byte, l *event.Lookup) *event.Lookup {
	l.Conn.Remote[15] = server
	return l
}

func TestLookupsAddUp(t *testing.T) {
	s := NewLookups(0)
	s.Add(web(""), kubeDNS, asked(askedAt+5e9))
	again := asked(askedAt)
	again.Tries, again.RCode, again.Truncated = 3, 3, true
	s.Add(web("web-0"), kubeDNS, again)
	never := asked(askedAt + 6e9)
	never.RCode, never.Answered, never.TCPRetry = event.RCodeTimeout, 0, true
	s.Add(web(""), kubeDNS, never)
	a := s.Query(&filter.Filter{}, nil, 10, askedAt+10e9)
	if len(a.Rows) != 1 || a.Matched != 1 || a.Known != 1 {
		t.Fatalf("%+v", a)
	}
	r := a.Rows[0]
	if r.Client.Pod != "web-0" || r.Server != kubeDNS || r.ClientIP[15] != 5 || r.ServerIP[15] != 10 {
		t.Errorf("%+v", r)
	}
	if r.Queries != 5 || r.Lookups != 3 || r.Timeouts != 1 || r.Truncated != 1 || r.TCPRetries != 1 ||
		!maps.Equal(r.RCodes, map[event.RCode]uint64{0: 1, 3: 1}) || r.Latency.Count != 2 || r.Latency.Sum != 2000 {
		t.Errorf("%+v", r)
	}
	if r.First != askedAt || r.Last != askedAt+6e9 || r.PerSecond != 0.5 {
		t.Errorf("%d to %d, %g a second", r.First-askedAt, r.Last-askedAt, r.PerSecond)
	}
	// A copy is given.
	s.Add(web("web-0"), kubeDNS, asked(askedAt+7e9))
	if r.RCodes[0] != 1 {
		t.Error("the answer changes")
	}
}

func TestLookupsOfTheServer(t *testing.T) {
	s := NewLookups(0)
	for _, upstream := range []bool{true, false, false} {
		l := asked(askedAt)
		l.Role, l.Upstream = event.RoleServer, upstream
		l.Conn.Local, l.Conn.Remote = l.Conn.Remote, l.Conn.Local
		s.Add(web("web-0"), kubeDNS, l)
	}
	s.Add(web("web-0"), kubeDNS, asked(askedAt))
	r := s.Query(&filter.Filter{}, []event.Role{event.RoleServer}, 10, askedAt).Rows
	if len(r) != 1 || r[0].Upstream.Count != 1 || r[0].Latency.Count != 2 || r[0].ClientIP[15] != 5 || r[0].ServerIP[15] != 10 {
		t.Errorf("%+v", r)
	}
	if a := s.Query(&filter.Filter{}, nil, 1, askedAt); a.Known != 2 || a.Matched != 2 || len(a.Rows) != 1 {
		t.Errorf("%d of %d, %d told", a.Matched, a.Known, len(a.Rows))
	}
}

func TestLookupsOfWhom(t *testing.T) {
	s := NewLookups(0)
	host := func(process string, pid uint32) *event.Identity {
		return &event.Identity{Class: event.ClassHost, Process: process, PID: pid, Node: "n1"}
	}
	s.Add(web("web-0"), external, to(8, asked(askedAt)))
	s.Add(web("web-0"), external, to(9, asked(askedAt)))
	s.Add(web("web-0"), &event.Identity{Class: event.ClassExternal, FQDN: "dns.example"}, to(9, asked(askedAt)))
	s.Add(host("curl", 1), kubeDNS, asked(askedAt))
	s.Add(host("curl", 2), kubeDNS, asked(askedAt))
	s.Add(host("sshd", 3), kubeDNS, to(11, asked(askedAt))) // a pod's address does not count
	s.Add(host("sshd", 3), kubeDNS, asked(askedAt))
	for _, c := range []struct {
		include, exclude filter.Fields
		rows             int
	}{
		{rows: 4},
		{include: filter.Fields{Pods: []string{"shop/web-0"}}, rows: 2},
		{include: filter.Fields{From: filter.End{Pods: []string{"coredns-0"}}}},
		{include: filter.Fields{To: filter.End{Pods: []string{"coredns-0"}}}, rows: 2},
		{include: filter.Fields{Services: []string{"kube-dns"}}, rows: 2},
		{exclude: filter.Fields{Services: []string{"kube-dns"}}, rows: 2},
		{include: filter.Fields{Nodes: []string{"n1"}}, rows: 4},
		{include: filter.Fields{Ports: []uint16{53}}},
	} {
		f := filter.Filter{Include: c.include, Exclude: c.exclude}
		if a := s.Query(&f, nil, 10, askedAt); a.Matched != c.rows || a.Known != 4 {
			t.Errorf("%+v: %d of %d", c, a.Matched, a.Known)
		}
	}
}

func TestLookupsPerSecond(t *testing.T) {
	s := NewLookups(0)
	// Two a second for three minutes.
	for i := range int64(360) {
		s.Add(web("web-0"), kubeDNS, asked(askedAt+i*5e8))
	}
	for after, want := range map[int64]float64{
		180: 2,           // the third minute, and nothing of the fourth
		190: 120. / 70,   // of it the third is still told
		239: 120. / 119,  //
		240: 0,           // both are silent
		900: 0,           //
		170: 240. / 119., // a clock that is behind
	} {
		r := s.Query(&filter.Filter{}, nil, 1, askedAt+after*1e9).Rows[0]
		if diff := r.PerSecond - want; diff < -0.02 || diff > 0.02 {
			t.Errorf("after %d s: %g, want %g", after, r.PerSecond, want)
		}
	}
}

func TestLookupsSearch(t *testing.T) {
	s := NewLookups(0)
	for i := range 100 {
		l := asked(askedAt)
		l.Name = fmt.Sprintf("bucket-%d.example", i)
		l.SearchMisses, l.SearchDomains = 2, []string{"svc.cluster.local", fmt.Sprintf("rare-%d.example", i)}
		s.Add(web("web-0"), kubeDNS, l)
	}
	r := s.Query(&filter.Filter{}, nil, 1, askedAt).Rows[0]
	if r.SearchMisses != 200 || r.SearchDomain != "svc.cluster.local" || r.SearchName != "bucket-99.example" {
		t.Errorf("%d, %q with %q", r.SearchMisses, r.SearchName, r.SearchDomain)
	}
}

func TestLookupsBounded(t *testing.T) {
	s := NewLookups(10)
	often := &event.Identity{Class: event.ClassPod, PodUID: "often"}
	for i := range 100 {
		s.Add(often, kubeDNS, asked(askedAt))
		l := asked(askedAt)
		l.RCode = event.RCode(i)
		s.Add(&event.Identity{Class: event.ClassPod, PodUID: fmt.Sprint(i)}, kubeDNS, l)
		s.Add(often, kubeDNS, l)
	}
	a := s.Query(&filter.Filter{}, nil, 100, askedAt)
	if a.Known != 10 || len(a.Rows) != 10 || len(s.rows) != 10 || s.used.Len() != 10 || s.Evicted() != 91 {
		t.Errorf("%d rows, %d evicted", a.Known, s.Evicted())
	}
	if r := a.Rows[0]; r.Client != often || r.Queries != 200 || len(r.RCodes) != maxRCodes {
		t.Errorf("who asks all the time stays: %+v", r)
	}
}

func BenchmarkLookupsAdd(b *testing.B) {
	s, client, l := NewLookups(0), web("web-0"), asked(askedAt)
	b.ReportAllocs()
	for b.Loop() {
		s.Add(client, kubeDNS, l)
	}
}
