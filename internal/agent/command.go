// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Process is what the agent's command line needs of its process.
type Process struct {
	Args           []string
	Stdout, Stderr io.Writer
	Getenv         func(string) (string, bool)
	Version        string
}

// Main runs the agent's command line and returns its exit code: 0 ok, 1 failed,
// 2 usage.
func Main(ctx context.Context, p Process) int {
	// A reader of the log that goes away must not end the agent, least of all
	// without detaching.
	signal.Ignore(syscall.SIGPIPE)
	cfg := Defaults()
	cfg.Version, cfg.OTel = p.Version, true
	cfg.Log = slog.New(slog.NewTextHandler(p.Stderr, nil))
	root := &cobra.Command{
		Use:           "orb8-agent",
		Short:         "Watch this node's connections in the kernel, and answer questions about them",
		Args:          cobra.NoArgs,
		Version:       p.Version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	usage := true
	root.RunE = func(*cobra.Command, []string) error {
		if err := cfg.finish(); err != nil {
			return err
		}
		usage = false
		a, err := Open(cfg)
		if err != nil {
			return err
		}
		return a.Run(ctx)
	}
	root.AddCommand(&cobra.Command{
		Use:   "cleanup",
		Short: "Remove what killed agents left in the machine's network namespaces; living ones keep theirs",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			usage = false
			removed, err := cleanup(ctx, &cfg)
			for _, r := range removed {
				fmt.Fprintln(p.Stdout, "removed", r)
			}
			if err == nil && len(removed) == 0 {
				fmt.Fprintln(p.Stdout, "nothing was left")
			}
			return err
		},
	})
	root.SetArgs(p.Args)
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	err := cfg.bind(root.PersistentFlags(), p.Getenv)
	if err == nil {
		err = root.ExecuteContext(ctx)
	}
	if err == nil {
		return 0
	}
	line := strings.ReplaceAll(err.Error(), "\n", "; ")
	if usage {
		fmt.Fprintf(p.Stderr, "orb8-agent: %s; try: orb8-agent --help\n", line)
		return 2
	}
	fmt.Fprintf(p.Stderr, "orb8-agent: %s\n", line)
	return 1
}
