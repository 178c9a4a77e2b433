// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/orb8/orb8/internal/enrich"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/filter"
	"github.com/orb8/orb8/internal/l7/dns"
	"github.com/orb8/orb8/internal/lookup"
	"github.com/orb8/orb8/internal/names"
	"github.com/orb8/orb8/internal/observer"
	"github.com/orb8/orb8/internal/probe/flow"
	"github.com/orb8/orb8/internal/store"
)

// maxHeard bounds the look-ups and hellos, each, that wait for the pipeline: those
// of some seconds of 20,000 questions; maxAnswered the addresses that were answered,
// of which many a name has several.
const (
	maxHeard    = 100_000
	maxAnswered = 3 * maxHeard
)

// heard is what was understood of copied packets.
type heard struct {
	lookups []*event.Lookup
	answers []answered
	hellos  []hello
	// What found no room.
	spilled uint64
}

// answered is an address that a client was answered.
type answered struct {
	who names.Who
	names.Answer
}

type hello struct {
	conn event.Conn
	said *event.Hello
}

// lookups is what pods ask the DNS, what they say as they begin to speak TLS, and
// what the outside is called by that. One goroutine listens, the pipeline's takes
// what was heard.
type lookups struct {
	log  *slog.Logger
	tap  *flow.Tap
	host uint32

	// The listener's.
	tracker  *lookup.Tracker
	filling  heard
	uncopied uint64

	mu sync.Mutex
	// Not taken yet; what found no room in it, ever; as of the last packet.
	waiting heard
	spilled uint64
	counts  lookup.Counts
	// Namespaces that have died since.
	gone []uint32

	// The pipeline's: what was taken, of it the hellos that have met no connection;
	// whether anything was learned since connections were named.
	taken  heard
	hellos map[event.Conn]*event.Hello
	fresh  bool
	names  *names.Table
	listed *names.Prefixes
	rows   *store.Lookups
	start  time.Time
}

func newLookups(cfg *Config, tap *flow.Tap) (*lookups, error) {
	l := &lookups{
		log: cfg.Log, tap: tap, host: tap.Own(),
		hellos: map[event.Conn]*event.Hello{},
		names:  names.New(names.Config{}), rows: store.NewLookups(0), start: time.Now(),
	}
	l.tracker = lookup.New(lookup.Config{
		Host:     l.host,
		Lookup:   func(one *event.Lookup) { l.filling.lookups = append(l.filling.lookups, one) },
		Answered: l.answered,
		Hello: func(c event.Conn, said *event.Hello) {
			l.filling.hellos = append(l.filling.hellos, hello{c, said})
		},
	})
	if cfg.CIDRNames == "" {
		return l, nil
	}
	file, err := os.Open(cfg.CIDRNames)
	if err != nil {
		return nil, fmt.Errorf("--cidr-names (%s): %w", cfg.env("cidr-names"), err)
	}
	defer file.Close()
	if l.listed, err = names.ReadPrefixes(file); err != nil {
		return nil, fmt.Errorf("--cidr-names (%s): %s: %w", cfg.env("cidr-names"), cfg.CIDRNames, err)
	}
	return l, nil
}

// Run listens until ctx ends.
func (l *lookups) Run(ctx context.Context) error {
	var p lookup.Packet
	return l.tap.Copies(ctx, func(c *flow.Copy) {
		p = lookup.Packet{
			Conn: c.Conn, Time: c.Time, Sent: c.Sent, Server: c.LocalDNS, Hello: c.Hello,
			Cookie: c.Cookie, Cgroup: c.Cgroup, Seq: c.Seq,
			SYN: c.Flags&event.FlagSYN != 0, FIN: c.Flags&event.FlagFIN != 0, RST: c.Flags&event.FlagRST != 0,
			Length: c.Length, Data: c.Data,
		}
		l.tracker.Take(&p)
	}, func(now int64) {
		if n := l.tap.Uncopied(); n > l.uncopied {
			l.uncopied = n
			l.tracker.Missed(now)
		}
		l.tracker.Expire(now)
		l.hand()
	})
}

// who is a client as names tell them apart.
func (l *lookups) who(netns uint32, cgroup uint64) names.Who {
	if netns != l.host {
		cgroup = 0
	}
	return names.Who{Netns: netns, Cgroup: cgroup}
}

