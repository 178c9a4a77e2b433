// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/client"
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

// known gives the names of pods that agents know and that go on from what is typed.
func (a *app) known(ctx context.Context, of func(*orb8v1.PodRecord) []string, typed string) []string {
	return a.fromAgents(ctx, typed, func(ctx context.Context, c client.Observer, offer func(...string)) {
		for m := range c.Pods(ctx, &orb8v1.PodsRequest{Limit: completionPods}) {
			offer(of(m.GetPod())...)
		}
	})
}

// completeGPUs completes devices: indexes, then UUIDs.
func (a *app) completeGPUs(cmd *cobra.Command) {
	// Fails only for a flag that does not exist.
	_ = cmd.RegisterFlagCompletionFunc("gpu", func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return a.fromAgents(cmd.Context(), typed, func(ctx context.Context, c client.Observer, offer func(...string)) {
			q := &orb8v1.GpusRequest{Limit: completionPods, Kinds: []orb8v1.GpuRecordKind{orb8v1.GpuRecordKind_GPU_RECORD_KIND_DEVICE}}
			for m := range c.Gpus(ctx, q) {
				if d := m.GetRecord().GetDevice(); d != nil {
					offer(strconv.FormatUint(uint64(d.GetIndex()), 10), d.GetUuid())
				}
			}
		}), cobra.ShellCompDirectiveNoFileComp
	})
}

// fromAgents gives the names that agents offer and that go on from what is typed, the
// last of a list. Nobody is told what went wrong: a shell is in the middle of a line.
func (a *app) fromAgents(ctx context.Context, typed string, ask func(ctx context.Context, c client.Observer, offer func(...string))) (found []string) {
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
	ask(ctx, c, func(names ...string) {
		for _, name := range names {
			// What a shell would not take as a word is not offered.
			if name != "" && strings.HasPrefix(name, last) && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
				found = append(found, before+name)
			}
		}
	})
	slices.Sort(found)
	return slices.Compact(found)
}
