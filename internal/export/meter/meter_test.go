// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/store"
)

var start = time.Unix(1_000_000, 0)

func podOf(namespace, kind, workload, name string) *event.Identity {
	return &event.Identity{
		Class: event.ClassPod, Namespace: namespace, Pod: name, PodUID: "uid-" + name, Node: "n1",
		Workload: event.Workload{Kind: kind, Name: workload}, Container: "c", Process: "p", PID: 7,
	}
}

func flowOf(local, remote *event.Identity) *event.Flow {
	return &event.Flow{Conn: event.Conn{Protocol: event.TCP}, Local: local, Remote: remote}
}

// moved is what a connection did in an epoch.
var moved = event.Traffic{TxBytes: 100, TxPackets: 1, RxBytes: 1000, RxPackets: 2}

const traffic = store.Happened(1 << event.KindTraffic)

func TestLevels(t *testing.T) {
	web := podOf("shop", "Deployment", "web", "web-1")
	db := podOf("data", "StatefulSet", "db", "db-0")
	for _, c := range []struct {
		level         Level
		local, remote *event.Identity
		want          Labels
	}{
		{Node, web, db, Labels{Own{}, Peer{Class: "pod"}, "TCP"}},
		{Namespace, web, db, Labels{Own{Namespace: "shop"}, Peer{Class: "pod", Namespace: "data"}, "TCP"}},
		{Workload, web, db, Labels{Own{"shop", "web", "Deployment", ""}, Peer{Class: "pod", Namespace: "data", Workload: "db"}, "TCP"}},
		{Pod, web, db, Labels{Own{"shop", "web", "Deployment", "web-1"}, Peer{Class: "pod", Namespace: "data", Workload: "db"}, "TCP"}},
		{PeerPod, web, db, Labels{Own{"shop", "web", "Deployment", "web-1"}, Peer{"pod", "data", "db", "db-0", ""}, "TCP"}},
		{Workload, web, &event.Identity{Class: event.ClassService, Service: "data/db"}, Labels{Own{"shop", "web", "Deployment", ""}, Peer{Class: "service", Namespace: "data", Workload: "db"}, "TCP"}},
		{PeerPod, web, &event.Identity{Class: event.ClassExternal, FQDN: "example.com"}, Labels{Own{"shop", "web", "Deployment", "web-1"}, Peer{Class: "external", FQDN: "example.com"}, "TCP"}},
		// A name of the outside is told at the last level alone.
		{Pod, web, &event.Identity{Class: event.ClassExternal, FQDN: "example.com"}, Labels{Own{"shop", "web", "Deployment", "web-1"}, Peer{Class: "external"}, "TCP"}},
		{PeerPod, &event.Identity{Class: event.ClassHost, Unit: "sshd.service", Process: "sshd", PID: 3, Node: "n1"}, &event.Identity{Class: event.ClassHost, Node: "n1"}, Labels{Own{Kind: "host"}, Peer{Class: "node"}, "TCP"}},
		{PeerPod, &event.Identity{Class: event.KernelService("nfs")}, &event.Identity{Class: event.ClassAPIServer}, Labels{Own{Kind: "kernel", Workload: "nfs"}, Peer{Class: "apiserver"}, "TCP"}},
		{PeerPod, &event.Identity{Class: event.ClassContainer, Container: "0123"}, nil, Labels{Own{Kind: "container"}, Peer{Class: "unknown"}, "TCP"}},
		{Pod, &event.Identity{Class: event.ClassPod, PodUID: "u"}, nil, Labels{Own{Kind: "pod"}, Peer{Class: "unknown"}, "TCP"}},
	} {
		m := New(Config{Level: c.level, Start: start})
		m.Flow(flowOf(c.local, c.remote), &moved, traffic)
		s := snapshot(m)
		if len(s.Pairs) != 2 || s.Pairs[0].Tx != moved.Tx() || s.Pairs[0].Rx != moved.Rx() {
			t.Fatalf("%v: %+v", c.level, s.Pairs)
		}
		if diff := cmp.Diff(c.want, *s.Pairs[0].Labels); diff != "" {
			t.Errorf("%v: %s", c.level, diff)
		}
	}
	for l := Node; l <= PeerPod; l++ {
		if back, ok := ParseLevel(l.String()); !ok || back != l {
			t.Errorf("%v is not read back", l)
		}
	}
	if _, ok := ParseLevel(""); ok {
		t.Error("nothing is no level")
	}
}

func snapshot(m *Meter, flows ...*event.Flow) *Snapshot {
	return m.Snapshot(func(visit func(*event.Flow)) {
		for _, f := range flows {
			visit(f)
		}
	})
}

