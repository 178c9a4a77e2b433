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

func (a *app) health() *cobra.Command {
	var f listFlags
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
			return a.ask(cmd.Context(), &f, func(c client.Observer) error { return a.showHealth(cmd.Context(), c, &f) })
		},
	}
	f.add(cmd, 100, " of namespaces")
	return cmd
}

func (a *app) showHealth(ctx context.Context, c client.Observer, f *listFlags) error {
	table := render.NewSocketsTable(a.style(&f.output, a.screen()))
	got := &answer{from: c}
	var summary *orb8v1.SocketsSummary
	answer := c.Sockets(ctx, &orb8v1.SocketsRequest{Include: &f.include, Exclude: &f.exclude, Limit: f.limit})
	err := showList(a, got, answer, listed[*orb8v1.SocketsResponse, *orb8v1.SocketsRecord]{
		record: func(m *orb8v1.SocketsResponse) (*orb8v1.SocketsRecord, bool) {
			return m.GetSockets(), m.GetSockets() != nil
		},
		node: (*orb8v1.SocketsResponse).GetNode,
		summary: func(m *orb8v1.SocketsResponse) ([]*orb8v1.NodeState, []*orb8v1.Loss, bool) {
			summary = m.GetSummary()
			return summary.GetNodes(), summary.GetLosses(), summary != nil
		},
		add: table.Add, json: render.SocketsJSON, flush: table.Flush, asJSON: f.output.json(),
	})
	if err != nil {
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
