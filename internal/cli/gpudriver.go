// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/client"
	"github.com/orb8/orb8/internal/render"
)

// driverFlags are the question of orb8 gpu release and orb8 gpu open.
type driverFlags struct {
	release bool
	nodes   []string
	all     bool
	output  choice
}

func (a *app) gpuDriver(release bool) *cobra.Command {
	f := driverFlags{release: release}
	cmd := &cobra.Command{
		Use:   "open",
		Short: "Have an agent take the GPU driver up again",
		Long: `open has the agent of a node use the GPU driver again, after orb8 gpu release.
Exit status 1 says that an agent did not, or could not.`,
		Example: `  orb8 gpu open
  orb8 gpu open --node gpu-1`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.setDriver(cmd.Context(), &f) },
	}
	if release {
		cmd.Use, cmd.Short = "release", "Have an agent let go of the GPU driver"
		cmd.Long = `release has the agent of a node close the GPU driver, so that MIG can be set up
otherwise, GPUs be reset and the driver be replaced. Until orb8 gpu open, or until the
agent starts anew, it tells of no GPU there. It does so only for who asks on the node
itself or through the API server. Exit status 1 says that an agent did not, or could
not: it may still use the driver.`
		cmd.Example = `  orb8 gpu release
  orb8 gpu release --node gpu-1
  orb8 gpu release && sudo nvidia-smi -i 0 -mig 1 && orb8 gpu open`
	}
	addFilters(cmd, nodeFilters(&f.nodes), nil)
	cmd.Flags().BoolVar(&f.all, "all", false, "on every node that is asked")
	f.output.allowed = []string{"table", "json"}
	f.output.add(cmd, "output", "o", "how to show it; json is one object a line")
	return cmd
}

func (a *app) setDriver(ctx context.Context, f *driverFlags) error {
	if f.all && len(f.nodes) > 0 {
		return usagef("--all and --node exclude each other")
	}
	c, err := a.connect(ctx, &nodeChoice{only: f.nodes})
	if err != nil {
		return err
	}
	defer c.Close()
	if len(f.nodes) == 0 && !f.all {
		if err := f.onlyOne(ctx, c); err != nil {
			return err
		}
	}
	failed, asked := 0, 0
	// One that fails must not keep the others from being asked.
	var lastErr error
	nodes := f.nodes
	if len(nodes) == 0 {
		nodes = []string{""}
	}
	for _, node := range nodes {
		answer, err := c.GpuDriver(ctx, &orb8v1.GpuDriverRequest{Release: f.release, Node: node})
		if err != nil {
			lastErr = err
			if len(nodes) == 1 {
				return err
			}
			answer = &orb8v1.GpuDriverResponse{Nodes: []*orb8v1.GpuDriverState{{Node: node, Open: f.release, Error: err.Error()}}}
		}
		for _, s := range answer.GetNodes() {
			asked++
			failed += f.failed(s)
			if err := a.showDriver(f, s); err != nil {
				return err
			}
		}
	}
	if lastErr != nil && failed == asked {
		return lastErr
	}
	return f.outcome(c, asked, failed)
}

// onlyOne refuses to guess whom of several nodes is meant.
func (f *driverFlags) onlyOne(ctx context.Context, c client.Observer) error {
	st, err := c.Status(ctx)
	if err != nil {
		return err
	}
	if n := len(st.GetNodes()); n > 1 {
		return usagef("%d nodes would be asked: choose one by --node NODE, or --all of them", n)
	}
	return nil
}

// failed is 1 where the driver is not as was asked.
func (f *driverFlags) failed(s *orb8v1.GpuDriverState) int {
	if s.GetError() != "" || s.GetOpen() == f.release {
		return 1
	}
	return 0
}

func (a *app) showDriver(f *driverFlags, s *orb8v1.GpuDriverState) error {
	if f.output.value == "json" {
		return render.GPUDriverJSON(a.out, s)
	}
	state := "released"
	if !f.release {
		state = "open"
	}
	if f.failed(s) > 0 {
		state = "not " + state + ": " + cmp.Or(s.GetError(), "the agent did not say why")
	}
	fmt.Fprintln(a.out, render.Escape(s.GetNode()+": "+state))
	return nil
}

// outcome is an error where an agent did not do as it was asked.
func (f *driverFlags) outcome(c client.Observer, asked, failed int) error {
	what := "released"
	if !f.release {
		what = "opened"
	}
	switch {
	case asked == 0:
		return &client.Error{Text: "no node behind " + c.Who() + " answered", Try: c.Try()}
	case failed > 0:
		return &client.Error{Text: fmt.Sprintf("the driver was not %s on %d of %d nodes", what, failed, asked), Try: "orb8 status"}
	}
	return nil
}
