// SPDX-License-Identifier: Apache-2.0

// Package monitoring puts what stands around orb8's metrics before the real
// ones: a Prometheus scrapes an agent that watches two pods talk and compute on
// GPUs of a driver that plays them, answers every query of every dashboard, and of
// NVIDIA's, evaluates every alert, and has counted in the end what the agent and
// the interfaces have. Everything happens in namespaces and cgroups of the test's
// own. It knows the dashboards by their files alone.
package monitoring

import (
	"context"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"testing"

	"github.com/orb8/orb8/internal/agent"
)

// as says what this program is to be, where it is not the test.
const as = "ORB8_MONITORING_TEST_AS"

// The agent's first thread is never lent to who enters a namespace.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	switch os.Getenv(as) {
	case "agent":
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		code := agent.Main(ctx, agent.Process{Args: os.Args[1:], Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.LookupEnv, Version: "test"})
		stop()
		os.Exit(code)
	case "server":
		serve()
	case "client":
		ask()
	default:
		os.Exit(m.Run())
	}
}

// untilToldToEnd waits for the end of the standard input.
func untilToldToEnd() { _, _ = io.Copy(io.Discard, os.Stdin) }
