// SPDX-License-Identifier: Apache-2.0

package lookup

import (
	"math"
	"slices"

	"github.com/orb8/orb8/internal/event"
)

// questions are those that wait, and for a while those that do not any more: what
// answers them again is late, and not unasked.
type questions struct {
	all map[key]*question
	// By their last try, and by when they were over.
	open, over order[question]
	// Those that a local end was asked, the last of each subject.
	asked map[subject]*question
	// Those of the host's own sockets that wait, by all but the addresses.
	own map[ownKey]*question
}

// ownKey joins a question of the host's own and an answer of other addresses: a
// bridge has the answer translated before it comes to the tap, while the question
// is translated after its socket, and before the tap.
type ownKey struct {
	name string
	id   uint16
	kind uint16
}

// key joins a question and its answer. The interface does not count: the answer
// may take another way.
type key struct {
	conn event.Conn
	name string
	id   uint16
	kind uint16
	role event.Role
}

type question struct {
	event.Lookup
	id uint16
	// Of the last try; once it is over, of that.
	last  int64
	place place[question]
	// Others of the same subject, the younger one first.
	younger, elder *question
}

func (q *question) key() key {
	k := key{q.Conn, q.Name, q.id, q.Type, q.Role}
	k.conn.Ifindex = 0
	return k
}

// subject is what one local end is asked, and has to ask somebody else.
type subject struct {
	netns uint32
	kind  uint16
	name  string
}

func (q *question) subject() subject { return subject{q.Conn.Netns, q.Type, q.Name} }

// ask takes in the question in t.msg.
func (t *Tracker) ask(p *Packet, role event.Role) {
	m := &t.msg
	k := key{p.Conn, m.Name, m.ID, m.Type, role}
	k.conn.Ifindex = 0
	if q := t.questions.all[k]; q != nil && q.place.in == &t.questions.open {
		if q.Tries < math.MaxUint16 {
			q.Tries++
		}
		q.last = p.Time
		t.questions.open.push(&q.place, q)
		return
	} else if q != nil {
		t.forget(q)
	}
	t.makeRoom()
	q := &question{id: m.ID, last: p.Time, Lookup: event.Lookup{
		Conn: p.Conn, Role: role, Cookie: p.Cookie, Cgroup: p.Cgroup,
		Name: m.Name, Type: m.Type, Asked: p.Time, Tries: 1,
	}}
	if p.Conn.Protocol == event.TCP {
		q.TCPRetry = t.cuts.take(cutOf(&q.Lookup), p.Time)
	}
	t.questions.all[k] = q
	t.questions.open.push(&q.place, q)
	if t.isOwn(q) {
		t.questions.own[q.ownKey()] = q
	}
	if role == event.RoleServer {
		t.questions.wait(q)
	} else {
		t.questions.markUpstream(q)
	}
}

// youngest is the last question of a number on a connection that waits: a refusal
// may not repeat what it refuses. Among so many younger ones it is looked for.
func (s *questions) youngest(c event.Conn, id uint16, role event.Role) *question {
	c.Ifindex = 0
	place := s.open.last
	for range 64 {
		if place == nil {
			break
		}
		if k := place.of.key(); k.conn == c && k.id == id && k.role == role {
			return place.of
		}
		place = place.prev
	}
	return nil
}

// questioned is the question that the answer in t.msg is to; nil where there is none.
func (t *Tracker) questioned(p *Packet, role event.Role) *question {
	m := &t.msg
	k := key{p.Conn, m.Name, m.ID, m.Type, role}
	k.conn.Ifindex = 0
	q := t.questions.all[k]
	if q == nil && role == event.RoleClient && p.Conn.Netns == t.cfg.Host && p.Conn.Protocol == event.UDP {
		q = t.questions.own[ownKey{m.Name, m.ID, m.Type}]
	}
	return q
}

