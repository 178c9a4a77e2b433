// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"container/list"
	"maps"
	"slices"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/filter"
)

const (
	minute = int64(60e9)
	// Response codes that a row tells apart, and search domains that it weighs
	// against each other.
	maxRCodes, maxDomains = 24, 4
)

// Lookups is what was asked of the DNS since the start, by client, server and
// side. The row to which nothing has happened for the longest time makes room for
// others. It has the owner of Flows.
type Lookups struct {
	limit int
	rows  map[lookupKey]*list.Element
	// Of *lookupRow, by the last look-up.
	used    *list.List
	evicted uint64
}

// lookupRow is a row with what its numbers are made of.
type lookupRow struct {
	LookupRow
	key lookupKey
	// Questions of a minute, and of the one before.
	minute    int64
	now, then uint64
	// The search domains that missed most.
	domains [maxDomains]missed
}

type missed struct {
	domain, name string
	count        uint64
}

type lookupKey struct {
	role           event.Role
	client, server partyKey
}

// partyKey is what makes a party one and not another: of a process not its
// number, and of who has no other name the address.
type partyKey struct {
	class   event.Class
	id      string // of a pod or container
	service string
	// Of the host.
	unit, process string
	ip            event.IP
}

func partyOf(id *event.Identity, ip event.IP) partyKey {
	k := partyKey{class: id.Class, service: id.Service}
	switch {
	case id.PodUID != "":
		k.id = id.PodUID
	case id.Class == event.ClassContainer:
		k.id = id.Container
	case id.Class == event.ClassHost:
		// Of a namespace that is nobody's there may be several.
		k.unit, k.process, k.ip = id.Unit, id.Process, ip
	case id.Service == "":
		k.ip = ip
	}
	return k
}

// NewLookups makes an empty table for so many rows; 0 means 2,048.
func NewLookups(limit int) *Lookups {
	if limit <= 0 {
		limit = 2048
	}
	return &Lookups{limit: limit, rows: map[lookupKey]*list.Element{}, used: list.New()}
}

// Add counts a look-up that is over.
func (s *Lookups) Add(client, server *event.Identity, l *event.Lookup) {
	clientIP, serverIP := l.Conn.Local, l.Conn.Remote
	if l.Role == event.RoleServer {
		clientIP, serverIP = serverIP, clientIP
	}
	k := lookupKey{l.Role, partyOf(client, clientIP), partyOf(server, serverIP)}
	e := s.rows[k]
	if e == nil {
		for len(s.rows) >= s.limit {
			s.evict()
		}
		row := &lookupRow{key: k, LookupRow: LookupRow{Role: l.Role, RCodes: map[event.RCode]uint64{}, First: l.Asked}}
		e = s.used.PushFront(row)
		s.rows[k] = e
	}
	s.used.MoveToFront(e)
	row := e.Value.(*lookupRow)
	row.Client, row.Server = better(row.Client, client), better(row.Server, server)
	row.ClientIP, row.ServerIP = clientIP, serverIP
	row.count(l)
}

// better: a name that has been told since is better, and none takes one away.
func better(known, told *event.Identity) *event.Identity {
	if known == nil || known.Pod == "" || told.Pod != "" {
		return told
	}
	return known
}

func (s *Lookups) evict() {
	oldest := s.used.Back()
	delete(s.rows, oldest.Value.(*lookupRow).key)
	s.used.Remove(oldest)
	s.evicted++
}