func TestWhatHappensIsCounted(t *testing.T) {
	m := New(Config{Start: start})
	web, db := podOf("shop", "Deployment", "web", "web-1"), podOf("data", "StatefulSet", "db", "db-0")
	f := flowOf(web, db)
	f.HasSocket, f.OpenedBy = true, event.OpenerLocal
	f.Health = event.Health{RTT: 300, Resent: 2, SYN: 0xffffff00, SYNACK: 0x100}
	m.Flow(f, &moved, traffic|1<<event.KindOpened)
	f.Health.Resent = 0
	m.Flow(f, &moved, traffic|1<<event.KindClosed)
	m.Flow(f, &event.Traffic{RxBytes: 1, RxPackets: 1}, traffic) // tells nothing of its socket
	for failure, happened := range map[event.Failure]event.Kind{
		event.FailureRefused: event.KindRefused, event.FailureTimedOut: event.KindFailed, event.FailureReset: event.KindReset,
	} {
		f := flowOf(web, db)
		f.Health.Failure = failure
		m.Flow(f, &event.Traffic{}, 1<<happened)
	}
	m.Flow(flowOf(web, db), &event.Traffic{}, 1<<event.KindReset) // it was open
	refused := flowOf(web, db)
	refused.Conn.Protocol = event.UDP
	m.Flow(refused, &event.Traffic{}, 1<<event.KindRefused)

	s := snapshot(m, f, f, refused)
	var tcp, udp Pair
	for _, p := range s.Pairs {
		switch p.Labels.Protocol {
		case "TCP":
			tcp = p
		case "UDP":
			udp = p
		}
	}
	if tcp.Opened != 1 || tcp.Resent != 2 || tcp.Failed != [...]uint64{0, 1, 1, 0, 1, 0} || udp.Failed[event.FailureRefused] != 1 {
		t.Errorf("TCP %+v, UDP %+v", tcp, udp)
	}
	timing := s.Timings[0]
	if timing.RTT.Count != 2 || timing.RTT.Sum != 600_000 || timing.Handshake.Count != 1 || timing.Handshake.Sum != 512_000 {
		t.Errorf("times: %+v %+v", timing.RTT, timing.Handshake)
	}
	if want := []Active{{&Own{"shop", "web", "Deployment", ""}, 3}}; !cmp.Equal(want, s.Active) {
		t.Errorf("active: %v", s.Active)
	}
}

func TestDropsAndLookups(t *testing.T) {
	m := New(Config{Start: start})
	web := podOf("shop", "Deployment", "web", "web-1")
	m.Drop(web, &event.Drop{Reason: "NO_SOCKET", Amount: event.Counter{Packets: 3}})
	m.Drop(web, &event.Drop{Reason: "NO_SOCKET", Amount: event.Counter{Packets: 4}})
	m.Drop(web, &event.Drop{Reason: "TC_INGRESS", Amount: event.Counter{Packets: 1}})
	m.Lookup(web, &event.Lookup{Role: event.RoleClient, Tries: 2, Asked: 1e9, Answered: 1e9 + 3e6, SearchMisses: 4}, "NOERROR")
	m.Lookup(web, &event.Lookup{Role: event.RoleClient, Tries: 3, Asked: 1e9, RCode: event.RCodeTimeout}, "TIMEOUT")
	m.Lookup(web, &event.Lookup{Role: event.RoleServer, Tries: 1, Asked: 1e9, Answered: 2e9}, "NXDOMAIN")
	s := snapshot(m)
	e := s.Ends[0]
	want := [2]*DNS{{Queries: 5, Waste: 4, Timeouts: 1, Responses: []Tally{{"NOERROR", 1}}}, {Queries: 1, Responses: []Tally{{"NXDOMAIN", 1}}}}
	if diff := cmp.Diff(want, e.DNS); diff != "" || !cmp.Equal(e.Drops, []Tally{{"NO_SOCKET", 7}, {"TC_INGRESS", 1}}) {
		t.Errorf("%v %s", e.Drops, diff)
	}
	dns := s.Timings[0].DNS
	if dns[0].Count != 1 || dns[0].Sum != 3e6 || dns[1].Sum != 1e9 {
		t.Errorf("latency: %+v", dns)
	}
}

