// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"testing"

	reference "github.com/miekg/dns"
)

// A question and its answer, as a resolver asks and CoreDNS answers.
func pairOf(t testing.TB) (query, response []byte) {
	q := new(reference.Msg).SetQuestion("s3.eu-central-1.amazonaws.com.", reference.TypeA)
	q.SetEdns0(1232, false)
	r := answer(t, q.Question[0].Name, reference.TypeA,
		"s3.eu-central-1.amazonaws.com. 30 CNAME s3-r-w.eu-central-1.amazonaws.com.",
		"s3-r-w.eu-central-1.amazonaws.com. 5 A 192.0.2.1", "s3-r-w.eu-central-1.amazonaws.com. 5 A 192.0.2.2",
		"s3-r-w.eu-central-1.amazonaws.com. 5 A 192.0.2.3", "s3-r-w.eu-central-1.amazonaws.com. 5 A 192.0.2.4")
	r.SetEdns0(1232, false)
	return pack(t, q), pack(t, r)
}

func BenchmarkPair(b *testing.B) {
	query, response := pairOf(b)
	other := append([]byte(nil), query...)
	other[headerSize+1]++ // another name: no string is the last one's
	m := &Message{}
	b.ReportAllocs()
	for b.Loop() {
		_ = Parse(other, m)
		_ = Parse(query, m)
		_ = Parse(response, m)
	}
}

func TestAllocations(t *testing.T) {
	query, response := pairOf(t)
	other := append([]byte(nil), query...)
	other[headerSize+1]++
	m := &Message{}
	parse := func(b []byte) {
		if err := Parse(b, m); err != nil {
			t.Fatal(err)
		}
	}
	parse(response)
	n := testing.AllocsPerRun(100, func() {
		parse(other)    // its name
		parse(query)    // its name
		parse(response) // has that name; its CNAME's target is as the last one's
	})
	if n > 2 {
		t.Errorf("%v allocations", n)
	}
}
