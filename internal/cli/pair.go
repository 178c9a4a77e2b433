// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/client"
	"github.com/orb8/orb8/internal/pair"
	"github.com/orb8/orb8/internal/render"
)

const (
	// pairRecords bounds what is compared: all ends must be in one answer.
	pairRecords = 100_000
	// pairPause is how long what was sent has time to arrive. An agent's answer
	// may be a tenth of a second old.
	pairPause = 300 * time.Millisecond
)

// checkPair refuses what leaves one of the ends out.
func (f *flowsFlags) checkPair() error {
	in, ex := f.filter.include, f.filter.exclude
	switch {
	case !f.pair && f.sort.value == "lost":
		return usagef("--sort lost is for --pair: one end does not know what was lost")
	case !f.pair:
		return nil
	case f.watch:
		return usagef("--pair and --watch do not go together")
	case len(in.GetNodes())+len(ex.GetNodes()) > 0:
		return usagef("--pair needs both ends: choose by --from-node or --to-node instead of --node")
	case len(in.GetDirections())+len(ex.GetDirections()) > 0:
		return usagef("--pair needs both ends: --direction leaves one of them out")
	}
	return nil
}

// showPairs puts the question twice: see package pair.
func (a *app) showPairs(ctx context.Context, c client.Observer, f *flowsFlags) error {
	ask := *f
	ask.limit = pairRecords
	ends := pair.New()
	first, err := ask.ask(ctx, c, func(r *orb8v1.FlowRecord) error { ends.Before(r); return nil })
	if err != nil {
		return err
	}
	select {
	case <-time.After(pairPause):
	case <-ctx.Done():
		return client.ErrInterrupted
	}
	got, err := ask.ask(ctx, c, func(r *orb8v1.FlowRecord) error { ends.Add(r); return nil })
	if err != nil {
		return err
	}
	pairs := ends.Pairs(got.summary.GetStartNs())
	if stale(first.summary, got.summary) {
		for i := range pairs {
			pairs[i].LostThere, pairs[i].LostBack = nil, nil
		}
		got.warnings = append(got.warnings, "what was lost is not known: an agent that is beyond its ORB8_MAX_CPU answered with what it knew before; ask again")
	}
	if f.sort.value == "lost" {
		slices.SortStableFunc(pairs, func(a, b pair.Pair) int { return cmp.Compare(b.Lost(), a.Lost()) })
	}
	if err := a.writePairs(f, pairs[:min(len(pairs), int(f.limit))]); err != nil {
		return err
	}
	for _, line := range append(pairLines(f, pairs, got), got.warnings...) {
		a.say(line)
	}
	return nil
}

// stale tells whether the second answer is of the time of the first.
func stale(first, second *orb8v1.Summary) bool {
	return second.GetEndNs()-first.GetEndNs() < int64(pairPause/2)
}

func (a *app) writePairs(f *flowsFlags, pairs []pair.Pair) error {
	table := render.NewPairTable(a.style(&f.output, a.screen()))
	for i := range pairs {
		if !f.output.json() {
			table.Add(&pairs[i])
		} else if err := render.PairJSON(a.out, &pairs[i]); err != nil {
			return err
		}
	}
	if len(pairs) > 0 && !f.output.json() {
		if err := table.Flush(a.out); err != nil {
			return err
		}
	}
	return a.out.Flush()
}

// pairLines is what the answer says about itself.
func pairLines(f *flowsFlags, pairs []pair.Pair, got *answer) (lines []string) {
	both := 0
	for i := range pairs {
		if pairs[i].From != nil && pairs[i].To != nil {
			both++
		}
	}
	first := fmt.Sprintf("%d connections, of %d both ends are tapped", len(pairs), both)
	switch {
	case len(pairs) == 0:
		first = fmt.Sprintf("no flows match (of %d)", got.summary.GetKnownFlows())
	case len(pairs) > int(f.limit):
		first += fmt.Sprintf("; %d shown, all: --limit %d", f.limit, len(pairs))
	}
	lines = append(lines, first)
	if matched := got.summary.GetMatchedFlows(); uint64(got.shown) < matched {
		lines = append(lines, fmt.Sprintf("%d of %d flows were compared: an end that is missing may be among the rest; narrow the filter, or raise the agents' ORB8_MAX_QUERY_LIMIT", got.shown, matched))
	}
	return lines
}
