// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/export/otel"
	"github.com/orb8/orb8/internal/netstat"
	"github.com/orb8/orb8/internal/observer"
	"github.com/orb8/orb8/internal/probe/flow"
	"github.com/orb8/orb8/internal/probe/stats"
	"github.com/orb8/orb8/internal/store"
)

// Agent is a tap that is attached, and what answers about it.
type Agent struct {
	cfg    Config
	tap    *flow.Tap
	spaces *namespaces // nil when only the own one is tapped
	who    *identity
	kube   *kubernetes // nil outside of Kubernetes
	drops  *drops      // nil where the kernel does not tell
	// What the kernel counts of them.
	sockets *netstat.Sampler
	// nil where the kernel does not tell of connects that fail.
	connects *connects
	lookups  *lookups
	gpus     *gpus // nil where they are not looked at
	programs *stats.Stats
	otel     *otel.Exporter // nil where there is no receiver
	// Found at the start.
	problems []string
	node     *node
	grpc     *grpc.Server
	health   *health.Server
}

// Open loads the tap. Run attaches it, after removing what a killed agent left.
func Open(cfg Config) (*Agent, error) {
	if err := cfg.finish(); err != nil {
		return nil, err
	}
	if err := checkDescriptors(); err != nil {
		return nil, err
	}
	a := &Agent{cfg: cfg}
	if err := a.open(); err != nil {
		return nil, errors.Join(explainDescriptors(err), a.close())
	}
	flows := store.NewFlows(store.Limits{Flows: cfg.MaxFlows, Timeout: cfg.FlowTimeout})
	line := newPipeline(cfg, a.tap, a.enricher(flows), flows)
	line.drops = a.drops
	if kernel := a.tap.KernelMemory() + a.drops.memory(); line.restraint.begin(kernel) {
		cfg.Log.Warn("the budget of memory is less than the kernel's maps take: raise ORB8_MAX_MEMORY, or lower ORB8_TABLE_ENTRIES",
			"budget", sizeText(cfg.MaxMemory), "maps", sizeText(kernel))
	}
	line.connects, line.lookups, line.gpus, line.boxes = a.connects, a.lookups, a.gpus, a.kube.sandboxes()
	if a.kube != nil {
		line.inbox, line.cluster = &a.kube.inbox, a.kube.names
	}
	a.node = &node{pipeline: line, instance: rand.Uint64(), kube: a.kube, sockets: a.sockets, notes: a.notes, lost: a.lost}
	a.node.captures.enter = a.enterer()
	a.node.metrics.programs = a.programs
	if err := a.openOTel(); err != nil {
		return nil, errors.Join(err, a.close())
	}
	a.serve()
	return a, nil
}

// open loads what watches the kernel.
func (a *Agent) open() (err error) {
	ports, err := parsePorts(a.cfg.DNSPorts)
	if err != nil {
		return err
	}
	a.who = openIdentity(&a.cfg)
	if a.kube, err = openKubernetes(&a.cfg, a.who.groups); err != nil {
		return err
	}
	tap := flow.Config{
		TableEntries: a.cfg.TableEntries,
		Attach:       flow.Attach(a.cfg.Attach),
		StateDir:     a.cfg.StateDir,
		Loopback:     a.cfg.Loopback,
		DNSPorts:     ports,
		Log:          a.cfg.Log,
	}
	if a.cfg.Netns != netnsOwn {
		if a.spaces, err = newNamespaces(&a.cfg, a.kube.sandboxes()); err != nil {
			return err
		}
		a.spaces.follow(&tap)
		if a.cfg.Netns == netnsEnds {
			tap.FromOutside = a.spaces.watcher.Open
		}
	}
	if a.openStats(); a.programs != nil {
		tap.Loaded = a.programs.Add
	}
	if a.tap, err = flow.Open(tap); err != nil {
		return err
	}
	if a.lookups, err = newLookups(&a.cfg, a.tap); err != nil {
		return err
	}
	if a.spaces != nil {
		a.spaces.lookups = a.lookups
	}
	var note string
	if a.connects, note = openConnects(a.cfg.Log); note != "" {
		a.problems = append(a.problems, note)
	}
	entered := a.spaces
	if a.cfg.Netns == netnsEnds {
		entered = nil
	}
	a.who.openSockets(&a.cfg, entered, a.kube.sandboxes())
	if err = a.openSockets(); err != nil {
		return err
	}
	if a.spaces != nil {
		a.spaces.open(a.tap, a.who.groups)
	}
	a.drops = a.openDrops()
	a.watchPrograms()
	a.gpus = a.openGPUs()
	return nil
}

