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

func (a *app) pods() *cobra.Command {
	var f listFlags
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
			return a.ask(cmd.Context(), &f, func(c client.Observer) error { return a.showPods(cmd.Context(), c, &f) })
		},
	}
	f.add(cmd, 1000, "")
	return cmd
}

func (a *app) showPods(ctx context.Context, c client.Observer, f *listFlags) error {
	table := render.NewPodTable(a.style(&f.output, a.screen()))
	got := &answer{from: c}
	var summary *orb8v1.PodsSummary
	answer := c.Pods(ctx, &orb8v1.PodsRequest{Include: &f.include, Exclude: &f.exclude, Limit: f.limit})
	err := showList(a, got, answer, listed[*orb8v1.PodsResponse, *orb8v1.PodRecord]{
		record: func(m *orb8v1.PodsResponse) (*orb8v1.PodRecord, bool) { return m.GetPod(), m.GetPod() != nil },
		node:   (*orb8v1.PodsResponse).GetNode,
		summary: func(m *orb8v1.PodsResponse) ([]*orb8v1.NodeState, []*orb8v1.Loss, bool) {
			summary = m.GetSummary()
			return summary.GetNodes(), summary.GetLosses(), summary != nil
		},
		add: table.Add, json: render.PodJSON, flush: table.Flush, asJSON: f.output.json(),
	})
	if err != nil {
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
