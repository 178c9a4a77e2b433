// SPDX-License-Identifier: Apache-2.0

package prom

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/export/meter"
	"github.com/orb8/orb8/internal/store"
)

var update = flag.Bool("update", false, "write the golden files")

const traffic = store.Happened(1 << event.KindTraffic)

func podOf(namespace, workload, name string) *event.Identity {
	return &event.Identity{
		Class: event.ClassPod, Namespace: namespace, Pod: name, PodUID: "uid-" + name, Node: "n1",
		Workload: event.Workload{Kind: "Deployment", Name: workload},
	}
}

func flowOf(local, remote *event.Identity) *event.Flow {
	f := &event.Flow{Conn: event.Conn{Protocol: event.TCP}, Local: local, Remote: remote, HasSocket: true, OpenedBy: event.OpenerLocal}
	f.Health = event.Health{RTT: 300, SYN: 1000, SYNACK: 1500, Resent: 1}
	return f
}

func none(func(*event.Flow)) {}

// busy has counted some of everything.
func busy(level meter.Level) *meter.Meter {
	m := meter.New(meter.Config{Level: level, MaxSeries: 100, Start: time.Unix(1000, 0)})
	web, db := podOf("shop", "web", "web-1"), podOf("data", "db", "db-0")
	moved := event.Traffic{TxBytes: 100, TxPackets: 1, RxBytes: 1000, RxPackets: 2}
	for _, remote := range []*event.Identity{
		db, {Class: event.ClassService, Service: "data/cache"}, {Class: event.ClassExternal, FQDN: "example.com"},
	} {
		m.Flow(flowOf(web, remote), &moved, traffic|1<<event.KindOpened)
	}
	m.Flow(flowOf(&event.Identity{Class: event.ClassHost}, db), &moved, traffic)
	for _, why := range []event.Failure{event.FailureTimedOut, event.FailureUnreachable} {
		f := flowOf(web, db)
		f.Health.Failure = why
		m.Flow(f, &event.Traffic{}, 1<<event.KindFailed)
	}
	m.Drop(web, &event.Drop{Reason: "NO_SOCKET", Amount: event.Counter{Packets: 3}})
	m.Lookup(web, &event.Lookup{Role: event.RoleClient, Tries: 2, Asked: 1e9, Answered: 1e9 + 3e6, SearchMisses: 4}, "NOERROR")
	m.Lookup(db, &event.Lookup{Role: event.RoleServer, Tries: 1, Asked: 1e9, Answered: 1e9 + 9e6}, "NXDOMAIN")
	return m
}

func self() meter.Self {
	some := event.Counter{Bytes: 1000, Packets: 10}
	tap := meter.Tap{Flows: some, Carried: some, Unplaced: some, Overflow: some, Forwarded: some, NotIP: some, Malformed: some, Device: some, Unaccounted: some}
	return meter.Self{
		Version: "test", Uptime: time.Minute, Processed: 7, Dropped: []event.Loss{{Stage: "table_full", Count: 2}}, Pods: 3,
		Ingress: tap, Egress: tap, User: time.Second, System: time.Second / 2, Resident: 1 << 20, Kernel: 1 << 21,
		Tables:   []meter.Table{{Name: "flows", Entries: 1, Room: 100}, {Name: "kernel", Entries: 2, Room: 200}},
		Programs: []meter.Program{{Name: "flow_egress", Runs: 5, Time: time.Millisecond}},
	}
}

func gatherer(m *meter.Meter) *Gatherer { return gathererWith(m, nil) }

func gathererWith(m *meter.Meter, v *event.GPUView) *Gatherer {
	return NewGatherer(func() (*meter.Snapshot, error) {
		s := m.Snapshot(none)
		s.Self, s.GPU = self(), v
		return s, nil
	})
}

// TestExposition is a golden one, of the second scrape, and what promlint says.
func TestExposition(t *testing.T) {
	g := gathererWith(busy(meter.PeerPod), viewOf())
	if _, err := g.Gather(); err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.GatherAndLint(g)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	var out bytes.Buffer
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "orb8_build_info" { // as the test was built
			continue
		}
		sortMetrics(f)
		if _, err := expfmt.MetricFamilyToText(&out, f); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "testdata/metrics.txt", out.Bytes())
}

