// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"

	"github.com/miekg/dns"

	"github.com/orb8/orb8/internal/event"
	l7 "github.com/orb8/orb8/internal/l7/dns"
	"github.com/orb8/orb8/internal/lookup"
)

// What finds no room is counted, wherever that is, and a flood's room is given back.
func TestWhatIsHeardIsBounded(t *testing.T) {
	l := &lookups{tracker: lookup.New(lookup.Config{})}
	q := new(dns.Msg).SetQuestion("api.example.com.", dns.TypeA)
	r := new(dns.Msg).SetReply(q)
	for _, s := range []string{"api.example.com. 5 A 203.0.113.1", "api.example.com. 5 A 203.0.113.2"} {
		rr, err := dns.NewRR(s)
		if err != nil {
			t.Fatal(err)
		}
		r.Answer = append(r.Answer, rr)
	}
	b, err := r.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var m l7.Message
	if err := l7.Parse(b, &m); err != nil {
		t.Fatal(err)
	}
	one := &event.Lookup{Name: "api.example.com"}
	l.filling.answers = make([]answered, maxAnswered-1)
	l.answered(one, &m)
	l.hand()
	if n := len(l.waiting.answers); n != maxAnswered || l.spilled != 1 {
		t.Errorf("%d addresses wait, and %d found no room; of %d", n, l.spilled, maxAnswered+1)
	}
	if l.filling.answers != nil {
		t.Errorf("room for %d addresses is kept", cap(l.filling.answers))
	}
	l.answered(one, &m)
	l.filling.lookups = make([]*event.Lookup, maxHeard+3)
	l.hand()
	if n := len(l.waiting.lookups); n != maxHeard || l.spilled != 1+2+3 {
		t.Errorf("%d look-ups wait, and %d found no room in all", n, l.spilled)
	}
}
