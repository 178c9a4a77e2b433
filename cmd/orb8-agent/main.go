// SPDX-License-Identifier: Apache-2.0

// Command orb8-agent watches a node.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/orb8/orb8/internal/agent"
	"github.com/orb8/orb8/internal/version"
)

// The process's first thread is never lent to who enters a namespace: it could
// not be ended where it cannot go back.
func init() { runtime.LockOSThread() }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := agent.Main(ctx, agent.Process{
		Args:    os.Args[1:],
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
		Getenv:  os.LookupEnv,
		Version: version.String(),
	})
	stop()
	os.Exit(code)
}
