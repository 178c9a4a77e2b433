// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/event"
)

// ports are a Service's port and the nodes' that leads to it.
type ports struct{ port, node uint16 }

func serviceTold(name string, headless bool, p ports, ips ...string) Change {
	s := &Service{Namespace: "ns", Name: name, Headless: headless, Ports: []Port{{Protocol: event.TCP, Port: p.port, NodePort: p.node}}}
	for _, a := range ips {
		s.IPs = append(s.IPs, ip(a))
	}
	return Change{Kind: KindService, Key: "ns/" + name, Service: s}
}

func endpoints(slice, of string, port uint16, ips ...string) Change {
	e := &Endpoints{Namespace: "ns", Service: of}
	if port != 0 {
		e.Ports = []Port{{Protocol: event.TCP, Port: port}}
	}
	for _, a := range ips {
		e.IPs = append(e.IPs, ip(a))
	}
	return Change{Kind: KindEndpoints, Key: "ns/" + slice, Endpoints: e}
}

func removed(kind Kind, key string) Change { return Change{Kind: kind, Key: key} }

func called(id *event.Identity) string {
	if id == nil {
		return ""
	}
	return id.Service
}

func TestServices(t *testing.T) {
	m := New(Config{})
	tell := func(changes ...Change) *Touched { return m.Apply(changes, true) }
	front := func(addr string, port uint16) string { return called(m.At(ip(addr)).Service(port, event.TCP)) }
	headless := func(addr string, port uint16) string { return called(m.At(ip(addr)).Headless(port, event.TCP)) }
	endpoint := func(addr string, port uint16) bool { return m.At(ip(addr)).Endpoint(port, event.TCP) }
	expect := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	tell(serviceTold("web", false, ports{80, 30080}, "10.96.0.1", "203.0.113.1"), serviceTold("db", true, ports{5432, 0}))
	expect("its address", front("10.96.0.1", 80), "ns/web")
	expect("another of its addresses", front("203.0.113.1", 80), "ns/web")
	expect("another port", front("10.96.0.1", 81), "")
	expect("the whole address", called(m.At(ip("10.96.0.1")).Service(0, 0)), "ns/web")
	expect("another protocol", called(m.At(ip("10.96.0.1")).Service(80, event.UDP)), "")
	expect("on the nodes", called(m.NodePort(30080, event.TCP)), "ns/web")
	expect("nothing known", called(m.At(ip("10.9.9.9")).Service(80, event.TCP))+headless("10.9.9.9", 1), "")
	if id := m.At(ip("10.96.0.1")).Service(80, event.TCP); id.Class != event.ClassService || id.Namespace != "ns" {
		t.Errorf("is %+v", id)
	}

	touched := tell(endpoints("db-1", "db", 5432, "10.1.0.1", "10.1.0.2"), endpoints("web-1", "web", 8080, "10.1.0.1"))
	if !touched.Address(ip("10.1.0.2")) || touched.Address(ip("10.1.0.3")) {
		t.Error("what was touched")
	}
	expect("an endpoint", headless("10.1.0.1", 5432), "ns/db")
	expect("another port of it", headless("10.1.0.1", 8080), "")
	if !endpoint("10.1.0.1", 8080) || endpoint("10.1.0.1", 5432) || endpoint("10.9.9.9", 1) || m.At(ip("10.9.9.9")).APIServer(1, event.TCP) {
		t.Error("who has an address to be asked at")
	}
	// Two slices tell of one endpoint; one that stays is enough.
	tell(endpoints("db-2", "db", 5432, "10.1.0.1"))
	tell(removed(KindEndpoints, "ns/db-1"))
	expect("in another slice", headless("10.1.0.1", 5432), "ns/db")
	expect("in none", headless("10.1.0.2", 5432), "")
	// Of several Services there is no telling.
	tell(serviceTold("both", true, ports{5432, 0}), endpoints("both-1", "both", 0, "10.1.0.1"))
	expect("of two", headless("10.1.0.1", 5432), "")
	expect("at all ports", headless("10.1.0.1", 1), "ns/both")
	tell(removed(KindEndpoints, "ns/both-1"))
	expect("of one again", headless("10.1.0.1", 5432), "ns/db")
	tell(serviceTold("thief", false, ports{80, 0}, "203.0.113.1"))
	expect("an address of two", front("203.0.113.1", 80), "")
	tell(removed(KindService, "ns/thief"))
	expect("an address of one again", front("203.0.113.1", 80), "ns/web")
	// The Service is told of after its endpoints, changes, and goes before them.
	tell(endpoints("late-1", "late", 1, "10.1.0.5"))
	expect("not told of", headless("10.1.0.5", 1), "")
	if !tell(serviceTold("late", true, ports{1, 0})).All {
		t.Error("nobody is told of it")
	}
	expect("told of", headless("10.1.0.5", 1), "ns/late")
	tell(serviceTold("late", false, ports{1, 0}, "10.96.0.9"))
	expect("with an address", headless("10.1.0.5", 1), "")
	tell(serviceTold("web", false, ports{8000, 0}, "10.96.0.1"))
	expect("the old port", front("10.96.0.1", 80)+front("203.0.113.1", 80)+called(m.NodePort(30080, event.TCP)), "")
	expect("the new port", front("10.96.0.1", 8000), "ns/web")
	if tell(serviceTold("web", false, ports{8000, 0}, "10.96.0.1"), endpoints("web-1", "web", 8080, "10.1.0.1")).Any() {
		t.Error("nothing new touches")
	}
	for _, name := range []string{"web", "db", "late", "both", "odd"} {
		tell(removed(KindService, "ns/"+name))
	}
	for _, name := range []string{"web-1", "db-2", "late-1", "odd-1"} {
		tell(removed(KindEndpoints, "ns/"+name))
	}
	if len(m.services)+len(m.slices)+len(m.addresses)+m.places != 0 {
		t.Errorf("left: %d, %d, %d, %d", len(m.services), len(m.slices), len(m.addresses), m.places)
	}
}

