// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// cluster is the one that is up, and how to reach it.
type cluster struct {
	// Its state; the scripts that drive it; the command line under test.
	run, scripts, orb8 string
	settings           map[string]string
	// By name.
	zones map[string]string
}

// openCluster finds the cluster that run.sh made.
func openCluster(t *testing.T) *cluster {
	t.Helper()
	run := os.Getenv("ORB8_E2E")
	if run == "" {
		t.Skip("no cluster: `make e2e-test` makes one")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{run: run, scripts: filepath.Join(root, "test/e2e/cluster"), orb8: filepath.Join(root, "bin/orb8"), settings: map[string]string{}, zones: map[string]string{}}
	text, err := os.ReadFile(filepath.Join(run, "settings"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		c.settings[name] = value
	}
	var nodes struct{ Items []object }
	c.get(t, &nodes, "nodes")
	for _, n := range nodes.Items {
		c.zones[n.text("metadata", "name")] = n.text("metadata", "labels", "topology.kubernetes.io/zone")
	}
	t.Logf("cluster: %v", c.settings)
	return c
}

// nodeIP is the address of node I.
func nodeIP(i int) string { return fmt.Sprintf("172.30.0.%d", 10+i) }

func nodeName(i int) string { return fmt.Sprintf("node%d", i) }

// script runs one of the cluster's scripts.
func (c *cluster) script(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.scripts, args[0]), args[1:]...)
	cmd.Env = append(os.Environ(), "P="+c.settings["P"], "RUN="+c.run)
	return output(cmd, stdin)
}

func output(cmd *exec.Cmd, stdin string) (string, error) {
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// do runs a script that must succeed.
func (c *cluster) do(t testing.TB, args ...string) string {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	defer stop()
	out, err := c.script(ctx, "", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// kubectl must succeed.
func (c *cluster) kubectl(t testing.TB, args ...string) string {
	t.Helper()
	return c.do(t, append([]string{"kc"}, args...)...)
}

// get reads objects as JSON.
func (c *cluster) get(t testing.TB, into any, args ...string) {
	t.Helper()
	out := c.kubectl(t, append([]string{"get", "-o", "json"}, args...)...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		t.Fatal(err)
	}
}

// apply makes objects.
func (c *cluster) apply(t testing.TB, objects ...object) {
	t.Helper()
	text, err := json.Marshal(object{"apiVersion": "v1", "kind": "List", "items": objects})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	if _, err := c.script(ctx, string(text), "kc", "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// eventually repeats a question until it has no complaint, and fails at the
// deadline.
func eventually(t testing.TB, within time.Duration, complaints func() []string) {
	t.Helper()
	if fewest := repeated(within, complaints); len(fewest) > 0 {
		t.Fatalf("after %v:\n%s", within, strings.Join(fewest, "\n"))
	}
}

// repeated gives the fewest complaints that there were up to the deadline: later
// ones may only say that what was asked for has been forgotten meanwhile.
func repeated(within time.Duration, complaints func() []string) (fewest []string) {
	for end := time.Now().Add(within); ; time.Sleep(250 * time.Millisecond) {
		last := complaints()
		if len(last) == 0 {
			return nil
		}
		if fewest == nil || len(last) <= len(fewest) && !forgotten(last) {
			fewest = last
		}
		if time.Now().After(end) {
			return fewest
		}
	}
}

// forgotten tells that there is not even a record to complain of.
func forgotten(complaints []string) bool {
	return slices.ContainsFunc(complaints, func(s string) bool { return strings.Contains(s, noRecord) })
}

// waitForAgents waits until an agent is ready on every node, and answers.
func (c *cluster) waitForAgents(t testing.TB) {
	t.Helper()
	eventually(t, time.Minute, func() []string {
		ready := map[string]bool{}
		var pods struct{ Items []object }
		c.get(t, &pods, "-n", "orb8-system", "pods", "-l", "app=orb8-agent")
		for _, p := range pods.Items {
			if p.ready() {
				ready[p.text("spec", "nodeName")] = true
			}
		}
		var missing []string
		for node := range c.zones {
			if !ready[node] {
				missing = append(missing, "no agent is ready on "+node)
			} else if _, err := c.flows(node); err != nil {
				missing = append(missing, err.Error())
			}
		}
		return missing
	})
}

// waitForAnswers waits until every node's agent answers: a pod that runs need
// not be called ready, which the control plane is slow to say after it was away.
func (c *cluster) waitForAnswers(t testing.TB) {
	t.Helper()
	eventually(t, time.Minute, func() (silent []string) {
		for node := range c.zones {
			if _, err := c.flows(node); err != nil {
				silent = append(silent, err.Error())
			}
		}
		return silent
	})
}

// agents are the processes of the agents, by node.
func (c *cluster) agents(t testing.TB) map[string]int {
	t.Helper()
	found := map[string]int{}
	comms, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range comms {
		name, err := os.ReadFile(path)
		if err != nil || strings.TrimSpace(string(name)) != "orb8-agent" {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(path, "/proc/%d/comm", &pid); err != nil {
			continue
		}
		for node := range c.zones {
			at := fmt.Sprintf("/run/netns/%s-n%s", c.settings["P"], strings.TrimPrefix(node, "node"))
			if sameFile(fmt.Sprintf("/proc/%d/ns/net", pid), at) {
				found[node] = pid
			}
		}
	}
	return found
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

func (c *cluster) logMemory(t testing.TB) {
	for node, pid := range c.agents(t) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "VmRSS:") || strings.HasPrefix(line, "VmHWM:") {
				t.Logf("agent on %s: %s", node, strings.Join(strings.Fields(line), " "))
			}
		}
	}
}

// isPodIP tells whether an address is of the cluster's pods, gateways left out.
func isPodIP(text string) bool {
	ip, err := netip.ParseAddr(text)
	if err != nil || !netip.MustParsePrefix("10.244.0.0/16").Contains(ip) {
		return false
	}
	return ip.As4()[3] != 1
}
