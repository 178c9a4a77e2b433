// SPDX-License-Identifier: Apache-2.0

package names

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/event"
)

const second = int64(time.Second)

var (
	web  = Who{Netns: 7}
	s3   = ip("52.218.1.1")
	base = int64(1_700_000_000) * second
)

func ip(s string) event.IP { return event.IPFrom(netip.MustParseAddr(s)) }

// learn is at seconds after base.
func (t *Table) learn(who Who, addr event.IP, name string, at int64) {
	t.Learn(who, Answer{Addr: addr, Name: name, TTL: 60, At: base + at*second})
}

func (t *Table) called(who Who, addr event.IP, at int64) string {
	name, ok := t.Name(who, addr, base+at*second)
	if ok != (name != "") {
		return "ok and name differ"
	}
	return name
}

func (t *Table) only(who Who, addr event.IP) string {
	name, _ := t.Only(who, addr)
	return name
}

func TestNameOfItsOwnClient(t *testing.T) {
	n := New(Config{})
	n.learn(web, s3, "s3.amazonaws.com", 0)
	n.learn(Who{Netns: 8}, s3, "bucket.s3.amazonaws.com", 0)
	n.learn(Who{1, 10}, s3, "unit.example", 0)
	for _, c := range []struct {
		who  Who
		want string
	}{
		{web, "s3.amazonaws.com"},
		{Who{Netns: 8}, "bucket.s3.amazonaws.com"},
		{Who{1, 10}, "unit.example"},
		{Who{1, 11}, ""},
		{Who{Netns: 9}, ""},
	} {
		if got := n.called(c.who, s3, 1); got != c.want {
			t.Errorf("%+v: %q, want %q", c.who, got, c.want)
		}
		if got := n.only(c.who, s3); got != c.want {
			t.Errorf("only of %+v: %q, want %q", c.who, got, c.want)
		}
	}
	if got := n.called(web, ip("52.218.1.2"), 1); got != "" {
		t.Errorf("of another address: %q", got)
	}
}

// Two names behind one address, as at every large provider.
func TestTheLatestAnswerThatHolds(t *testing.T) {
	n := New(Config{})
	n.learn(web, s3, "a.example", 0)
	n.learn(web, s3, "b.example", 100)
	n.Learn(web, Answer{Addr: s3, Name: "long.example", TTL: 1200, At: base - 50*second})
	for at, want := range map[int64]string{
		-60:  "",
		-10:  "long.example",
		0:    "a.example",
		99:   "a.example",
		100:  "b.example",
		399:  "b.example", // the floor is 5 minutes
		401:  "long.example",
		1149: "long.example",
		1150: "",
	} {
		if got := n.called(web, s3, at); got != want {
			t.Errorf("at %d s: %q, want %q", at, got, want)
		}
	}
	if name, ok := n.Only(web, s3); ok {
		t.Errorf("ambiguous, and said %q", name)
	}
	n.learn(web, s3, "a.example", 200)
	if got := n.called(web, s3, 201); got != "a.example" {
		t.Errorf("asked again: %q", got)
	}
	if !n.Has(web, s3, "b.example") || n.Has(web, s3, "c.example") || n.Has(Who{Netns: 1}, s3, "b.example") {
		t.Error("which names were asked for")
	}
	// What was asked again later was not the last that was asked before.
	if got := n.called(web, s3, 150); got != "b.example" {
		t.Errorf("before it was asked again: %q", got)
	}
	// What lapsed in between did not hold then.
	n.learn(web, s3, "b.example", 3000)
	if got := n.called(web, s3, 2999); got != "" {
		t.Errorf("before it was asked again: %q", got)
	}
}

func TestSweepAndForget(t *testing.T) {
	n := New(Config{Keep: time.Minute, Floor: time.Minute})
	n.learn(web, s3, "a.example", 0)
	n.Learn(web, Answer{Addr: s3, Name: "b.example", TTL: 1 << 31, At: base + second})
	n.learn(Who{Netns: 8}, s3, "a.example", 50)
	n.Sweep(base + 62*second)
	if n.Len() != 1 || n.called(Who{Netns: 8}, s3, 51) != "a.example" || n.texts.index.count != 1 {
		t.Errorf("%d left, %d texts", n.Len(), n.texts.index.count)
	}
	n.learn(web, s3, "a.example", 70)
	n.Forget(8)
	if n.Len() != 1 || n.called(Who{Netns: 8}, s3, 71) != "" || n.called(web, s3, 71) != "a.example" {
		t.Errorf("%d left after a namespace is gone", n.Len())
	}
	n.Forget(7)
	if n.Len() != 0 || n.texts.bytes != 0 || n.index.count != 0 || n.oldest != none || n.newest != none {
		t.Errorf("not empty: %+v", n)
	}
	n.learn(web, s3, "c.example", 80)
	if len(n.entries) > 3 || n.called(web, s3, 80) != "c.example" {
		t.Error("room is not used again")
	}
}

