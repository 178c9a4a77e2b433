// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/observer"
	"github.com/orb8/orb8/internal/probe/flow"
)

// Agent is a tap that is attached, and what answers about it.
type Agent struct {
	cfg    Config
	tap    *flow.Tap
	node   *node
	grpc   *grpc.Server
	health *health.Server
}

// Open loads the tap for the agent's network namespace, after removing what a
// killed agent left there. Run attaches it.
func Open(cfg Config) (*Agent, error) {
	if err := cfg.finish(); err != nil {
		return nil, err
	}
	removed, err := flow.Cleanup(cfg.StateDir)
	for _, r := range removed {
		cfg.Log.Info("removed what an earlier agent left", "what", r)
	}
	if err != nil {
		cfg.Log.Warn("cannot look for what an earlier agent left", "error", err)
	}
	tap, err := flow.Open(flow.Config{
		TableEntries: cfg.TableEntries,
		Attach:       flow.Attach(cfg.Attach),
		StateDir:     cfg.StateDir,
		Log:          cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	a := &Agent{cfg: cfg, tap: tap}
	a.node = &node{
		pipeline: newPipeline(cfg, tap),
		instance: rand.Uint64(),
		notes:    []string{"loopback is not tapped"},
	}
	a.serve()
	return a, nil
}

// What clients can make an agent hold is bounded: connections a listener, and
// calls a connection.
const (
	maxConnections = 256
	maxStreams     = 16
)

// serve makes the gRPC server; listeners are Run's.
func (a *Agent) serve() {
	a.grpc = grpc.NewServer(
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxRecvMsgSize(1<<20),
		grpc.ConnectionTimeout(10*time.Second),
	)
	pb.RegisterObserverServer(a.grpc, observer.New(a.node, a.cfg.MaxQueryLimit))
	pb.RegisterOrbitAgentServiceServer(a.grpc, observer.NewOrbit(a.node, a.cfg.MaxQueryLimit))
	a.health = health.NewServer()
	for _, service := range []string{pb.Observer_ServiceDesc.ServiceName, pb.OrbitAgentService_ServiceDesc.ServiceName} {
		a.health.SetServingStatus(service, healthpb.HealthCheckResponse_SERVING)
	}
	healthpb.RegisterHealthServer(a.grpc, a.health)
	reflection.Register(a.grpc)
}

// Run counts and answers until ctx ends, then ends open calls within the
// shutdown timeout and detaches.
func (a *Agent) Run(ctx context.Context) error {
	l, err := a.listen()
	if err == nil {
		if err = a.tap.Sync(); err == nil {
			l.announce(a.cfg.Log)
			return a.run(ctx, l)
		}
		l.close()
	}
	return errors.Join(err, a.tap.Close())
}

func (a *Agent) run(ctx context.Context, l *listeners) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.node.Run(ctx) })
	g.Go(func() error { return a.tap.Follow(ctx) })
	for _, lis := range l.grpc {
		g.Go(func() error { return a.grpc.Serve(netutil.LimitListener(lis, maxConnections)) })
	}
	if l.http != nil {
		g.Go(func() error { return a.serveHTTP(ctx, l.http) })
	}
	g.Go(func() error {
		<-ctx.Done()
		a.stop()
		return nil
	})
	err := g.Wait()
	if e := a.tap.Close(); e != nil {
		err = errors.Join(err, fmt.Errorf("detach: %w", e))
	}
	return err
}

// stop lets open calls end, and cuts them off when the time is up.
func (a *Agent) stop() {
	a.health.Shutdown()
	cut := time.AfterFunc(a.cfg.ShutdownTimeout, a.grpc.Stop)
	defer cut.Stop()
	a.grpc.GracefulStop()
}
