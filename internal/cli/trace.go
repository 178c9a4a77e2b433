// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/client"
	"github.com/orb8/orb8/internal/render"
)

// traceFlags are the question of orb8 trace network, drops, dns and gpu.
type traceFlags struct {
	kinds              []orb8v1.EventKind
	filter             filterFlags
	output             outputFlag
	duration, interval time.Duration
	since              string
	// Of trace dns; else nil.
	lookups *lookupFlags
	// Of trace gpu; else nil.
	gpus *gpuTraceFlags
}

func (a *app) trace() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trace",
		Short: "Live events",
		Args:  noSuchCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.traceNetwork(), a.traceDNS(), a.traceDrops(), a.traceGPU())
	return cmd
}

// ofConnections are the kinds of events that trace network shows.
func ofConnections() []orb8v1.EventKind {
	return []orb8v1.EventKind{
		orb8v1.EventKind_EVENT_KIND_TRAFFIC, orb8v1.EventKind_EVENT_KIND_OPENED, orb8v1.EventKind_EVENT_KIND_CLOSED,
		orb8v1.EventKind_EVENT_KIND_REFUSED, orb8v1.EventKind_EVENT_KIND_RESET, orb8v1.EventKind_EVENT_KIND_FAILED,
	}
}

func (a *app) traceNetwork() *cobra.Command {
	f := traceFlags{kinds: ofConnections()}
	cmd := &cobra.Command{
		Use:   "network",
		Short: "Connections as they open, move data and end",
		Long: `trace network prints a line when a connection opens, closes, is refused or reset,
and each interval one for each connection that moved data. TX and RX are what
moved in the interval, or, where a connection ended, in its whole life.
It goes on until interrupted (Ctrl-C), or for --duration.`,
		Example: `  orb8 trace network --duration 30s
  orb8 trace network --since 10m --dst-port 443
  orb8 trace network --interval 5s -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.runTrace(cmd.Context(), &f)
		},
	}
	f.addDuration(cmd)
	cmd.Flags().DurationVar(&f.interval, "interval", time.Second, "sum up the data of a connection over this `TIME`")
	f.addSince(cmd)
	f.output.add(cmd)
	f.filter.add(cmd)
	return cmd
}

func (a *app) traceDrops() *cobra.Command {
	f := traceFlags{kinds: []orb8v1.EventKind{orb8v1.EventKind_EVENT_KIND_DROP}, interval: agentEpoch}
	cmd := &cobra.Command{
		Use:   "drops",
		Short: "Packets as the kernel drops them: of which connection, and why",
		Long: `trace drops prints a line for each connection of which the kernel dropped packets in
the last second, with the kernel's reason and the place in its code; -o wide adds what
the reason means. LOCAL is whom it met. It goes on until interrupted (Ctrl-C), or for
--duration. What has been dropped before is shown by: orb8 drops`,
		Example: `  orb8 trace drops --duration 30s -o wide
  orb8 trace drops -n training --dst-port 443
  orb8 trace drops -o json | jq -c '[.reason, .packets, .local.pod]'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runTrace(cmd.Context(), &f) },
	}
	f.addDuration(cmd)
	f.output.add(cmd)
	f.filter.add(cmd)
	return cmd
}

func (f *traceFlags) addDuration(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&f.duration, "duration", 0, "stop after this `TIME`, as 30s or 5m; 0 goes on")
}

func (f *traceFlags) addSince(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.since, "since", "", "begin with what the agent remembers since this `TIME`: 10m (ago) or 2006-01-02T15:04:05Z")
}

func (a *app) runTrace(ctx context.Context, f *traceFlags) error {
	request, err := f.request(time.Now())
	if err != nil {
		return err
	}
	c, err := a.connect(ctx, f.filter.nodes())
	if err != nil {
		return err
	}
	defer c.Close()
	if f.gpus != nil {
		if err := a.missGPUs(ctx, c, f.gpus); err != nil {
			return err
		}
	}
	if f.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.duration)
		defer cancel()
	}
	return a.follow(ctx, c, f, request)
}

func (f *traceFlags) request(now time.Time) (*orb8v1.EventsRequest, error) {
	if f.duration < 0 {
		return nil, usagef("--duration %v: allowed are times from 0 on, as 30s or 5m", f.duration)
	}
	if f.interval < agentEpoch {
		return nil, usagef("--interval %v: allowed are times from 1s on, since agents count by the second", f.interval)
	}
	q := &orb8v1.EventsRequest{Include: f.filter.include, Exclude: f.filter.exclude, Kinds: f.kinds}
	if f.lookups != nil {
		f.lookups.ask(q)
	}
	if f.gpus != nil {
		q.Gpus = f.gpus.gpus
	}
	if f.since == "" {
		return q, nil
	}
	if ago, err := time.ParseDuration(f.since); err == nil && ago > 0 {
		q.SinceNs = now.Add(-ago).UnixNano()
		return q, nil
	}
	at, err := time.Parse(time.RFC3339Nano, f.since)
	if err != nil {
		return nil, usagef("--since %q: allowed are how long ago (90s, 10m) and a time (2006-01-02T15:04:05Z)", f.since)
	}
	q.SinceNs = at.UnixNano()
	return q, nil
}