func TestAPIServer(t *testing.T) {
	m := New(Config{})
	m.Apply([]Change{{Kind: KindEndpoints, Key: "default/kubernetes", Endpoints: &Endpoints{
		Namespace: "default", Service: "kubernetes", IPs: []event.IP{ip("192.0.2.3")}, Ports: []Port{{Protocol: event.TCP, Port: 6443}},
	}}}, true)
	if a := m.At(ip("192.0.2.3")); !a.APIServer(6443, event.TCP) || a.APIServer(22, event.TCP) || !a.APIServer(0, 0) || m.At(ip("192.0.2.4")).APIServer(0, 0) {
		t.Error("who is the API server")
	}
}

func TestPlacesAreBounded(t *testing.T) {
	m := New(Config{MaxPods: 2})
	for i := range 100 {
		m.Apply([]Change{endpoints(fmt.Sprint("s", i), fmt.Sprint("s", i), 80, fmt.Sprintf("10.1.0.%d", i))}, true)
	}
	if l := m.Losses(); m.places != 2*placesPerPod || len(l) != 1 || l[0].Stage != "services" || l[0].Count != 100-2*placesPerPod {
		t.Errorf("%d places, %+v", m.places, l)
	}
	for i := range 100 {
		m.Apply([]Change{removed(KindEndpoints, fmt.Sprint("ns/s", i))}, true)
	}
	if m.places != 0 || len(m.addresses) != 0 {
		t.Errorf("%d places are left", m.places)
	}
}

// life is a pod as it was in truth: its address was its own in [from, to).
type life struct {
	uid      string
	from, to float64
}

// TestHolderAgainstTheTruth: pods come and go at one address, the cluster's words
// come late and in any order of pods, cut to whole seconds. Who is named had the
// address, and one who had it for long enough is named.
func TestHolderAgainstTheTruth(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for round := range 3000 {
		m := New(Config{Keep: time.Hour})
		now, lives := 10.0, []life(nil)
		var changes []Change
		for i := range 2 + rng.IntN(4) {
			l := life{uid: fmt.Sprint("p", i), from: now + 0.2 + 4*rng.Float64()}
			l.to = l.from + 0.3 + 8*rng.Float64()
			now = l.to
			lives = append(lives, l)
			p := &Pod{UID: l.uid, Phase: "Running", IPs: []event.IP{ip("10.1.0.7")}}
			ready := l.from + rng.Float64() // the state says so later
			p.Created, p.Networked = sec(float64(int(l.from-2*rng.Float64()))), sec(float64(int(ready)))
			told := ready + 0.5*rng.Float64()
			changes = append(changes, Change{Kind: KindPod, Key: l.uid, Pod: p, At: sec(told)})
			if i < 5 && rng.IntN(8) > 0 {
				q := *p
				q.Phase, q.Ended = "Succeeded", sec(float64(int(l.to)))
				changes = append(changes, Change{Kind: KindPod, Key: l.uid, Pod: &q, At: sec(max(told, l.to) + 0.5*rng.Float64())})
			} else {
				changes = append(changes, Change{Kind: KindPod, Key: l.uid, At: sec(max(told, l.to) + rng.Float64())})
			}
		}
		shuffle(rng, changes)
		for _, c := range changes {
			m.Apply([]Change{c}, true)
		}
		for range 60 {
			at := 8 + rng.Float64()*(now-4)
			got := who(m, "10.1.0.7", at)
			if !possible(lives, got, at) {
				t.Fatalf("round %d: at %.3f it is %q; in truth %+v", round, at, got, lives)
			}
		}
		for i, l := range lives {
			// Well inside of its life, beyond what seconds and delays blur.
			if middle := (l.from + l.to) / 2; l.to-l.from > 5.5 && who(m, "10.1.0.7", middle) != l.uid {
				t.Fatalf("round %d: pod %d is not named at %.3f, %q is; %+v", round, i, middle, who(m, "10.1.0.7", middle), lives)
			}
		}
	}
}

// shuffle mixes the words of several pods; those of one stay in order, two in a
// row.
func shuffle(rng *rand.Rand, changes []Change) {
	seen := map[string][]Change{}
	for _, c := range changes {
		seen[c.Key] = append(seen[c.Key], c)
	}
	rng.Shuffle(len(changes), func(i, j int) { changes[i], changes[j] = changes[j], changes[i] })
	for i, c := range changes {
		changes[i] = seen[c.Key][0]
		seen[c.Key] = seen[c.Key][1:]
	}
}

