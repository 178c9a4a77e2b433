// SPDX-License-Identifier: Apache-2.0

package lookup

import (
	"slices"
	"testing"
	"time"

	reference "github.com/miekg/dns"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/l7/dns"
)

func TestAnswered(t *testing.T) {
	w := newWorld(t, Config{})
	c, q := conn(40000), query(7, "s3.amazonaws.com", typeA)
	w.Take(&Packet{Conn: c, Time: start, Sent: true, Cookie: 3, Cgroup: 4, Length: len(q), Data: q})
	w.now = start
	back := c
	back.Ifindex = 3 // it may come another way
	w.receives(back, reply(q, 0, "s3.amazonaws.com. 20 CNAME x.s3.amazonaws.com.", "x.s3.amazonaws.com. 5 A 52.218.0.1"))
	l := w.one()
	if l.Conn != c || l.Role != event.RoleClient || l.Cookie != 3 || l.Cgroup != 4 || l.Name != "s3.amazonaws.com" ||
		l.Type != typeA || l.RCode != 0 || l.Latency() != ms || l.Tries != 1 || l.AnswerCount != 2 || len(l.Answers) != 2 {
		t.Errorf("%+v", l)
	}
	if want := []string{"s3.amazonaws.com 52.218.0.1 5"}; !slices.Equal(w.learned, want) {
		t.Errorf("learned %q, want %q", w.learned, want)
	}
	// What it was told is not what the next message is read into.
	w.asks("other.example", typeA, 0, "other.example. 5 A 1.2.3.4")
	if l.Answers[0].Target != "x.s3.amazonaws.com" {
		t.Errorf("changed after it was told: %+v", l.Answers)
	}
	if w.Open() != 0 {
		t.Errorf("%d open", w.Open())
	}
}

// What cannot be read is an answer. What may have been missed is no timeout.
func TestAnswersThatAreNotRead(t *testing.T) {
	w := newWorld(t, Config{})
	c, q := conn(40000), query(7, "web.example", typeA)
	w.sends(c, q)
	bad := reply(q, 0, "web.example. 5 A 1.2.3.4")
	w.receives(c, bad[:len(bad)-6]) // an address of no length
	if l := w.one(); l.RCode != 0 || l.Answered == 0 || len(w.learned) != 0 {
		t.Errorf("%+v, learned %q", l, w.learned)
	}
	w.sends(c, query(8, "other.example", typeA))
	w.Missed(w.now)
	w.sends(c, query(9, "third.example", typeA))
	w.Expire(w.now + int64(time.Minute))
	if l := w.one(); l.Name != "third.example" || l.RCode != event.RCodeTimeout || w.Counts().Missed != 1 {
		t.Errorf("%+v, %+v", l, w.Counts())
	}
}

// A server that refuses may send a header and nothing else.
func TestARefusalWithoutItsQuestion(t *testing.T) {
	w := newWorld(t, Config{})
	c, q := conn(40000), query(7, "web.example", typeA)
	refusal := []byte{0, 7, 0x80, reference.RcodeRefused, 0, 0, 0, 0, 0, 0, 0, 0}
	w.sends(c, q)
	w.sends(conn(40001), query(8, "other.example", typeA))
	w.receives(conn(40001), refusal) // of another's number
	w.receives(c, refusal)
	if l := w.one(); l.Conn != c || l.Name != "web.example" || l.RCode != reference.RcodeRefused || w.Open() != 1 || w.counts.Unasked != 1 {
		t.Errorf("%+v, %d open, %+v", l, w.Open(), w.Counts())
	}
}

func TestTheServersSide(t *testing.T) {
	w := newWorld(t, Config{})
	c, q := turned(conn(40000)), query(7, "web.example", typeA)
	w.receives(c, q)
	w.sends(c, reply(q, 0, "web.example. 5 A 1.2.3.4"))
	if l := w.one(); l.Role != event.RoleServer || l.Conn != c || l.Upstream || len(w.learned) != 0 {
		t.Errorf("%+v, learned %q", l, w.learned)
	}
	// Both ports are of the DNS: who asks is the client.
	c.RemotePort = 53
	w.sends(c, q)
	w.receives(c, reply(q, 0))
	if l := w.one(); l.Role != event.RoleClient {
		t.Errorf("%+v", l)
	}
	// Who has no DNS port is not asked.
	w.receives(conn(1), q)
	if w.counts.Other != 1 || w.Open() != 0 {
		t.Errorf("%+v", w.Counts())
	}
}

