// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"net/netip"

	"github.com/orb8/orb8/internal/event"
)

const (
	// Bounds of what is kept of a message to tell where its name leads.
	maxAddresses = 256
	maxLinks     = maxNames
	// No life is longer; RFC 2181 takes more for 0.
	maxTTL = 1<<31 - 1
)

// link is a CNAME: both ends by number.
type link struct {
	from, to int
	ttl      uint32
}

type address struct {
	owner int
	ttl   uint32
	addr  netip.Addr
}

// Resolved visits each address that the question's name leads to by the records
// of this response, CNAMEs followed in whatever order they came, with the seconds
// that all of them hold.
func (m *Message) Resolved(visit func(addr netip.Addr, ttl uint32)) {
	if !m.Response || m.Questions == 0 {
		return
	}
	for i := range m.addresses {
		a := &m.addresses[i]
		if owner := &m.names.spans[a.owner]; owner.reached {
			visit(a.addr.Unmap(), min(a.ttl, owner.ttl))
		}
	}
}

// follow marks the names that the question's leads to. Each round reaches one
// more at least, so it ends.
func (m *Message) follow() {
	if m.Questions == 0 || len(m.addresses) == 0 {
		return
	}
	spans := m.names.spans
	spans[0].reached, spans[0].ttl = true, maxTTL
	for more := true; more; {
		more = false
		for _, l := range m.links {
			if spans[l.from].reached && !spans[l.to].reached {
				spans[l.to].reached, spans[l.to].ttl = true, min(spans[l.from].ttl, l.ttl)
				more = true
			}
		}
	}
}

// answers reads the answer section.
func (m *Message) answers(b []byte, off int) (int, error) {
	for range m.AnswerCount {
		r, err := nextRecord(b, off)
		if err != nil {
			return 0, err
		}
		if r.ttl > maxTTL {
			r.ttl = 0
		}
		a := event.Answer{Type: r.Type, TTL: r.ttl}
		if r.class&classMask == classIN {
			switch r.Type {
			case typeA, typeAAAA:
				err = m.address(b, &r, &a)
			case typeCNAME:
				err = m.cname(b, &r, &a)
			}
			if err != nil {
				return 0, err
			}
		}
		if len(m.Answers) < event.MaxAnswers {
			m.Answers = append(m.Answers, a)
		}
		off = r.end
	}
	return off, nil
}

// address reads an A or AAAA.
func (m *Message) address(b []byte, r *record, a *event.Answer) error {
	size := 4
	if r.Type == typeAAAA {
		size = 16
	}
	if r.end-r.data != size {
		return ErrRecord
	}
	a.Addr, _ = netip.AddrFromSlice(b[r.data:r.end])
	if len(m.addresses) == maxAddresses {
		m.LeftOut++
		return nil
	}
	owner, _, err := m.names.read(b, r.name)
	if err != nil {
		return err
	}
	if owner == none {
		m.LeftOut++
		return nil
	}
	m.addresses = append(m.addresses, address{owner: owner, ttl: r.ttl, addr: a.Addr})
	return nil
}

// cname reads a CNAME. Its target has to fill its data.
func (m *Message) cname(b []byte, r *record, a *event.Answer) error {
	if len(m.links) == maxLinks && len(m.Answers) == event.MaxAnswers {
		m.LeftOut++
		return nil
	}
	owner, _, err := m.names.read(b, r.name)
	if err != nil {
		return err
	}
	target, end, err := m.names.read(b[:r.end], r.data)
	if err == ErrCut || err == nil && end != r.end {
		return ErrRecord
	}
	if err != nil {
		return err
	}
	if n := len(m.Answers); n < event.MaxAnswers {
		old := ""
		if n < cap(m.Answers) {
			old = m.Answers[:n+1][n].Target
		}
		a.Target = m.names.text(target, old)
	}
	if owner == none || target == none || len(m.links) == maxLinks {
		m.LeftOut++
		return nil
	}
	m.links = append(m.links, link{from: owner, to: target, ttl: r.ttl})
	return nil
}
