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

// podsFlags are the question of orb8 pods.
type podsFlags struct {
	include, exclude orb8v1.EndFilter
	output           outputFlag
	limit            uint32
}

func (a *app) pods() *cobra.Command {
	var f podsFlags
	cmd := &cobra.Command{
		Use:   "pods",
		Short: "The pods that the agents know, also those that are gone",
		Long: `pods lists the pods of each agent's node, by namespace and name, as the agent knows
them: also those that were deleted a while ago and whose traffic is still known.
FLOWS are the connections known of a pod now.`,
		Example: `  orb8 pods -n training
  orb8 pods --workload Deployment/web -o json | jq -r .ips[0]`,
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
			return a.showPods(cmd.Context(), c, &f)
		},
	}
	f.output.add(cmd)
	cmd.Flags().Uint32Var(&f.limit, "limit", 1000, "show at most this `NUMBER`")
	addFilters(cmd, podFilters(&f.include), podFilters(&f.exclude))
	return cmd
}

func (a *app) showPods(ctx context.Context, c client.Observer, f *podsFlags) error {
	table := render.NewPodTable(a.style(&f.output, a.screen()))
	got := &answer{from: c}
	var summary *orb8v1.PodsSummary
	for m, err := range c.Pods(ctx, &orb8v1.PodsRequest{Include: &f.include, Exclude: &f.exclude, Limit: f.limit}) {
		switch {
		case err != nil:
			return err
		case m.GetPod() != nil && f.output.json():
			got.shown++
			if err := render.PodJSON(a.out, m.GetPod()); err != nil {
				return err
			}
		case m.GetPod() != nil:
			got.shown++
			table.Add(m.GetPod())
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
	case shown == 0 && given(podFilters(&f.include), podFilters(&f.exclude)):
		a.say(fmt.Sprintf("no pods match (of %d)", summary.GetKnown()))
	case shown == 0:
		a.say("no pods known")
	case shown < summary.GetMatched():
		a.say(fmt.Sprintf("%d of %d pods shown; all: --limit %d", shown, summary.GetMatched(), summary.GetMatched()))
	}
	for _, line := range got.warnings {
		a.say(line)
	}
	return nil
}