// possible: one who is named had the address within what nobody can tell: its
// state is cut to seconds, and its end is told up to a second late. Time that was
// nobody's goes to the next, from when it was made; the first has all before.
func possible(lives []life, got string, at float64) bool {
	const blur = 1.1
	for i, l := range lives {
		inside := at >= l.from+blur && at < l.to-blur
		switch {
		case l.uid != got:
			if inside && got != "" && got != "?" {
				return false
			}
		case at >= max(l.to, l.from+1.5)+blur, i > 0 && at < l.from-3.1:
			return false
		}
	}
	return true
}

func FuzzApply(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
	f.Add([]byte("pods and services come and go, and come again"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := New(Config{Node: "n0", MaxPods: 8, Keep: 30 * time.Second})
		var in Inbox
		now := int64(1000 * second)
		for i := 0; i+4 <= len(data); i += 4 {
			a, b, c, d := data[i], data[i+1], data[i+2], data[i+3]
			now += int64(d%8) * second / 2
			if d == 255 {
				now -= 500 * second
			}
			in.Put(change(a, b, c, now))
			if d%3 == 0 {
				m.Apply(in.Take())
				m.Sweep(time.Unix(0, now))
				check(t, m, now)
			}
		}
		m.Apply(in.Take())
		m.Sweep(time.Unix(0, now).Add(time.Hour))
		check(t, m, now)
		if m.gone.len+m.ended.len != 0 {
			t.Fatalf("%d and %d are kept for ever", m.gone.len, m.ended.len)
		}
	})
}

// change is any.
func change(a, b, c byte, now int64) Change {
	addr := func(x byte) event.IP { return ip(fmt.Sprintf("10.0.0.%d", x%6)) }
	key := string('a' + rune(b%16))
	at := func(x byte) int64 { return now + (int64(x%16)-12)*second }
	switch out := (Change{Kind: Kind(a%4) + 1, Key: key, At: now}); {
	case a&0x80 != 0:
		out.Key = [...]string{key, "ns/" + key, "ns/" + key, key}[a%4]
		return out
	case out.Kind == KindPod:
		p := &Pod{UID: key, Node: fmt.Sprint("n", b%3), Created: at(c), Networked: at(c >> 1), HostNetwork: c&0x40 != 0}
		if c&0x20 == 0 {
			p.IPs = []event.IP{addr(c), addr(b)}
		}
		if a&0x40 != 0 {
			p.Ended, p.Phase = at(b), "Failed"
		}
		if a&0x20 != 0 {
			p.StaticUID = string('a' + rune(c%16))
		}
		out.Pod, out.Gone = p, a&0x10 != 0
		return out
	case out.Kind == KindService:
		out.Key = "ns/" + key
		out.Service = &Service{Namespace: "ns", Name: key, Headless: c&1 != 0, IPs: []event.IP{addr(c), addr(b)}, Ports: []Port{{event.TCP, uint16(c % 4), uint16(b % 3)}}}
		return out
	case out.Kind == KindEndpoints:
		out.Key = "ns/" + key
		out.Endpoints = &Endpoints{Namespace: "ns", Service: string('a' + rune(c%16)), IPs: []event.IP{addr(c), addr(b)}, Ports: []Port{{event.TCP, uint16(c % 4), 0}}[:c&1]}
		return out
	default:
		out.Node = &Node{Name: key, Zone: string('x' + rune(c%2)), IPs: []event.IP{addr(c)}}
		return out
	}
}

func check(t *testing.T, m *Map, now int64) {
	if len(m.pods) > 16 || len(m.nodes) > 8 || m.places > 8*placesPerPod {
		t.Fatalf("%d pods, %d nodes, %d places", len(m.pods), len(m.nodes), m.places)
	}
	if m.ended.len > 4*16 || m.gone.len > 64*16 {
		t.Fatalf("%d have ended, %d are gone", m.ended.len, m.gone.len)
	}
	places := 0
	for addr, a := range m.addresses {
		if len(a.spans) > maxHolders {
			t.Fatalf("%d holders", len(a.spans))
		}
		if len(a.spans)+len(a.fronts)+len(a.backends) == 0 {
			t.Fatal("an address of nothing")
		}
		places += len(a.fronts) + len(a.backends)
		for _, s := range a.spans {
			if s.owner.pod != nil && !s.owner.lost && m.pods[s.owner.pod.UID] != s.owner {
				t.Fatalf("%s has an address and is forgotten", s.owner.pod.UID)
			}
		}
		m.Holder(a, now)
		m.Now(addr)
		a.Headless(1, event.TCP)
		a.Service(1, event.TCP)
	}
	if places != m.places {
		t.Fatalf("%d places, counted %d", places, m.places)
	}
	for uid, o := range m.static {
		if m.pods[o.pod.UID] != o {
			t.Fatalf("static pod %s is forgotten", uid)
		}
	}
}
