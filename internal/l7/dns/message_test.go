// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	reference "github.com/miekg/dns"

	"github.com/orb8/orb8/internal/event"
)

// answer is a response to a question, built by the reference.
func answer(t testing.TB, name string, qtype uint16, records ...string) *reference.Msg {
	t.Helper()
	r := new(reference.Msg).SetReply(new(reference.Msg).SetQuestion(name, qtype))
	r.Id, r.Compress = 7, true
	for _, text := range records {
		r.Answer = append(r.Answer, rr(t, text))
	}
	return r
}

func rr(t testing.TB, text string) reference.RR {
	t.Helper()
	record, err := reference.NewRR(text)
	if err != nil {
		t.Fatal(err)
	}
	return record
}

func pack(t testing.TB, m *reference.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parse(t testing.TB, b []byte) *Message {
	t.Helper()
	m := &Message{}
	if err := Parse(b, m); err != nil {
		t.Fatal(err)
	}
	return m
}

type resolved struct {
	Addr string
	TTL  uint32
}

func resolve(m *Message) (got []resolved) {
	m.Resolved(func(a netip.Addr, ttl uint32) { got = append(got, resolved{a.String(), ttl}) })
	return got
}

var words = cmp.Options{
	cmpopts.IgnoreUnexported(Message{}),
	cmpopts.EquateComparable(netip.Addr{}),
	cmpopts.EquateEmpty(),
}

func TestParse(t *testing.T) {
	query := func(change func(*reference.Msg)) []byte {
		q := new(reference.Msg).SetQuestion("example.com.", reference.TypeAAAA)
		q.Id = 7
		change(q)
		return pack(t, q)
	}
	response := func(change func(*reference.Msg)) []byte {
		r := answer(t, "Example.COM.", reference.TypeA, "eXample.com. 30 A 192.0.2.1")
		change(r)
		return pack(t, r)
	}
	asked := Message{ID: 7, Questions: 1, Name: "example.com", Type: reference.TypeAAAA, Class: 1}
	answered := Message{
		ID: 7, Response: true, Questions: 1, Name: "example.com", Type: reference.TypeA, Class: 1,
		Answers:     []event.Answer{{Type: reference.TypeA, TTL: 30, Addr: netip.MustParseAddr("192.0.2.1")}},
		AnswerCount: 1,
	}
	with := func(m Message, change func(*Message)) Message {
		change(&m)
		return m
	}
	tests := map[string]struct {
		b    []byte
		want Message
	}{
		"query":      {query(func(*reference.Msg) {}), asked},
		"query EDNS": {query(func(q *reference.Msg) { q.SetEdns0(1232, true) }), asked},
		"unicast wanted": {query(func(q *reference.Msg) {
			q.Question[0].Qclass |= 1 << 15
		}), asked},
		"several questions": {query(func(q *reference.Msg) {
			q.Question = append(q.Question, q.Question[0], q.Question[0])
		}), with(asked, func(m *Message) { m.Questions = 3 })},
		"root": {query(func(q *reference.Msg) { q.Question[0].Name = "." }), with(asked, func(m *Message) { m.Name = "." })},
		"bytes": {query(func(q *reference.Msg) {
			q.Question[0].Name = `A\.b\000\027[2J\\c\255\ (x)."y".example.com.`
		}), with(asked, func(m *Message) { m.Name = `a\.b\000\027[2j\\c\255\032(x)."y".example.com` })},
		"update": {query(func(q *reference.Msg) {
			q.Opcode = reference.OpcodeUpdate
			q.RemoveName([]reference.RR{rr(t, "a.example.com. A 192.0.2.1")})
			q.Answer = []reference.RR{&reference.ANY{Hdr: reference.RR_Header{Name: "a.", Rrtype: reference.TypeA, Class: reference.ClassANY}}}
		}), with(asked, func(m *Message) {
			m.Opcode, m.AnswerCount = reference.OpcodeUpdate, 1
			m.Answers = []event.Answer{{Type: reference.TypeA}}
		})},
		"response":  {response(func(*reference.Msg) {}), answered},
		"truncated": {response(func(r *reference.Msg) { r.Truncated = true }), with(answered, func(m *Message) { m.Truncated = true })},
		"NXDOMAIN": {response(func(r *reference.Msg) {
			r.Rcode, r.Answer = reference.RcodeNameError, nil
			r.Ns = []reference.RR{rr(t, "example.com. 60 SOA ns.example.com. a.example.com. 1 2 3 4 5")}
		}), with(answered, func(m *Message) { m.RCode, m.Answers, m.AnswerCount = 3, nil, 0 })},
		"BADVERS": {response(func(r *reference.Msg) {
			r.SetEdns0(1232, false).Rcode = reference.RcodeBadVers
		}), with(answered, func(m *Message) { m.RCode = 16 })},
		"a life beyond the longest": {response(func(r *reference.Msg) {
			r.Answer[0].Header().Ttl = 1 << 31
		}), with(answered, func(m *Message) { m.Answers = []event.Answer{{Type: 1, Addr: netip.MustParseAddr("192.0.2.1")}} })},
		"of another class": {response(func(r *reference.Msg) {
			r.Answer[0].Header().Class = reference.ClassCHAOS
		}), with(answered, func(m *Message) { m.Answers = []event.Answer{{Type: 1, TTL: 30}} })},
		"mDNS": {response(func(r *reference.Msg) {
			r.Id, r.Question = 0, nil
			r.Answer[0].Header().Class |= 1 << 15
		}), with(answered, func(m *Message) { m.ID, m.Questions, m.Name, m.Type, m.Class = 0, 0, "", 0, 0 })},
		"refused with a header": {
			response(func(r *reference.Msg) { r.Rcode = reference.RcodeRefused })[:headerSize],
			Message{ID: 7, Response: true, RCode: 5},
		},
	}
	m := Message{} // one for all: nothing of the last may stay
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if err := Parse(test.b, &m); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, m, words); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestResolved(t *testing.T) {
	chain := []string{
		"S3.Example.com. 20 CNAME s3-r.example.com.",
		"s3-r.example.com. 300 CNAME s3-R-w.Example.com.",
		"s3-r-w.example.com. 5 A 192.0.2.1",
		"s3-r-w.EXAMPLE.com. 60 AAAA 2001:db8::1",
		"s3-r-w.example.com. 60 AAAA ::ffff:192.0.2.7",
	}
	want := []resolved{{"192.0.2.1", 5}, {"2001:db8::1", 20}, {"192.0.2.7", 20}}
	backwards := slices.Clone(chain)
	slices.Reverse(backwards)
	wantBackwards := slices.Clone(want)
	slices.Reverse(wantBackwards)
	tests := map[string]struct {
		records []string
		want    []resolved
	}{
		"nothing":   {nil, nil},
		"chain":     {chain, want},
		"backwards": {backwards, wantBackwards},
		"addresses of others": {[]string{
			"s3.example.com. 5 A 192.0.2.1", "bank.example. 5 A 203.0.113.9",
		}, want[:1]},
		"a chain that nobody asked for": {[]string{
			"other.example.com. 5 CNAME bank.example.", "bank.example. 5 A 203.0.113.9",
		}, nil},
		"loop": {[]string{
			"s3.example.com. 5 CNAME a.example.com.", "a.example.com. 5 CNAME s3.example.com.",
			"a.example.com. 9 A 192.0.2.1",
		}, want[:1]},
		"a loop of one": {[]string{"s3.example.com. 5 CNAME s3.example.com."}, nil},
		"other types between": {[]string{
			chain[0], "s3.example.com. 20 RRSIG CNAME 8 3 20 20300101000000 20200101000000 1 example.com. AAAA",
			"s3-r.example.com. 5 A 192.0.2.1",
		}, want[:1]},
	}
	for name, test := range tests {
		for _, compressed := range []bool{true, false} {
			r := answer(t, "s3.eXample.com.", reference.TypeA, test.records...)
			r.Compress = compressed
			if diff := cmp.Diff(test.want, resolve(parse(t, pack(t, r)))); diff != "" {
				t.Errorf("%s, compressed %v:\n%s", name, compressed, diff)
			}
		}
	}
	query := answer(t, "s3.example.com.", reference.TypeA, chain...)
	query.Response = false
	if got := resolve(parse(t, pack(t, query))); got != nil {
		t.Errorf("a query answered %v", got)
	}
}

// What is kept of one message must not be changed by the next.
func TestMemoryIsUsedAgain(t *testing.T) {
	m := &Message{}
	var names []string
	for _, label := range []string{"aaa", "bbb", "bbb", "ccc"} {
		name := label + ".example.com."
		if err := Parse(pack(t, answer(t, name, reference.TypeA, name+" CNAME x"+name)), m); err != nil {
			t.Fatal(err)
		}
		names = append(names, m.Name, m.Answers[0].Target)
	}
	want := "aaa.example.com xaaa.example.com bbb.example.com xbbb.example.com bbb.example.com xbbb.example.com ccc.example.com xccc.example.com"
	if got := strings.Join(names, " "); got != want {
		t.Error(got)
	}
}
