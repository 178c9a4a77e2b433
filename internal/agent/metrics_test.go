// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/cluster"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/export/meter"
)

// scraped are metric families by name.
type scraped map[string]*dto.MetricFamily

// scrape asks an agent in a namespace over HTTP.
func scrape(t *testing.T, at *bpftest.Netns) (all scraped) {
	t.Helper()
	at.Do(func() {
		c, err := net.Dial("tcp", "127.0.0.1:9091")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET /metrics HTTP/1.0\r\n\r\n")
		text, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		head, body, _ := strings.Cut(string(text), "\r\n\r\n")
		parser := expfmt.NewTextParser(model.UTF8Validation)
		if all, err = parser.TextToMetricFamilies(strings.NewReader(body)); err != nil || !strings.Contains(head, " 200 ") {
			t.Fatalf("%s %v", head, err)
		}
	})
	return all
}

// sum is that of the series of a metric that have all of these labels, given as
// name=value.
func (s scraped) sum(metric string, labels ...string) (sum uint64) {
	f := s[metric]
	if f == nil {
		return 0
	}
	for _, m := range f.Metric {
		have := map[string]bool{}
		for _, l := range m.Label {
			have[l.GetName()+"="+l.GetValue()] = true
		}
		if !slices.ContainsFunc(labels, func(l string) bool { return !have[l] }) {
			sum += uint64(m.GetCounter().GetValue() + m.GetGauge().GetValue())
			sum += m.GetHistogram().GetSampleCount()
		}
	}
	return sum
}