func TestUpstream(t *testing.T) {
	w := newWorld(t, Config{})
	q := query(7, "web.example", typeA)
	first, second, cached, other := turned(conn(1)), turned(conn(2)), turned(conn(3)), turned(conn(4))
	other.Netns = 8
	up := conn(50000)
	up.Netns, up.Remote = first.Netns, addr("8.8.8.8")
	w.receives(first, q)
	w.receives(other, q)
	asked := query(9, "web.example", typeA)
	w.sends(up, asked)
	w.receives(second, q)
	w.sends(up, query(10, "web.example", typeAAAA)) // not for these
	w.receives(up, reply(asked, 0))
	w.told()
	for _, c := range []struct {
		conn event.Conn
		want bool
	}{{first, true}, {second, false}, {other, false}} {
		w.sends(c.conn, reply(q, 0))
		if l := w.one(); l.Upstream != c.want {
			t.Errorf("%+v: upstream is not %v", l, c.want)
		}
	}
	w.receives(cached, q)
	w.sends(cached, reply(q, 0))
	if w.one().Upstream || len(w.questions.asked) != 0 {
		t.Error("answered from the cache")
	}
	// In the host's namespace there are several.
	for _, cgroup := range []uint64{3, 4} {
		w.Take(&Packet{Conn: first, Time: w.now, Server: true, Cgroup: 3, Length: len(q), Data: q})
		w.Take(&Packet{Conn: up, Time: w.now, Sent: true, Cgroup: cgroup, Length: len(q), Data: q})
		w.sends(first, reply(q, 0))
		if got := w.one().Upstream; got != (cgroup == 3) {
			t.Errorf("asked by cgroup %d: upstream %v", cgroup, got)
		}
		w.receives(up, reply(q, 0))
		w.told()
	}
}

func TestTries(t *testing.T) {
	w := newWorld(t, Config{})
	c, q := conn(40000), query(7, "web.example", typeA)
	w.sends(c, q)
	w.now += 2 * 1000 * ms
	w.sends(c, q)
	w.receives(c, reply(q, 0))
	if l := w.one(); l.Tries != 2 || l.Latency() != 2002*ms {
		t.Errorf("%d tries, %d", l.Tries, l.Latency())
	}
	w.receives(c, reply(q, 0))
	if w.want(); w.counts.Late != 1 {
		t.Errorf("the second answer is late: %+v", w.Counts())
	}
	w.sends(c, q) // the id again, at once
	w.receives(c, reply(q, 0))
	if l := w.one(); l.Tries != 1 {
		t.Errorf("%+v", l)
	}
}

func TestTimeout(t *testing.T) {
	w := newWorld(t, Config{})
	c, q := conn(40000), query(7, "web.example", typeA)
	w.sends(c, q)
	w.now += 5000 * ms
	w.sends(c, q)
	w.after(5 * time.Second)
	w.want()
	w.after(time.Second)
	l := w.one()
	if l.RCode != event.RCodeTimeout || l.Answered != 0 || l.Latency() != 0 || l.Tries != 2 || l.Asked != start+ms {
		t.Errorf("%+v", l)
	}
	w.receives(c, reply(q, 0))
	if w.want(); w.counts.Late != 1 || l.Answered != 0 {
		t.Errorf("a late answer: %+v", w.Counts())
	}
	w.sends(c, q) // and once more, in vain
	w.after(10 * time.Second)
	w.want("web.example A TIMEOUT")
	w.after(10 * time.Second)
	if len(w.questions.all) != 0 || w.questions.over.len != 0 {
		t.Errorf("%d are kept", len(w.questions.all))
	}
	// The next packet does as well as Expire.
	w.sends(c, q)
	w.now += 6 * 1000 * ms
	w.receives(c, reply(q, 0))
	w.want("web.example A TIMEOUT")
}

// The next server of resolv.conf is asked from a socket of its own.
func TestTheNextServer(t *testing.T) {
	w := newWorld(t, Config{})
	a, b := conn(40000), conn(40001)
	b.Remote = addr("10.96.0.11")
	q := query(7, "web.example", typeA)
	w.sends(a, q)
	w.now += 5000 * ms
	w.sends(b, q)
	w.receives(b, reply(q, 0))
	w.after(time.Second)
	w.want("web.example A NOERROR", "web.example A TIMEOUT")
}

func TestWhatNobodyAskedFor(t *testing.T) {
	q := query(7, "web.example", typeA)
	elsewhere := conn(40000)
	elsewhere.Remote = addr("10.96.0.66")
	mixed := reply(q, 0)
	copy(mixed[13:], "WeB") // 0x20
	for _, c := range []struct {
		what   string
		conn   event.Conn
		answer []byte
		joins  bool
	}{
		{"as asked", conn(40000), reply(q, 0), true},
		{"letters of another case", conn(40000), mixed, true},
		{"another server", elsewhere, reply(q, 0), false},
		{"another port", conn(40001), reply(q, 0), false},
		{"another id", conn(40000), reply(query(8, "web.example", typeA), 0), false},
		{"another name", conn(40000), reply(query(7, "evil.example", typeA), 0), false},
		{"another type", conn(40000), reply(query(7, "web.example", typeAAAA), 0), false},
	} {
		w := newWorld(t, Config{})
		w.sends(conn(40000), q)
		w.receives(c.conn, c.answer)
		if got := len(w.lookups) == 1; got != c.joins || w.counts.Unasked == 0 != c.joins {
			t.Errorf("%s: told %v, %+v", c.what, brief(w.lookups), w.Counts())
		}
	}
}