func (l *lookups) answered(one *event.Lookup, m *dns.Message) {
	who := l.who(one.Conn.Netns, one.Cgroup)
	m.Resolved(func(addr netip.Addr, ttl uint32) {
		if len(l.filling.answers) == maxAnswered {
			l.filling.spilled++
			return
		}
		l.filling.answers = append(l.filling.answers, answered{who, names.Answer{Addr: event.IPFrom(addr), Name: one.Name, TTL: ttl, At: one.Answered}})
	})
}

// hand passes on what was heard.
func (l *lookups) hand() {
	f := &l.filling
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts = l.tracker.Counts()
	l.spilled += f.spilled
	l.waiting.lookups = appendUpTo(maxHeard, l.waiting.lookups, f.lookups, &l.spilled)
	l.waiting.answers = appendUpTo(maxAnswered, l.waiting.answers, f.answers, &l.spilled)
	l.waiting.hellos = appendUpTo(maxHeard, l.waiting.hellos, f.hellos, &l.spilled)
	f.reset()
}

func (h *heard) reset() {
	clear(h.lookups)
	clear(h.answers)
	clear(h.hellos)
	h.lookups, h.answers, h.hellos, h.spilled = h.lookups[:0], h.answers[:0], h.hellos[:0], 0
	if cap(h.answers) > maxHeard { // more than is usual: it is not kept
		h.answers = nil
	}
}

func appendUpTo[T any](most int, all, more []T, spilled *uint64) []T {
	room := min(most-len(all), len(more))
	*spilled += uint64(len(more) - room)
	return append(all, more[:room]...)
}

func (l *lookups) pending() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting.lookups)+len(l.waiting.answers)+len(l.waiting.hellos)+len(l.gone) > 0
}

// take takes what was heard, before the connections: their names are asked as they
// are met.
func (l *lookups) take(who *enrich.Enricher) {
	l.mu.Lock()
	gone := l.gone
	l.gone = nil
	l.taken, l.waiting = l.waiting, l.taken
	l.mu.Unlock()
	for _, inode := range gone {
		l.names.Forget(inode)
	}
	for i := range l.taken.answers {
		if a := &l.taken.answers[i]; who.IsOutside(a.Addr) {
			l.names.Learn(a.who, a.Answer)
			l.fresh = true
		}
	}
	for _, h := range l.taken.hellos {
		l.hellos[h.conn] = h.said
	}
}

// forget: what a namespace was answered is not its successor's.
func (l *lookups) forget(netns uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = append(l.gone, netns)
}

// meet gives a connection what its local end said.
func (l *lookups) meet(f *event.Flow) {
	if len(l.hellos) == 0 {
		return
	}
	if said := l.hellos[f.Conn]; said != nil {
		f.TLS = said
		delete(l.hellos, f.Conn)
	}
}

// lookedUp tells of what was taken, after the connections: their ends are known.
func (p *pipeline) lookedUp() {
	l := p.lookups
	for c, said := range l.hellos {
		if f := p.flows.Get(c); f != nil {
			p.who.Heard(f, said)
		}
	}
	clear(l.hellos)
	for _, one := range l.taken.lookups {
		p.lookup(one)
	}
	l.taken.reset()
}

func (p *pipeline) lookup(one *event.Lookup) {
	const happened = store.Happened(1 << event.KindDNS)
	f, ok := p.who.Asked(one)
	if !ok {
		return // it only passes through here
	}
	if one.RCode == event.RCodeTimeout && f.State == event.StateRefused {
		refused := *one
		refused.RCode = event.RCodeUnreachable
		one = &refused
	}
	client, server := p.who.Party(f.Local), f.Remote
	if one.Role == event.RoleServer {
		client, server = p.who.Party(f.Remote), p.who.Party(f.Local)
	}
	p.lookups.rows.Add(client, server, one)
	p.gpus.lookedUp(f.Local, one)
	p.meter.Lookup(f.Local, one, dns.RCodeName(one.RCode))
	if p.feed.Wanted(happened) {
		p.feed.Publish(happened, &event.Event{Flow: f, Lookup: one})
	}
}

// expire forgets old names, and names connections that are older than what was
// asked since.
func (l *lookups) expire(who *enrich.Enricher, now time.Time) {
	l.names.Sweep(now.UnixNano())
	if l.fresh {
		who.Rename()
		l.fresh = false
	}
}

