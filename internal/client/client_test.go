// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// observer answers each call with an error.
type observer struct {
	orb8v1.UnimplementedObserverServer
	err error
	// Events waits for the client to leave.
	quiet bool
}

func (o *observer) Status(context.Context, *orb8v1.StatusRequest) (*orb8v1.StatusResponse, error) {
	return &orb8v1.StatusResponse{}, o.err
}

func (o *observer) Events(_ *orb8v1.EventsRequest, s grpc.ServerStreamingServer[orb8v1.EventsResponse]) error {
	if o.quiet {
		<-s.Context().Done()
	}
	return o.err
}

// frozen is the health service of a node that stopped.
type frozen struct {
	healthv1.UnimplementedHealthServer
}

func (frozen) Check(ctx context.Context, _ *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func serve(t *testing.T, o *observer, h healthv1.HealthServer) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	orb8v1.RegisterObserverServer(s, o)
	healthv1.RegisterHealthServer(s, h)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	c, err := Dial(Address{Agent, socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Codes become words: no stack noise, and always a command to try.
func TestExplain(t *testing.T) {
	for code, want := range map[codes.Code]string{
		codes.Unavailable:       "went away",
		codes.Unimplemented:     "does not speak orb8.v1.Observer",
		codes.DeadlineExceeded:  "did not answer within",
		codes.InvalidArgument:   "did not accept the question: the reason",
		codes.ResourceExhausted: "could not answer: the reason",
		codes.PermissionDenied:  "could not answer: the reason",
	} {
		c := serve(t, &observer{err: status.Error(code, "the reason")}, health.NewServer())
		_, err := c.Status(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "; try: ") || strings.Contains(err.Error(), "rpc error") {
			t.Errorf("%v: %v, want %q", code, err, want)
		}
	}
}

func TestEventsEnd(t *testing.T) {
	// An Observer that ends the stream has gone; a caller that leaves has not
	// failed.
	c := serve(t, &observer{}, health.NewServer())
	if err := drain(t.Context(), c); err == nil || !strings.Contains(err.Error(), "went away") {
		t.Errorf("ended by the observer: %v", err)
	}
	c = serve(t, &observer{quiet: true}, health.NewServer())
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := drain(ctx, c); err != nil {
		t.Errorf("ended by the caller: %v", err)
	}
}

// A node that freezes keeps its connections: the stream must not wait for ever.
func TestEventsFrozen(t *testing.T) {
	c := serve(t, &observer{quiet: true}, frozen{})
	c.pulse = 20 * time.Millisecond
	if err := drain(t.Context(), c); err == nil || !strings.Contains(err.Error(), "does not answer any more") {
		t.Errorf("got %v", err)
	}
	// A quiet one that lives is left alone.
	c = serve(t, &observer{quiet: true}, health.NewServer())
	c.pulse = 10 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := drain(ctx, c); err != nil {
		t.Errorf("alive: %v", err)
	}
}

func drain(ctx context.Context, c *Client) error {
	for _, err := range c.Events(ctx, &orb8v1.EventsRequest{}) {
		if err != nil {
			return err
		}
	}
	return nil
}

// Something that accepts and says nothing costs connectTimeout, not more.
func TestSilence(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := Dial(Address{Agent, l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	began := time.Now()
	_, err = c.Status(t.Context())
	if err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 2*connectTimeout {
		t.Errorf("took %v", took)
	}
}

// An agent that hangs must not be hidden by a healthy one that is started
// instead.
func TestSilenceNearbyIsNotHidden(t *testing.T) {
	// Whoever runs the tests may have one.
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Find(t.Context(), Where{
		Getenv: func(string) string { return "" },
		Nearby: []Address{{Agent, l.Addr().String()}},
		Start: func(context.Context) (*grpc.ClientConn, func() error, error) {
			t.Error("started another")
			return nil, nil, errors.New("no")
		},
		MayStart: true,
		Say:      func(string) {},
	})
	if err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("got %v", err)
	}
}
