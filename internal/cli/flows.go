// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/client"
	"github.com/orb8/orb8/internal/render"
)

// flowsFlags are the question of orb8 flows.
type flowsFlags struct {
	filter   filterFlags
	output   outputFlag
	sort     choice
	limit    uint32
	watch    bool
	pair     bool
	interval time.Duration
}

func (a *app) flows() *cobra.Command {
	var f flowsFlags
	cmd := &cobra.Command{
		Use:   "flows",
		Short: "Connections: who talks to whom, how much, how healthily",
		Long: `flows shows a row for each connection, as seen from one end: TX is what the local
end sent. The arrow points from who opened the connection to the other end (→ the
local end did, ← the remote end did, — it is older than the agent).
On a terminal 1KB is 1,000 bytes, and a narrow one loses columns (not with -o wide);
in a pipe bytes and microseconds are plain numbers and no cell holds a blank.

With --pair a row is a connection with both of its ends, where both are tapped:
LOST are segments that FROM sent and TO did not receive, LOST_BACK the other way.
While a connection moves (MOVING) that is a lower bound; - is not known, as of
connections that are older than an agent.`,
		Example: `  orb8 flows --sort rtt --limit 10
  orb8 flows --watch --protocol tcp --not-port 22
  orb8 flows --pair --sort lost -n training
  orb8 flows --ip 10.0.0.0/8 -o json | jq .remote.ip`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			c, err := a.connect(cmd.Context(), f.filter.nodes())
			if err != nil {
				return err
			}
			defer c.Close()
			switch {
			case f.watch:
				return a.watchFlows(cmd.Context(), c, &f)
			case f.pair:
				return a.showPairs(cmd.Context(), c, &f)
			}
			return a.showFlows(cmd.Context(), c, &f)
		},
	}
	f.setSort()
	f.sort.add(cmd, "sort", "", "what comes first: the largest, or the last to move data")
	f.output.add(cmd)
	cmd.Flags().Uint32Var(&f.limit, "limit", 100, "show at most this `NUMBER`")
	cmd.Flags().BoolVarP(&f.watch, "watch", "w", false, "ask again and again, and show rates")
	cmd.Flags().BoolVar(&f.pair, "pair", false, "both ends of a connection as one row, and what was lost between them")
	cmd.Flags().DurationVar(&f.interval, "interval", time.Second, "how long --watch waits between two questions")
	f.filter.add(cmd)
	return cmd
}

func (f *flowsFlags) setSort() {
	f.sort.allowed = []string{"bytes", "packets", "rtt", "retransmits", "last", "lost"}
	// As the column is called.
	f.sort.also = map[string]string{"last-seen": "last"}
}

func (f *flowsFlags) check() error {
	if f.limit == 0 {
		return usagef("--limit 0: allowed are numbers from 1 on")
	}
	if f.interval < 100*time.Millisecond {
		return usagef("--interval %v: allowed are times from 100ms on, as 1s or 500ms", f.interval)
	}
	return f.checkPair()
}

func (f *flowsFlags) request() *orb8v1.FlowsRequest {
	sorts := map[string]orb8v1.Sort{
		"bytes": orb8v1.Sort_SORT_BYTES, "packets": orb8v1.Sort_SORT_PACKETS, "rtt": orb8v1.Sort_SORT_RTT,
		"retransmits": orb8v1.Sort_SORT_RETRANSMITS, "last": orb8v1.Sort_SORT_LAST,
	}
	return &orb8v1.FlowsRequest{Include: f.filter.include, Exclude: f.filter.exclude, Sort: sorts[f.sort.value], Limit: f.limit}
}

// answer is what one answer holds beside its flows, which were handed on as they
// came.
type answer struct {
	// Who was asked.
	from     client.Observer
	shown    int
	summary  *orb8v1.Summary
	warnings []string
	// Nodes asked, and those that did not answer.
	nodes, silent int
	// Why the first of them did not, and how many did not for the same reason.
	reason string
	alike  int
}

// ask puts the question once. each sees every flow, in order.
func (f *flowsFlags) ask(ctx context.Context, c client.Observer, each func(*orb8v1.FlowRecord) error) (*answer, error) {
	got := &answer{from: c}
	for m, err := range c.Flows(ctx, f.request()) {
		if err != nil {
			return nil, err
		}
		switch {
		case m.GetFlow() != nil:
			got.shown++
			if err := each(m.GetFlow()); err != nil {
				return nil, err
			}
		case m.GetNode() != nil:
			got.hear(m.GetNode())
		case m.GetLoss().GetCount() > 0:
			got.warnings = append(got.warnings, render.Loss(m.GetLoss()))
		case m.GetSummary() != nil:
			got.summary = m.GetSummary()
		}
	}
	got.hearAll(got.summary.GetNodes(), got.summary.GetLosses())
	return got, got.check(got.summary != nil)
}

// hearAll takes what a summary says of nodes and losses.
func (got *answer) hearAll(nodes []*orb8v1.NodeState, losses []*orb8v1.Loss) {
	for _, n := range nodes {
		got.hear(n)
	}
	got.warnings = append(got.warnings, render.Losses(losses)...)
}

// check tells what is no answer: one without its end, and one of nobody.
func (got *answer) check(complete bool) error {
	if !complete {
		return &client.Error{Text: "the answer of " + got.from.Who() + " broke off: it has no summary", Try: "orb8 status"}
	}
	switch {
	case got.nodes > 1 && got.alike == got.nodes:
		return &client.Error{Text: fmt.Sprintf("none of %d nodes answered: %s", got.nodes, got.reason), Try: got.from.Try()}
	case got.nodes > 0 && got.silent == got.nodes:
		return &client.Error{Text: got.warnings[0], Try: got.from.Try()}
	}
	return nil
}

func (got *answer) hear(n *orb8v1.NodeState) {
	got.nodes++
	if missing := render.NodeState(n); missing != "" {
		if got.silent == 0 {
			got.reason = n.GetError()
		}
		if n.GetError() == got.reason {
			got.alike++
		}
		got.silent++
		got.warnings = append(got.warnings, missing)
	}
}

// lines is what the answer says about itself.
func (got *answer) lines(f *flowsFlags) []string {
	if got.shown > 0 {
		return append(render.Summary(got.summary, got.shown, f.limit), got.warnings...)
	}
	first := "no flows yet"
	if f.filter.given() {
		first = fmt.Sprintf("no flows match (of %d)", got.summary.GetKnownFlows())
	}
	return append([]string{first}, got.warnings...)
}

func (a *app) showFlows(ctx context.Context, c client.Observer, f *flowsFlags) error {
	screen := a.screen()
	table := render.NewFlowTable(a.style(&f.output, screen), false)
	got, err := f.ask(ctx, c, func(flow *orb8v1.FlowRecord) error {
		if f.output.json() {
			return render.FlowJSON(a.out, flow)
		}
		table.Add(flow, render.Rate{})
		return nil
	})
	if err != nil {
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
	for _, line := range got.lines(f) {
		if screen.terminal && got.shown > 0 && !f.output.json() {
			fmt.Fprintln(a.out, render.Escape(line))
		} else {
			a.say(line)
		}
	}
	return nil
}
