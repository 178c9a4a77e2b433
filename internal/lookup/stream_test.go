// SPDX-License-Identifier: Apache-2.0

package lookup

import (
	"fmt"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/event"
)

// talk is a TCP connection of a client's.
type talk struct {
	w        *world
	conn     event.Conn
	to, from uint32
}

// tcp opens one; numbers are about to go round.
func tcp(w *world, port uint16) *talk {
	k := &talk{w: w, conn: conn(port), to: 0xffffffff - 20, from: 0xffffffff - 30}
	k.conn.Protocol = event.TCP
	w.Take(&Packet{Conn: k.conn, Time: w.now, Sent: true, Seq: k.to, SYN: true})
	w.Take(&Packet{Conn: k.conn, Time: w.now, Seq: k.from, SYN: true})
	k.to++
	k.from++
	return k
}

func (k *talk) send(b []byte) { k.segment(true, k.to, b); k.to += uint32(len(b)) }

func (k *talk) receive(b []byte) { k.segment(false, k.from, b); k.from += uint32(len(b)) }

func (k *talk) segment(sent bool, seq uint32, b []byte) { k.copied(sent, seq, b, len(b)) }

// copied is a segment of which so many bytes were copied.
func (k *talk) copied(sent bool, seq uint32, b []byte, n int) {
	k.w.now += ms
	k.w.Take(&Packet{Conn: k.conn, Time: k.w.now, Sent: sent, Seq: seq, Length: len(b), Data: b[:n]})
}

func (k *talk) close() {
	k.w.Take(&Packet{Conn: k.conn, Time: k.w.now, Sent: true, Seq: k.to, FIN: true})
	k.w.Take(&Packet{Conn: k.conn, Time: k.w.now, Seq: k.from, FIN: true})
}

func TestStream(t *testing.T) {
	a, b := query(1, "a.example", typeA), query(2, "b.example", typeA)
	both := append(framed(a), framed(b)...)
	answers := append(framed(reply(b, 0, "b.example. 5 A 1.2.3.4")), framed(reply(a, 0))...)
	told := []string{"b.example A NOERROR", "a.example A NOERROR"}
	for _, c := range []struct {
		what string
		say  func(k *talk)
	}{
		{"pipelined, in one segment", func(k *talk) { k.send(both) }},
		{"a byte a segment", func(k *talk) {
			for i := range both {
				k.send(both[i : i+1])
			}
		}},
		{"out of order", func(k *talk) {
			k.segment(true, k.to+40, both[40:])
			k.segment(true, k.to+1, both[1:5])
			k.segment(true, k.to+5, both[5:40])
			k.segment(true, k.to, both[:1])
		}},
		{"sent again, and overlapping", func(k *talk) {
			k.segment(true, k.to, both[:30])
			k.segment(true, k.to, both[:30])
			k.segment(true, k.to+20, both[20:50])
			k.segment(true, k.to+54, both[54:])
			k.segment(true, k.to+10, both[10:])
			k.segment(true, k.to, both)
			k.segment(true, k.to-1, []byte{0}) // keep-alive
		}},
	} {
		w := newWorld(t, Config{})
		k := tcp(w, 40000)
		end := k.to + uint32(len(both))
		c.say(k)
		k.to = end
		k.receive(answers[:3])
		k.receive(answers[3:])
		k.close()
		t.Run(c.what, func(t *testing.T) {
			w.t = t
			w.want(told...)
			if len(w.streams.all) != 0 || w.streams.bytes != 0 || w.Open() != 0 {
				t.Errorf("%d streams of %d bytes are left, %+v", len(w.streams.all), w.streams.bytes, w.Counts())
			}
		})
	}
}

