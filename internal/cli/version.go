// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/orb8/orb8/internal/render"
)

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "The version of this program, and with --agent or --server of what answers there",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintf(a.out, "orb8 %s\n", a.cfg.Version)
			if a.address.told == nil {
				return nil
			}
			c, err := a.connect(cmd.Context(), nil)
			if err != nil {
				return err
			}
			defer c.Close()
			answer, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			for _, n := range answer.GetNodes() {
				if n.GetError() != "" {
					a.say("node " + n.GetNode() + " did not answer: " + n.GetError())
					continue
				}
				fmt.Fprintf(a.out, "agent %s on %s\n", render.Escape(n.GetVersion()), render.Escape(n.GetNode()))
			}
			return nil
		},
	}
}
