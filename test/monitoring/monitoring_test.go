// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"sigs.k8s.io/yaml"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/bpftest"
)

// TestRules: each alert fires where it should, and not where it should not.
func TestRules(t *testing.T) {
	promtool(t, "", "check", "rules", deployed+"/prometheus/rules.yaml")
	promtool(t, "", "test", "rules", deployed+"/prometheus/rules_test.yaml")
}

// TestConfiguration: that for a Prometheus in the cluster, but for how it finds
// pods, which Debian's does not know.
func TestConfiguration(t *testing.T) {
	text, err := os.ReadFile(deployed + "/prometheus/prometheus.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := yaml.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	jobs, _ := config["scrape_configs"].([]any)
	for _, job := range jobs {
		delete(job.(map[string]any), "kubernetes_sd_configs")
	}
	if text, err = yaml.Marshal(config); err != nil || len(jobs) != 1 {
		t.Fatalf("%v; %d jobs", err, len(jobs))
	}
	dir := t.TempDir()
	rules, err := os.ReadFile(deployed + "/prometheus/rules.yaml")
	if err == nil {
		err = errors.Join(os.WriteFile(dir+"/rules.yaml", rules, 0o600), os.WriteFile(dir+"/prometheus.yaml", text, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	promtool(t, "", "check", "config", dir+"/prometheus.yaml")
}

// node is an agent that watches two pods, before they say anything.
type node struct {
	*stage
	rack           *rack
	agent          *actor
	observer       pb.ObserverClient
	client, server *pod
}

func newNode(t *testing.T) *node {
	n := &node{
		stage:  newStage(t),
		rack:   newRack(t),
		client: &pod{"shop", "web-1", "web", "aaaaaaaa-7d43-4c0e-9d5e-2f0b6a1d3c4e", clientIP},
		server: &pod{"data", "db-1", "db", "bbbbbbbb-7d43-4c0e-9d5e-2f0b6a1d3c4e", serverIP},
	}
	watcher := &pod{namespace: "orb8-system", name: "orb8-agent-1", workload: "orb8-agent", uid: "cccccccc-7d43-4c0e-9d5e-2f0b6a1d3c4e"}
	// Without offload, what the interfaces count is what is on the wire. A rule
	// takes away every 25th segment.
	n.run(fmt.Sprintf(`
		for i in web-1 db-1; do ip netns add $i; ip netns exec $i sh -c 'echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6'; ip -n $i link set lo up; done
		ip link add eth0 netns web-1 type veth peer name eth0 netns db-1
		for i in web-1 db-1; do ip netns exec $i ethtool -K eth0 tso off gso off gro off; done
		ip -n web-1 addr add %[1]s/24 dev eth0; ip -n web-1 link set eth0 up; ip -n web-1 route add default via %[2]s
		ip -n db-1 addr add %[2]s/24 dev eth0; ip -n db-1 link set eth0 up; ip -n db-1 addr add %[3]s/32 dev lo
		ip netns exec db-1 nft 'table ip t { chain in { type filter hook input priority 0; tcp dport 9000 numgen inc mod 25 == 0 drop; }; }'`,
		clientIP, serverIP, outsideIP))
	n.rack.give(n.client, n.server)
	kubeconfig := serveCluster(t, n.listen(), []*pod{n.client, n.server, watcher})
	socket := filepath.Join(t.TempDir(), "agent.sock")
	n.agent = n.inPod(watcher, "agent", append(n.rack.settings(),
		"ORB8_NODE_NAME="+nodeName, "ORB8_NETNS=all", "ORB8_SOCKET="+socket, "ORB8_STATE_DIR="+filepath.Dir(socket), "ORB8_KUBERNETES="+kubeconfig, "ORB8_CGROUP="+n.groups.Path(n.top),
		"ORB8_METRICS_LEVEL=pod", "ORB8_BPF_STATS=true", "ORB8_TABLE_ENTRIES=300", "ORB8_EPOCH=500ms", "ORB8_MAX_CPU=0")...)
	t.Cleanup(func() {
		if t.Failed() {
			said := n.agent.output.String()
			t.Logf("the agent said, at last:\n%s", said[max(0, len(said)-3000):])
		}
	})
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	n.observer = pb.NewObserverClient(conn)
	return n
}

func (n *node) status() *pb.NodeStatus {
	n.t.Helper()
	st, err := n.observer.Status(n.t.Context(), &pb.StatusRequest{})
	if err != nil {
		n.t.Fatal(err)
	}
	return st.Nodes[0]
}

// watches waits until both pods are tapped.
func (n *node) watches() {
	n.t.Helper()
	bpftest.Eventually(n.t, "the agent to watch both pods", func() bool {
		if n.agent.done() {
			n.t.Fatal("the agent has ended")
		}
		st, err := n.observer.Status(n.t.Context(), &pb.StatusRequest{})
		if err != nil {
			return false
		}
		tapped := 0
		for _, ns := range st.Nodes[0].Namespaces {
			if ns.TappedSinceNs != 0 {
				tapped++
			}
		}
		return tapped == 3
	})
}

// TestPrometheus: a real one scrapes a real agent under traffic.
func TestPrometheus(t *testing.T) {
	program(t, "prometheus")
	n := newNode(t)
	server := n.inPod(n.server, "server")
	n.watches()
	p := n.prometheus()
	client := n.inPod(n.client, "client")
	p.another(2) // what the ports had moved before is known
	n.rack.work(n.stage, n.client, n.server)

	p.panels(15 * time.Second)
	p.variables()
	p.rules()
	n.accelerated(p)
	client.end(t)
	n.addsUp(p)
	n.asked(p, server.end(t))
	// Last: who asks by hand takes the beginning of new series from Prometheus.
	promtool(t, own(n.exposition()), "check", "metrics")
}

// own leaves out what is called as others call it.
func own(exposition string) string {
	var b strings.Builder
	for line := range strings.Lines(exposition) {
		if !strings.Contains(line, "DCGM_") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// board is what is read of a dashboard.
type board struct {
	Title  string
	Panels []struct {
		Title   string
		Targets []struct{ Expr string }
	}
	Templating struct {
		List []struct{ Name, Type, Definition string }
	}
}

func boards(t *testing.T) (all []board) {
	t.Helper()
	files, err := filepath.Glob(deployed + "/grafana/*.json")
	if err != nil || len(files) < 7 {
		t.Fatalf("%v: %d dashboards", err, len(files))
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var b board
		if err := json.Unmarshal(text, &b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, b)
	}
	return all
}

// choice is everything, as Grafana puts it into expressions.
var choice = strings.NewReplacer("$__rate_interval", "12s", "$__range", "1m", "$node", ".*", "$namespace", ".*", "$workload", ".*", "$pod", ".*")

// panels waits until every query of every panel has data, but at least so long.
func (p *prometheus) panels(least time.Duration) {
	p.t.Helper()
	missing, n := map[string]string{}, 0
	for _, b := range boards(p.t) {
		for _, panel := range b.Panels {
			for _, q := range panel.Targets {
				missing[choice.Replace(q.Expr)] = b.Title + ", " + panel.Title
				n++
			}
		}
	}
	for _, expr := range dcgmQueries(p.t) {
		missing[expr] = "NVIDIA's dashboard"
		n++
	}
	began := time.Now()
	for len(missing) > 0 || time.Since(began) < least {
		for expr := range missing {
			if p.t.Failed() {
				return
			}
			if slices.ContainsFunc(p.query(expr), func(s series) bool { return !math.IsNaN(s.Value.float()) }) {
				delete(missing, expr)
			}
		}
		if time.Since(began) > time.Minute {
			break
		}
		time.Sleep(time.Second)
	}
	for expr, where := range missing {
		p.t.Errorf("%s: no data of %s", where, expr)
	}
	p.t.Logf("%d queries of panels have data after %v", n-len(missing), time.Since(began).Round(time.Second))
}

// variables: there is something to choose.
func (p *prometheus) variables() {
	p.t.Helper()
	want := map[string]string{"node": nodeName, "namespace": "shop", "workload": "web", "pod": "web-1"}
	for _, b := range boards(p.t) {
		for _, v := range b.Templating.List {
			if v.Type != "query" {
				continue
			}
			inner := strings.TrimSuffix(strings.TrimPrefix(v.Definition, "label_values("), ")")
			at := strings.LastIndex(inner, ", ")
			var values []string
			err := p.get("/api/v1/label/"+inner[at+2:]+"/values?match[]="+url.QueryEscape(choice.Replace(inner[:at])), &values)
			if err != nil || !slices.Contains(values, want[v.Name]) {
				p.t.Errorf("%s, variable %s: %v, %v", b.Title, v.Name, values, err)
			}
		}
	}
}

// rules: all are evaluated.
func (p *prometheus) rules() {
	p.t.Helper()
	var all struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	if err := p.get("/api/v1/rules", &all); err != nil || len(all.Groups) != 1 || len(all.Groups[0].Rules) < 16 {
		p.t.Fatalf("%v: %+v", err, all)
	}
	for _, r := range all.Groups[0].Rules {
		if r.Health != "ok" {
			p.t.Errorf("%s is %s: %s", r.Name, r.Health, r.LastError)
		}
	}
}

// addsUp: when nothing moves any more, what Prometheus has seen grow is what the
// agent counted, and the interfaces.
func (n *node) addsUp(p *prometheus) {
	n.t.Helper()
	var wrong string
	defer func() { n.t.Log(wrong) }()
	bpftest.Eventually(n.t, "the sums to be equal", func() bool {
		st := n.status()
		p.another(3) // what is new is shown as 0 first
		wrong = n.differ(p, st)
		if total, up := p.scrapes(), p.now("sum_over_time(up[15m])"); total != up {
			n.t.Skipf("%d of %d scrapes came too late on this busy machine: what began in one of them is not known to Prometheus", total-up, total)
		}
		return !strings.HasPrefix(wrong, "not equal")
	})
}

func (n *node) differ(p *prometheus, st *pb.NodeStatus) (told string) {
	for direction, audit := range map[string]func(*pb.InterfaceStatus) *pb.Audit{
		"egress": (*pb.InterfaceStatus).GetEgress, "ingress": (*pb.InterfaceStatus).GetIngress,
	} {
		for unit, of := range map[string]func(*pb.Counter) uint64{"bytes": (*pb.Counter).GetBytes, "packets": (*pb.Counter).GetPackets} {
			var flows, counted, device uint64
			for _, i := range st.Interfaces {
				a := audit(i)
				flows += of(a.Flows) + of(a.Remainder) + of(a.Carried)
				counted += of(a.Counted)
				device += of(a.Interface)
			}
			tap := func(classes string) uint64 {
				return p.now(fmt.Sprintf("orb8_tap_%s_total{direction=%q,class=~%q}", unit, direction, classes))
			}
			series := p.grown(fmt.Sprintf("orb8_network_%s_total{direction=%q}", unit, direction))
			for what, x := range map[string][2]uint64{
				"series and the tap":         {series, tap("flows")},
				"the tap and its flows":      {tap("flows|carried|unplaced"), flows},
				"the tap and its total":      {tap(".*"), counted},
				"interfaces and what is on":  {p.now(fmt.Sprintf("orb8_interface_%s_total{direction=%q}", unit, direction)), device},
				"the total and the device's": {counted, device},
			} {
				if x[0] != x[1] || x[0] == 0 {
					return fmt.Sprintf("not equal: %s %s, %s: %d and %d", direction, unit, what, x[0], x[1])
				}
			}
			told += fmt.Sprintf("%s %s: %d in series, %d in all; ", direction, unit, series, counted)
		}
	}
	// As of the last epoch, both.
	if lost, over := p.now(`orb8_events_dropped_total{stage=~"table_full|budget"}`), p.now(`orb8_tap_packets_total{class="overflow"}`); lost != over || over == 0 {
		return fmt.Sprintf("not equal: %d packets lost for want of room, %d without a connection", lost, over)
	}
	drops, err := n.drops()
	if got := p.grown("orb8_drops_total"); err != nil || got != drops || drops == 0 {
		return fmt.Sprintf("not equal: drops: %d and %d, %v", got, drops, err)
	}
	return told + fmt.Sprintf("%d drops", drops)
}

// drops is how many packets the agent says were dropped.
func (n *node) drops() (uint64, error) {
	stream, err := n.observer.Drops(n.t.Context(), &pb.DropsRequest{})
	if err != nil {
		return 0, err
	}
	for known := uint64(0); ; {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return known, nil
		}
		if err != nil {
			return 0, err
		}
		if s := m.GetSummary(); s != nil {
			known = s.KnownPackets
		}
	}
}

// asked: of the DNS, what the server says itself. A question that nobody answers
// is counted when it is given up.
func (n *node) asked(p *prometheus, said string) {
	n.t.Helper()
	want, err := strconv.ParseUint(strings.TrimSpace(said), 10, 64)
	if err != nil || want == 0 {
		n.t.Fatalf("the server was asked %q: %v", said, err)
	}
	var server, client uint64
	defer func() { n.t.Logf("%d questions at the client, %d at the server, which says %d", client, server, want) }()
	bpftest.Eventually(n.t, "all questions", func() bool {
		p.another(1)
		server = p.grown(`orb8_dns_queries_total{role="server",workload="db"}`)
		client = p.grown(`orb8_dns_queries_total{role="client",workload="web"}`)
		return server == want && client == want
	})
	if got := p.grown(`orb8_dns_search_waste_total{role="client"}`); got == 0 || got > want/2+1 {
		n.t.Errorf("%d of %d questions for a search list", got, want)
	}
}

// exposition is what the agent answers who asks for text.
func (n *node) exposition() string {
	n.t.Helper()
	c, err := n.dial(scraped)
	if err != nil {
		n.t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET /metrics HTTP/1.0\r\n\r\n")
	text, err := io.ReadAll(c)
	if err != nil {
		n.t.Fatal(err)
	}
	head, body, _ := strings.Cut(string(text), "\r\n\r\n")
	if !strings.Contains(head, " 200 ") || !strings.Contains(body, "orb8_build_info") {
		n.t.Fatalf("%s", head)
	}
	return body
}
