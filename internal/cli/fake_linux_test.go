// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// fake is an Observer with fixed answers.
type fake struct {
	orb8v1.UnimplementedObserverServer
	status  *orb8v1.StatusResponse
	flows   []*orb8v1.FlowsResponse
	summary *orb8v1.Summary
	events  []*orb8v1.EventsResponse
	pods    []*orb8v1.PodRecord
	sockets []*orb8v1.SocketsRecord
	drops   []*orb8v1.DropRecord
	dns     []*orb8v1.DnsRecord
	gpus    []*orb8v1.GpuRecord
	// After the fixed answers: stop the whole server.
	die func()
	// Every connection has moved more each time that Flows is asked.
	growing bool
	rounds  uint64
}

func (f *fake) Status(context.Context, *orb8v1.StatusRequest) (*orb8v1.StatusResponse, error) {
	return f.status, nil
}

func (f *fake) Flows(q *orb8v1.FlowsRequest, stream grpc.ServerStreamingServer[orb8v1.FlowsResponse]) error {
	if slices.Contains(q.GetInclude().GetPods(), "forbidden") {
		return status.Error(codes.InvalidArgument, "pods: no such \x1b[31mword")
	}
	sent := uint32(0)
	for _, m := range f.flows {
		if m.GetFlow() != nil {
			if sent++; sent > q.GetLimit() {
				continue
			}
			m = proto.Clone(m).(*orb8v1.FlowsResponse)
			m.GetFlow().Total.TxBytes += 5000 * f.rounds
		}
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	if f.growing {
		f.rounds++
	}
	if f.die != nil {
		f.die()
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	if f.summary == nil {
		return nil
	}
	sum := proto.Clone(f.summary).(*orb8v1.Summary)
	sum.EndNs = time.Now().UnixNano()
	return stream.Send(&orb8v1.FlowsResponse{Message: &orb8v1.FlowsResponse_Summary{Summary: sum}})
}

func (f *fake) Pods(q *orb8v1.PodsRequest, stream grpc.ServerStreamingServer[orb8v1.PodsResponse]) error {
	s := &orb8v1.PodsSummary{Known: uint64(len(f.pods)), Nodes: f.summary.GetNodes()}
	for _, p := range f.pods {
		if n := q.GetInclude().GetNamespaces(); len(n) > 0 && !slices.Contains(n, p.GetNamespace()) {
			continue
		}
		if s.Matched++; s.Matched > uint64(q.GetLimit()) {
			continue
		}
		if err := stream.Send(&orb8v1.PodsResponse{Message: &orb8v1.PodsResponse_Pod{Pod: p}}); err != nil {
			return err
		}
	}
	return stream.Send(&orb8v1.PodsResponse{Message: &orb8v1.PodsResponse_Summary{Summary: s}})
}

func (f *fake) Sockets(q *orb8v1.SocketsRequest, stream grpc.ServerStreamingServer[orb8v1.SocketsResponse]) error {
	s := &orb8v1.SocketsSummary{Known: uint64(len(f.sockets)), Nodes: f.summary.GetNodes()}
	for _, r := range f.sockets {
		if n := q.GetInclude().GetPods(); len(n) > 0 && !slices.Contains(n, r.GetOwner().GetPod()) {
			continue
		}
		if s.Matched++; s.Matched > uint64(q.GetLimit()) {
			continue
		}
		if err := stream.Send(&orb8v1.SocketsResponse{Message: &orb8v1.SocketsResponse_Sockets{Sockets: r}}); err != nil {
			return err
		}
	}
	return stream.Send(&orb8v1.SocketsResponse{Message: &orb8v1.SocketsResponse_Summary{Summary: s}})
}

func (f *fake) Events(q *orb8v1.EventsRequest, stream grpc.ServerStreamingServer[orb8v1.EventsResponse]) error {
	for _, m := range f.events {
		if !wanted(q, m) {
			continue
		}
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	if f.die != nil {
		// What was sent must be out before the connection breaks.
		time.Sleep(200 * time.Millisecond)
		f.die()
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

// serve serves a fake for one test and gives its address. A dying fake takes
// its server along.
func serve(stop func(func()), f *fake, dying bool) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s := grpc.NewServer()
	orb8v1.RegisterObserverServer(s, f)
	h := health.NewServer()
	h.SetServingStatus(orb8v1.Observer_ServiceDesc.ServiceName, healthv1.HealthCheckResponse_SERVING)
	healthv1.RegisterHealthServer(s, h)
	if dying {
		f.die = func() { go s.Stop() }
	}
	go s.Serve(l)
	stop(s.Stop)
	return l.Addr().String(), nil
}

// deadPort is one that refuses: bound, so that nobody else gets it, and not
// listened on.
func deadPort(stop func(func())) (string, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	stop(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return "", err
	}
	a, err := syscall.Getsockname(fd)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("127.0.0.1:%d", a.(*syscall.SockaddrInet4).Port), nil
}

// strangers are programs that hold a port and are no agents.
func strangers(stop func(func())) (map[string]string, error) {
	listeners := map[string]net.Listener{}
	for _, name := range []string{"SILENT", "WEB", "OTHER"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		listeners[name] = l
		stop(func() { l.Close() })
	}
	go http.Serve(listeners["WEB"], http.NotFoundHandler())
	// Speaks gRPC, but another service.
	other := grpc.NewServer()
	healthv1.RegisterHealthServer(other, health.NewServer())
	go other.Serve(listeners["OTHER"])
	stop(other.Stop)

	places := map[string]string{}
	for name, l := range listeners {
		places[name] = l.Addr().String()
	}
	var err error
	places["DEAD"], err = deadPort(stop)
	return places, err
}