// TestMetricsAddUp: of real traffic, more of it than there is room for. To the
// byte and the packet, in each direction:
//
//	sum(orb8_network) = orb8_tap{class=flows}
//	orb8_tap{flows + carried + unplaced} = flows + remainder + carried of the status
//	sum(orb8_tap) = what the tap counted = orb8_interface
func TestMetricsAddUp(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p := bpftest.NewPair(t)
	for _, e := range []*bpftest.End{&p.A, &p.B} { // else the interface counts what is not on the wire
		e.Offload(false, bpftest.TSO, bpftest.GSO, bpftest.GRO)
	}
	a := start(t, p.A.Netns, "ORB8_FLOW_TIMEOUT_SECS=1", "ORB8_EXPIRATION_INTERVAL_SECS=1", "ORB8_EPOCH=100ms", "ORB8_TABLE_ENTRIES=100", "ORB8_MAX_FLOWS=80")
	tcp := p.B.ListenTCP(false, bpftest.ServeDiscard)
	c := p.A.DialTCP(tcp)
	if _, err := c.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	scrape(t, p.A.Netns) // under traffic
	to := net.UDPAddrFromAddrPort(p.B.DrainUDP(false))
	u := p.A.UDP(false)
	for range 4 {
		for i := range 500 {
			to.Port = 20000 + i
			if _, err := u.WriteTo(make([]byte, 100), to); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(150 * time.Millisecond)
	}
	var wrong string
	defer func() { t.Log(wrong) }()
	bpftest.Eventually(t, "the numbers to be equal", func() bool {
		st := a.status()
		time.Sleep(2 * minSwap) // the next one is not the last again
		scrape(t, p.A.Netns)    // what is new is shown as 0 first
		time.Sleep(2 * minSwap)
		wrong = differ(scrape(t, p.A.Netns), st)
		return wrong == ""
	})
	s := scrape(t, p.A.Netns)
	for metric, want := range map[string]uint64{
		"orb8_tap_unaccounted_bytes": 0, "orb8_tap_unaccounted_packets": 0, "orb8_table_max_entries": 180,
	} {
		if got := s.sum(metric); got != want {
			t.Errorf("%s is %d", metric, got)
		}
	}
	for metric, labels := range map[string][]string{
		"orb8_tap_bytes_total":             {"class=overflow", "direction=egress"},
		"orb8_tcp_rtt_seconds":             {"workload_kind=host"},
		"orb8_tcp_handshake_seconds":       {"workload_kind=host"},
		"orb8_connections_opened_total":    {"protocol=TCP", "peer_class=external"},
		"orb8_events_processed_total":      nil,
		"orb8_events_dropped_total":        {"stage=table_full"},
		"orb8_agent_resident_memory_bytes": nil,
		"orb8_agent_kernel_maps_bytes":     nil,
		"orb8_build_info":                  {"version=test"},
		"orb8_network_packets_total":       {"protocol=UDP", "direction=egress"},
		"orb8_metrics_series":              {"metric=orb8_network_bytes_total"},
		"orb8_interface_packets_total":     {"direction=egress"},
	} {
		if s.sum(metric, labels...) == 0 {
			t.Errorf("%s %v is 0", metric, labels)
		}
	}
	if s["orb8_bpf_program_runs_total"] != nil {
		t.Error("the kernel counts programs, and nobody has asked for it")
	}
}

// differ tells what is not equal.
func differ(s scraped, st *pb.NodeStatus) string {
	for direction, audit := range map[string]func(*pb.InterfaceStatus) *pb.Audit{
		"egress": (*pb.InterfaceStatus).GetEgress, "ingress": (*pb.InterfaceStatus).GetIngress,
	} {
		for unit, of := range map[string]func(*pb.Counter) uint64{"bytes": (*pb.Counter).GetBytes, "packets": (*pb.Counter).GetPackets} {
			var conns, counted, device uint64
			for _, i := range st.Interfaces {
				a := audit(i)
				conns += of(a.Flows) + of(a.Remainder) + of(a.Carried)
				counted += of(a.Counted)
				device += of(a.Interface)
			}
			tap := func(classes ...string) (sum uint64) {
				for _, c := range classes {
					sum += s.sum("orb8_tap_"+unit+"_total", "direction="+direction, "class="+c)
				}
				return sum
			}
			for what, x := range map[string][2]uint64{
				"series":      {s.sum("orb8_network_"+unit+"_total", "direction="+direction), tap("flows")},
				"connections": {tap("flows", "carried", "unplaced"), conns},
				"all":         {s.sum("orb8_tap_"+unit+"_total", "direction="+direction), counted},
				"interfaces":  {s.sum("orb8_interface_"+unit+"_total", "direction="+direction), device},
				"the two":     {counted, device},
			} {
				if x[0] != x[1] || x[0] == 0 {
					return fmt.Sprintf("%s %s, %s: %d and %d", direction, unit, what, x[0], x[1])
				}
			}
		}
	}
	return ""
}

// TestMetricsOfWhatIsNoFlow: what is carried from the beginning, what turns out
// to be, and what finds no room, is counted once.
func TestMetricsOfWhatIsNoFlow(t *testing.T) {
	p := testPipeline(t)
	deltas := someDeltas(40)
	total := event.Traffic{}
	for epoch := range 3 {
		p.flows.Begin()
		for i := range deltas {
			d := deltas[i]
			switch {
			case i%4 == 1:
				d.Place = event.PlaceCarried
			case i%4 == 2 && epoch > 0:
				d.Place = event.PlaceCarried
			case i%4 == 3:
				d.Place = event.PlaceUndecided
			}
			p.apply(&d)
			total.Add(d.Traffic)
		}
	}
	p.flows.Limit(1)
	p.flows.Begin()
	for _, d := range someDeltas(60) {
		p.apply(&d)
		total.Add(d.Traffic)
	}
	sums := p.flows.Sums(deltas[0].Conn.Iface())
	all := sums.Live
	all.Add(sums.Remainder)
	all.Add(sums.Carried)
	s := p.meter.Snapshot(p.flows.Each)
	series := event.Traffic{}
	for _, pair := range s.Pairs {
		series.Add(event.Traffic{TxBytes: pair.Tx.Bytes, TxPackets: pair.Tx.Packets, RxBytes: pair.Rx.Bytes, RxPackets: pair.Rx.Packets})
	}
	counted := s.Total
	counted.Add(s.Apart)
	unplaced := p.flows.Unplaced()
	if all != total || counted != total || series != s.Total {
		t.Errorf("%v in all; the table has %v, metrics %v, of it in series %v and %v", total, all, counted, s.Total, series)
	}
	if unplaced.Bytes() == 0 || s.Apart.Bytes() <= unplaced.Bytes() || sums.Carried.Bytes() <= s.Apart.Bytes()-unplaced.Bytes() {
		t.Errorf("a weak test: unplaced %v, apart %v, carried %v", unplaced, s.Apart, sums.Carried)
	}
}

// TestProgramsCost: the kernel counts when it is asked to, and what a program has
// cost stays when it is gone.
func TestProgramsCost(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p := bpftest.NewPair(t)
	a := start(t, p.A.Netns, "ORB8_BPF_STATS=true", "ORB8_EPOCH=100ms")
	p.A.Ping(p.B.IP4, 20)
	a.status()
	before := scrape(t, p.A.Netns)
	for _, name := range []string{"flow_ingress", "flow_egress"} {
		if before.sum("orb8_bpf_program_runs_total", "program="+name) == 0 {
			t.Errorf("%s has not run", name)
		}
	}
	if before.sum("orb8_bpf_program_runs_total", "program=flow_egress") < 20 {
		t.Errorf("%v", before["orb8_bpf_program_runs_total"])
	}
	names := map[string]bool{}
	for _, m := range before["orb8_bpf_program_seconds_total"].Metric {
		names[m.Label[0].GetValue()] = true
	}
	for _, probe := range []string{"flow_", "drop_", "connect_"} {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(names)), func(n string) bool { return strings.HasPrefix(n, probe) }) {
			t.Errorf("no program of %s: %v", probe, names)
		}
	}
	p.A.Command("ip", "link", "del", "veth0")
	time.Sleep(2 * minSwap)
	after := scrape(t, p.A.Netns)
	for name := range names {
		was, is := before.sum("orb8_bpf_program_runs_total", "program="+name), after.sum("orb8_bpf_program_runs_total", "program="+name)
		if is < was {
			t.Errorf("%s has run %d times, and then %d", name, was, is)
		}
	}
}