// A bridge has the answer to the host translated before it is seen: the question
// went to the server itself, the answer comes from its Service.
func TestAnswersThatWereTranslated(t *testing.T) {
	q := query(7, "web.example", typeA)
	for _, c := range []struct {
		what          string
		host          uint32
		cookie        uint64
		answer        []byte
		told, learned int
	}{
		{"to the host's own", 7, 5, reply(q, 0, "web.example. 5 A 1.2.3.4"), 1, 0},
		{"another id", 7, 5, reply(query(8, "web.example", typeA), 0), 0, 0},
		{"another name", 7, 5, reply(query(7, "evil.example", typeA), 0), 0, 0},
		{"passes through", 7, 0, reply(q, 0), 0, 0},
		{"to a pod", 1, 5, reply(q, 0), 0, 0},
	} {
		w := newWorld(t, Config{Host: c.host})
		asked, answered := conn(40000), conn(40001)
		asked.Remote = addr("10.244.1.35")
		w.Take(&Packet{Conn: asked, Time: w.now, Sent: true, Cookie: c.cookie, Length: len(q), Data: q})
		w.receives(answered, c.answer)
		if len(w.lookups) != c.told || len(w.learned) != c.learned || w.counts.Unasked != uint64(1-c.told) {
			t.Errorf("%s: told %v, learned %v, %+v", c.what, brief(w.lookups), w.learned, w.Counts())
		}
		if c.told == 1 && (w.lookups[0].Conn != asked || w.lookups[0].Latency() <= 0) {
			t.Errorf("%s: %+v", c.what, w.lookups[0])
		}
		w.after(time.Minute)
		w.after(time.Minute)
		if len(w.questions.own) != 0 || len(w.questions.all) != 0 {
			t.Errorf("%s: %d are kept", c.what, len(w.questions.own))
		}
	}
}

func TestWhatIsNoLookup(t *testing.T) {
	w := newWorld(t, Config{})
	group := conn(5353)
	group.Remote, group.RemotePort = addr("224.0.0.251"), 5353
	w.sends(group, query(0, "printer.local", typeA))
	group.Remote = addr("ff02::fb")
	w.sends(group, query(0, "printer.local", typeA))
	w.sends(conn(1), []byte("short"))
	w.sends(conn(1), make([]byte, 4096)) // no question
	w.sends(conn(1), append(query(1, "web.example", typeA)[:12], 0xff, 0xff, 0, 0, 0, 0))
	w.sends(conn(1), packed(new(reference.Msg).SetUpdate("example.")))
	w.sends(conn(1), query(1, "web.example", typeA)[:20]) // not even the question
	w.after(10 * time.Second)
	c := w.Counts()
	if len(w.lookups) != 0 || c.Multicast != 2 || c.Other != 2 || len(c.Malformed) != 3 || c.Malformed[dns.ErrShort] != 1 || c.Malformed[dns.ErrCut] != 1 {
		t.Errorf("%v, %+v", brief(w.lookups), c)
	}
}

func TestCutAndAskedAgainOverTCP(t *testing.T) {
	w := newWorld(t, Config{})
	c, q := conn(40000), query(7, "big.example", typeA)
	w.sends(c, q)
	w.receives(c, cutShort(reply(q, 0)))
	if l := w.one(); !l.Truncated || l.TCPRetry {
		t.Errorf("%+v", l)
	}
	for i, want := range []bool{true, false} {
		over := tcp(w, uint16(40001+i))
		over.send(framed(q))
		over.receive(framed(reply(q, 0)))
		if l := w.one(); l.TCPRetry != want || l.Truncated {
			t.Errorf("%d: %+v", i, l)
		}
	}
	w.sends(c, q)
	w.receives(c, cutShort(reply(q, 0)))
	w.after(6 * time.Second)
	w.told()
	over := tcp(w, 40009)
	over.send(framed(q))
	over.receive(framed(reply(q, 0)))
	if w.one().TCPRetry {
		t.Error("so late it is for something else")
	}
}

func TestBoundedQuestions(t *testing.T) {
	w := newWorld(t, Config{MaxOpen: 100})
	for i := range 1000 {
		w.sends(conn(uint16(1000+i)), query(7, "web.example", typeA))
	}
	if w.Open() != 100 || len(w.questions.all) != 100 || w.counts.Evicted != 900 {
		t.Errorf("%d open, %+v", w.Open(), w.Counts())
	}
	w.receives(conn(1999), reply(query(7, "web.example", typeA), 0))
	w.want("web.example A NOERROR")
	for range 10 * 1024 {
		w.cuts.add(cut{kind: uint16(w.now)}, w.now)
		w.now++
	}
	if len(w.cuts.at) > len(w.cuts.order) {
		t.Errorf("%d cut answers are remembered", len(w.cuts.at))
	}
}