func sortMetrics(f *dto.MetricFamily) {
	for i := range f.Metric {
		for j := i; j > 0 && fmt.Sprint(f.Metric[j].Label) < fmt.Sprint(f.Metric[j-1].Label); j-- {
			f.Metric[j], f.Metric[j-1] = f.Metric[j-1], f.Metric[j]
		}
	}
}

// TestASeriesBeginsWithZero, and a series is there once at every level.
func TestASeriesBeginsWithZero(t *testing.T) {
	for level := meter.Node; level <= meter.PeerPod; level++ {
		m := busy(level)
		g := gatherer(m)
		first, second := value(t, g, "orb8_network_bytes_total"), value(t, g, "orb8_network_bytes_total")
		if first != 0 || second != 4*1100 {
			t.Errorf("%v: %v bytes, then %v", level, first, second)
		}
		m.Flow(flowOf(podOf("shop", "late", "late-1"), podOf("data", "db", "db-0")), &event.Traffic{TxBytes: 5}, traffic)
		if level > meter.Namespace { // else it is no new one
			if v := value(t, g, "orb8_network_bytes_total"); v != second {
				t.Errorf("%v: a new series has begun with %v", level, v-second)
			}
		}
		if v := value(t, g, "orb8_network_bytes_total"); v != second+5 {
			t.Errorf("%v: a new series has %v", level, v-second)
		}
		if v := value(t, g, "orb8_tcp_rtt_seconds"); v != 4 {
			t.Errorf("%v: %v RTTs", level, v)
		}
	}
}

