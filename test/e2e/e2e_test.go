// SPDX-License-Identifier: Apache-2.0

// Package e2e is the matrix: cases of traffic on a real Kubernetes, each with
// the names, bytes and packets that both ends' agents must tell. The agents are
// deployed by the manifests and asked through the command line. What is expected
// is written down from the design and from what the traffic itself says, never
// from what an agent says.
//
// run.sh makes the cluster and runs this; without one the tests are skipped.
package e2e

import (
	"os"
	"testing"
	"time"
)

// TestCluster runs all rows on one cluster: first those that do not disturb
// each other, at the same time, while every name that any agent tells is
// compared with what the API server says; then those that restart, starve or
// break something, one by one.
func TestCluster(t *testing.T) {
	c := openCluster(t)
	c.waitForAgents(t)
	openOutside(t, c)
	if os.Getenv("ORB8_E2E_ROWS") == "core" {
		t.Run("rows", func(t *testing.T) { runRows(t, c, true) })
		return
	}
	settled := time.Now()
	watch := followNames(t, c)
	t.Run("rows", func(t *testing.T) { runRows(t, c, false) })
	// Twenty pods and all their containers are as much as the machine can start.
	t.Run("a job of 20 pods at once", func(t *testing.T) { manyAtOnce(t, newScene(t, c, "a job of 20 pods at once")) })
	t.Run("names over the run", watch.judge)
	t.Run("API requests", func(t *testing.T) { checkRequests(t, c, settled) })
	t.Run("nothing is lost or unaccounted", func(t *testing.T) { checkAccounts(t, c) })
	for _, r := range []struct {
		name string
		run  func(*testing.T, *scene)
	}{
		{"name latency", nameLatency},
		{"address reused by a pod of another namespace", addressReused},
		{"packets on demand", packetsOnDemand},
		{"GPUs", gpus},
		{"agent restarted while traffic flows", agentRestarted},
		{"node power failure and return", powerFailure},
		{"CoreDNS does not answer", silentDNS},
		// Last: for up to a minute after the API server is back its controllers and
		// the kubelets do not ask it, and no pod is started.
		{"API server down", apiServerDown},
	} {
		t.Run(r.name, func(t *testing.T) { r.run(t, newScene(t, c, r.name)) })
	}
	c.logMemory(t)
}

// runRows runs the rows at the same time, as many as -parallel says; core: only
// those that each configuration must pass.
func runRows(t *testing.T, c *cluster, core bool) {
	for i, r := range connections() {
		if r.core || !core {
			t.Run(r.name, func(t *testing.T) {
				t.Parallel()
				r.port = 7001 + i
				r.run(t, newScene(t, c, r.name))
			})
		}
	}
	for _, r := range situations() {
		if r.core || !core {
			t.Run(r.name, func(t *testing.T) {
				t.Parallel()
				r.run(t, newScene(t, c, r.name))
			})
		}
	}
}
