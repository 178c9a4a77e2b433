// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"slices"

	"github.com/orb8/orb8/internal/event"
)

// Pair is what moved between two ends by one protocol.
type Pair struct {
	Labels *Labels
	// When it was first counted, Unix nanoseconds.
	Since int64
	// As the local end sends and receives.
	Tx, Rx event.Counter
	Opened uint64
	// By event.Failure.
	Failed [event.FailureGivenUp + 1]uint64
	TCP    bool
	// Segments sent again.
	Resent uint64

	timing *Timing
	seen   int64
}

// End is what was dropped at an end, and what it asked the DNS or was asked.
type End struct {
	Own   *Own
	Since int64
	// Packets, by reason.
	Drops []Tally
	// As client and as server; nil where there was nothing.
	DNS  [2]*DNS
	seen int64
}

// DNS is look-ups of one end, on one side.
type DNS struct {
	// Questions, those included that were sent again; names that were tried for a
	// search list; look-ups that nobody answered.
	Queries, Waste, Timeouts uint64
	// By response code.
	Responses []Tally
}

// Drop counts packets that were dropped at an end.
func (m *Meter) Drop(at *event.Identity, d *event.Drop) {
	e := m.end(at)
	reason := Clean(d.Reason)
	i := find(e.Drops, reason)
	if i < 0 && (e == &m.otherEnd || !m.room(Drops, 1)) {
		e, reason = &m.otherEnd, Other
		i = find(e.Drops, reason)
	}
	if e == &m.otherEnd {
		m.beyond[Drops]++
	}
	e.Drops = count(e.Drops, i, reason, d.Amount.Packets)
}

// count adds to the tally at i; -1: there is none yet.
func count(list []Tally, i int, name string, n uint64) []Tally {
	if i < 0 {
		return append(list, Tally{name, n})
	}
	list[i].Count += n
	return list
}

// Lookup counts a look-up at the end that asked, or was asked. code is the name
// of how it was answered.
func (m *Meter) Lookup(at *event.Identity, l *event.Lookup, code string) {
	e, role := m.end(at), side(l.Role)
	if e.DNS[role] == nil {
		if e != &m.otherEnd && !m.room(Queries, 1) {
			e = &m.otherEnd
		}
		if e.DNS[role] == nil {
			e.DNS[role] = &DNS{}
		}
	}
	if e == &m.otherEnd {
		m.beyond[Queries]++
	}
	d := e.DNS[role]
	d.Queries += uint64(l.Tries)
	d.Waste += uint64(l.SearchMisses)
	if l.Answered == 0 {
		d.Timeouts++
		return
	}
	m.response(e, role, Clean(code))
	t := &m.otherTiming
	if e != &m.otherEnd {
		t = m.timing(*e.Own)
	}
	m.histogram(t, DNSLatency, l.Role).add(l.Latency())
}

func (m *Meter) response(e *End, role int, code string) {
	i := find(e.DNS[role].Responses, code)
	if i < 0 && (e == &m.otherEnd || !m.room(Responses, 1)) {
		e, code = &m.otherEnd, Other
		if e.DNS[role] == nil {
			e.DNS[role] = &DNS{}
		}
		i = find(e.DNS[role].Responses, code)
	}
	if e == &m.otherEnd {
		m.beyond[Responses]++
	}
	d := e.DNS[role]
	d.Responses = count(d.Responses, i, code, 1)
}

func (m *Meter) end(id *event.Identity) *End {
	o := m.cfg.Level.own(id)
	e := m.ends[o]
	if e == nil {
		if len(m.ends) >= m.cfg.MaxSeries {
			return &m.otherEnd
		}
		e = &End{Own: &o, Since: m.now}
		m.ends[o] = e
	}
	e.seen = m.now
	return e
}

// AddDrops counts packets of which nothing is known, in a snapshot.
func (e *End) AddDrops(packets uint64) {
	if packets > 0 {
		e.Drops = count(e.Drops, find(e.Drops, Other), Other, packets)
	}
}

// clone is a copy that does not change.
func (e *End) clone() End {
	c := *e
	c.Drops = slices.Clone(e.Drops)
	for i, d := range c.DNS {
		if d != nil {
			copied := *d
			copied.Responses = slices.Clone(d.Responses)
			c.DNS[i] = &copied
		}
	}
	return c
}

// Unused tells that nothing was counted: nothing is beyond the cap.
func (p *Pair) Unused() bool { return p.seen == 0 }
