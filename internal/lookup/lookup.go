// SPDX-License-Identifier: Apache-2.0

// Package lookup makes look-ups of copied packets: it puts TCP streams together,
// joins questions with their answers, notes what nobody answered, and tells what
// a search list cost; and it puts the ClientHello of a TLS connection together.
// It parses nothing itself, knows nobody by name, and reads no clock: time comes
// with the packets and with Expire. What it keeps is bounded, and what found no
// room or could not be read is counted. The agent feeds it from the tap's ring,
// the pipeline takes what it gives.
//
// Questions to a group (mDNS, LLMNR) are no look-ups: they are answered by
// anybody, from other addresses, or by nobody.
package lookup

import (
	"maps"
	"time"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/l7/dns"
	"github.com/orb8/orb8/internal/l7/tls"
)

// Packet is one that was copied. Packets come in the order in which they were
// seen.
type Packet struct {
	// The local end is this namespace's; on loopback, of DNS, the client.
	Conn event.Conn
	// Unix nanoseconds.
	Time int64
	// The local end sent it.
	Sent bool
	// The local port is one of the DNS: the local end is asked. Where both ports
	// are, who asks is the client.
	Server bool
	// It is no DNS but the beginning of what a client says over TLS.
	Hello bool
	// Of the local end's socket; 0 where that is not known.
	Cookie, Cgroup uint64
	// Of TCP.
	Seq           uint32
	SYN, FIN, RST bool
	// Bytes of payload in the packet.
	Length int
	// The first of them, as many as were copied; good during the call only.
	Data []byte
}

// Config of a Tracker. The zero value works; what is not called is not told.
type Config struct {
	// The host's network namespace: clients there are told apart by their cgroup, and
	// answers to them may have been translated where the questions had not.
	Host uint32
	// How long after the last try a question is given up; 0 means 5.5 s: resolvers
	// try again after 5 s, and that is the same question.
	Timeout time.Duration
	// Questions that wait for their answer; 0 means 32,768.
	MaxOpen int
	// TCP connections that are put together, and bytes that wait in them; 0 means
	// 2,048 and 8 MiB.
	MaxStreams, MaxStreamBytes int
	// Connections of which the ClientHello is put together, or was; 0 means 1,024.
	MaxHellos int
	// Clients whose search lists are followed; 0 means 1,024.
	MaxClients int

	// Lookup is told of each look-up that is over.
	Lookup func(*event.Lookup)
	// Answered is told next of those that were answered to a local client, with the
	// answer, which is good during the call only.
	Answered func(*event.Lookup, *dns.Message)
	// Hello is told what the local end of a connection said.
	Hello func(event.Conn, *event.Hello)
}

// Counts are of packets, messages and questions that gave no look-up, by cause.
type Counts struct {
	// Messages that could not be read, and hellos.
	Malformed      map[dns.Cause]uint64
	MalformedHello map[tls.Cause]uint64
	// Other things than questions: updates, notifications, no question or several.
	Other uint64
	// To or from a group.
	Multicast uint64
	// Answers that nobody asked for, or of a wrong server or id; and those to what
	// was answered or given up before.
	Unasked, Late uint64
	// Questions that made room for others, and those whose answer may be among the
	// packets that were missed.
	Evicted, Missed uint64
	// Streams of which a part was missing, that began before the agent with what is
	// no message, that ended within one, and that made room for others.
	StreamGap, StreamMidway, StreamIncomplete, StreamEvicted uint64
	// Hellos of which a part was missing, and that made room for others.
	HelloIncomplete, HelloEvicted uint64
}

// Tracker is for one goroutine.
type Tracker struct {
	cfg    Config
	counts Counts
	// When packets were missed last.
	missed    int64
	msg       dns.Message
	questions questions
	cuts      recent
	search    search
	streams   streams
	hellos    hellos
}

// New makes a tracker that knows of nothing.
func New(cfg Config) *Tracker {
	for _, d := range []struct {
		n *int
		d int
	}{
		{&cfg.MaxOpen, 32_768},
		{&cfg.MaxStreams, 2048},
		{&cfg.MaxStreamBytes, 8 << 20},
		{&cfg.MaxHellos, 1024},
		{&cfg.MaxClients, 1024},
	} {
		if *d.n <= 0 {
			*d.n = d.d
		}
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 5500 * time.Millisecond
	}
	if cfg.Lookup == nil {
		cfg.Lookup = func(*event.Lookup) {}
	}
	if cfg.Answered == nil {
		cfg.Answered = func(*event.Lookup, *dns.Message) {}
	}
	if cfg.Hello == nil {
		cfg.Hello = func(event.Conn, *event.Hello) {}
	}
	return &Tracker{
		cfg:       cfg,
		counts:    Counts{Malformed: map[dns.Cause]uint64{}, MalformedHello: map[tls.Cause]uint64{}},
		questions: questions{all: map[key]*question{}, asked: map[subject]*question{}, own: map[ownKey]*question{}},
		cuts:      recent{at: map[cut]int64{}},
		search:    search{clients: map[clientKey]*client{}},
		streams:   streams{all: map[event.Conn]*stream{}},
		hellos:    hellos{all: map[event.Conn]*hello{}},
	}
}

// Take takes in a packet, and tells what is over by it.
func (t *Tracker) Take(p *Packet) {
	t.expireQuestions(p.Time)
	switch {
	case p.Hello:
		t.takeHello(p)
	case p.Conn.Protocol == event.TCP:
		t.takeSegment(p)
	default:
		t.message(p, p.Data)
	}
}

// Missed tells that packets were missed up to a time in Unix nanoseconds: that a
// question of before has no answer says nothing.
func (t *Tracker) Missed(now int64) { t.missed = now }

// Expire gives up what has waited for too long at a time in Unix nanoseconds.
func (t *Tracker) Expire(now int64) {
	t.expireQuestions(now)
	t.expireStreams(now)
	t.expireHellos(now)
	t.expireClients(now)
}

// Counts are since the start.
func (t *Tracker) Counts() Counts {
	c := t.counts
	c.Malformed = maps.Clone(c.Malformed)
	c.MalformedHello = maps.Clone(c.MalformedHello)
	return c
}

// Open is how many questions wait for their answer.
func (t *Tracker) Open() int { return t.questions.open.len }

// message takes in one of the DNS. What its end is missing does not matter.
func (t *Tracker) message(p *Packet, b []byte) {
	if p.Conn.Remote.Addr().IsMulticast() || p.Conn.Local.Addr().IsMulticast() {
		t.counts.Multicast++
		return
	}
	m := &t.msg
	if err := dns.Parse(b, m); err != nil && (err != dns.ErrCut || m.Name == "") {
		cause, _ := err.(dns.Cause)
		t.counts.Malformed[cause]++
		// What answers in a way that cannot be read has answered.
		if err == dns.ErrShort || err == dns.ErrNotDNS || !m.Response || m.Name == "" {
			return
		}
	}
	// Who asks is the client, whichever port is the DNS's.
	role := event.RoleServer
	if p.Sent != m.Response {
		role = event.RoleClient
	}
	switch {
	case m.Response && m.Opcode == 0 && m.Questions == 0 && m.RCode != 0:
		t.answer(p, role, t.questions.youngest(p.Conn, m.ID, role))
	case m.Opcode != 0 || m.Questions != 1 || role == event.RoleServer && !p.Server:
		t.counts.Other++
	case m.Response:
		t.answer(p, role, t.questioned(p, role))
	default:
		t.ask(p, role)
	}
}
