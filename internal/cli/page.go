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
)

// page is one answer, ready to be shown.
type page struct {
	*answer
	body bytes.Buffer
	// What it says of itself, and what there is to do about it.
	first string
	hints []string
}

func (p *page) about() []string {
	return append(append([]string{p.first}, p.hints...), p.warnings...)
}

// againFlags are how often a question is put.
type againFlags struct {
	watch    bool
	interval time.Duration
}

func (f *againFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&f.watch, "watch", "w", false, "ask again and again")
	cmd.Flags().DurationVar(&f.interval, "interval", time.Second, "how long --watch waits between two questions")
}

func (f *againFlags) check() error {
	if f.interval < 100*time.Millisecond {
		return usagef("--interval %v: allowed are times from 100ms on, as 1s or 500ms", f.interval)
	}
	return nil
}

// showPages shows one answer or, with --watch, one after the other until
// interrupted, which is its normal end.
func (a *app) showPages(ctx context.Context, f *againFlags, o *outputFlag, ask func(context.Context) (*page, error)) error {
	if !f.watch {
		return a.showPage(ctx, ask)
	}
	tick := time.NewTicker(f.interval)
	defer tick.Stop()
	for round := 0; ; round++ {
		p, err := ask(ctx)
		if errors.Is(err, client.ErrInterrupted) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := a.showRound(p, o, round); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (a *app) showPage(ctx context.Context, ask func(context.Context) (*page, error)) error {
	p, err := ask(ctx)
	if err != nil {
		return err
	}
	a.out.Write(p.body.Bytes())
	if err := a.out.Flush(); err != nil {
		return err
	}
	for _, line := range p.about() {
		a.say(line)
	}
	return nil
}

func (a *app) showRound(p *page, o *outputFlag, round int) error {
	if s := a.screen(); s.terminal && !o.json() {
		return a.redraw(s, &p.body, p.about(), round == 0)
	}
	if round > 0 && p.body.Len() > 0 && !o.json() {
		fmt.Fprintln(a.out)
	}
	a.out.Write(p.body.Bytes())
	for _, line := range p.warnings {
		a.say(line)
	}
	return a.out.Flush()
}

// podsFilter asks for whose it is: a row tells nothing of connections.
func podsFilter(f *orb8v1.EndFilter) *orb8v1.Filter {
	return &orb8v1.Filter{Namespaces: f.GetNamespaces(), Pods: f.GetPods(), Workloads: f.GetWorkloads(), Labels: f.GetLabels(), Nodes: f.GetNodes()}
}