// answer takes in the answer in t.msg to a question, if there is one.
func (t *Tracker) answer(p *Packet, role event.Role, q *question) {
	m := &t.msg
	switch {
	case q == nil:
		t.counts.Unasked++
		return
	case q.place.in == &t.questions.over:
		t.counts.Late++
		return
	}
	l := &q.Lookup
	// A clock that was set back makes no answer older than its question.
	l.Answered = max(p.Time, l.Asked)
	l.RCode, l.Truncated = m.RCode, m.Truncated
	l.Answers, l.AnswerCount = slices.Clone(m.Answers), m.AnswerCount
	if l.Cookie == 0 {
		l.Cookie, l.Cgroup = p.Cookie, p.Cgroup
	}
	if l.Truncated && p.Conn.Protocol != event.TCP {
		t.cuts.add(cutOf(l), p.Time)
	}
	if role == event.RoleClient {
		t.searched(l)
	}
	if l.Tries > 1 {
		t.finish(q, p.Time) // each try may be answered
	} else {
		t.forget(q)
	}
	t.cfg.Lookup(l)
	// From other addresses anybody may have said it: no name is learned.
	if c := l.Conn; role == event.RoleClient && c.Local == p.Conn.Local && c.Remote == p.Conn.Remote {
		t.cfg.Answered(l, m)
	}
}

// expireQuestions tells of those that nobody answered.
func (t *Tracker) expireQuestions(now int64) {
	before := now - int64(t.cfg.Timeout)
	for q := t.questions.open.oldest(); q != nil && q.last <= before; q = t.questions.open.oldest() {
		q.RCode = event.RCodeTimeout
		t.finish(q, now)
		if q.Asked <= t.missed {
			t.counts.Missed++
			continue
		}
		t.cfg.Lookup(&q.Lookup)
	}
	for q := t.questions.over.oldest(); q != nil && q.last <= before; q = t.questions.over.oldest() {
		t.forget(q)
	}
}

// makeRoom for one more question: those that are over go first.
func (t *Tracker) makeRoom() {
	if len(t.questions.all) < t.cfg.MaxOpen {
		return
	}
	if q := t.questions.over.oldest(); q != nil {
		t.forget(q)
		return
	}
	t.counts.Evicted++
	t.forget(t.questions.open.oldest())
}

// finish keeps a question to know late answers by.
func (t *Tracker) finish(q *question, now int64) {
	t.questions.unwait(q)
	t.disown(q)
	q.last = now
	t.questions.over.push(&q.place, q)
}

func (t *Tracker) forget(q *question) {
	t.questions.unwait(q)
	t.disown(q)
	q.place.drop()
	delete(t.questions.all, q.key())
}

// isOwn: a socket of the host's asked; what only passes through has none.
func (t *Tracker) isOwn(q *question) bool {
	return q.Role == event.RoleClient && q.Cookie != 0 && q.Conn.Netns == t.cfg.Host && q.Conn.Protocol == event.UDP
}

func (q *question) ownKey() ownKey { return ownKey{q.Name, q.id, q.Type} }

func (t *Tracker) disown(q *question) {
	if t.isOwn(q) && t.questions.own[q.ownKey()] == q {
		delete(t.questions.own, q.ownKey())
	}
}

// wait notes that a local end was asked.
func (s *questions) wait(q *question) {
	k := q.subject()
	if q.elder = s.asked[k]; q.elder != nil {
		q.elder.younger = q
	}
	s.asked[k] = q
}

func (s *questions) unwait(q *question) {
	if q.Role != event.RoleServer || q.place.in != &s.open {
		return
	}
	switch {
	case q.younger != nil:
		q.younger.elder = q.elder
	case q.elder != nil:
		s.asked[q.subject()] = q.elder
	default:
		delete(s.asked, q.subject())
	}
	if q.elder != nil {
		q.elder.younger = q.younger
	}
	q.younger, q.elder = nil, nil
}

// markUpstream: who is asked asks somebody else. All who wait for that have it
// from there; those who came before the last such question are marked already.
func (s *questions) markUpstream(by *question) {
	if len(s.asked) == 0 {
		return
	}
	for q := s.asked[by.subject()]; q != nil && !q.Upstream; q = q.elder {
		q.Upstream = by.Cgroup == 0 || q.Cgroup == 0 || by.Cgroup == q.Cgroup
	}
}
