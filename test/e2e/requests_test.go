// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// checkRequests counts in the API server's audit log what the agents asked for:
// at the start what it may be, since then no list, and each watch once.
func checkRequests(t *testing.T, c *cluster, settled time.Time) {
	log, err := os.ReadFile(filepath.Join(c.run, "log/audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	type request struct {
		AuditID, Verb, RequestURI, UserAgent string
		ObjectRef                            struct{ Resource, APIGroup string }
		RequestReceivedTimestamp             time.Time
	}
	seen := map[string]bool{}
	start := map[string]map[string]int{}
	steady := map[string]map[string]int{}
	own, asked := map[string]int{}, map[string]bool{}
	count := func(m map[string]map[string]int, agent, what string) {
		if m[agent] == nil {
			m[agent] = map[string]int{}
		}
		m[agent][what]++
	}
	for line := range strings.Lines(string(log)) {
		var r request
		if !strings.Contains(line, "orb8-agent/") || json.Unmarshal([]byte(line), &r) != nil {
			continue
		}
		if !strings.HasPrefix(r.UserAgent, "orb8-agent/") || seen[r.AuditID] {
			continue
		}
		seen[r.AuditID] = true
		what := r.Verb + " " + r.ObjectRef.Resource
		if r.Verb == "get" {
			// An owner of a kind that is not watched; it never changes.
			if asked[r.UserAgent+r.RequestURI] {
				t.Errorf("%s asked for %s twice", r.UserAgent, r.RequestURI)
			}
			asked[r.UserAgent+r.RequestURI] = true
		}
		if uri, err := url.Parse(r.RequestURI); err == nil {
			if selector := uri.Query().Get("fieldSelector"); selector != "" {
				what += " with " + selector
				if r.Verb == "watch" {
					own[r.UserAgent]++
				}
			}
		}
		if r.RequestReceivedTimestamp.After(settled) {
			count(steady, r.UserAgent, what)
		} else {
			count(start, r.UserAgent, what)
		}
	}
	if len(start) != len(c.zones) {
		t.Errorf("%d agents asked the API server, want one on each of %d nodes: %v", len(start), len(c.zones), start)
	}
	for agent, requests := range start {
		t.Logf("%s, to start: %v; in the %v since: %v", agent, requests, time.Since(settled).Round(time.Second), steady[agent])
		if own[agent] == 0 {
			t.Errorf("%s does not watch its own node's pods by field selector", agent)
		}
	}
	for agent, requests := range steady {
		for what, n := range requests {
			switch verb, _, _ := strings.Cut(what, " "); {
			case verb == "list":
				t.Errorf("%s: %d × %s after its start", agent, n, what)
			// A watch ends after 5 to 10 minutes, and is made again.
			case verb == "watch" && time.Duration(n-1)*5*time.Minute > time.Since(settled):
				t.Errorf("%s: %d × %s in %v", agent, n, what, time.Since(settled))
			case verb != "watch" && verb != "get":
				t.Errorf("%s: %d × %s", agent, n, what)
			}
		}
	}
}

// checkAccounts reads the agents' own audit: what an interface counted, the tap
// did, and no stage lost anything.
func checkAccounts(t *testing.T, c *cluster) {
	out, _, err := c.ask("status", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		type direction struct {
			UnaccountedBytes   int64 `json:"unaccounted_bytes"`
			UnaccountedPackets int64 `json:"unaccounted_packets"`
		}
		type part struct {
			direction
			Dropped uint64 `json:"dropped_packets"`
		}
		var node struct {
			Node    string
			Healthy bool
			Losses  []struct {
				Stage string
				Count uint64
			}
			Notes      []string
			Interfaces []struct {
				Interface, NetnsName, State string
				Ingress, Egress             part
			}
		}
		if err := json.Unmarshal([]byte(line), &node); err != nil {
			t.Fatal(err)
		}
		if !node.Healthy {
			t.Errorf("%s is not healthy", node.Node)
		}
		for _, l := range node.Losses {
			switch {
			case l.Count == 0:
			// A packet that is freed while the same processor counts a drop: nobody
			// can help it where interrupts come.
			case l.Stage == "drops_unseen":
				t.Logf("%s: %d lost at %s", node.Node, l.Count, l.Stage)
			default:
				t.Errorf("%s: %d lost at %s", node.Node, l.Count, l.Stage)
			}
		}
		t.Logf("%s: %d interfaces; notes: %q", node.Node, len(node.Interfaces), node.Notes)
		for _, i := range node.Interfaces {
			if n := i.Ingress.Dropped + i.Egress.Dropped; n > 0 {
				t.Logf("%s: %s (%s) says that it dropped %d packets behind the tap", node.Node, i.Interface, i.State, n)
			}
			if i.Ingress.direction != (direction{}) || i.Egress.direction != (direction{}) {
				t.Errorf("%s: %s (%s): unaccounted in %+v, out %+v", node.Node, i.Interface, i.State, i.Ingress, i.Egress)
			}
		}
	}
}
