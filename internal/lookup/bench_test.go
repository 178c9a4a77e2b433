// SPDX-License-Identifier: Apache-2.0

package lookup

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/orb8/orb8/internal/event"
)

// A question and its answer, as pods ask: from a new port each, a name in four.
func BenchmarkPair(b *testing.B) {
	for _, c := range []struct {
		what   string
		misses int
	}{{"answered", 0}, {"with a search list", 3}} {
		b.Run(c.what, func(b *testing.B) {
			var told int
			tr := New(Config{Lookup: func(*event.Lookup) { told++ }})
			var qs, rs [][]byte
			for i := range 1000 {
				name := fmt.Sprintf("bucket-%d.s3.eu-central-1.amazonaws.com", i)
				for j := range c.misses {
					q := query(1, name+"."+list[j], typeA)
					qs, rs = append(qs, q), append(rs, reply(q, nxDomain))
				}
				q := query(1, name, typeA)
				qs, rs = append(qs, q), append(rs, reply(q, 0, name+". 5 CNAME s3-w.amazonaws.com.", "s3-w.amazonaws.com. 5 A 52.218.0.1", "s3-w.amazonaws.com. 5 A 52.218.0.2"))
			}
			p := Packet{Conn: conn(0), Time: start}
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				i := n % len(qs)
				p.Conn.LocalPort, p.Conn.Netns = uint16(n), uint32(n/(c.misses+1)%200)
				binary.BigEndian.PutUint16(qs[i], uint16(n))
				binary.BigEndian.PutUint16(rs[i], uint16(n))
				p.Time += 25_000
				p.Sent, p.Data, p.Length = true, qs[i], len(qs[i])
				tr.Take(&p)
				p.Time += 25_000
				p.Sent, p.Data, p.Length = false, rs[i], len(rs[i])
				tr.Take(&p)
				n++
			}
			if told != n {
				b.Fatalf("%d of %d: %+v", told, n, tr.Counts())
			}
		})
	}
}

// A client whose names are never there.
func BenchmarkMisses(b *testing.B) {
	tr := New(Config{})
	var qs, rs [][]byte
	for i := range 1000 {
		q := query(1, fmt.Sprintf("host-%d.no.such.name.shop.svc.cluster.local", i), typeA)
		r := reply(q, nxDomain)
		if i%2 == 0 {
			r = reply(q, 0)
		}
		qs, rs = append(qs, q), append(rs, r)
	}
	p := Packet{Conn: conn(1), Time: start}
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		i := n % len(qs)
		p.Time += 50_000
		p.Sent, p.Data, p.Length = true, qs[i], len(qs[i])
		tr.Take(&p)
		p.Sent, p.Data, p.Length = false, rs[i], len(rs[i])
		tr.Take(&p)
		n++
	}
}

// A look-up over a TCP connection of its own.
func BenchmarkStream(b *testing.B) {
	w := newWorld(b, Config{})
	q := framed(query(1, "big.example", typeA))
	r := framed(reply(q[2:], 0, "big.example. 5 A 1.2.3.4"))
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		k := tcp(w, uint16(n))
		k.send(q)
		k.receive(r)
		k.close()
		w.lookups = w.lookups[:0]
		n++
	}
}

func BenchmarkHello(b *testing.B) {
	w := newWorld(b, Config{})
	hello := said(b, "s3.amazonaws.com", "h2")
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		k := speaker(w, uint16(n))
		k.to = uint32(n) << 16
		k.says(hello, 0, len(hello))
		w.hellos = w.hellos[:0]
		n++
	}
}