// Asked and Listed make it enrich.Names.
func (l *lookups) Asked(f *event.Flow) string {
	who := l.who(f.Conn.Netns, f.Cgroup)
	if f.TLS != nil && l.names.Has(who, f.Conn.Remote, f.TLS.ServerName) {
		return f.TLS.ServerName
	}
	began, seen := l.began(f)
	name, ok := l.names.Name(who, f.Conn.Remote, began)
	if !ok && !seen {
		name, _ = l.names.Only(who, f.Conn.Remote)
	}
	return name
}

const (
	// tick is how coarse the tap's stamps are.
	tick = int64(10 * time.Millisecond)
	// stampsTurn: the stamp of a SYN is good for an hour.
	stampsTurn = int64(time.Hour)
	// What is first seen so long after the start was not there before.
	younger = 2 * time.Second
)

// began is when a connection began, and whether that was seen. A SYN has a stamp
// that is good to the microsecond: names are asked for shortly before.
func (l *lookups) began(f *event.Flow) (at int64, seen bool) {
	switch {
	case f.Conn.Protocol != event.TCP:
		return f.First + tick, f.First > l.start.Add(younger).UnixNano()
	case f.Health.SYN == 0:
		return f.First + tick, false
	case time.Now().UnixNano()-f.First > stampsTurn:
		return f.First + tick, true
	}
	mono, clock, err := flow.Clock()
	if err != nil {
		return f.First + tick, true
	}
	ago := uint32(mono/1000) - f.Health.SYN // both turn over alike
	return mono - int64(ago)*1000 + clock, true
}

func (l *lookups) Listed(ip event.IP) string { return l.listed.Name(ip) }

// losses is what was asked or said and is not told.
func (l *lookups) losses() []event.Loss {
	c, spilled := l.counted()
	return append(some(
		event.Loss{Stage: "copies", Count: l.tap.Uncopied(), Hint: "packets of the DNS, or with which TLS begins, came faster than they were read: look-ups and names are missing"},
		event.Loss{Stage: "lookups", Count: spilled + c.Evicted + c.Missed + c.StreamEvicted + c.StreamGap + c.HelloEvicted, Hint: "look-ups, or what begins TLS, that there was no room for, or of which a part was missing"},
		event.Loss{Stage: "lookups_evicted", Count: l.rows.Evicted(), Hint: "clients and servers that made room for others: their look-ups are not in the answers of orb8 dns"},
	), l.names.Losses()...)
}

func (l *lookups) counted() (lookup.Counts, uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts, l.spilled
}

// unread is what was not understood, by cause.
func (l *lookups) unread() []event.Loss {
	c, _ := l.counted()
	all := some(
		event.Loss{Stage: "dns_unasked", Count: c.Unasked, Hint: "answers that nobody asked for, or of another server or number than was asked"},
		event.Loss{Stage: "dns_late", Count: c.Late, Hint: "answers after the question was given up, or a second one"},
		event.Loss{Stage: "dns_other", Count: c.Other, Hint: "messages of the DNS that are no question or answer of one name: updates, notifications, transfers"},
		event.Loss{Stage: "dns_stream", Count: c.StreamMidway + c.StreamIncomplete, Hint: "TCP connections to a DNS port that began before the agent, or ended within a message"},
		event.Loss{Stage: "hello_incomplete", Count: c.HelloIncomplete, Hint: "ClientHellos of which a part never came"},
	)
	for cause, n := range c.Malformed {
		all = append(all, event.Loss{Stage: "dns_malformed_" + string(cause), Count: n, Hint: "messages on a DNS port that could not be read"})
	}
	for cause, n := range c.MalformedHello {
		all = append(all, event.Loss{Stage: "hello_malformed_" + string(cause), Count: n, Hint: "ClientHellos that could not be read"})
	}
	slices.SortFunc(all, func(a, b event.Loss) int { return cmp.Compare(a.Stage, b.Stage) })
	return all
}

// some are those that happened.
func some(all ...event.Loss) []event.Loss {
	return slices.DeleteFunc(all, func(l event.Loss) bool { return l.Count == 0 })
}

// Dns answers with everything up to now.
func (n *node) Dns(ctx context.Context, f filter.Filter, roles []event.Role, limit int) (out observer.Lookups, err error) {
	err = n.visit(ctx, true, func() {
		l := n.lookups
		if n.cfg.DNSPorts == noPorts {
			return
		}
		out.LookupAnswer = l.rows.Query(&f, roles, limit, n.last.UnixNano())
		out.Start, out.End = l.start, n.last
		out.Losses = append(l.losses(), l.unread()...)
	})
	return out, err
}
