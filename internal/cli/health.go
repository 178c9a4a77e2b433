// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/client"
	"github.com/orb8/orb8/internal/render"
)

// healthFlags are the question of orb8 health.
type healthFlags struct {
	include, exclude orb8v1.EndFilter
	output           outputFlag
	limit            uint32
}

func (a *app) health() *cobra.Command {
	var f healthFlags
	cmd := &cobra.Command{
		Use:   "health",
		Short: "What is wrong with the sockets of a pod: full queues, lack of memory",
		Long: `health shows what the kernel counts of the sockets of each pod's network namespace,
and what that means: those where something goes wrong now come first. WHEN is now
(it grew in the last minute), earlier (since the agent saw it) or before (since the
namespace was made; nobody knows when). MEMORY is what waits in the sockets' buffers.
A pod with hostNetwork has its node's sockets: see node/NAME.`,
		Example: `  orb8 health --pod shop/cart-5d8f9
  orb8 health -n training -o wide
  orb8 health -o json | jq '.findings[] | select(.current)'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.limit == 0 {
				return usagef("--limit 0: allowed are numbers from 1 on")
			}
			c, err := a.connect(cmd.Context(), &nodeChoice{f.include.GetNodes(), f.exclude.GetNodes()})
			if err != nil {
				return err
			}
			defer c.Close()
			return a.showHealth(cmd.Context(), c, &f)
		},
	}
	f.output.add(cmd)
	cmd.Flags().Uint32Var(&f.limit, "limit", 100, "show at most this `NUMBER` of namespaces")
	addFilters(cmd, podFilters(&f.include), podFilters(&f.exclude))
	return cmd
}

func (a *app) showHealth(ctx context.Context, c client.Observer, f *healthFlags) error {
	table := render.NewSocketsTable(a.style(&f.output, a.screen()))
	got := &answer{from: c}
	var summary *orb8v1.SocketsSummary
	for m, err := range c.Sockets(ctx, &orb8v1.SocketsRequest{Include: &f.include, Exclude: &f.exclude, Limit: f.limit}) {
		switch {
		case err != nil:
			return err
		case m.GetSockets() != nil && f.output.json():
			got.shown++
			if err := render.SocketsJSON(a.out, m.GetSockets()); err != nil {
				return err
			}
		case m.GetSockets() != nil:
			got.shown++
			table.Add(m.GetSockets())
		case m.GetNode() != nil:
			got.hear(m.GetNode())
		case m.GetSummary() != nil:
			summary = m.GetSummary()
			got.hearAll(summary.GetNodes(), summary.GetLosses())
		}
	}
	if err := got.check(summary != nil); err != nil {
		return err
	}
	if got.shown > 0 && !f.output.json() {
		if err := table.Flush(a.out); err != nil {
			return err
		}
	}
	if err := a.out.Flush(); err != nil {
		return err
	}
	switch shown := uint64(got.shown); {
	case shown == 0:
		a.say(fmt.Sprintf("no network namespaces match (of %d); a pod with hostNetwork has its node's: orb8 health --node NODE", summary.GetKnown()))
	case shown < summary.GetMatched():
		a.say(fmt.Sprintf("%d of %d network namespaces shown, the worst first; all: --limit %d", shown, summary.GetMatched(), summary.GetMatched()))
	}
	for _, line := range got.warnings {
		a.say(line)
	}
	return nil
}
