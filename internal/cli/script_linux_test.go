// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/orb8/orb8/internal/cli"
	"github.com/orb8/orb8/internal/client"
)

// TestMain makes this binary the command too: a script runs it as a process of
// its own, with real pipes, terminals, signals and exit codes.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"orb8": func() { os.Exit(run()) }})
}

func run() int {
	cfg := cli.Config{
		Version: "1.2.3",
		Args:    os.Args[1:],
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
		Getenv:  os.Getenv,
		// This machine may have an agent of its own.
		Nearby: []client.Address{{Role: client.Server, Place: os.Getenv("NEAR_SERVER")}, {Role: client.Agent, Place: os.Getenv("NEAR_AGENT")}},
	}
	if inside := os.Getenv("INSIDE"); inside != "" {
		cfg.MayStart = true
		cfg.Standalone = func(context.Context) (*grpc.ClientConn, func() error, error) {
			conn, err := grpc.NewClient(inside, grpc.WithTransportCredentials(insecure.NewCredentials()))
			return conn, func() error { return nil }, err
		}
	}
	return cli.Run(cfg)
}

func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE") != "",
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"terminal": terminal},
		Setup:               setup,
		Condition: func(name string) (bool, error) {
			if name != "root" {
				return false, fmt.Errorf("no such condition: %s", name)
			}
			return os.Geteuid() == 0, nil
		},
	})
}

// setup starts the fakes of one script; scripts know them by their names.
func setup(env *testscript.Env) error {
	places, err := strangers(env.Defer)
	if err != nil {
		return err
	}
	brief := healthy()
	brief.summary = nil
	deaf := lossy()
	deaf.summary.Nodes = deaf.summary.Nodes[1:]
	deaf.status.Nodes = deaf.status.Nodes[1:]
	growing := healthy()
	growing.growing = true
	empty := &fake{status: healthy().status, summary: healthy().summary}
	for name, f := range map[string]*fake{
		"AGENT": healthy(), "SERVER": lossy(), "EMPTY": empty, "DYING": healthy(), "BRIEF": brief, "DEAF": deaf, "GROWING": growing, "PAIRED": paired(),
		"MACHINE": machine(), "DROPPING": dropping(), "RESOLVING": resolving(), "NAMED": named(),
		"GPUS": accelerated(), "RELEASED": released(),
	} {
		if places[name], err = serve(env.Defer, f, name == "DYING"); err != nil {
			return err
		}
	}
	places["NEAR_SERVER"], places["NEAR_AGENT"] = places["DEAD"], places["DEAD"]
	places["TZ"] = "UTC"
	for name, place := range places {
		env.Setenv(name, place)
	}
	return cluster(env)
}
