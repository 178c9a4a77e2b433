// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"os"

	"github.com/orb8/orb8/internal/export/otel"
	"github.com/orb8/orb8/internal/store"
)

// openOTel makes what sends to an OpenTelemetry receiver; nil where the variables
// name none.
func (a *Agent) openOTel() (err error) {
	if !a.cfg.OTel {
		return nil
	}
	host, err := os.Hostname()
	if err != nil {
		host = a.cfg.Node
	}
	a.otel, err = otel.Open(context.Background(), otel.Config{
		Getenv: os.Getenv,
		Flows:  otel.Flows(a.cfg.OTelFlows), Quiet: a.cfg.FlowTimeout, MaxFlows: a.cfg.MaxFlows,
		Metrics: a.node.Metrics,
		Version: a.cfg.Version, Host: host, Node: a.cfg.Node, Kubernetes: a.kube != nil,
		Log: a.cfg.Log, Linger: a.cfg.ShutdownTimeout / 2,
	})
	if err == nil && a.otel != nil {
		a.cfg.Log.Info("sends to OpenTelemetry", a.otel.Targets()...)
	}
	return err
}

// export follows the feed until it ends.
func (a *Agent) export(ctx context.Context) error {
	kinds := a.otel.Kinds()
	if len(kinds) == 0 {
		return nil
	}
	fo, err := a.node.Follow(ctx, store.Wish{Kinds: kinds})
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("OpenTelemetry: %w", err)
	}
	a.otel.Consume(fo.Events())
	return nil
}
