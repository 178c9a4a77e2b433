// SPDX-License-Identifier: Apache-2.0

package lookup

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	reference "github.com/miekg/dns"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/l7/dns"
)

const (
	typeA, typeAAAA = 1, 28
	ms              = int64(time.Millisecond)
	start           = int64(1_700_000_000) * 1000 * ms
	nxDomain        = reference.RcodeNameError
)

// world is a tracker, the time, and what was told.
type world struct {
	*Tracker
	t       testing.TB
	now     int64
	lookups []*event.Lookup
	hellos  []*event.Hello
	learned []string
	port    uint16
	id      uint16
}

func newWorld(t testing.TB, cfg Config) *world {
	w := &world{t: t, now: start, port: 40_000}
	cfg.Lookup = func(l *event.Lookup) { w.lookups = append(w.lookups, l) }
	cfg.Hello = func(_ event.Conn, h *event.Hello) { w.hellos = append(w.hellos, h) }
	cfg.Answered = func(l *event.Lookup, m *dns.Message) {
		m.Resolved(func(addr netip.Addr, ttl uint32) {
			w.learned = append(w.learned, fmt.Sprintf("%s %s %d", l.Name, addr, ttl))
		})
	}
	w.Tracker = New(cfg)
	return w
}

// told gives the look-ups since the last time.
func (w *world) told() []*event.Lookup {
	l := w.lookups
	w.lookups = nil
	return l
}

// one gives the only one.
func (w *world) one() *event.Lookup {
	w.t.Helper()
	l := w.told()
	if len(l) != 1 {
		w.t.Fatalf("%d look-ups, want one: %v", len(l), brief(l))
	}
	return l[0]
}

// brief is what tests compare: NAME TYPE RCODE, and what else is not usual.
func brief(ls []*event.Lookup) (out []string) {
	for _, l := range ls {
		s := fmt.Sprintf("%s %s %s", l.Name, dns.TypeName(l.Type), dns.RCodeName(l.RCode))
		if l.SearchMisses > 0 {
			s += fmt.Sprintf(" misses %d %s", l.SearchMisses, strings.Join(l.SearchDomains, ","))
		}
		out = append(out, s)
	}
	return out
}

func (w *world) want(want ...string) {
	w.t.Helper()
	if got := brief(w.told()); !slices.Equal(got, want) {
		w.t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func addr(s string) event.IP { return event.IPFrom(netip.MustParseAddr(s)) }

// conn is a pod's at its DNS server.
func conn(port uint16) event.Conn {
	return event.Conn{
		Local: addr("10.0.0.5"), Remote: addr("10.96.0.10"), LocalPort: port, RemotePort: 53,
		Netns: 7, Ifindex: 2, Protocol: event.UDP,
	}
}

// turned is the same at the other end.
func turned(c event.Conn) event.Conn {
	c.Local, c.Remote, c.LocalPort, c.RemotePort = c.Remote, c.Local, c.RemotePort, c.LocalPort
	return c
}

func query(id uint16, name string, kind uint16) []byte {
	m := new(reference.Msg).SetQuestion(name+".", kind)
	m.Id = id
	return packed(m)
}

// reply answers a query with records of the reference's text form.
func reply(q []byte, rcode int, records ...string) []byte {
	m := new(reference.Msg)
	if err := m.Unpack(q); err != nil {
		panic(err)
	}
	r := new(reference.Msg).SetRcode(m, rcode)
	for _, text := range records {
		rr, err := reference.NewRR(text)
		if err != nil {
			panic(err)
		}
		r.Answer = append(r.Answer, rr)
	}
	return packed(r)
}

func packed(m *reference.Msg) []byte {
	m.Compress = true
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

// cutShort marks an answer as cut.
func cutShort(b []byte) []byte {
	b = slices.Clone(b)
	b[2] |= 2
	return b
}

func framed(b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

// sends is a packet of the client's, 1 ms after the last.
func (w *world) sends(c event.Conn, b []byte) { w.packet(c, true, b) }

func (w *world) receives(c event.Conn, b []byte) { w.packet(c, false, b) }

func (w *world) packet(c event.Conn, sent bool, b []byte) {
	w.now += ms
	w.Take(&Packet{Conn: c, Time: w.now, Sent: sent, Server: c.LocalPort == 53, Length: len(b), Data: b})
}

// asks is a question from a new port, and its answer.
func (w *world) asks(name string, kind uint16, rcode int, records ...string) {
	w.port++
	w.id++
	c, q := conn(w.port), query(w.id, name, kind)
	w.sends(c, q)
	w.receives(c, reply(q, rcode, records...))
}

func (w *world) after(d time.Duration) {
	w.now += int64(d)
	w.Expire(w.now)
}
