// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
)

func at(s string) (event.IP, uint16) {
	a := netip.MustParseAddrPort(s)
	return event.IPFrom(a.Addr()), a.Port()
}

func conn(p event.Protocol, local, remote string) (c event.Conn) {
	c.Protocol = p
	c.Local, c.LocalPort = at(local)
	c.Remote, c.RemotePort = at(remote)
	return c
}

func tcp(src, dst string) (t tuple) {
	t.protocol = event.TCP
	t.src, t.srcPort = at(src)
	t.dst, t.dstPort = at(dst)
	return t
}

func other(local, remote string, ofSocket bool) *event.Translation {
	t := &event.Translation{OfSocket: ofSocket}
	t.Local, t.LocalPort = at(local)
	t.Remote, t.RemotePort = at(remote)
	return t
}

const (
	client  = "10.1.0.2:5000"
	service = "10.96.0.1:80"
	backend = "10.2.0.3:8080"
	node    = "10.0.0.1:61000"
)

func TestTranslation(t *testing.T) {
	toService := entry{tcp(client, service), tcp(backend, client)}
	hairpin := entry{tcp(backend, service), tcp(backend, node)}
	out := entry{tcp(client, "1.1.1.1:443"), tcp("1.1.1.1:443", node)}
	fromNode := entry{tcp(node, service), tcp(backend, "10.0.0.1:7")}
	plain := entry{tcp(client, backend), tcp(backend, client)}
	for name, c := range map[string]struct {
		entry         entry
		local, remote string
		host          bool
		want          *event.Translation
	}{
		"client of a Service":           {toService, client, service, false, other(client, backend, false)},
		"server behind a Service":       {toService, backend, client, false, other(service, client, false)},
		"client of itself":              {hairpin, backend, service, false, other(node, backend, false)},
		"itself as server":              {hairpin, backend, node, false, other(service, backend, false)},
		"pod, masqueraded":              {out, client, "1.1.1.1:443", false, other(node, "1.1.1.1:443", false)},
		"the same on the wire":          {out, node, "1.1.1.1:443", true, other(client, "1.1.1.1:443", true)},
		"host, of a Service":            {fromNode, "10.0.0.1:7", backend, true, other(node, service, true)},
		"NodePort, on the wire":         {entry{tcp("9.9.9.9:9", "10.0.0.1:30080"), tcp(backend, "9.9.9.9:9")}, "10.0.0.1:30080", "9.9.9.9:9", true, other(backend, "9.9.9.9:9", true)},
		"not translated":                {plain, client, backend, false, nil},
		"not translated, the server":    {plain, backend, client, false, nil},
		"not translated, host":          {plain, client, backend, true, nil},
		"not translated, host's server": {plain, backend, client, true, nil},
		"another connection":            {plain, client, service, false, nil},
	} {
		cn := conn(event.TCP, c.local, c.remote)
		asked, ok := tupleOf(&cn, c.host)
		got := translation(&c.entry, &asked, c.host)
		if !ok || (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestEchoes(t *testing.T) {
	for _, p := range []event.Protocol{event.ICMP, event.ICMPv6} {
		a, b, n := "10.1.0.2:0", "10.2.0.3:0", "10.0.0.1:0"
		if p == event.ICMPv6 {
			a, b, n = "[fd00::1]:0", "[fd00::2]:0", "[fd00::3]:0"
		}
		c := conn(p, a, b)
		c.Kind, c.LocalPort = event.ConnEchoOpenedLocal, 7
		asked, ok := tupleOf(&c, false)
		if !ok || asked.icmpType != echoType(p, true) || asked.srcPort != 7 || asked.dstPort != 7 {
			t.Fatalf("%v: %+v", p, asked)
		}
		// Masqueraded with another id.
		e := entry{orig: asked, reply: asked.inverted()}
		e.reply.dst, _ = at(n)
		e.reply.srcPort, e.reply.dstPort = 9, 9
		want := other(n, b, false)
		want.LocalPort = 9
		if got := translation(&e, &asked, false); got == nil || *got != *want {
			t.Errorf("%v: %+v, want %+v", p, got, want)
		}
		c.Kind = event.ConnEchoOpenedRemote
		asked, _ = tupleOf(&c, false)
		fromRemote, _ := tupleOf(&c, true)
		if asked.icmpType != echoType(p, false) || fromRemote.icmpType != echoType(p, true) || fromRemote.src != c.Remote {
			t.Errorf("%v: %+v, %+v", p, asked, fromRemote)
		}
	}
}

func TestWhatIsNotTracked(t *testing.T) {
	fragment := conn(event.UDP, client, backend)
	fragment.Kind = event.ConnFragment
	for _, c := range []event.Conn{fragment, conn(event.ICMP, client, backend), conn(47, client, backend), conn(event.UDP, "10.0.0.1:0", "10.0.0.2:0")} {
		if _, ok := tupleOf(&c, false); ok {
			t.Errorf("%+v is looked up", c)
		}
		table := newTable(Config{}, nil)
		table.Want(c, false)
		if q := <-table.wanted; !table.ask(&q) {
			t.Errorf("%+v is looked up again", c)
		}
		if got := answers(table); len(got) != 1 || got[c] != nil {
			t.Errorf("%+v is answered %v", c, got)
		}
	}
}

func answers(t *Table) map[event.Conn]*event.Translation {
	m := map[event.Conn]*event.Translation{}
	t.Answers(func(c event.Conn, o *event.Translation) { m[c] = o })
	return m
}

func numbered(n int) event.Conn {
	c := conn(event.TCP, client, service)
	c.LocalPort = uint16(n)
	return c
}

// run runs a table until the returned function is called.
func run(t testing.TB, table *Table) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- table.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestEntriesThatComeLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := map[uint16]int{}
		table := newTable(Config{}, func(q tuple) (entry, error) {
			asked[q.srcPort]++
			if q.srcPort == 2 || asked[q.srcPort] == 1 {
				return entry{}, errNoEntry
			}
			return entry{q, tcp(backend, node)}, nil
		})
		stop := run(t, table)
		table.Want(numbered(1), false)
		table.Want(numbered(2), false)
		time.Sleep(again - time.Millisecond)
		if got := answers(table); len(got) != 0 {
			t.Errorf("too early: %v", got)
		}
		time.Sleep(2 * burst)
		got := answers(table)
		if o, ok := got[numbered(2)]; !ok || o != nil || got[numbered(1)] == nil || len(got) != 2 {
			t.Errorf("%v", got)
		}
		time.Sleep(time.Minute)
		if asked[1] != 2 || asked[2] != 2 || len(answers(table)) != 0 || table.Losses() != nil || table.Problems() != nil {
			t.Errorf("asked %v, %v, %v", asked, table.Losses(), table.Problems())
		}
		stop()
	})
}

func TestRateIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		count := 0
		table := newTable(Config{Rate: 500}, func(tuple) (entry, error) {
			count++
			return entry{}, nil
		})
		stop := run(t, table)
		for i := range 2000 {
			table.Want(numbered(i+1), false)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if count < 990 || count > 1020 {
			t.Errorf("%d looked up in 2 s", count)
		}
		stop()
	})
}

func TestRateOfAnswersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newTable(Config{Rate: 500}, func(q tuple) (entry, error) { return entry{}, errNoEntry })
		if _, ok := table.Now(numbered(1), false); ok {
			t.Error("an answer of who does not know")
		}
		count := 0
		table.lookUp = func(tuple) (entry, error) {
			count++
			return entry{}, nil
		}
		for range 3 {
			for i := range 2000 {
				table.Now(numbered(i+1), false)
			}
			time.Sleep(time.Second)
		}
		if count < 1490 || count > 1510 {
			t.Errorf("%d looked up at once in 3 s", count)
		}
	})
}

func TestTooManyAreCounted(t *testing.T) {
	table := newTable(Config{Pending: 3}, func(q tuple) (entry, error) { return entry{}, nil })
	for i := range 5 {
		table.Want(numbered(i+1), false)
	}
	if l := table.Losses(); len(l) != 1 || l[0].Count != 2 || l[0].Stage != "conntrack" || l[0].Hint == "" {
		t.Errorf("%+v", l)
	}
	for range 3 {
		q := <-table.wanted
		table.ask(&q)
	}
	// What is answered and not taken needs its room, too.
	table.Want(numbered(9), false)
	if l := table.Losses(); l[0].Count != 3 {
		t.Errorf("%+v", l)
	}
	if got := answers(table); len(got) != 3 {
		t.Errorf("%v", got)
	}
	table.Want(numbered(9), false)
	if l := table.Losses(); l[0].Count != 3 {
		t.Errorf("%+v", l)
	}
}

func TestTheKernelRefuses(t *testing.T) {
	refusal := error(unix.ENOMEM)
	table := newTable(Config{}, func(tuple) (entry, error) { return entry{}, refusal })
	q := question{conn: numbered(1)}
	if !table.ask(&q) || len(table.Problems()) != 1 || table.Losses()[0].Count != 1 || len(answers(table)) != 1 {
		t.Errorf("%v, %v", table.Problems(), table.Losses())
	}
	refusal = nil
	if !table.ask(&q) || table.Problems() != nil {
		t.Errorf("%v", table.Problems())
	}
}

func TestExplain(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EPERM, unix.EINVAL, unix.EPROTONOSUPPORT} {
		if err := explain(errno); !errors.Is(err, errno) || err.Error() == errno.Error() {
			t.Errorf("%v", err)
		}
	}
}

func BenchmarkWantAndAnswer(b *testing.B) {
	table := newTable(Config{}, nil)
	c := numbered(0) // not looked up
	c.Protocol = 47
	take := func(event.Conn, *event.Translation) {}
	b.ReportAllocs()
	for b.Loop() {
		table.Want(c, false)
		q := <-table.wanted
		table.ask(&q)
		table.Answers(take)
	}
}
