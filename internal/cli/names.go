// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

const (
	// completionTime bounds what a shell waits for.
	completionTime = 3 * time.Second
	// completionPods is how many pods are looked at.
	completionPods = 10_000
)

// names are the flags whose values a shell completes from what the agents know.
func names() map[string]func(*orb8v1.PodRecord) []string {
	return map[string]func(*orb8v1.PodRecord) []string{
		"namespace": func(p *orb8v1.PodRecord) []string { return []string{p.GetNamespace()} },
		"pod":       func(p *orb8v1.PodRecord) []string { return []string{p.GetName()} },
		"workload":  func(p *orb8v1.PodRecord) []string { return []string{p.GetWorkload().GetName()} },
		"node":      func(p *orb8v1.PodRecord) []string { return []string{p.GetNode()} },
		"label": func(p *orb8v1.PodRecord) (list []string) {
			for k, v := range p.GetLabels() {
				list = append(list, k+"="+v)
			}
			return list
		},
	}
}

// completeNames completes the values of a command's filters and of all below.
func (a *app) completeNames(cmd *cobra.Command) {
	for _, below := range cmd.Commands() {
		a.completeNames(below)
	}
	for name, of := range names() {
		for _, prefix := range []string{"", "from-", "to-", "not-", "not-from-", "not-to-"} {
			if cmd.Flags().Lookup(prefix+name) != nil {
				// Fails only for a flag that does not exist.
				_ = cmd.RegisterFlagCompletionFunc(prefix+name, func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
					return a.known(cmd.Context(), of, typed), cobra.ShellCompDirectiveNoFileComp
				})
			}
		}
	}
}

// known gives the names of pods that agents know and that go on from what is
// typed, the last of a list. Nobody is told what went wrong: a shell is in the
// middle of a line.
func (a *app) known(ctx context.Context, of func(*orb8v1.PodRecord) []string, typed string) (found []string) {
	quiet := *a
	quiet.cfg.Stderr = io.Discard
	quiet.cfg.MayStart = false
	if quiet.address.check() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	c, err := quiet.connect(ctx, nil)
	if err != nil {
		return nil
	}
	defer c.Close()
	before, last := "", typed
	if i := strings.LastIndex(typed, ","); i >= 0 {
		before, last = typed[:i+1], typed[i+1:]
	}
	for m := range c.Pods(ctx, &orb8v1.PodsRequest{Limit: completionPods}) {
		for _, name := range of(m.GetPod()) {
			// What a shell would not take as a word is not offered.
			if name != "" && strings.HasPrefix(name, last) && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
				found = append(found, before+name)
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}
