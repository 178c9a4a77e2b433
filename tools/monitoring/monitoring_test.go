// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	v1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/yaml"
)

const root = "../.."

func read(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestWhatIsCommittedIsWhatIsGenerated(t *testing.T) {
	files, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		if !bytes.Equal(read(t, "deploy/"+name), want) {
			t.Errorf("deploy/%s is not what is generated: commit the result of make dashboards", name)
		}
	}
	found, _ := filepath.Glob(filepath.Join(root, "deploy/grafana/*.json"))
	boards := string(read(t, "deploy/grafana/kustomization.yaml"))
	for name := range dashboards() {
		if !strings.Contains(boards, "files: ["+name+".json]\n") {
			t.Errorf("deploy/grafana/kustomization.yaml leaves out %s.json", name)
		}
	}
	if len(found) != len(dashboards()) {
		t.Errorf("deploy/grafana has %d dashboards, %d are generated", len(found), len(dashboards()))
	}
}

// known are the labels of each metric, from what the agent shows at level peer.
func known(t *testing.T) map[string]map[string]bool {
	t.Helper()
	metrics := map[string]map[string]bool{ // what the golden exposition leaves out
		"up":                {},
		"orb8_build_info":   {"version": true, "goversion": true},
		"orb8_active_flows": {"namespace": true, "workload": true, "workload_kind": true, "pod": true},
	}
	exposed(t, "internal/export/prom/testdata/metrics.txt", metrics)
	docs := string(read(t, "docs/metrics.md"))
	for name := range metrics {
		base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_count"), "_sum")
		// The tables shorten what belongs together.
		short := strings.Contains(docs, "`"+base+"`") || strings.HasPrefix(base, "orb8_tap_") && strings.Contains(docs, base)
		if name != "up" && !short {
			t.Errorf("%s is not in docs/metrics.md", name)
		}
	}
	return metrics
}

// exposed adds the labels of the metrics of a golden exposition.
func exposed(t *testing.T, file string, metrics map[string]map[string]bool) {
	t.Helper()
	label := regexp.MustCompile(`(\w+)="`)
	for line := range strings.Lines(string(read(t, file))) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, _, _ = strings.Cut(name, "{")
		if name == "" || name == "#" {
			continue
		}
		for _, series := range []string{name, strings.TrimSuffix(name, "_bucket")} { // native ones have one name
			if metrics[series] == nil {
				metrics[series] = map[string]bool{}
			}
			for _, m := range label.FindAllStringSubmatch(line, -1) {
				metrics[series][m[1]] = true
			}
		}
	}
	for _, labels := range metrics {
		for _, target := range []string{"job", "instance", "node"} {
			labels[target] = true
		}
	}
}

// fill gives Grafana's variables a value.
var fill = strings.NewReplacer("$__rate_interval", "1m", "$__range", "1h", "$node", ".*", "$namespace", ".*", "$workload", ".*", "$pod", ".*")

// lint parses an expression, and finds what it asks for among the metrics.
// Labels that are grouped by must be some metric's of the expression.
func lint(expr string, metrics map[string]map[string]bool) error {
	tree, err := parser.NewParser(parser.Options{}).ParseExpr(fill.Replace(expr))
	if err != nil {
		return err
	}
	var wrong []string
	labels := map[string]bool{"le": strings.Contains(expr, "_bucket")}
	parser.Inspect(tree, func(n parser.Node, _ []parser.Node) error {
		v, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		of, ok := metrics[v.Name]
		if !ok {
			wrong = append(wrong, "there is no metric "+v.Name)
		}
		for label := range of {
			labels[label] = true
		}
		for _, m := range v.LabelMatchers {
			if m.Name != "__name__" && !of[m.Name] {
				wrong = append(wrong, fmt.Sprintf("%s has no label %s", v.Name, m.Name))
			}
		}
		return nil
	})
	parser.Inspect(tree, func(n parser.Node, _ []parser.Node) error {
		if a, ok := n.(*parser.AggregateExpr); ok {
			for _, label := range a.Grouping {
				if !labels[label] {
					wrong = append(wrong, "grouped by "+label+", which no metric has")
				}
			}
		}
		return nil
	})
	if len(wrong) > 0 {
		return fmt.Errorf("%s", strings.Join(wrong, "; "))
	}
	return nil
}