// agentEpoch is how often an agent reports traffic: summing up over no more
// than that changes nothing.
const agentEpoch = time.Second

// message is one message of a stream, or how the stream ended.
type message struct {
	*orb8v1.EventsResponse
	err error
}

// follow prints events until ctx ends.
func (a *app) follow(ctx context.Context, c client.Observer, f *traceFlags, q *orb8v1.EventsRequest) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	messages := make(chan message, 256)
	go func() {
		defer close(messages)
		for m, err := range c.Events(ctx, q) {
			select {
			case messages <- message{m, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	var tick <-chan time.Time
	if f.interval > agentEpoch {
		ticker := time.NewTicker(f.interval)
		defer ticker.Stop()
		tick = ticker.C
	}
	p := a.newEventPrinter(f, tick != nil)
	if err := p.flush(); err != nil {
		return err
	}
	for {
		select {
		case m, ok := <-messages:
			if !ok || m.err != nil {
				p.flushSums()
				return cmp.Or(m.err, p.flush())
			}
			p.take(m.EventsResponse)
			if len(messages) > 0 {
				continue
			}
		case <-tick:
			p.flushSums()
		}
		if err := p.flush(); err != nil {
			return err
		}
	}
}

// eventTable shows events as rows.
type eventTable interface {
	Add(*orb8v1.Event)
	Flush(io.Writer) error
}

// eventPrinter shows events as a table or as JSON. Its errors come with flush.
type eventPrinter struct {
	app   *app
	table eventTable // nil: as JSON
	// nil: as they come.
	sums *sums
	// Nodes that are lost.
	lost map[string]bool
}

func (a *app) newEventPrinter(f *traceFlags, sum bool) *eventPrinter {
	p := &eventPrinter{app: a, lost: map[string]bool{}}
	if !f.output.json() {
		p.table = f.table(a.style(&f.output, a.screen()))
		// The header tells a quiet stream from one that is not there yet.
		_ = p.table.Flush(a.out)
	}
	if sum {
		p.sums = newSums(maxSums)
	}
	return p
}

func (f *traceFlags) table(style render.Style) eventTable {
	switch {
	case f.lookups != nil:
		return render.NewLookupTable(style)
	case f.gpus != nil:
		return render.NewGPUEventTable(style)
	case slices.Contains(f.kinds, orb8v1.EventKind_EVENT_KIND_DROP):
		return render.NewDropEventTable(style)
	}
	return render.NewEventTable(style)
}

func (p *eventPrinter) take(m *orb8v1.EventsResponse) {
	switch {
	case m.GetEvent() != nil:
		if !p.sums.take(m.GetEvent(), p.print) {
			p.print(m.GetEvent())
		}
	case m.GetLoss().GetCount() > 0:
		p.app.say(render.Loss(m.GetLoss()))
	case m.GetNode() != nil:
		p.hear(m.GetNode())
	}
}

// hear tells of a node that is lost, and that it is back.
func (p *eventPrinter) hear(n *orb8v1.NodeState) {
	missing := render.NodeState(n)
	switch {
	case missing != "":
		p.lost[n.GetNode()] = true
		p.app.say(missing)
	case p.lost[n.GetNode()]:
		delete(p.lost, n.GetNode())
		p.app.say("node " + n.GetNode() + " answers again")
	}
}

// print writes to the buffer, which keeps an error and gives it with flush. Row
// by row, so that the columns do not depend on how fast events come.
func (p *eventPrinter) print(e *orb8v1.Event) {
	if p.table != nil {
		p.table.Add(e)
		_ = p.table.Flush(p.app.out)
		return
	}
	switch {
	case e.GetDrop() != nil:
		_ = render.DropEventJSON(p.app.out, e)
	case e.GetDns() != nil:
		_ = render.LookupJSON(p.app.out, e)
	case e.GetGpu() != nil:
		_ = render.GPUEventJSON(p.app.out, e)
	default:
		_ = render.EventJSON(p.app.out, e)
	}
}

func (p *eventPrinter) flushSums() {
	if warning := p.sums.flush(p.print); warning != "" {
		p.app.say(warning)
	}
}

func (p *eventPrinter) flush() error { return p.app.out.Flush() }
