// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/client"
	"github.com/orb8/orb8/internal/render"
)

// dropsFlags are the question of orb8 drops.
type dropsFlags struct {
	include, exclude orb8v1.EndFilter
	output           outputFlag
	limit            uint32
	watch            bool
	interval         time.Duration
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
			if f.limit == 0 {
				return usagef("--limit 0: allowed are numbers from 1 on")
			}
			if f.interval < 100*time.Millisecond {
				return usagef("--interval %v: allowed are times from 100ms on, as 1s or 500ms", f.interval)
			}
			c, err := a.connect(cmd.Context(), &nodeChoice{f.include.GetNodes(), f.exclude.GetNodes()})
			if err != nil {
				return err
			}
			defer c.Close()
			if f.watch {
				return a.watchDrops(cmd.Context(), c, &f)
			}
			return a.showDrops(cmd.Context(), c, &f)
		},
	}
	f.output.add(cmd)
	cmd.Flags().Uint32Var(&f.limit, "limit", 100, "show at most this `NUMBER`")
	cmd.Flags().BoolVarP(&f.watch, "watch", "w", false, "ask again and again")
	cmd.Flags().DurationVar(&f.interval, "interval", time.Second, "how long --watch waits between two questions")
	addFilters(cmd, podFilters(&f.include), podFilters(&f.exclude))
	return cmd
}

// dropsFilter asks for who a drop met: a row tells nothing of connections.
func dropsFilter(f *orb8v1.EndFilter) *orb8v1.Filter {
	return &orb8v1.Filter{Namespaces: f.GetNamespaces(), Pods: f.GetPods(), Workloads: f.GetWorkloads(), Labels: f.GetLabels(), Nodes: f.GetNodes()}
}

// dropsPage is one answer, ready to be shown.
type dropsPage struct {
	*answer
	body    bytes.Buffer
	packets uint64
	summary *orb8v1.DropsSummary
}

func (a *app) askDrops(ctx context.Context, c client.Observer, f *dropsFlags) (*dropsPage, error) {
	p := &dropsPage{answer: &answer{from: c}}
	table := render.NewDropTable(a.style(&f.output, a.screen()))
	q := &orb8v1.DropsRequest{Include: dropsFilter(&f.include), Exclude: dropsFilter(&f.exclude), Limit: f.limit}
	for m, err := range c.Drops(ctx, q) {
		switch {
		case err != nil:
			return nil, err
		case m.GetDrop() != nil:
			p.shown++
			p.packets += m.GetDrop().GetPackets()
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
			p.summary = m.GetSummary()
			p.hearAll(p.summary.GetNodes(), p.summary.GetLosses())
		}
	}
	if err := p.check(p.summary != nil); err != nil {
		return nil, err
	}
	if p.shown > 0 && !f.output.json() {
		return p, table.Flush(&p.body)
	}
	return p, nil
}

// about is what the answer says of itself.
func (p *dropsPage) about(f *dropsFlags) []string {
	first := render.DropsSummary(p.summary, p.packets)
	switch {
	case p.shown > 0:
	case given(podFilters(&f.include), podFilters(&f.exclude)):
		first = fmt.Sprintf("no drops match (of %d packets)", p.summary.GetKnownPackets())
	default:
		first = "no packets dropped"
	}
	return append([]string{first}, p.warnings...)
}

func (a *app) showDrops(ctx context.Context, c client.Observer, f *dropsFlags) error {
	p, err := a.askDrops(ctx, c, f)
	if err != nil {
		return err
	}
	a.out.Write(p.body.Bytes())
	if err := a.out.Flush(); err != nil {
		return err
	}
	for _, line := range p.about(f) {
		a.say(line)
	}
	return nil
}

// watchDrops asks until interrupted, which is its normal end.
func (a *app) watchDrops(ctx context.Context, c client.Observer, f *dropsFlags) error {
	tick := time.NewTicker(f.interval)
	defer tick.Stop()
	for round := 0; ; round++ {
		p, err := a.askDrops(ctx, c, f)
		if errors.Is(err, client.ErrInterrupted) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := a.showRound(p, f, round); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (a *app) showRound(p *dropsPage, f *dropsFlags, round int) error {
	if s := a.screen(); s.terminal && !f.output.json() {
		return a.redraw(s, &p.body, p.about(f), round == 0)
	}
	if round > 0 && p.body.Len() > 0 && !f.output.json() {
		fmt.Fprintln(a.out)
	}
	a.out.Write(p.body.Bytes())
	for _, line := range p.warnings {
		a.say(line)
	}
	return a.out.Flush()
}