func (r *lookupRow) count(l *event.Lookup) {
	at := max(l.Asked, l.Answered)
	r.First, r.Last = min(r.First, l.Asked), max(r.Last, at)
	r.Lookups++
	r.Queries += uint64(l.Tries)
	r.turn(at / minute)
	r.now += uint64(l.Tries)
	if l.Truncated {
		r.Truncated++
	}
	if l.TCPRetry {
		r.TCPRetries++
	}
	r.search(l)
	if l.RCode == event.RCodeTimeout {
		r.Timeouts++
		return
	}
	// A server that makes codes up is not told apart for ever.
	if _, ok := r.RCodes[l.RCode]; ok || len(r.RCodes) < maxRCodes {
		r.RCodes[l.RCode]++
	}
	if l.RCode == event.RCodeUnreachable {
		return
	}
	if l.Upstream {
		r.Upstream.Add(l.Latency())
	} else {
		r.Latency.Add(l.Latency())
	}
}

// search weighs the domains: a new one takes the place of the least, and what that
// one has, so that what comes often stays.
func (r *lookupRow) search(l *event.Lookup) {
	r.SearchMisses += uint64(l.SearchMisses)
	for _, domain := range l.SearchDomains {
		least := 0
		i := slices.IndexFunc(r.domains[:], func(m missed) bool { return m.domain == domain })
		if i < 0 {
			for j := range r.domains {
				if r.domains[j].count < r.domains[least].count {
					least = j
				}
			}
			i = least
			r.domains[i].domain = domain
		}
		r.domains[i].count++
		r.domains[i].name = l.Name
	}
}

// turn begins a minute.
func (r *lookupRow) turn(m int64) {
	switch {
	case m <= r.minute:
	case m == r.minute+1:
		r.minute, r.then, r.now = m, r.now, 0
	default:
		r.minute, r.then, r.now = m, 0, 0
	}
}

// perSecond is of this minute and the one before, or since the first question.
func (r *lookupRow) perSecond(now int64) float64 {
	m := max(now/minute, r.minute)
	count := uint64(0)
	switch m {
	case r.minute:
		count = r.now + r.then
	case r.minute + 1:
		count = r.now
	}
	span := max(now, r.Last) - max((m-1)*minute, r.First)
	return float64(count) / (float64(max(span, 1e9)) / 1e9)
}

// Query looks at every row once. Without roles there are rows of both; now is in
// Unix nanoseconds.
func (s *Lookups) Query(f *filter.Filter, roles []event.Role, limit int, now int64) LookupAnswer {
	var a LookupAnswer
	var found []*lookupRow
	for _, e := range s.rows {
		row := e.Value.(*lookupRow)
		if len(roles) > 0 && !slices.Contains(roles, row.Role) {
			continue
		}
		a.Known++
		if flow := row.flow(); f.Match(&flow) {
			found = append(found, row)
		}
	}
	a.Matched = len(found)
	slices.SortFunc(found, func(x, y *lookupRow) int {
		return cmp.Or(cmp.Compare(y.Queries, x.Queries), cmp.Compare(y.Last, x.Last), cmp.Compare(x.First, y.First))
	})
	for _, row := range found[:min(limit, len(found))] {
		a.Rows = append(a.Rows, row.told(now))
	}
	return a
}

// flow is what filters see of a row: who, and no ports.
func (r *lookupRow) flow() event.Flow {
	f := event.Flow{Local: r.Client, Remote: r.Server, OpenedBy: event.OpenerLocal}
	f.Conn.Local, f.Conn.Remote = r.ClientIP, r.ServerIP
	if r.Role == event.RoleServer {
		f.Local, f.Remote, f.OpenedBy = r.Server, r.Client, event.OpenerRemote
		f.Conn.Local, f.Conn.Remote = r.ServerIP, r.ClientIP
	}
	return f
}

// told is a copy of a row.
func (r *lookupRow) told(now int64) LookupRow {
	row := r.LookupRow
	row.RCodes = maps.Clone(row.RCodes)
	row.PerSecond = r.perSecond(now)
	most := slices.MaxFunc(r.domains[:], func(x, y missed) int { return cmp.Compare(x.count, y.count) })
	row.SearchDomain, row.SearchName = most.domain, most.name
	return row
}

// Evicted is how many rows made room for others.
func (s *Lookups) Evicted() uint64 { return s.evicted }