// TestCaps: no metric has more series than it may, and nothing is lost for it.
func TestCaps(t *testing.T) {
	const most, pods = 100, 1000
	m := New(Config{Level: PeerPod, MaxSeries: most, Start: start})
	db := podOf("data", "StatefulSet", "db", "db-0")
	for i := range pods {
		id := podOf("shop", "Job", fmt.Sprint("job-", i), fmt.Sprint("job-", i))
		f := flowOf(id, db)
		f.Health.RTT, f.HasSocket = 100, true
		m.Flow(f, &moved, traffic|1<<event.KindOpened)
		for why := event.FailureRefused; why <= event.FailureGivenUp; why++ {
			f.Health.Failure = why
			m.Flow(f, &event.Traffic{}, 1<<event.KindFailed)
		}
		m.Drop(id, &event.Drop{Reason: fmt.Sprint("REASON", i%10), Amount: event.Counter{Packets: 1}})
		m.Lookup(id, &event.Lookup{Role: event.RoleClient + event.Role(i%2), Tries: 1, Asked: 1, Answered: 2}, fmt.Sprint("CODE", i%10))
	}
	s := snapshot(m)
	for of, n := range s.Series {
		if Metric(of) == Handshake {
			continue
		}
		if n > most || n < most-HistogramSeries || s.Beyond[of] == 0 {
			t.Errorf("%v has %d series, %d updates were beyond", Metric(of), n, s.Beyond[of])
		}
	}
	sum := sumOf(s)
	if want := (sums{Tx: event.Counter{Bytes: 100 * pods, Packets: pods}, Rx: event.Counter{Bytes: 1000 * pods, Packets: 2 * pods}, Opened: pods, Failed: 5 * pods, Drops: pods, Queries: pods, Responses: pods, RTT: pods, Latency: pods}); sum != want {
		t.Errorf("%+v, want %+v", sum, want)
	}
	if full := m.Full(); len(full) != int(Metrics)-1 {
		t.Errorf("full: %v", full)
	}
	other := s.Pairs[len(s.Pairs)-1]
	if want := (Labels{others, otherPeer, Other}); *other.Labels != want || other.Unused() {
		t.Errorf("%+v", other)
	}
}

// sums are those over all series.
type sums struct {
	Tx, Rx                  event.Counter
	Opened, Failed, Drops   uint64
	Queries, Responses, RTT uint64
	Latency                 uint64
}

func sumOf(s *Snapshot) (sum sums) {
	for _, p := range s.Pairs {
		sum.Tx.Add(p.Tx)
		sum.Rx.Add(p.Rx)
		sum.Opened += p.Opened
		for _, n := range p.Failed {
			sum.Failed += n
		}
	}
	for _, e := range s.Ends {
		for _, d := range e.Drops {
			sum.Drops += d.Count
		}
		for _, d := range e.DNS {
			if d == nil {
				continue
			}
			sum.Queries += d.Queries
			for _, r := range d.Responses {
				sum.Responses += r.Count
			}
		}
	}
	for _, t := range s.Timings {
		if t.RTT != nil {
			sum.RTT += t.RTT.Count
		}
		for _, h := range t.DNS {
			if h != nil {
				sum.Latency += h.Count
			}
		}
	}
	return sum
}

// scraper adds up increases as Prometheus does: a counter that is lower than it
// was has begun again, and one that is new has begun with 0.
type scraper struct {
	last map[string]uint64
	sum  uint64
}

func (x *scraper) scrape(s *Snapshot) (series int) {
	now := map[string]uint64{}
	for _, p := range s.Pairs {
		now[fmt.Sprint(*p.Labels)] = p.Tx.Bytes
	}
	for k, v := range now {
		was := x.last[k]
		if v < was {
			was = 0
		}
		x.sum += v - was
	}
	x.last = now
	return len(now)
}

