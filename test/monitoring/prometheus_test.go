// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/bpftest"
)

const (
	scraped  = "127.0.0.1:9091"
	queried  = "127.0.0.1:9490"
	deployed = "../../deploy"
)

// program finds one of Prometheus': what ORB8_PROMETHEUS names or stands beside
// it, what is installed, or what `make test-deps` has fetched.
func program(t *testing.T, name string) string {
	t.Helper()
	if chosen := os.Getenv("ORB8_PROMETHEUS"); chosen != "" {
		return filepath.Join(filepath.Dir(chosen), name)
	}
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	path, err := filepath.Abs(filepath.Join("../../dist/prometheus/usr/bin", name))
	if err == nil {
		_, err = os.Stat(path)
	}
	switch {
	case err == nil:
	case os.Getenv("ORB8_REQUIRE_KERNEL") == "1":
		t.Fatalf("%v: `make test-deps` fetches it", err)
	default:
		t.Skipf("%v: `make test-deps` fetches it", err)
	}
	return path
}

// promtool runs it, with something to read.
func promtool(t *testing.T, input string, args ...string) {
	t.Helper()
	cmd := exec.Command(program(t, "promtool"), args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// prometheus is a server that scrapes the agent every two seconds.
type prometheus struct {
	t    *testing.T
	http *http.Client
	// It takes native histograms, and no others.
	native bool
}

func (s *stage) prometheus() *prometheus {
	s.t.Helper()
	p := &prometheus{t: s.t}
	path := program(s.t, "prometheus")
	version, err := exec.Command(path, "--version").CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v", path, err)
	}
	s.t.Logf("%s", strings.SplitN(string(version), "\n", 2)[0])
	p.native = !strings.Contains(string(version), "version 2.")
	native := ""
	if p.native {
		native = "scrape_native_histograms: true"
	}
	rules, err := filepath.Abs(deployed + "/prometheus/rules.yaml")
	if err != nil {
		s.t.Fatal(err)
	}
	dir := s.t.TempDir()
	config := fmt.Appendf(nil, `global: {scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 2s}
rule_files: [%q]
scrape_configs:
  - job_name: orb8-agent
    honor_labels: true
    %s
    static_configs:
      - targets: [%q]
        labels: {node: %s}
`, rules, native, scraped, nodeName)
	if err := os.WriteFile(dir+"/prometheus.yaml", config, 0o600); err != nil {
		s.t.Fatal(err)
	}
	server := s.start(s.command(path, "--config.file="+dir+"/prometheus.yaml", "--storage.tsdb.path="+dir+"/data", "--web.listen-address="+queried, "--log.level=warn"))
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Logf("prometheus said:\n%s", server.output.String())
		}
	})
	p.http = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DialContext: func(_ context.Context, _, address string) (net.Conn, error) { return s.dial(address) },
	}}
	bpftest.Eventually(s.t, "Prometheus to scrape the agent", func() bool {
		if server.done() {
			s.t.Fatalf("Prometheus has ended: %s", server.output.String())
		}
		var all []series
		return p.get("/api/v1/query?query="+url.QueryEscape("up == 1"), &result{&all}) == nil && len(all) == 1
	})
	return p
}

// series is one of an answer, with one sample or many.
type series struct {
	Metric map[string]string
	Value  sample
	Values []sample
}

type sample [2]any

func (s sample) float() float64 {
	text, _ := s[1].(string)
	f, _ := strconv.ParseFloat(text, 64)
	return f
}

// result is what is in an answer to a query.
type result struct{ Result any }

func (p *prometheus) get(path string, data any) error {
	r, err := p.http.Get("http://" + queried + path)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("%w: %s", err, body)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s", answer.Error)
	}
	return nil
}

// query evaluates an expression now.
func (p *prometheus) query(expr string) (all []series) {
	p.t.Helper()
	if err := p.get("/api/v1/query?query="+url.QueryEscape(expr), &result{&all}); err != nil {
		p.t.Errorf("%s: %v", expr, err)
	}
	return all
}

// grown is what the series of a selector have grown by since they began, as
// increase() computes it but for what that guesses at the ends.
func (p *prometheus) grown(selector string) (sum uint64) {
	p.t.Helper()
	for _, s := range p.query(selector + "[15m]") {
		last := s.Values[0].float()
		for _, v := range s.Values[1:] {
			now := v.float()
			if now < last {
				last = 0
			}
			sum += uint64(now - last)
			last = now
		}
	}
	return sum
}

// now sums the last values of a selector.
func (p *prometheus) now(selector string) (sum uint64) {
	p.t.Helper()
	for _, s := range p.query(selector) {
		sum += uint64(s.Value.float())
	}
	return sum
}

// scrapes is how often the agent was asked.
func (p *prometheus) scrapes() uint64 {
	p.t.Helper()
	return p.now("count_over_time(up[15m])")
}

// another waits for scrapes that begin from now on.
func (p *prometheus) another(n uint64) {
	p.t.Helper()
	before := p.scrapes()
	bpftest.Eventually(p.t, "another scrape", func() bool { return p.scrapes() >= before+n })
}
