// SPDX-License-Identifier: Apache-2.0

package lookup

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/event"
)

// list is what a kubelet writes into the resolv.conf of a pod in shop.
var list = []string{"shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"}

// glibc and Go (ndots:5): A and AAAA of each name, one name after the other.
func (w *world) tries(name string, domains []string, found string) {
	for _, d := range append(slices.Clone(domains), "") {
		full := name
		if d != "" {
			full += "." + d
		}
		rcode := nxDomain
		if full == found {
			rcode = 0
		}
		w.both(full, rcode, rcode)
		if rcode == 0 {
			return
		}
	}
}

// both asks A and AAAA at once.
func (w *world) both(name string, a, aaaa int) {
	w.port++
	w.id += 2
	c := conn(w.port)
	q4, q6 := query(w.id, name, typeA), query(w.id+1, name, typeAAAA)
	w.sends(c, q4)
	w.sends(c, q6)
	if a == 0 {
		w.receives(c, reply(q4, 0, name+". 5 A 1.2.3.4"))
	} else {
		w.receives(c, reply(q4, a))
	}
	w.receives(c, reply(q6, aaaa))
}

// last gives the look-ups that carry misses.
func (w *world) carrying() []string {
	var out []*event.Lookup
	for _, l := range w.told() {
		if l.SearchMisses > 0 {
			out = append(out, l)
		}
	}
	return brief(out)
}

