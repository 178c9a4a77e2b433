// SPDX-License-Identifier: Apache-2.0

// Command orb8 asks an agent or a server what talks to what. It holds nothing
// but the wiring.
package main

import (
	"context"
	"errors"
	"os"
	"runtime"

	"google.golang.org/grpc"

	"github.com/orb8/orb8/internal/cli"
)

func main() {
	os.Exit(cli.Run(cli.Config{
		Version:    version,
		Args:       os.Args[1:],
		Stdout:     os.Stdout,
		Stderr:     os.Stderr,
		Getenv:     os.Getenv,
		Standalone: standalone,
		MayStart:   runtime.GOOS == "linux" && os.Geteuid() == 0,
	}))
}

// version is set by the linker.
var version = "dev"

// standalone starts the agent's line inside this process.
func standalone(context.Context) (*grpc.ClientConn, func() error, error) {
	return nil, nil, errors.New("this build has no agent inside")
}