// Ten thousand addresses are more than a packet's copy, and 64 KB.
func TestLongAnswer(t *testing.T) {
	var records []string
	for i := range 3500 {
		records = append(records, fmt.Sprintf("big.example. 5 A 10.1.%d.%d", i/256, i%256))
	}
	q, next := query(1, "big.example", typeA), query(2, "next.example", typeA)
	long := framed(reply(q, 0, records...))
	if len(long) < 50_000 {
		t.Fatal(len(long))
	}
	for _, copied := range []int{4096, 1448, 100} {
		w := newWorld(t, Config{})
		k := tcp(w, 40000)
		k.send(framed(q))
		k.send(framed(next))
		for rest := long; len(rest) > 0; {
			n := min(len(rest), 20_000)
			k.copied(false, k.from, rest[:n], min(n, copied))
			k.from += uint32(n)
			rest = rest[n:]
		}
		k.receive(framed(reply(next, 0)))
		l := w.told()
		if got := brief(l); len(got) != 2 || got[0] != "big.example A NOERROR" || got[1] != "next.example A NOERROR" {
			t.Fatalf("%d bytes copied: %q, %+v", copied, got, w.Counts())
		}
		if l[0].AnswerCount != 3500 || len(l[0].Answers) == 0 || w.streams.bytes != 0 {
			t.Errorf("%d bytes copied: %d of %d answers, %d bytes kept", copied, len(l[0].Answers), l[0].AnswerCount, w.streams.bytes)
		}
	}
	w := newWorld(t, Config{})
	k := tcp(w, 40000)
	k.send(framed(q))
	for rest := long; len(rest) > 0; rest = rest[min(len(rest), 1448):] {
		k.receive(rest[:min(len(rest), 1448)])
	}
	if l := w.one(); len(l.Answers) != event.MaxAnswers || len(w.learned) < 100 {
		t.Errorf("%d answers, %d learned", len(l.Answers), len(w.learned))
	}
}

func TestStreamThatIsLost(t *testing.T) {
	q := framed(query(1, "a.example", typeA))
	for _, c := range []struct {
		what string
		say  func(k *talk)
		want Counts
	}{
		{"something is missing", func(k *talk) {
			for i := range maxHeld + 2 {
				k.segment(true, k.to+uint32(100+i*len(q)), q)
			}
		}, Counts{StreamGap: 1}},
		{"far ahead", func(k *talk) { k.segment(true, k.to+2*maxAhead, q) }, Counts{StreamGap: 1}},
		{"the length was not copied", func(k *talk) {
			k.copied(true, k.to, append(q, q...), len(q)+1)
		}, Counts{StreamGap: 1}},
		{"reset within a message", func(k *talk) {
			k.send(q[:10])
			k.w.Take(&Packet{Conn: k.conn, Time: k.w.now, RST: true})
		}, Counts{StreamIncomplete: 1}},
		{"idle within a message", func(k *talk) {
			k.send(q[:10])
			k.w.after(time.Hour)
		}, Counts{StreamIncomplete: 1}},
		{"never in the middle", func(k *talk) {
			k.conn.LocalPort++
			k.send(q[5:])
			k.send([]byte("GET / HTTP/1.1 and so on\r\n"))
			k.send(framed(reply(q[2:], 0))) // a client does not answer
		}, Counts{StreamMidway: 3}},
	} {
		t.Run(c.what, func(t *testing.T) {
			w := newWorld(t, Config{})
			k := tcp(w, 40000)
			c.say(k)
			got := w.Counts()
			if got.StreamGap != c.want.StreamGap || got.StreamMidway != c.want.StreamMidway || got.StreamIncomplete != c.want.StreamIncomplete {
				t.Errorf("%+v", got)
			}
			if c.want.StreamGap > 0 {
				k.send(q) // it is not picked up again
			}
			if w.streams.bytes != 0 || w.Open() > 1 {
				t.Errorf("%d bytes kept, %d open", w.streams.bytes, w.Open())
			}
		})
	}
}

func TestStreamOlderThanTheAgent(t *testing.T) {
	w := newWorld(t, Config{})
	q := query(1, "a.example", typeA)
	k := &talk{w: w, conn: conn(1), to: 1000, from: 5000}
	k.conn.Protocol = event.TCP
	k.send(framed(q)[20:]) // the end of one
	k.send(framed(q))
	k.receive(framed(reply(q, 0)))
	w.want("a.example A NOERROR")
	// The tuple is used again.
	again := tcp(w, 1)
	again.send(framed(q))
	again.receive(framed(reply(q, 0)))
	w.want("a.example A NOERROR")
}

func TestBoundedStreams(t *testing.T) {
	w := newWorld(t, Config{MaxStreams: 100, MaxStreamBytes: 300_000})
	half := append([]byte{0xff, 0xff}, make([]byte, 30_000)...)
	for i := range 300 {
		k := tcp(w, uint16(1000+i))
		if i >= 200 {
			k.segment(true, k.to, half[:20_000])
			k.segment(false, k.from+30, half)
		}
		if len(w.streams.all) > 100 || w.streams.bytes > 300_000 {
			t.Fatalf("%d streams, %d bytes", len(w.streams.all), w.streams.bytes)
		}
	}
	if w.counts.StreamEvicted < 200 {
		t.Errorf("%+v", w.Counts())
	}
	w.after(time.Hour)
	if len(w.streams.all) != 0 || w.streams.bytes != 0 || w.streams.order.len != 0 {
		t.Errorf("%d streams, %d bytes are left", len(w.streams.all), w.streams.bytes)
	}
}
