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

// dropsFlags are the question of orb8 drops.
type dropsFlags struct {
	listFlags
	again againFlags
}

func (a *app) drops() *cobra.Command {
	var f dropsFlags
	cmd := &cobra.Command{
		Use:   "drops",
		Short: "Packets that the kernel threw away, and why",
		Long: `drops shows how many packets the kernel has dropped since the agent started, by whom
they met (a pod, a process of the host, the node for what only passes through), why,
and where in the kernel. What ends as it is to, or comes twice, is no drop. Which
connections it happens to is shown by: orb8 trace drops`,
		Example: `  orb8 drops -n training
  orb8 drops --pod shop/cart-0 -o wide
  orb8 drops --watch
  orb8 drops -o json | jq 'select(.reason == "NETFILTER_DROP")'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.again.check(); err != nil {
				return err
			}
			return a.ask(cmd.Context(), &f.listFlags, func(c client.Observer) error {
				return a.showPages(cmd.Context(), &f.again, &f.output, func(ctx context.Context) (*page, error) { return a.askDrops(ctx, c, &f) })
			})
		},
	}
	f.again.add(cmd)
	f.add(cmd, 100, "")
	return cmd
}

func (a *app) askDrops(ctx context.Context, c client.Observer, f *dropsFlags) (*page, error) {
	p := &page{answer: &answer{from: c}}
	table := render.NewDropTable(a.style(&f.output, a.screen()))
	q := &orb8v1.DropsRequest{Include: podsFilter(&f.include), Exclude: podsFilter(&f.exclude), Limit: f.limit}
	var summary *orb8v1.DropsSummary
	packets := uint64(0)
	for m, err := range c.Drops(ctx, q) {
		switch {
		case err != nil:
			return nil, err
		case m.GetDrop() != nil:
			p.shown++
			packets += m.GetDrop().GetPackets()
			if !f.output.json() {
				table.AddDrop(m.GetDrop())
			} else if err := render.DropJSON(&p.body, m.GetDrop()); err != nil {
				return nil, err
			}
		case m.GetNode() != nil:
			p.hear(m.GetNode())
		case m.GetLoss().GetCount() > 0:
			p.warnings = append(p.warnings, render.Loss(m.GetLoss()))
		case m.GetSummary() != nil:
			summary = m.GetSummary()
			p.hearAll(summary.GetNodes(), summary.GetLosses())
		}
	}
	if err := p.check(summary != nil); err != nil {
		return nil, err
	}
	p.first = render.DropsSummary(summary, packets)
	switch {
	case p.shown > 0:
	case given(podFilters(&f.include), podFilters(&f.exclude)):
		p.first = fmt.Sprintf("no drops match (of %d packets)", summary.GetKnownPackets())
	default:
		p.first = "no packets dropped"
	}
	if p.shown > 0 && !f.output.json() {
		return p, table.Flush(&p.body)
	}
	return p, nil
}