// bare finds counters whose growth is not asked for.
func bare(expr string) (names []string) {
	tree, err := parser.NewParser(parser.Options{}).ParseExpr(fill.Replace(expr))
	if err != nil {
		return nil // lint says so
	}
	parser.Inspect(tree, func(n parser.Node, path []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok && strings.HasSuffix(v.Name, "_total") {
			if _, ranged := path[len(path)-1].(*parser.MatrixSelector); !ranged {
				names = append(names, v.Name)
			}
		}
		return nil
	})
	return names
}

// Units of Grafana's that are used.
var units = []string{"short", "percentunit", "Bps", "pps", "cps", "ops", "reqps", "s", "bytes", "decbytes", "watt", "watth", "celsius", "hertz"}

var ofLegend = regexp.MustCompile(`\{\{(\w+)\}\}`)

func TestPanels(t *testing.T) {
	metrics, uids := known(t), map[string]bool{}
	for name, d := range dashboards() {
		if uids[d.uid] || d.uid != "orb8-"+name || d.title == "" || d.text == "" {
			t.Errorf("%s: uid %q, title %q, text %q", name, d.uid, d.title, d.text)
		}
		uids[d.uid] = true
		for _, r := range d.rows {
			for i := range r.panels {
				if err := check(&r.panels[i], name, metrics); err != nil {
					t.Errorf("%s, %s, %s: %v", name, r.title, r.panels[i].title, err)
				}
			}
		}
		for _, v := range d.variables {
			inner := strings.TrimPrefix(v.query, "label_values(")
			if at := strings.LastIndex(inner, ","); at < 0 || lint(inner[:at], metrics) != nil {
				t.Errorf("%s: variable %s: %s", name, v.name, v.query)
			}
		}
	}
}

func check(p *panel, board string, metrics map[string]map[string]bool) error {
	if p.title == "" || !strings.HasSuffix(p.text, ".") || !slices.Contains(units, p.unit) || len(p.queries) == 0 {
		return fmt.Errorf("text %q, unit %q, %d queries", p.text, p.unit, len(p.queries))
	}
	if p.kind == table && len(p.queries) != 1 {
		return fmt.Errorf("a table of %d queries", len(p.queries))
	}
	for _, q := range p.queries {
		if q.legend == "" {
			return fmt.Errorf("no legend of %s", q.expr)
		}
		if err := lint(q.expr, metrics); err != nil {
			return fmt.Errorf("%w: %s", err, q.expr)
		}
		if names := bare(q.expr); len(names) > 0 {
			return fmt.Errorf("%v without rate or increase: %s", names, q.expr)
		}
		for _, l := range ofLegend.FindAllStringSubmatch(q.legend, -1) {
			if !strings.Contains(q.expr, l[1]) {
				return fmt.Errorf("legend %s, which is not in %s", q.legend, q.expr)
			}
		}
		// Agents tell of pods when they are asked to, and that is the pods' board; of
		// those that have GPUs they always do.
		if board != "pod" && board != "gpu" && regexp.MustCompile(`\b(peer_)?pod\b`).MatchString(q.expr) {
			return fmt.Errorf("needs level pod: %s", q.expr)
		}
	}
	return nil
}

