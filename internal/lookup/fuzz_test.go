// SPDX-License-Identifier: Apache-2.0

package lookup

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/event"
)

// Packets in any order, of any kind, with whatever in them: nothing but look-ups
// comes of it, and all bounds hold.
func FuzzTracker(f *testing.F) {
	q := query(1, "a.b", typeA)
	stream := func(parts ...[]byte) (out []byte) {
		for _, p := range parts {
			out = append(append(out, p[:8]...), p[8:]...)
		}
		return out
	}
	part := func(flags, conn byte, seq uint16, b []byte) []byte {
		h := []byte{flags, conn, byte(seq >> 8), byte(seq), 0, 0, byte(len(b) >> 8), byte(len(b))}
		return append(h, b...)
	}
	f.Add(stream(part(1, 0, 0, q), part(0, 0, 0, reply(q, 0, "a.b. 5 A 1.2.3.4"))))
	f.Add(stream(part(1, 0, 0, query(2, "a.b.c", typeA)), part(0, 0, 0, reply(query(2, "a.b.c", typeA), nxDomain)), part(1, 0, 0, q), part(0, 0, 0, reply(q, 0))))
	f.Add(stream(part(1|2|8, 0, 9, nil), part(1|2, 0, 10, framed(q)[:9]), part(1|2, 0, 19, framed(q)[9:]), part(2, 0, 50, framed(reply(q, 0)))))
	f.Add(stream(part(4, 1, 0, q), part(1, 2, 0, query(3, "a.b", typeA)), part(1|4, 1, 0, reply(q, 0))))
	hello := said(f, "s3.amazonaws.com")
	f.Add(stream(part(1|2|64, 0, 100, hello[100:]), part(1|2|64, 0, 0, hello[:100])))
	f.Fuzz(func(t *testing.T, b []byte) {
		w := newWorld(t, Config{MaxOpen: 8, MaxStreams: 4, MaxStreamBytes: 2000, MaxHellos: 3, MaxClients: 3})
		for len(b) >= 8 {
			flags, where, seq, more := b[0], b[1], binary.BigEndian.Uint32(append([]byte{0, 0}, b[2:4]...)), int(b[4])<<8
			w.now += int64(b[5]) * int64(b[5]) * ms
			n := min(int(binary.BigEndian.Uint16(b[6:])), len(b)-8)
			c := conn(1000 + uint16(where%8))
			if flags&4 != 0 {
				c = turned(c)
			}
			c.Netns = uint32(where >> 6)
			if flags&2 != 0 {
				c.Protocol = event.TCP
			}
			w.Take(&Packet{
				Conn: c, Time: w.now, Sent: flags&1 != 0, Server: flags&4 != 0, Hello: flags&64 != 0,
				Cookie: uint64(where >> 5 & 1), Seq: seq - 1000, SYN: flags&8 != 0, FIN: flags&16 != 0, RST: flags&32 != 0,
				Length: n + more, Data: b[8 : 8+n],
			})
			w.check()
			b = b[8+n:]
		}
		w.after(time.Hour)
		w.after(time.Hour)
		w.check()
		if len(w.questions.all)+len(w.questions.asked)+len(w.questions.own)+len(w.streams.all)+w.streams.bytes+len(w.hellos0())+len(w.search.clients) != 0 {
			t.Fatal("something is left after all has expired")
		}
	})
}

func (w *world) check() {
	w.t.Helper()
	s, h := &w.streams, &w.Tracker.hellos
	bytes := 0
	for _, x := range s.all {
		for i := range x.halves {
			bytes += cap(x.halves[i].body) + x.halves[i].waiting()
		}
	}
	switch {
	case len(w.questions.all) > 8 || w.questions.open.len+w.questions.over.len != len(w.questions.all) || len(w.questions.own) > w.questions.open.len:
		w.t.Fatalf("%d questions, %d and %d in order", len(w.questions.all), w.questions.open.len, w.questions.over.len)
	case len(s.all) > 4 || s.order.len != len(s.all) || bytes != s.bytes || bytes > 2000:
		w.t.Fatalf("%d streams, %d in order, %d bytes of %d", len(s.all), s.order.len, bytes, s.bytes)
	case len(h.all) > 3 || h.order.len != len(h.all) || len(w.search.clients) > 3 || w.search.order.len != len(w.search.clients):
		w.t.Fatalf("%d hellos, %d clients", len(h.all), len(w.search.clients))
	}
	for _, l := range w.told() {
		if l.Name == "" || l.Tries == 0 || l.Role == 0 || l.Asked == 0 || (l.Answered == 0) != (l.RCode == event.RCodeTimeout) || len(l.Answers) > event.MaxAnswers {
			w.t.Fatalf("%+v", l)
		}
	}
}
