// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"net/netip"
	"testing"

	reference "github.com/miekg/dns"
)

// answer is a response to name, built by the reference.
func answer(t testing.TB, name string, qtype uint16, records ...string) *reference.Msg {
	t.Helper()
	q := new(reference.Msg).SetQuestion(name, qtype)
	r := new(reference.Msg).SetReply(q)
	r.Compress = true
	for _, text := range records {
		rr, err := reference.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		r.Answer = append(r.Answer, rr)
	}
	return r
}

func pack(t testing.TB, m *reference.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type resolved struct {
	Addr string
	TTL  uint32
}

func resolve(m *Message) (got []resolved) {
	m.Resolved(func(a netip.Addr, ttl uint32) { got = append(got, resolved{a.String(), ttl}) })
	return got
}

func TestParseAnswer(t *testing.T) {
	b := pack(t, answer(t, "S3.amazonaws.com.", reference.TypeA,
		"s3.amazonaws.com. 20 CNAME x.s3.amazonaws.com.",
		"x.s3.amazonaws.com. 5 A 52.218.0.1",
		"x.s3.amazonaws.com. 60 A 52.218.0.2"))
	var m Message
	if err := Parse(b, &m); err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v %v", m, resolve(&m))
}
