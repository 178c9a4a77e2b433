// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/client"
	"github.com/orb8/orb8/internal/render"
)

func (a *app) status() *cobra.Command {
	var output outputFlag
	var nodes nodeChoice
	cmd := &cobra.Command{
		Use:   "status",
		Short: "What is attached, counted and lost, on each node",
		Long: `status shows, for each node: health, version, uptime, what was counted and what
was lost at which stage, what the agent is attached to, and what it costs.
An interface is shown after the name of its network namespace, or net: and its
inode number, unless that is the agent's own. Those that are gone with nothing
unaccounted are only counted. In a pipe no cell holds a blank but the last, STATE.
-o wide shows all, and adds the whole audit of each interface and direction:
flows + remainder + overflow + forwarded + carried + not-IP + malformed = counted.`,
		Example: `  orb8 status
  orb8 --agent 10.0.0.7 status -o json | jq .events_dropped`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect(cmd.Context(), &nodes)
			if err != nil {
				return err
			}
			defer c.Close()
			answer, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			return a.showStatus(&output, c, nodes.of(answer.GetNodes()))
		},
	}
	output.add(cmd)
	addFilters(cmd, nodeFilters(&nodes.only), nodeFilters(&nodes.not))
	return cmd
}

// of keeps the chosen nodes.
func (n *nodeChoice) of(all []*orb8v1.NodeStatus) (chosen []*orb8v1.NodeStatus) {
	for _, s := range all {
		if (len(n.only) == 0 || slices.Contains(n.only, s.GetNode())) && !slices.Contains(n.not, s.GetNode()) {
			chosen = append(chosen, s)
		}
	}
	return chosen
}

func (a *app) showStatus(output *outputFlag, c client.Observer, nodes []*orb8v1.NodeStatus) error {
	if len(nodes) == 0 {
		a.say("no nodes match")
		return nil
	}
	style := a.style(output, a.screen())
	silent := 0
	for i, n := range nodes {
		if n.GetError() != "" {
			silent++
		}
		var err error
		switch {
		case output.json():
			err = render.StatusJSON(a.out, n)
		case i > 0:
			fmt.Fprintln(a.out)
			fallthrough
		default:
			err = render.Status(a.out, style, n)
		}
		if err != nil {
			return err
		}
	}
	switch silent {
	case 0:
	case len(nodes):
		return &client.Error{Text: "no node behind " + c.Who() + " answered", Try: c.Try()}
	default:
		a.say(fmt.Sprintf("%d of %d nodes did not answer", silent, len(nodes)))
	}
	return nil
}