func (a *Agent) close() (err error) {
	if a.spaces != nil {
		err = a.spaces.Close()
	}
	if a.who != nil {
		err = errors.Join(err, a.who.Close())
	}
	err = errors.Join(err, a.kube.Close(), a.connects.Close(), a.drops.Close(), a.programs.Close(), a.gpus.Close())
	a.otel.Close()
	if a.tap != nil {
		if e := a.tap.Close(); e != nil {
			err = errors.Join(err, fmt.Errorf("detach: %w", e))
		}
	}
	return err
}

func (a *Agent) lost() []event.Loss {
	losses := append(a.kube.losses(), a.sockets.Losses()...)
	losses = append(losses, a.connects.losses()...)
	losses = append(losses, a.lookups.losses()...)
	losses = append(losses, a.otel.Losses()...)
	if a.spaces != nil {
		losses = append(losses, a.spaces.losses()...)
	}
	return losses
}

// notes is what is off, or cannot be done.
func (a *Agent) notes() []string {
	notes := append(slices.Clone(a.problems), a.who.problems()...)
	notes = append(notes, a.kube.problems()...)
	notes = append(notes, a.gpus.problems()...)
	notes = append(notes, a.otel.Notes()...)
	if a.cfg.DNSPorts == noPorts {
		notes = append(notes, "what the DNS is asked is not read (ORB8_DNS_PORTS)")
	}
	switch {
	case !a.cfg.Loopback && a.cfg.DNSPorts == noPorts:
		notes = append(notes, "loopback is not tapped (ORB8_LOOPBACK)")
	case !a.cfg.Loopback:
		notes = append(notes, "loopback is not tapped, only what the DNS is asked there is read (ORB8_LOOPBACK)")
	}
	if a.spaces == nil {
		return append(notes, "other network namespaces are not tapped (ORB8_NETNS)")
	}
	return append(append(notes, a.tap.Notes()...), a.spaces.problems()...)
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
	pb.RegisterObserverServer(a.grpc, observer.New(a.node, a.cfg.MaxQueryLimit, a.cfg.podLabels()))
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
	if ctx.Err() != nil { // it ended while the tap was loaded
		return a.close()
	}
	l, err := a.listen()
	if err == nil {
		if err = a.tap.Sync(); err == nil {
			l.announce(a.cfg.Log)
			return a.run(ctx, l)
		}
		l.close()
	}
	return errors.Join(explainDescriptors(err), a.close())
}

func (a *Agent) run(ctx context.Context, l *listeners) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.node.Run(ctx) })
	g.Go(func() error { return a.tap.Follow(ctx) })
	g.Go(func() error { return a.who.Run(ctx) })
	g.Go(func() error { return a.sockets.Run(ctx) })
	g.Go(func() error { return a.lookups.Run(ctx) })
	g.Go(func() error { return a.gpus.Run(ctx) })
	g.Go(func() error { return a.export(ctx) })
	g.Go(func() error { return a.programs.Run(ctx) })
	if a.spaces != nil {
		g.Go(func() error { return a.spaces.Run(ctx) })
	}
	if a.kube != nil {
		g.Go(func() error { return a.kube.Run(ctx) })
	}
	for _, lis := range l.grpc {
		g.Go(func() error {
			err := a.grpc.Serve(netutil.LimitListener(lis, maxConnections))
			if errors.Is(err, grpc.ErrServerStopped) { // before it began to serve
				return nil
			}
			return err
		})
	}
	if l.http != nil {
		g.Go(func() error { return a.serveHTTP(ctx, l.http) })
	}
	g.Go(func() error {
		<-ctx.Done()
		a.stop()
		return nil
	})
	return errors.Join(explainDescriptors(g.Wait()), a.close())
}

// stop lets open calls end, and cuts them off when the time is up.
func (a *Agent) stop() {
	a.health.Shutdown()
	cut := time.AfterFunc(a.cfg.ShutdownTimeout, a.grpc.Stop)
	defer cut.Stop()
	a.grpc.GracefulStop()
}
