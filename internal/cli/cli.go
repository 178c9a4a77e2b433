// SPDX-License-Identifier: Apache-2.0

// Package cli is the command line: one file a command, each a client of
// orb8.v1.Observer. It reads flags, asks, and hands the answer to render. It
// never looks at the kernel or at Kubernetes itself, and never exits the
// process; cmd/orb8 reads it.
package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/grpclog"
	"k8s.io/klog/v2"

	"github.com/orb8/orb8/internal/client"
	"github.com/orb8/orb8/internal/render"
)

// The exit codes of the command.
const (
	exitOK = iota
	exitFailed
	exitUsage
)

// Config is what the command line needs from outside.
type Config struct {
	Version string
	// Without the program's name.
	Args           []string
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	// Standalone is nil where it is not possible.
	Standalone client.Starter
	// MayStart allows to start standalone unasked, when nothing answers and
	// there is no Kubernetes.
	MayStart bool
	// Places looked at when none is named; nil for the standard ones.
	Nearby []client.Address
}

// app is one run of the command line.
type app struct {
	cfg     Config
	address addressFlags
	out     *bufio.Writer
}

// Run does what the arguments say and gives the exit code.
func Run(cfg Config) int {
	// A closed pipe must be an error to handle, not a signal that kills.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if cfg.Getenv("GRPC_GO_LOG_SEVERITY_LEVEL") == "" {
		// Errors are told once, in words, where they are handled.
		grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	}
	klog.SetLogger(logr.Discard())
	a := &app{cfg: cfg, out: bufio.NewWriterSize(cfg.Stdout, 1<<16)}
	ran, err := a.root().ExecuteContextC(ctx)
	if flushed := a.out.Flush(); err == nil {
		err = flushed
	}
	return a.exit(ran, err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "orb8 [--agent HOST:PORT | --server HOST:PORT | --standalone] COMMAND",
		Short: "Which workload talks to which, how much, and how healthily",
		Long: `orb8 shows what the workloads of a machine or a cluster say to each other.
It asks an agent (one node), a server, or all agents of a Kubernetes cluster
through its API server. Without --agent, --server, --standalone, --kubeconfig or
--context it tries ORB8_SERVER, ORB8_AGENT, localhost:8080, localhost:9090, and the
agents of the kubeconfig's cluster (namespace orb8-system). Where there is no
kubeconfig, and --node and --agent-namespace ask for no part of a cluster, it looks
by itself as root on Linux. It says on standard error whom it asks.

Lists in filters are separated by commas or given again: one of them is enough.
Different filters must all hold. Each has a negation: --not-pod, --not-from-pod.

Exit status: 0 done (also when nothing was found), 1 failed, 2 wrong usage.`,
		Example: `  orb8 status
  orb8 flows --sort rtt --limit 10
  orb8 flows -n shop --to-service cart
  orb8 gpu --watch
  orb8 trace network --port 443 --duration 30s`,
		Version:            a.cfg.Version,
		SilenceUsage:       true,
		SilenceErrors:      true,
		DisableSuggestions: true,
		CompletionOptions:  cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:               noSuchCommand,
		RunE:               func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE:  func(*cobra.Command, []string) error { return a.address.check() },
	}
	root.SetArgs(a.cfg.Args)
	root.SetOut(a.out)
	root.SetErr(a.cfg.Stderr)
	root.SetVersionTemplate("orb8 {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	a.address.add(root.PersistentFlags())
	root.AddCommand(a.status(), a.flows(), a.dns(), a.drops(), a.pods(), a.health(), a.gpu(), a.trace(), a.capture(), a.version(), a.completion())
	a.completeNames(root)
	return root
}

// exit tells what went wrong in one line and gives the code.
func (a *app) exit(ran *cobra.Command, err error) int {
	var usage *usageError
	var failed *client.Error
	switch {
	case err == nil, errors.Is(err, syscall.EPIPE):
		// The reader of a pipe has seen enough.
		return exitOK
	case errors.As(err, &usage):
		a.say(err.Error() + "; try: " + ran.CommandPath() + " --help")
		return exitUsage
	case errors.As(err, &failed):
		a.say(err.Error())
	default:
		a.say(err.Error() + "; try: orb8 status")
	}
	return exitFailed
}

// say writes one line about the answer, which is never part of it.
func (a *app) say(line string) {
	fmt.Fprintln(a.cfg.Stderr, "orb8: "+render.Escape(line))
}
