// SPDX-License-Identifier: Apache-2.0

package lookup

import (
	"time"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/l7/tls"
)

const (
	// A hello has at most so many bytes here; those of browsers have 2,000.
	maxHello = 16 << 10
	// How long a hello may take, and is known to have been told.
	helloTime = int64(10 * time.Second)
	// The head of a record: less does not tell whether a hello begins.
	recordHead = 5
	handshake  = 22
)

// hellos are connections whose local end begins to speak TLS.
type hellos struct {
	all map[event.Conn]*hello
	// By their first segment.
	order order[hello]
}

type hello struct {
	assembly
	conn event.Conn
	// Where it begins, and when it was first seen.
	first uint32
	since int64
	buf   []byte
	need  int
	// It is told, or given up. It stays for what is sent again.
	over  bool
	place place[hello]
}

func (t *Tracker) takeHello(p *Packet) {
	if !p.Sent {
		return
	}
	k := p.Conn
	k.Ifindex = 0
	h := t.hellos.all[k]
	if h != nil && (p.SYN || h.over && begins(p.Data) && p.Seq-h.first > maxHello) {
		t.endHello(h) // the tuple is another connection's now
		h = nil
	}
	if h != nil && (p.FIN || p.RST) && p.Length == 0 {
		t.endHello(h)
		return
	}
	if p.Length == 0 || h != nil && h.over {
		return
	}
	if h == nil {
		for len(t.hellos.all) >= t.cfg.MaxHellos {
			h = t.hellos.order.oldest()
			if h.begun && !h.over {
				t.counts.HelloEvicted++
				h.over = true
			}
			t.endHello(h)
		}
		h = &hello{conn: k, since: p.Time}
		t.hellos.all[k] = h
		t.hellos.order.push(&h.place, h)
	}
	t.greet(p, h)
}

// begins tells whether a hello can begin so.
func begins(b []byte) bool {
	return tls.LooksLikeHello(b) || len(b) > 0 && len(b) <= recordHead && b[0] == handshake
}

// greet takes in a segment.
func (t *Tracker) greet(p *Packet, h *hello) {
	s := piece{p.Seq, p.Length, p.Data}
	if p.SYN {
		s.seq++
	}
	if !h.begun && begins(s.data) {
		h.begun, h.first, h.next = true, s.seq, s.seq
	}
	if h.begun && !s.from(h.next) {
		return
	}
	if !h.begun || s.seq != h.next {
		room := cap(h.buf)+h.waiting()+len(s.data) <= maxHello
		if _, ok := h.hold(s); !ok || !room {
			t.miss(h)
		}
		return
	}
	for ok := true; ok && !h.over; {
		t.hear(p, h, s)
		s, _, ok = h.ready()
	}
}

// hear takes in what comes next of a hello.
func (t *Tracker) hear(p *Packet, h *hello, s piece) {
	h.next += uint32(s.length)
	b := s.data
	if h.buf != nil {
		h.buf = append(h.buf, b...)
		b = h.buf
	}
	if len(b) >= h.need {
		said, need, err := tls.ParseClientHello(b)
		switch {
		case err == nil:
			h.end()
			t.cfg.Hello(p.Conn, said)
			return
		case err != tls.ErrIncomplete:
			cause, _ := err.(tls.Cause)
			t.counts.MalformedHello[cause]++
			h.end()
			return
		}
		h.need = need
	}
	if h.need > maxHello || s.length > len(s.data) {
		t.miss(h)
		return
	}
	if h.buf == nil {
		h.buf = append(make([]byte, 0, h.need), b...)
	}
}

// miss gives up what does not become complete. What never began was hardly one:
// the tap copies what may be.
func (t *Tracker) miss(h *hello) {
	if h.begun && !h.over {
		t.counts.HelloIncomplete++
	}
	h.end()
}

// end leaves of a hello that it was there.
func (h *hello) end() { h.over, h.buf, h.held = true, nil, nil }

func (t *Tracker) endHello(h *hello) {
	t.miss(h)
	h.place.drop()
	delete(t.hellos.all, h.conn)
}

func (t *Tracker) expireHellos(now int64) {
	for h := t.hellos.order.oldest(); h != nil && now-h.since > helloTime; h = t.hellos.order.oldest() {
		t.endHello(h)
	}
}