// TestWhatWasToldIsNotTakenBack, and what is told twice is one stage.
func TestWhatWasToldIsNotTakenBack(t *testing.T) {
	var m metrics
	m.rise([]event.Loss{{Stage: "a", Count: 2}, {Stage: "a", Count: 3}, {Stage: "b", Count: 1}})
	got := m.rise([]event.Loss{{Stage: "a", Count: 4}})
	if want := []event.Loss{{Stage: "a", Count: 5}, {Stage: "b", Count: 1}}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	var told event.Counter
	for _, c := range []struct{ now, want event.Counter }{
		{event.Counter{Bytes: 5, Packets: 1}, event.Counter{Bytes: 5, Packets: 1}},
		{event.Counter{Bytes: 4, Packets: 2}, event.Counter{Bytes: 5, Packets: 2}},
	} {
		now := c.now
		if grow(&told, &now); now != c.want {
			t.Errorf("%v", now)
		}
	}
}

// TestSeriesEndWithPods: as the cluster tells, after the grace and not before.
func TestSeriesEndWithPods(t *testing.T) {
	p := testPipeline(t)
	p.cluster = cluster.New(cluster.Config{Node: "n1"})
	pods := map[string]*cluster.Pod{}
	for _, name := range []string{"stays", "goes", "ends"} {
		pods[name] = &cluster.Pod{UID: name, Namespace: "ml", Name: name, Node: "n1", Workload: event.Workload{Kind: "Job", Name: name}, Phase: "Running"}
		p.cluster.Apply([]cluster.Change{{Kind: cluster.KindPod, Key: name, Pod: pods[name], At: 1}}, true)
		f := event.Flow{Local: p.cluster.Identity(name), Remote: &event.Identity{Class: event.ClassExternal}}
		p.meter.Flow(&f, &event.Traffic{TxBytes: 1}, 0)
	}
	ended := *pods["ends"]
	ended.Phase = "Succeeded"
	p.cluster.Apply([]cluster.Change{{Kind: cluster.KindPod, Key: "goes", At: 2}, {Kind: cluster.KindPod, Key: "ends", Pod: &ended, At: 2}}, true)
	for _, c := range []struct {
		after time.Duration
		want  []string
	}{
		{p.cfg.MetricsGrace - time.Second, []string{"ends", "goes", "stays"}},
		{p.cfg.MetricsGrace + time.Second, []string{"ends", "goes", "stays"}}, // it has just looked
		{2 * p.cfg.MetricsGrace, []string{"stays"}},
	} {
		p.last = p.start.Add(c.after)
		p.sweep()
		var got []string
		for _, pair := range p.meter.Snapshot(p.flows.Each).Pairs {
			if !pair.Unused() {
				got = append(got, pair.Labels.Own.Workload)
			}
		}
		if slices.Sort(got); !slices.Equal(got, c.want) {
			t.Errorf("after %v: %v", c.after, got)
		}
	}
}

// TestStatusSaysThatMetricsAreFull.
func TestStatusSaysThatMetricsAreFull(t *testing.T) {
	p := testPipeline(t)
	p.cfg.MetricsMaxSeries, p.cfg.MetricsLevel = 100, meter.Pod.String()
	p.meter = newMeter(&p.cfg, p.start)
	if notes := p.capped(); len(notes) > 0 {
		t.Errorf("of nothing: %v", notes)
	}
	host := &event.Identity{Class: event.ClassHost}
	for i := range 100 {
		f := event.Flow{Local: &event.Identity{Class: event.ClassPod, Namespace: "ml", Pod: fmt.Sprint(i)}, Remote: host}
		f.Conn.Remote = event.IPFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
		p.meter.Flow(&f, &event.Traffic{}, 0)
	}
	if notes := p.capped(); len(notes) != 1 || !strings.Contains(notes[0], "orb8_network_bytes_total") || !strings.Contains(notes[0], "ORB8_METRICS_MAX_SERIES") {
		t.Errorf("%v", notes)
	}
}
