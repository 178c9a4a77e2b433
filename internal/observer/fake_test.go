// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/filter"
	"github.com/orb8/orb8/internal/store"
	"github.com/orb8/orb8/internal/wire"
)

// fakeNode has a real table and feed, and no kernel.
type fakeNode struct {
	// Stands in for the one goroutine that owns the feed.
	mu    sync.Mutex
	flows *store.Flows
	feed  *store.Feed
	asked store.Query
	// When a follower has come and gone.
	followed, left chan struct{}
	pods           []wire.Pod

	drops *store.Drops

	lookups      Lookups
	askedLookups []event.Role

	sockets      Sockets
	askedSockets SocketsQuery

	gpus   event.GPUView
	driver func(release bool) (bool, error)

	captured CaptureWish
	capture  func(context.Context, CaptureReader) (CaptureEnd, error)
}

func newFakeNode() *fakeNode {
	return &fakeNode{
		flows:    store.NewFlows(store.Limits{}),
		feed:     store.NewFeed(store.FeedConfig{Queue: 1}),
		followed: make(chan struct{}, 10),
		left:     make(chan struct{}, 10),
	}
}

func (n *fakeNode) Source() wire.Source {
	return wire.Source{Node: "n1", Instance: 42, Interfaces: map[event.Iface]wire.Place{{Netns: 7, Index: 2}: {Name: "eth0", Namespace: "blue"}}}
}

func (n *fakeNode) Flows(_ context.Context, q store.Query) (Snapshot, error) {
	n.asked = q
	audit := store.InterfaceAudit{}
	audit.Egress.UnaccountedBytes, audit.Egress.UnaccountedPackets = 77, 1
	audit.Ingress.UnaccountedBytes = -5
	audit.Ingress.Overflow = event.Counter{Bytes: 9, Packets: 1}
	return Snapshot{
		Answer:     n.flows.Query(q),
		Known:      n.flows.Stats().Flows,
		Interfaces: []store.InterfaceAudit{audit},
		Start:      time.Unix(100, 0), End: time.Unix(200, 0),
		Losses: []event.Loss{{Stage: "table_full", Count: 1, Hint: "h"}},
	}, nil
}

func (n *fakeNode) Status(context.Context) (Status, error) {
	return Status{Version: "v9", Healthy: false, HealthMessage: "m", Uptime: 90 * time.Second, Table: n.flows.Stats(), Pods: len(n.pods), Losses: []event.Loss{{Stage: "a", Count: 2}, {Stage: "b", Count: 3}}}, nil
}

func (n *fakeNode) Pods(context.Context) (Pods, error) {
	return Pods{Pods: n.pods, Losses: []event.Loss{{Stage: "a", Count: 2}}}, nil
}

func (n *fakeNode) Sockets(_ context.Context, q SocketsQuery) (Sockets, error) {
	n.askedSockets = q
	return n.sockets, nil
}

func (n *fakeNode) Drops(_ context.Context, f filter.Filter, limit int) (Drops, error) {
	if n.drops == nil {
		return Drops{}, nil
	}
	return Drops{DropAnswer: n.drops.Query(&f, limit), Start: time.Unix(100, 0), End: time.Unix(200, 0), Losses: []event.Loss{{Stage: "drops", Count: 2}}}, nil
}

func (n *fakeNode) Dns(_ context.Context, _ filter.Filter, roles []event.Role, limit int) (Lookups, error) {
	n.askedLookups = roles
	out := n.lookups
	out.Rows = out.Rows[:min(limit, len(out.Rows))]
	return out, nil
}

func (n *fakeNode) GPUs(context.Context) (*event.GPUView, error) { return &n.gpus, nil }

func (n *fakeNode) GPUDriver(_ context.Context, release bool) (bool, error) { return n.driver(release) }

func (n *fakeNode) Follow(_ context.Context, w store.Wish) (*store.Follower, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fo, err := n.feed.Follow(w)
	n.followed <- struct{}{}
	return fo, err
}

func (n *fakeNode) Leave(fo *store.Follower) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.feed.Leave(fo)
	n.left <- struct{}{}
}

// Capture is in capture_test.go.
func (n *fakeNode) Capture(ctx context.Context, w CaptureWish, to CaptureReader) (CaptureEnd, error) {
	n.captured = w
	return n.capture(ctx, to)
}

func (n *fakeNode) publish(h store.Happened, e *event.Event, times int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for range times {
		n.feed.Publish(h, e)
	}
	n.feed.Flush()
}

func (n *fakeNode) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.feed.Close()
}

func (n *fakeNode) apply(d *event.Delta) *event.Flow {
	f, _, _ := n.flows.Apply(d)
	f.Local, f.Remote = &event.Identity{Class: event.ClassHost, Node: "n1"}, &event.Identity{Class: event.ClassExternal}
	return f
}

// delta is a connection that was opened here: 3 packets out, 2 in.
func delta(port uint16) *event.Delta {
	d := &event.Delta{
		Conn: event.Conn{
			Local:     event.IPFrom(netip.MustParseAddr("10.0.0.1")),
			Remote:    event.IPFrom(netip.MustParseAddr("10.0.0.2")),
			LocalPort: port, RemotePort: 443, Netns: 7, Ifindex: 2, Protocol: event.TCP,
		},
		First: 1000, Last: 2000, FirstTx: true, HasSocket: true,
		Traffic: event.Traffic{TxBytes: 300, TxPackets: 3, RxBytes: 2000, RxPackets: 2},
		Cookie:  5, Cgroup: 6,
	}
	d.Health = event.Health{RTT: 150, MinRTT: 90, Retransmits: 1, FlagsTx: event.FlagSYN | event.FlagACK, FlagsRx: event.FlagSYN | event.FlagACK}
	return d
}

// dial serves both services over n in memory.
func dial(t *testing.T, n Node) *grpc.ClientConn {
	t.Helper()
	srv := grpc.NewServer()
	pb.RegisterObserverServer(srv, New(n, 50, []string{"app", "tier"}))
	pb.RegisterOrbitAgentServiceServer(srv, NewOrbit(n, 50))
	lis := bufconn.Listen(1 << 20)
	go func() { _ = srv.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:///fake",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		srv.Stop()
	})
	return conn
}