func TestSearchLists(t *testing.T) {
	all := "shop.svc.cluster.local,svc.cluster.local,cluster.local,corp.example"
	for _, c := range []struct {
		what string
		do   func(w *world)
		want []string
	}{
		{"outside", func(w *world) { w.tries("s3.amazonaws.com", list, "s3.amazonaws.com") }, []string{
			"s3.amazonaws.com A NOERROR misses 4 " + all,
			"s3.amazonaws.com AAAA NOERROR misses 4 " + all,
		}},
		{"nowhere", func(w *world) { w.tries("s3.amazonaws.con", list, "") }, []string{
			"s3.amazonaws.con A NXDOMAIN misses 4 " + all,
			"s3.amazonaws.con AAAA NXDOMAIN misses 4 " + all,
		}},
		{"a part of it shortly before", func(w *world) {
			w.both("api.example.com.svc.cluster.local", nxDomain, nxDomain)
			w.both("api.example.com.cluster.local", nxDomain, nxDomain)
			w.tries("api.example.com", list, "api.example.com")
		}, []string{
			"api.example.com A NOERROR misses 4 " + all,
			"api.example.com AAAA NOERROR misses 4 " + all,
		}},
		{"another namespace", func(w *world) { w.tries("db.data", list, "db.data.svc.cluster.local") }, []string{
			"db.data.svc.cluster.local A NOERROR misses 1 shop.svc.cluster.local",
			"db.data.svc.cluster.local AAAA NOERROR misses 1 shop.svc.cluster.local",
		}},
		{"with svc", func(w *world) { w.tries("db.data.svc", list, "db.data.svc.cluster.local") }, []string{
			"db.data.svc.cluster.local A NOERROR misses 2 shop.svc.cluster.local,svc.cluster.local",
			"db.data.svc.cluster.local AAAA NOERROR misses 2 shop.svc.cluster.local,svc.cluster.local",
		}},
		{"in full, without a dot", func(w *world) {
			w.tries("db.data.svc.cluster.local", list, "db.data.svc.cluster.local")
		}, []string{
			"db.data.svc.cluster.local A NOERROR misses 4 " + all,
			"db.data.svc.cluster.local AAAA NOERROR misses 4 " + all,
		}},
		{"the same namespace", func(w *world) { w.tries("web", list, "web.shop.svc.cluster.local") }, nil},
		{"in the nodes' domain, which is not known yet", func(w *world) { w.tries("git", list, "git.corp.example") }, nil},
		{"in the nodes' domain", func(w *world) {
			w.tries("nowhere", list, "")
			w.told()
			w.tries("git", list, "git.corp.example")
		}, []string{
			"git.corp.example A NOERROR misses 3 shop.svc.cluster.local,svc.cluster.local,cluster.local",
			"git.corp.example AAAA NOERROR misses 3 shop.svc.cluster.local,svc.cluster.local,cluster.local",
		}},
		{"the name itself first (ndots:1)", func(w *world) {
			w.both("a.b", nxDomain, nxDomain)
			w.both("a.b.shop.svc.cluster.local", nxDomain, nxDomain)
			w.both("a.b.svc.cluster.local", 0, 0)
		}, []string{
			"a.b.svc.cluster.local A NOERROR misses 1 shop.svc.cluster.local",
			"a.b.svc.cluster.local AAAA NOERROR misses 1 shop.svc.cluster.local",
		}},
		{"there, without such an address", func(w *world) {
			w.asks("a.b.cluster.local", typeAAAA, nxDomain)
			w.asks("a.b", typeAAAA, 0)
		}, []string{"a.b AAAA NOERROR misses 1 cluster.local"}},
		{"each once", func(w *world) {
			w.tries("a.b", list[:2], "a.b")
			w.told()
			w.both("a.b", 0, 0)
		}, nil},
		{"and again", func(w *world) {
			w.tries("a.b", list[:2], "a.b")
			w.told()
			w.tries("a.b", list[:1], "a.b")
		}, []string{"a.b A NOERROR misses 1 shop.svc.cluster.local", "a.b AAAA NOERROR misses 1 shop.svc.cluster.local"}},
		{"too long ago", func(w *world) {
			w.both("a.b.cluster.local", nxDomain, nxDomain)
			w.after(6 * time.Second)
			w.both("a.b", 0, 0)
		}, nil},
		{"asked for itself", func(w *world) {
			w.both("a.b.example.com", nxDomain, nxDomain)
			w.both("a.c.example.com", 0, 0)
			w.both("a.example.com", 0, 0)
			w.both("example.com", 0, 0)
			w.both("com", 0, 0)
		}, nil},
	} {
		t.Run(c.what, func(t *testing.T) {
			w := newWorld(t, Config{})
			c.do(w)
			if got := w.carrying(); fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

// musl asks all servers at once, and takes the first answer; A and AAAA are one
// socket's.
func TestSearchListOfMusl(t *testing.T) {
	w := newWorld(t, Config{})
	type asked struct {
		conn event.Conn
		q    []byte
	}
	ask := func(name string) (out []asked) {
		w.port++
		for i, server := range []string{"10.96.0.10", "10.96.0.11"} {
			c := conn(w.port)
			c.Remote = addr(server)
			for j, kind := range []uint16{typeA, typeAAAA} {
				a := asked{c, query(w.id+uint16(2*i+j), name, kind)}
				w.sends(a.conn, a.q)
				out = append(out, a)
			}
		}
		w.id += 4
		return out
	}
	miss, hit := ask("a.b.cluster.local"), []asked(nil)
	for _, a := range miss[:2] {
		w.receives(a.conn, reply(a.q, nxDomain))
	}
	hit = ask("a.b")
	for _, a := range hit[:2] {
		w.receives(a.conn, reply(a.q, 0, "a.b. 5 A 1.2.3.4"))
	}
	// The second server is slower.
	for _, a := range miss[2:] {
		w.receives(a.conn, reply(a.q, nxDomain))
	}
	for _, a := range hit[2:] {
		w.receives(a.conn, reply(a.q, 0, "a.b. 5 A 1.2.3.4"))
	}
	got := w.carrying()
	if want := []string{"a.b A NOERROR misses 1 cluster.local", "a.b AAAA NOERROR misses 1 cluster.local"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestSearchListsOfOthers(t *testing.T) {
	w := newWorld(t, Config{Host: 7})
	take := func(netns uint32, cgroup uint64, name string, rcode int) {
		w.id++
		c, q := conn(40000), query(w.id, name, typeA)
		c.Netns = netns
		r := reply(q, rcode)
		w.now += 2 * ms
		w.Take(&Packet{Conn: c, Time: w.now, Sent: true, Cgroup: cgroup, Length: len(q), Data: q})
		w.Take(&Packet{Conn: c, Time: w.now + ms, Cgroup: cgroup, Length: len(r), Data: r})
	}
	take(7, 1, "a.b.cluster.local", nxDomain)
	take(8, 1, "c.d.cluster.local", nxDomain)
	take(7, 2, "a.b", 0)
	take(9, 1, "a.b", 0)
	if got := w.carrying(); got != nil {
		t.Errorf("%q are of another client", got)
	}
	take(7, 1, "a.b", 0)
	take(8, 2, "c.d", 0) // in a pod's namespace all have one list
	if got := w.carrying(); len(got) != 2 {
		t.Errorf("%q", got)
	}
}

func TestBoundedClients(t *testing.T) {
	w := newWorld(t, Config{MaxClients: 10})
	for i := range 100 {
		for j := range 40 {
			c, q := conn(40000), query(1, fmt.Sprintf("a.x%d.example", j), typeA)
			c.Netns = uint32(i)
			w.sends(c, q)
			w.receives(c, reply(q, nxDomain))
			w.sends(c, query(2, "a", typeA))
			w.receives(c, reply(query(2, "a", typeA), 0))
		}
	}
	if n := len(w.search.clients); n != 10 {
		t.Errorf("%d clients", n)
	}
	for _, c := range w.search.clients {
		if len(c.misses) > maxMisses || len(c.domains) > maxDomains {
			t.Errorf("%d misses, %d domains", len(c.misses), len(c.domains))
		}
	}
	w.after(time.Hour)
	if len(w.search.clients) != 0 || w.search.order.len != 0 {
		t.Errorf("%d clients are left", len(w.search.clients))
	}
}