func TestAlerts(t *testing.T) {
	metrics := known(t)
	book, tests := string(read(t, "docs/runbooks.md")), string(read(t, "deploy/prometheus/rules_test.yaml"))
	for _, a := range alerts() {
		if err := lint(a.expr, metrics); err != nil {
			t.Errorf("%s: %v", a.name, err)
		}
		if a.summary == "" || a.description == "" || a.severity != warning && a.severity != critical {
			t.Errorf("%+v", a)
		}
		if !strings.Contains(book, "\n## "+a.name+"\n") || !strings.HasSuffix(a.runbook(), strings.ToLower(a.name)) {
			t.Errorf("docs/runbooks.md has no section %s", a.name)
		}
		// It fires in one test, and does not in another.
		if !strings.Contains(tests, "exp_alerts: [] # "+a.name+"\n") || !regexp.MustCompile(`alertname: `+a.name+`\n +exp_alerts:\n`).MatchString(tests) {
			t.Errorf("rules_test.yaml does not test that %s fires, and that it does not", a.name)
		}
	}
	if n := strings.Count(book, "\n## Orb8"); n != len(alerts()) {
		t.Errorf("docs/runbooks.md has %d sections, there are %d alerts", n, len(alerts()))
	}
}

// TestManifests: strictly what the operator takes them for.
func TestManifests(t *testing.T) {
	var rule v1.PrometheusRule
	if err := yaml.UnmarshalStrict(read(t, "deploy/monitoring/prometheusrule.yaml"), &rule); err != nil || len(rule.Spec.Groups) != 1 || len(rule.Spec.Groups[0].Rules) != len(alerts()) {
		t.Errorf("%v; %d groups", err, len(rule.Spec.Groups))
	}
	var pods v1.PodMonitor
	if err := yaml.UnmarshalStrict(read(t, "deploy/monitoring/podmonitor.yaml"), &pods); err != nil {
		t.Fatal(err)
	}
	if len(pods.Spec.PodMetricsEndpoints) != 1 || pods.Spec.JobLabel != "app" || pods.Spec.Selector.MatchLabels["app"] != "orb8-agent" {
		t.Fatalf("%+v", pods.Spec)
	}
	e := pods.Spec.PodMetricsEndpoints[0]
	if !e.HonorLabels || e.Port == nil || *e.Port != "health" || len(e.RelabelConfigs) != 2 || e.RelabelConfigs[0].TargetLabel != "node" || e.RelabelConfigs[1].Action != "labeldrop" {
		t.Errorf("%+v", e)
	}
}

func TestLintFinds(t *testing.T) {
	metrics := known(t)
	for expr, want := range map[string]string{
		"sum(rate(orb8_network_bytes_total[1m])":                       "unclosed",
		"orb8_network_byte_total":                                      "no metric",
		`orb8_drops_total{why="x"}`:                                    "no label why",
		"sum by (rcode) (orb8_drops_total)":                            "grouped by rcode",
		`sum by (node) (rate(orb8_drops_total{reason="x"}[1m]))`:       "",
		"histogram_quantile(0.5, sum(rate(orb8_tcp_rtt_seconds[1m])))": "",
	} {
		err := lint(expr, metrics)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", expr, err, want)
		}
	}
}

// TestDCGMQueries: what NVIDIA's dashboard asks for is there, with the labels.
func TestDCGMQueries(t *testing.T) {
	metrics := map[string]map[string]bool{}
	exposed(t, "internal/export/prom/testdata/dcgm.txt", metrics)
	n := 0
	for line := range strings.Lines(string(read(t, "tools/monitoring/testdata/dcgm-queries.txt"))) {
		expr := strings.TrimSpace(line)
		if strings.HasPrefix(expr, "#") {
			continue
		}
		n++
		if inner, ok := strings.CutPrefix(expr, "label_values("); ok {
			expr, _, _ = strings.Cut(strings.Replace(inner, ")", "", 1), ", ")
		}
		// It groups by uuid, too, which dcgm-exporter has not, either.
		expr = strings.Replace(expr, ", uuid)", ")", 1)
		if err := lint(strings.NewReplacer("$instance", ".*", "$gpu", ".*", "$Hostname", ".*").Replace(expr), metrics); err != nil {
			t.Errorf("%s: %v", expr, err)
		}
	}
	if n < 20 {
		t.Errorf("%d queries", n)
	}
}
