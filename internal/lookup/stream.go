// SPDX-License-Identifier: Apache-2.0

package lookup

import (
	"encoding/binary"
	"time"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/l7/dns"
)

const (
	idle = int64(2 * time.Minute)
	// The header of a message and the shortest question.
	minMessage = 17
)

// streams are the TCP connections of the DNS.
type streams struct {
	all map[event.Conn]*stream
	// By their last segment.
	order order[stream]
	bytes int
}

type stream struct {
	conn event.Conn
	// What the local end says, and what it is told.
	halves [2]half
	last   int64
	gone   bool
	place  place[stream]
}

// half is one direction: messages, each behind two bytes of its length.
type half struct {
	assembly
	// Where it began, if that was seen.
	first uint32
	seen  bool
	// A part is missing: where the next message begins is not guessed.
	lost bool
	// Where it ends, if that was said.
	fin   bool
	finAt uint32
	// The message that is being read: bytes of its length, its size, how many of it
	// have passed, and its beginning as far as it was copied.
	lengths  int
	size, at int
	head     [2]byte
	body     []byte
	hole     bool
}

// within a message.
func (h *half) within() bool { return h.lengths > 0 || len(h.held) > 0 }

func (h *half) ended() bool { return h.fin && (h.lost || h.begun && int32(h.next-h.finAt) >= 0) }

func (t *Tracker) takeSegment(p *Packet) {
	k := p.Conn
	k.Ifindex = 0
	s := t.streams.all[k]
	switch {
	case p.RST:
		if s != nil {
			t.endStream(s)
		}
		return
	case s == nil && !p.SYN && p.Length == 0:
		return
	case s == nil:
		if len(t.streams.all) >= t.cfg.MaxStreams {
			t.evictStream()
		}
		s = &stream{conn: k}
		t.streams.all[k] = s
	}
	t.streams.order.push(&s.place, s)
	s.last = p.Time
	h := &s.halves[1]
	if p.Sent {
		h = &s.halves[0]
	}
	if p.SYN && !(h.seen && h.first == p.Seq) {
		t.reset(h)
		h.begun, h.seen, h.first, h.next = true, true, p.Seq, p.Seq+1
	}
	t.feed(p, s, h)
	for !s.gone && t.streams.bytes > t.cfg.MaxStreamBytes {
		t.evictStream()
	}
	if !s.gone && s.halves[0].ended() && s.halves[1].ended() {
		t.endStream(s)
	}
}

// feed passes a segment to its direction.
func (t *Tracker) feed(p *Packet, s *stream, h *half) {
	seg := piece{p.Seq, p.Length, p.Data}
	if p.SYN {
		seg.seq++
	}
	if p.FIN {
		h.fin, h.finAt = true, seg.seq+uint32(seg.length)
	}
	if seg.length == 0 || h.lost {
		return
	}
	if !h.begun {
		if !t.joins(p) {
			t.counts.StreamMidway++
			return
		}
		h.begun, h.next = true, p.Seq
	}
	if !seg.from(h.next) {
		return
	}
	if seg.seq != h.next {
		size, ok := h.hold(seg)
		if t.streams.bytes += size; !ok {
			t.lose(h)
		}
		return
	}
	for ok := true; ok && !h.lost; {
		t.read(p, h, seg)
		var size int
		seg, size, ok = h.ready()
		t.streams.bytes -= size
	}
}

// joins tells whether a connection that began before the agent goes on with a
// message.
func (t *Tracker) joins(p *Packet) bool {
	if len(p.Data) < 2+minMessage {
		return false
	}
	size := int(binary.BigEndian.Uint16(p.Data))
	if size < minMessage {
		return false
	}
	m := &t.msg
	err := dns.Parse(p.Data[2:min(2+size, len(p.Data))], m)
	return (err == nil || err == dns.ErrCut) && m.Name != "" && m.Questions == 1 && m.Opcode == 0 &&
		(p.Server || m.Response != p.Sent)
}

// read takes in what comes next.
func (t *Tracker) read(p *Packet, h *half, s piece) {
	h.next += uint32(s.length)
	for s.length > 0 {
		if h.lengths < 2 {
			if len(s.data) == 0 {
				t.lose(h)
				return
			}
			h.head[h.lengths] = s.data[0]
			h.lengths++
			s.data, s.length = s.data[1:], s.length-1
			h.size = int(binary.BigEndian.Uint16(h.head[:]))
			if h.lengths < 2 || h.size > 0 {
				continue
			}
		}
		n := min(s.length, h.size-h.at)
		part := s.data[:min(n, len(s.data))]
		whole := h.at == 0 && n == h.size
		if !whole && !h.hole {
			was := cap(h.body)
			h.body = append(h.body, part...)
			t.streams.bytes += cap(h.body) - was
		}
		h.hole = h.hole || len(part) < n
		h.at += n
		s.data, s.length = s.data[len(part):], s.length-n
		if h.at < h.size {
			continue
		}
		if !whole {
			part = h.body
		}
		t.streams.bytes -= cap(h.body)
		h.lengths, h.size, h.at, h.body, h.hole = 0, 0, 0, nil, false
		t.message(p, part)
	}
}

// lose gives a direction up.
func (t *Tracker) lose(h *half) {
	t.counts.StreamGap++
	t.release(h)
	h.lost = true
}

// reset begins a direction anew: another connection has the same tuple.
func (t *Tracker) reset(h *half) {
	if h.within() {
		t.counts.StreamIncomplete++
	}
	t.release(h)
	*h = half{}
}

func (t *Tracker) release(h *half) {
	t.streams.bytes -= cap(h.body) + h.waiting()
	h.body, h.held, h.lengths = nil, nil, 0
}

func (t *Tracker) endStream(s *stream) {
	for i := range s.halves {
		t.reset(&s.halves[i])
	}
	s.gone = true
	s.place.drop()
	delete(t.streams.all, s.conn)
}

func (t *Tracker) evictStream() {
	t.counts.StreamEvicted++
	t.endStream(t.streams.order.oldest())
}

func (t *Tracker) expireStreams(now int64) {
	for s := t.streams.order.oldest(); s != nil && now-s.last > idle; s = t.streams.order.oldest() {
		t.endStream(s)
	}
}