func TestBounded(t *testing.T) {
	n := New(Config{Max: 100, MaxText: 1 << 10})
	for i := range 1000 {
		n.learn(web, numbered(i), "a.example", int64(i))
	}
	if n.Len() != 100 || n.evicted != 900 || n.called(web, numbered(899), 900) != "" || n.called(web, numbered(900), 900) != "a.example" {
		t.Errorf("%d entries, %d evicted", n.Len(), n.evicted)
	}
	for i := range 1000 {
		n.learn(web, s3, fmt.Sprintf("%d.example", i), int64(1000+i))
	}
	if got := n.called(web, s3, 2000); n.Len() > 100 || got != "999.example" {
		t.Errorf("%d entries, %q", n.Len(), got)
	}
	long := strings.Repeat("x", 600)
	for i := range 10 {
		n.learn(web, numbered(i), long+fmt.Sprint(i), int64(2000+i))
	}
	if n.texts.bytes > 1<<10 || n.Len() != 1 {
		t.Errorf("%d bytes of names, %d entries", n.texts.bytes, n.Len())
	}
	if l := n.Losses(); len(l) != 1 || l[0].Stage != "names" || l[0].Count != n.evicted {
		t.Errorf("%+v", l)
	}
}

// What is kept agrees with itself whatever is told in whatever order.
func FuzzTable(f *testing.F) {
	f.Add([]byte("learn, ask, forget, sweep, learn again"))
	f.Add([]byte{1, 0, 1, 1, 1, 2, 2, 1, 250, 0, 9, 9, 255, 3, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		n := New(Config{Max: 20, MaxText: 100})
		for ; len(b) >= 3; b = b[3:] {
			who, addr := Who{Netns: uint32(b[0] % 3)}, numbered(int(b[1]%8))
			switch {
			case b[0] > 250:
				n.Sweep(base + int64(b[2])*60*second)
			case b[0] > 240:
				n.Forget(who.Netns)
			default:
				n.learn(who, addr, "name"+string('a'+rune(b[2]%16)), int64(b[1])*60)
				if n.called(who, addr, int64(b[1])*60) == "" {
					t.Fatal("just learned, and not known")
				}
			}
			n.check(t)
		}
	})
}

func (t *Table) check(tb testing.TB) {
	tb.Helper()
	seen := 0
	for i, before := t.oldest, none; i != none; before, i = i, t.entries[i].newer {
		if t.entries[i].older != before || t.texts.all[t.entries[i].name].users == 0 {
			tb.Fatal("broken order, or a name that nobody holds")
		}
		seen++
	}
	reached := 0
	for _, i := range t.index.heads {
		for ; i != none; i = t.index.after(i) {
			reached++
		}
	}
	if seen != t.Len() || reached != t.Len() || t.Len() > t.cfg.Max || t.texts.index.count > t.Len() {
		tb.Fatalf("%d in order, %d reached, %d there, %d names", seen, reached, t.Len(), t.texts.index.count)
	}
}

func numbered(i int) event.IP {
	a := ip("20.0.0.0")
	binary.BigEndian.PutUint32(a[12:], binary.BigEndian.Uint32(a[12:])+uint32(i))
	return a
}

// fill tells 500 pods of 200 addresses each, as often as rounds. Of each name
// there are so many addresses.
func fill(n *Table, rounds, perName int) {
	for i := range rounds * 100_000 {
		name := fmt.Sprintf("bucket-%06d.s3.eu-central-1.amazonaws.com", i/perName)
		n.Learn(Who{Netns: 0xf0000000 + uint32(i%500)}, Answer{Addr: numbered(i), Name: name, TTL: 60, At: base + int64(i)*1e6})
	}
}

func TestMemory(t *testing.T) {
	for _, c := range []struct {
		what            string
		rounds, perName int
	}{
		{"four addresses a name", 1, 4},
		{"a name each", 1, 1},
		{"a name each, all made room five times", 6, 1},
	} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		n := New(Config{})
		fill(n, c.rounds, c.perName)
		runtime.GC()
		runtime.ReadMemStats(&after)
		size := float64(after.HeapAlloc-before.HeapAlloc) / (1 << 20)
		t.Logf("%s: %d entries, %.1f MiB", c.what, n.Len(), size)
		if size > 24 || n.Len() < 99_000 {
			t.Errorf("%s: %d entries take %.1f MiB, more than 24", c.what, n.Len(), size)
		}
		runtime.KeepAlive(n)
	}
}

func BenchmarkName(b *testing.B) {
	n := New(Config{})
	fill(n, 1, 4)
	rnd := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	for b.Loop() {
		i := rnd.IntN(100_000)
		if _, ok := n.Name(Who{Netns: 0xf0000000 + uint32(i%500)}, numbered(i), base+200*second); !ok {
			b.Fatal(i)
		}
	}
}

func BenchmarkLearn(b *testing.B) {
	n := New(Config{})
	fill(n, 1, 4)
	at := base + 300*second
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i = (i + 7919) % 100_000
		at += 1000
		n.Learn(Who{Netns: 0xf0000000 + uint32(i%500)}, Answer{Addr: numbered(i), Name: "bucket-000001.s3.eu-central-1.amazonaws.com", TTL: 60, At: at})
	}
}