// TestChurn: 5,000 names of pods come and go within a minute, and some come back.
// The increase over all series is what was put in, and nothing piles up.
func TestChurn(t *testing.T) {
	const most, names = 1000, 5000
	m := New(Config{Level: Pod, MaxSeries: most, Grace: 20 * time.Second, Start: start})
	db := podOf("data", "StatefulSet", "db", "db-0")
	random := rand.New(rand.NewPCG(1, 2))
	var x scraper
	var put uint64
	var before, after runtime.MemStats
	live := map[string]*event.Identity{}
	now := start
	round := func(begin int) {
		for i := range names { // 83 a second, each for two seconds
			if i%83 == 0 {
				now = now.Add(time.Second)
				m.Begin(now)
				sweep(m, now, live, db)
				if n := x.scrape(snapshot(m)); n > most/2+1 || len(m.pairs) > most/2 || len(m.ends) > most || len(m.timings) > most {
					t.Fatalf("%d series, %d pairs, %d ends, %d timings", n, len(m.pairs), len(m.ends), len(m.timings))
				}
			}
			name := fmt.Sprint("train-", begin+i)
			live[name] = podOf("ml", "Job", "train", name)
			delete(live, fmt.Sprint("train-", begin+i-166))
			for range 4 {
				id := live[fmt.Sprint("train-", begin+max(0, i-random.IntN(166)))]
				n := random.Uint64N(100_000)
				m.Flow(flowOf(id, db), &event.Traffic{TxBytes: n, TxPackets: 1}, traffic)
				put += n
			}
		}
	}
	round(0)
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := 1; i < 5; i++ {
		round(i * names)
	}
	round(0) // the first come back
	x.scrape(snapshot(m))
	runtime.GC()
	runtime.ReadMemStats(&after)
	if x.sum != put {
		t.Errorf("increase is %d, %d was put in", x.sum, put)
	}
	if s := snapshot(m); s.Beyond[Network] == 0 || s.Total.TxBytes != put {
		t.Errorf("beyond %d, total %d", s.Beyond[Network], s.Total.TxBytes)
	}
	if more := int64(after.HeapAlloc) - int64(before.HeapAlloc); more > 16<<20 {
		t.Errorf("%d MiB more", more>>20)
	}
	t.Logf("%d KiB, then %d KiB", before.HeapAlloc>>10, after.HeapAlloc>>10)
	// When all have gone there is room again.
	clear(live)
	now = now.Add(time.Minute)
	sweep(m, now, live, db)
	if s := snapshot(m); len(s.Pairs) != 1 || s.Series != [Metrics]int{} || len(m.ends)+len(m.timings)+len(m.young)+len(m.old) > 0 {
		t.Errorf("%d pairs, series %v", len(s.Pairs), s.Series)
	}
}

func sweep(m *Meter, now time.Time, live map[string]*event.Identity, peers ...*event.Identity) {
	living := m.Living()
	for _, id := range live {
		living.Add(id, true)
	}
	for _, id := range peers {
		living.Add(id, false)
	}
	m.Sweep(now, living)
}

// TestWhoStays: pods that are there keep their series however long they are
// idle; so do the node's own.
func TestWhoStays(t *testing.T) {
	web, gone, db := podOf("shop", "Deployment", "web", "web-1"), podOf("shop", "Job", "gone", "gone-1"), podOf("data", "StatefulSet", "db", "db-0")
	host := &event.Identity{Class: event.ClassHost, Node: "n1"}
	external := &event.Identity{Class: event.ClassExternal}
	named := &event.Identity{Class: event.ClassExternal, FQDN: "example.com"}
	m := New(Config{Level: PeerPod, Grace: time.Minute, Start: start})
	for _, f := range []*event.Flow{
		flowOf(web, db), flowOf(gone, db), flowOf(web, gone), flowOf(web, external), flowOf(web, named), flowOf(host, external),
	} {
		m.Flow(f, &moved, traffic)
	}
	for _, id := range []*event.Identity{web, gone, host} {
		m.Drop(id, &event.Drop{Reason: "X", Amount: event.Counter{Packets: 1}})
	}
	live := map[string]*event.Identity{"": web}
	sweep(m, start.Add(59*time.Second), live, db)
	if n := len(m.pairs); n != 6 {
		t.Errorf("%d pairs within the grace", n)
	}
	sweep(m, start.Add(time.Hour), live, db)
	if len(m.pairs) != 3 || len(m.ends) != 2 || len(m.timings) != 2 {
		t.Errorf("%d pairs, %d ends, %d timings", len(m.pairs), len(m.ends), len(m.timings))
	}
	if m.series[Network] != 6 || m.series[Drops] != 2 {
		t.Errorf("series: %v", m.series)
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"web-1":                   "web-1",
		"a\x1b[31mb":              "a�[31mb",
		"a\nb":                    "a�b",
		"\xff\xfe":                "�",
		"größe":                   "größe",
		"a\u202eb\x7f":            "a�b�",
		strings.Repeat("x", 300):  strings.Repeat("x", maxValue),
		strings.Repeat("ü", 200):  strings.Repeat("ü", maxValue/2),
		strings.Repeat("\x00", 9): strings.Repeat("�", 9),
	} {
		if got := Clean(in); got != want || !utf8.ValidString(got) {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"web", "\xff", strings.Repeat("é", 200), "\x1b]0;x\x07"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Clean(s)
		if !utf8.ValidString(got) || len(got) > maxValue || Clean(got) != got {
			t.Errorf("%q becomes %q", s, got)
		}
	})
}
