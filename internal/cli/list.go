// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"io"
	"iter"

	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/client"
)

// listFlags are the question of a command that lists something of pods.
type listFlags struct {
	include, exclude orb8v1.EndFilter
	output           outputFlag
	limit            uint32
}

// add adds the flags to a command; of is what it lists.
func (f *listFlags) add(cmd *cobra.Command, limit uint32, of string) {
	f.output.add(cmd)
	cmd.Flags().Uint32Var(&f.limit, "limit", limit, "show at most this `NUMBER`"+of)
	addFilters(cmd, podFilters(&f.include), podFilters(&f.exclude))
}

// ask connects to whom the question is for and has the answer shown.
func (a *app) ask(ctx context.Context, f *listFlags, show func(client.Observer) error) error {
	if f.limit == 0 {
		return usagef("--limit 0: allowed are numbers from 1 on")
	}
	c, err := a.connect(ctx, &nodeChoice{f.include.GetNodes(), f.exclude.GetNodes()})
	if err != nil {
		return err
	}
	defer c.Close()
	return show(c)
}

// listed is how the messages of an answer are read and shown. M is a message and
// R a record.
type listed[M, R any] struct {
	// Not ok: the message is of another kind.
	record  func(M) (r R, ok bool)
	node    func(M) *orb8v1.NodeState
	summary func(M) (nodes []*orb8v1.NodeState, losses []*orb8v1.Loss, ok bool)
	add     func(R)
	json    func(io.Writer, R) error
	flush   func(io.Writer) error
	asJSON  bool
}

// showList shows an answer, and tells what there is to say of it.
func showList[M, R any](a *app, got *answer, messages iter.Seq2[M, error], l listed[M, R]) error {
	whole := false
	for m, err := range messages {
		if err != nil {
			return err
		}
		if r, ok := l.record(m); ok {
			got.shown++
			if !l.asJSON {
				l.add(r)
			} else if err := l.json(a.out, r); err != nil {
				return err
			}
		}
		if n := l.node(m); n != nil {
			got.hear(n)
		}
		if nodes, losses, ok := l.summary(m); ok {
			whole = true
			got.hearAll(nodes, losses)
		}
	}
	if err := got.check(whole); err != nil {
		return err
	}
	if got.shown > 0 && !l.asJSON {
		if err := l.flush(a.out); err != nil {
			return err
		}
	}
	return a.out.Flush()
}