// value sums a metric, and looks for series that are there twice.
func value(t *testing.T, g *Gatherer, name string) (sum float64) {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		seen := map[string]bool{}
		for _, m := range f.Metric {
			l := fmt.Sprint(m.Label)
			if seen[l] {
				t.Errorf("%s: %s twice", f.GetName(), l)
			}
			seen[l] = true
			if f.GetName() == name {
				sum += m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

// TestWhatIsGoneIsForgotten: a series that comes back begins with 0 again.
func TestWhatIsGoneIsForgotten(t *testing.T) {
	m := busy(meter.Pod)
	g := gatherer(m)
	value(t, g, "")
	shown := len(g.shown)
	m.Sweep(time.Unix(100_000, 0), m.Living())
	value(t, g, "")
	if n := len(g.shown); n >= shown/2 {
		t.Errorf("%d series are remembered of %d", n, shown)
	}
}

// TestHostileLabels: whatever pods and names are called, every format can be read.
func TestHostileLabels(t *testing.T) {
	m := meter.New(meter.Config{Level: meter.PeerPod, Start: time.Unix(1000, 0)})
	for _, name := range []string{"a\"b\\c\nd", "\xff\xfe", "\x1b[2J\x00", "\u202eevil", strings.Repeat("é", 500), "{}=,#"} {
		own := podOf(name, name, name)
		m.Flow(flowOf(own, &event.Identity{Class: event.ClassExternal, FQDN: name}), &event.Traffic{TxBytes: 1}, traffic)
		m.Drop(own, &event.Drop{Reason: name, Amount: event.Counter{Packets: 1}})
	}
	srv := httptest.NewServer(Handler(func() (*meter.Snapshot, error) {
		s := m.Snapshot(none)
		s.GPU, s.DCGMNames = viewOf(), true
		hostile(s.GPU, "a\"b\\c\nd\x00\x1b[2J\xff"+strings.Repeat("é", 500))
		return s, nil
	}))
	defer srv.Close()
	for _, accept := range []string{"", "application/openmetrics-text; version=1.0.0", protobuf} {
		body, contentType := scrape(t, srv.URL, accept)
		format := expfmt.ResponseFormat(http.Header{"Content-Type": {contentType}})
		if strings.HasPrefix(contentType, "application/openmetrics-text") {
			// A counter that is not called _total is of no known type there.
			body = bytes.ReplaceAll(bytes.TrimSuffix(body, []byte("# EOF\n")), []byte(" unknown\n"), []byte(" untyped\n"))
			format = expfmt.NewFormat(expfmt.TypeTextPlain)
		}
		decoder := expfmt.NewDecoder(bytes.NewReader(body), format)
		n := 0
		for {
			var f dto.MetricFamily
			err := decoder.Decode(&f)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", contentType, err)
			}
			for _, one := range f.Metric {
				n++
				for _, l := range one.Label {
					if !model.LabelValue(l.GetValue()).IsValid() || strings.ContainsAny(l.GetValue(), "\x00\x1b\n") || len(l.GetValue()) > 256 {
						t.Errorf("%s: %q", contentType, l.GetValue())
					}
				}
			}
		}
		if n < 20 {
			t.Errorf("%s: %d series", contentType, n)
		}
	}
}

const protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"

func scrape(t testing.TB, url, accept string) (body []byte, contentType string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %v", resp.Status, err)
	}
	return body, resp.Header.Get("Content-Type")
}

// TestNativeHistogram: buckets as the library makes them.
func TestNativeHistogram(t *testing.T) {
	m := meter.New(meter.Config{Start: time.Unix(1000, 0)})
	f := flowOf(podOf("shop", "web", "web-1"), podOf("data", "db", "db-0"))
	want := reference()
	for _, us := range []uint32{1, 2, 3, 50, 100, 250, 251, 1000, 1000, 4096, 70_000, 2_500_000, 60_000_000} {
		f.Health.RTT = us
		m.Flow(f, &event.Traffic{TxBytes: 1, TxPackets: 1}, traffic)
		want.Observe(float64(us) / 1e6)
	}
	g := gatherer(m)
	value(t, g, "")
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var expect dto.Metric
	if err := want.Write(&expect); err != nil {
		t.Fatal(err)
	}
	for _, fam := range families {
		if fam.GetName() != "orb8_tcp_rtt_seconds" {
			continue
		}
		got, expect := fam.Metric[0].Histogram, expect.Histogram
		expect.CreatedTimestamp, expect.SampleSum = nil, got.SampleSum
		if g, w := got.String(), expect.String(); strings.ReplaceAll(g, " ", "") != strings.ReplaceAll(w, " ", "") {
			t.Errorf("got  %s\nwant %s", g, w)
		}
		return
	}
	t.Error("no histogram")
}

// TestEveryMetricIsExplained, where people look.
func TestEveryMetricIsExplained(t *testing.T) {
	page, err := os.ReadFile("../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	families, err := gathererWith(busy(meter.PeerPod), viewOf()).Gather()
	if err != nil || len(families) < 70 {
		t.Fatal(len(families), err)
	}
	for _, f := range families {
		if !strings.Contains(string(page), "`"+f.GetName()+"`") {
			t.Errorf("docs/metrics.md says nothing of %s", f.GetName())
		}
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if !strings.Contains(string(page), "`"+l.GetName()+"`") {
					t.Errorf("docs/metrics.md says nothing of the label %s of %s", l.GetName(), f.GetName())
				}
			}
		}
	}
}

// TestScrapesBesideEachOther share a snapshot.
func TestScrapesBesideEachOther(t *testing.T) {
	m := busy(meter.Pod)
	s := m.Snapshot(none)
	srv := httptest.NewServer(Handler(func() (*meter.Snapshot, error) { return s, nil }))
	defer srv.Close()
	var wg sync.WaitGroup
	for range maxScrapes {
		wg.Go(func() {
			for _, accept := range []string{"", protobuf} {
				if body, _ := scrape(t, srv.URL, accept); len(body) < 1000 {
					t.Errorf("%d bytes", len(body))
				}
			}
		})
	}
	wg.Wait()
}

func TestNoAnswer(t *testing.T) {
	h := Handler(func() (*meter.Snapshot, error) { return nil, errors.New("the agent is shutting down") })
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	if rec.Code != http.StatusInternalServerError || !strings.Contains(rec.Body.String(), "shutting down") {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}
