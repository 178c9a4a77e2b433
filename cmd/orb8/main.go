// SPDX-License-Identifier: Apache-2.0

// Command orb8 asks an agent or a server what talks to what.
package main

import (
	"context"
	"log/slog"
	"os"
	"runtime"

	"google.golang.org/grpc"

	"github.com/orb8/orb8/internal/agent"
	"github.com/orb8/orb8/internal/cli"
	"github.com/orb8/orb8/internal/version"
)

func main() {
	os.Exit(cli.Run(cli.Config{
		Version:    version.String(),
		Args:       os.Args[1:],
		Stdout:     os.Stdout,
		Stderr:     os.Stderr,
		Getenv:     os.Getenv,
		Standalone: standalone,
		MayStart:   runtime.GOOS == "linux" && os.Geteuid() == 0,
	}))
}

// standalone starts the agent's line inside this process.
func standalone(ctx context.Context) (*grpc.ClientConn, func() error, error) {
	cfg, err := agent.FromEnv(os.LookupEnv)
	if err != nil {
		return nil, nil, err
	}
	cfg.Version = version.String()
	// Who starts it could capture anyway.
	cfg.AllowCapture = true
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return agent.Standalone(ctx, cfg)
}
