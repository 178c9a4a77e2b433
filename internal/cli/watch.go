// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/client"
	"github.com/orb8/orb8/internal/render"
)

// What a terminal understands.
const (
	clearScreen   = "\x1b[2J"
	cursorHome    = "\x1b[H"
	clearLineEnd  = "\x1b[K"
	clearToBottom = "\x1b[J"
)

// watched is one connection from one place of observation.
type watched struct {
	id, netns uint64
	node      string
	ifindex   uint32
	// Loopback shows a connection from both ends.
	ip   string
	port uint32
}

func watchKey(f *orb8v1.FlowRecord) watched {
	return watched{
		f.GetConnectionId(), f.GetTap().GetNetns(), f.GetNode(), f.GetTap().GetIfindex(),
		f.GetLocal().GetIp(), f.GetLocal().GetPort(),
	}
}

// rates remembers one answer, to compare the next one with it.
type rates struct {
	at      time.Time
	totals  map[watched]*orb8v1.Traffic
	current map[watched]*orb8v1.Traffic
}

// of is the rate of a connection since the answer before.
func (r *rates) of(f *orb8v1.FlowRecord, elapsed time.Duration) render.Rate {
	key := watchKey(f)
	r.current[key] = f.GetTotal()
	before, ok := r.totals[key]
	if !ok {
		// Not in the answer before: known only if it is younger than that.
		if r.at.IsZero() || f.GetFirstSeenNs() < r.at.UnixNano() {
			return render.Rate{}
		}
		before = &orb8v1.Traffic{}
	}
	return render.PerSecond(before, f.GetTotal(), elapsed)
}

// watchFlows asks until interrupted, which is its normal end.
func (a *app) watchFlows(ctx context.Context, c client.Observer, f *flowsFlags) error {
	tick := time.NewTicker(f.interval)
	defer tick.Stop()
	before := &rates{}
	for round := 0; ; round++ {
		err := a.watchOnce(ctx, c, f, watchRound{round, before})
		if errors.Is(err, client.ErrInterrupted) {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

type watchRound struct {
	number int
	before *rates
}

func (a *app) watchOnce(ctx context.Context, c client.Observer, f *flowsFlags, r watchRound) error {
	screen := a.screen()
	table := render.NewFlowTable(a.style(&f.output, screen), true)
	r.before.current = map[watched]*orb8v1.Traffic{}
	asked := time.Now()
	elapsed := asked.Sub(r.before.at)
	got, err := f.ask(ctx, c, func(flow *orb8v1.FlowRecord) error {
		if f.output.json() {
			return render.FlowJSON(a.out, flow)
		}
		table.Add(flow, r.before.of(flow, elapsed))
		return nil
	})
	if err != nil {
		return err
	}
	r.before.at, r.before.totals = asked, r.before.current
	lines := got.lines(f)
	var page bytes.Buffer
	if got.shown > 0 && !f.output.json() {
		if err := table.Flush(&page); err != nil {
			return err
		}
	}
	if screen.terminal && !f.output.json() {
		return a.redraw(screen, &page, lines, r.number == 0)
	}
	if r.number > 0 && page.Len() > 0 {
		fmt.Fprintln(a.out)
	}
	a.out.Write(page.Bytes())
	// The summary changes with each answer; what is missing must be seen.
	for _, line := range got.warnings {
		a.say(line)
	}
	return a.out.Flush()
}

// redraw writes a page over the one before without flicker. What has no room
// is left out, the lines about the answer last.
func (a *app) redraw(s screen, page *bytes.Buffer, notes []string, first bool) error {
	if first {
		a.out.WriteString(clearScreen)
	}
	a.out.WriteString(cursorHome)
	room := max(s.height-1-len(notes), 2)
	for ; room > 0 && page.Len() > 0; room-- {
		line, _ := page.ReadString('\n')
		a.out.WriteString(line[:len(line)-1] + clearLineEnd + "\r\n")
	}
	for _, note := range notes {
		a.out.WriteString(render.Fit(note, s.width) + clearLineEnd + "\r\n")
	}
	a.out.WriteString(clearToBottom)
	return a.out.Flush()
}
