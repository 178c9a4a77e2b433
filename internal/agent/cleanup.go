// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/orb8/orb8/internal/netns"
	"github.com/orb8/orb8/internal/probe/flow"
)

// cleanup removes what killed agents left, in the own network namespace and,
// unless only that is wanted, in all others, and tells what it removed.
func cleanup(ctx context.Context, cfg *Config) ([]string, error) {
	left := flow.FindLeftovers(cfg.StateDir)
	removed, err := left.Clean()
	if cfg.Netns == netnsOwn {
		return removed, err
	}
	own, e := netns.Own()
	err = errors.Join(err, e)
	var found []netns.Namespace
	w := netns.New(netns.Config{Found: func(n netns.Namespace) { found = append(found, n) }, Log: cfg.Log})
	if e := sweep(ctx, w); e != nil {
		return removed, errors.Join(err, e)
	}
	for _, n := range found {
		if n.Inode == own {
			continue
		}
		e := w.Enter(n.Inode, func() error {
			did, err := left.Clean()
			for _, d := range did {
				removed = append(removed, label(n)+" "+d)
			}
			return err
		})
		if e != nil && !errors.Is(e, netns.ErrGone) {
			err = errors.Join(err, fmt.Errorf("clean up %s: %w", label(n), e))
		}
	}
	if err == nil {
		err = left.Forget()
	}
	return removed, err
}

// sweep lets the watcher look once.
func sweep(ctx context.Context, w *netns.Watcher) error {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	defer cancel()
	for w.Stats().Sweeps == 0 {
		select {
		case err := <-done:
			return err
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	return <-done
}

func label(n netns.Namespace) string {
	if n.Name != "" {
		return n.Name
	}
	return fmt.Sprintf("namespace %d", n.Inode)
}
