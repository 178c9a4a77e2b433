// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	diff "github.com/google/go-cmp/cmp"
	reference "github.com/miekg/dns"

	"github.com/orb8/orb8/internal/event"
)

// written is a name of the reference's as this room writes it.
func written(name string) string {
	if name == "." {
		return name
	}
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		c, escaped := name[i], false
		if c == '\\' && i+3 < len(name) && name[i+1] >= '0' && name[i+1] <= '2' {
			c, escaped = (name[i+1]-'0')*100+(name[i+2]-'0')*10+name[i+3]-'0', true
			i += 3
		} else if c == '\\' {
			i++
			c, escaped = name[i], true
		}
		switch {
		case c == '.' && !escaped:
			b.WriteByte('.')
		case c == '.' || c == '\\':
			b.WriteString(`\` + string(rune(c)))
		case c <= ' ' || c >= 0x7f:
			fmt.Fprintf(&b, `\%03d`, c)
		default:
			b.WriteString(strings.ToLower(string(rune(c))))
		}
	}
	return strings.TrimSuffix(b.String(), ".")
}

// said is what the reference read, in this room's words.
func said(r *reference.Msg, b []byte) *Message {
	m := &Message{
		ID: r.Id, Response: r.Response, Opcode: uint8(r.Opcode), RCode: event.RCode(r.Rcode), Truncated: r.Truncated,
		Questions: len(r.Question), AnswerCount: len(r.Answer),
	}
	if len(b) == headerSize {
		return m
	}
	if len(r.Question) > 0 {
		q := r.Question[0]
		m.Name, m.Type, m.Class = written(q.Name), q.Qtype, q.Qclass&classMask
	}
	for _, rr := range r.Answer[:min(len(r.Answer), event.MaxAnswers)] {
		h := rr.Header()
		a := event.Answer{Type: h.Rrtype, TTL: h.Ttl}
		if a.TTL > maxTTL {
			a.TTL = 0
		}
		if h.Class&classMask == reference.ClassINET {
			a.Addr = addrOf(rr)
			if c, ok := rr.(*reference.CNAME); ok {
				a.Target = written(c.Target)
			}
		}
		m.Answers = append(m.Answers, a)
	}
	return m
}

func addrOf(rr reference.RR) (addr netip.Addr) {
	switch rr := rr.(type) {
	case *reference.A:
		addr, _ = netip.AddrFromSlice(rr.A)
		addr = addr.Unmap()
	case *reference.AAAA:
		addr, _ = netip.AddrFromSlice(rr.AAAA)
	}
	return addr
}

// leadsTo is where the question leads, in the most plain way.
func leadsTo(r *reference.Msg) (addrs []string) {
	if !r.Response || len(r.Question) == 0 {
		return nil
	}
	reached := map[string]bool{written(r.Question[0].Name): true}
	for range r.Answer {
		for _, rr := range r.Answer {
			c, ok := rr.(*reference.CNAME)
			if ok && c.Hdr.Class&classMask == reference.ClassINET && reached[written(c.Hdr.Name)] {
				reached[written(c.Target)] = true
			}
		}
	}
	for _, rr := range r.Answer {
		if a := addrOf(rr); a.IsValid() && rr.Header().Class&classMask == reference.ClassINET && reached[written(rr.Header().Name)] {
			addrs = append(addrs, a.Unmap().String())
		}
	}
	return addrs
}

// strange tells what the reference lets pass, and this room does not.
func strange(r *reference.Msg) bool {
	opts := 0
	for _, rr := range r.Extra {
		if h := rr.Header(); h.Rrtype == reference.TypeOPT {
			if opts++; h.Name != "." {
				return true
			}
		}
	}
	for _, rr := range r.Answer {
		switch rr := rr.(type) {
		case *reference.A, *reference.AAAA:
			if !addrOf(rr).IsValid() {
				return true
			}
		case *reference.CNAME:
			if rr.Target == "" {
				return true
			}
		}
	}
	return opts > 1 || r.Zero || r.Opcode == unassignedOpcode || r.Opcode > maxOpcode
}

func compare(t *testing.T, b []byte, m *Message) {
	t.Helper()
	r := &reference.Msg{}
	if r.Unpack(b) != nil || len(r.Answer) > 200 {
		return // large ones take the plain way too long
	}
	if d := diff.Diff(said(r, b), m, words, diff.FilterPath(func(p diff.Path) bool {
		return p.String() == "LeftOut"
	}, diff.Ignore())); d != "" {
		t.Errorf("%x:\n%s", b, d)
	}
	if m.LeftOut > 0 {
		return
	}
	got := []string{}
	m.Resolved(func(a netip.Addr, _ uint32) { got = append(got, a.String()) })
	if want := leadsTo(r); !slices.Equal(got, want) {
		t.Errorf("%x leads to %v, not %v", b, got, want)
	}
}

// seeds are what is met, and what is not.
func seeds(t testing.TB) (all [][]byte) {
	add := func(r *reference.Msg) { all = append(all, pack(t, r)) }
	query := new(reference.Msg).SetQuestion("Kubernetes.Default.svc.cluster.LOCAL.", reference.TypeAAAA)
	query.SetEdns0(1232, true)
	add(query)
	r := answer(t, "s3.example.com.", reference.TypeA, "s3.example.com. 20 CNAME a\\.b\\000.example.com.",
		"a\\.b\\000.example.com. 5 A 192.0.2.1", "a\\.b\\000.example.com. 5 AAAA 2001:db8::1",
		"example.com. 5 TXT \"x\" \"y\"", "example.com. 5 MX 10 mx.example.com.", "_x._tcp.example.com. 5 SRV 1 2 3 srv.example.com.",
		"example.com. 5 HTTPS 1 . alpn=h2,h3 ipv4hint=192.0.2.1", "example.com. 5 CH A 192.0.2.1")
	r.Ns = []reference.RR{rr(t, "example.com. 60 SOA ns.example.com. a.example.com. 1 2 3 4 5")}
	r.SetEdns0(1232, false).Rcode = reference.RcodeBadVers
	add(r)
	r = r.Copy()
	r.Compress, r.Truncated, r.Rcode = false, true, reference.RcodeNameError
	add(r)
	mdns := answer(t, "x.", reference.TypePTR, "_http._tcp.local. 120 PTR My\\ printer._http._tcp.local.", "printer.local. 120 A 192.0.2.3")
	mdns.Id, mdns.Question = 0, nil
	mdns.Answer[1].Header().Class |= 1 << 15
	add(mdns)
	update := new(reference.Msg).SetUpdate("example.com.")
	update.Insert([]reference.RR{rr(t, "a.example.com. 5 A 192.0.2.1")})
	update.NameUsed([]reference.RR{rr(t, "b.example.com. A 192.0.2.1")})
	add(update)
	add(new(reference.Msg).SetNotify("example.com."))
	for _, h := range hostile {
		all = append(all, h.b)
	}
	return all
}

func TestSeedsAreAsTheReferenceReadsThem(t *testing.T) {
	m := &Message{}
	for _, b := range seeds(t) {
		if Parse(b, m) == nil {
			compare(t, b, m)
		}
	}
}

// What both read is the same; what the reference writes is read; and what comes of
// any bytes is bounded, can be printed, and leaves nothing for the next message.
func FuzzParse(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b)
	}
	used := &Message{}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:min(len(b), maxSize)]
		m := &Message{}
		err, again := Parse(b, m), Parse(b, used)
		if !errors.Is(again, err) || diff.Diff(m, used, words) != "" || !slices.Equal(resolve(m), resolve(used)) {
			t.Fatalf("%v, then %v:\n%s", err, again, diff.Diff(m, used, words))
		}
		var cause Cause
		if err != nil && !errors.As(err, &cause) {
			t.Fatalf("%v is no cause", err)
		}
		checkBounds(t, m)
		if err == nil {
			compare(t, b, m)
		}
		r := &reference.Msg{}
		if r.Unpack(b) != nil || strange(r) {
			return
		}
		r.Compress = len(b)%2 == 0
		packed, cannot := r.Pack()
		if cannot != nil || len(packed) > maxSize || bytes.Equal(packed, b) && err == nil {
			return
		}
		if err := Parse(packed, used); err != nil {
			t.Fatalf("%x, which the reference wrote: %v", packed, err)
		}
		compare(t, packed, used)
	})
}

func checkBounds(t *testing.T, m *Message) {
	t.Helper()
	names := []string{m.Name}
	for _, a := range m.Answers {
		names = append(names, a.Target)
	}
	for _, name := range names {
		if bad := strings.IndexFunc(name, func(c rune) bool { return c <= ' ' || c >= 0x7f }); bad >= 0 || len(name) > 4*maxName {
			t.Errorf("%d bytes, %q", len(name), name)
		}
	}
	if len(m.Answers) > event.MaxAnswers || m.AnswerCount < len(m.Answers) ||
		m.LeftOut > m.AnswerCount || len(resolve(m)) > maxAddresses {
		t.Errorf("%d of %d answers, %d left out, %d addresses", len(m.Answers), m.AnswerCount, m.LeftOut, len(resolve(m)))
	}
}
