// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/client"
)

// gpuTraceFlags are which events orb8 trace gpu shows. They are evaluated where the
// data is.
type gpuTraceFlags struct {
	include, exclude orb8v1.EndFilter
	gpus, kinds      []string
}

func (a *app) traceGPU() *cobra.Command {
	f := traceFlags{interval: agentEpoch, gpus: &gpuTraceFlags{}}
	cmd := &cobra.Command{
		Use:   "gpu",
		Short: "What GPUs and who holds them do: samples, Xids, throttling, findings",
		Long: `trace gpu prints a line each second for each holder of GPUs (sample), and one when
the driver tells of an error (xid), when clocks begin or cease to be lowered (throttle),
and when a GPU is found to do no work, or does work again (finding). Numbers are as in
orb8 gpu. Samples are live only: --since begins with what the agent remembers of the
others. It goes on until interrupted (Ctrl-C), or for --duration.`,
		Example: `  orb8 trace gpu -n training --duration 30s
  orb8 trace gpu --kind xid,throttle,finding --since 1h
  orb8 trace gpu --gpu 0 --node gpu-1 -o wide
  orb8 trace gpu --kind finding -o json | jq -r '.finding.text'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.kinds = f.gpus.events()
			f.filter = filterFlags{podsFilter(&f.gpus.include), podsFilter(&f.gpus.exclude)}
			return a.runTrace(cmd.Context(), &f)
		},
	}
	f.addDuration(cmd)
	f.addSince(cmd)
	f.output.add(cmd)
	addFilters(cmd, f.gpus.kindFilters(), nil)
	addFilters(cmd, gpuFilters(&f.gpus.gpus), nil)
	a.completeGPUs(cmd)
	addFilters(cmd, podFilters(&f.gpus.include), podFilters(&f.gpus.exclude))
	return cmd
}

// gpuEvents are the kinds, in the order of their numbers.
func gpuEvents() []string { return []string{"sample", "xid", "throttle", "finding"} }

func (f *gpuTraceFlags) kindFilters() []filterFlag {
	return []filterFlag{{name: "kind", help: "events of these `KIND`s: " + strings.Join(gpuEvents(), ", "), list: texts(&f.kinds, parseGPUEvent), allowed: gpuEvents()}}
}

func parseGPUEvent(s string) (string, error) {
	s = strings.ToLower(s)
	if !slices.Contains(gpuEvents(), s) {
		return "", fmt.Errorf("not a kind of event%s: allowed are %s", meant(s, gpuEvents()), strings.Join(gpuEvents(), ", "))
	}
	return s, nil
}

// events are those that were asked for, or all.
func (f *gpuTraceFlags) events() (kinds []orb8v1.EventKind) {
	for i, name := range gpuEvents() {
		if len(f.kinds) == 0 || slices.Contains(f.kinds, name) {
			kinds = append(kinds, orb8v1.EventKind_EVENT_KIND_GPU_SAMPLE+orb8v1.EventKind(i))
		}
	}
	return kinds
}

// missGPUs says which devices there is nothing to wait for of, as things are.
func (a *app) missGPUs(ctx context.Context, c client.Observer, f *gpuTraceFlags) error {
	none, err := unmet(ctx, c, devices(&f.include, &f.exclude, 1), f.gpus)
	for _, gpu := range none {
		a.say(noSuchGPU(gpu))
	}
	return err
}
