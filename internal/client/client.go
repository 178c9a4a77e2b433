// SPDX-License-Identifier: Apache-2.0

// Package client finds an Observer (an agent, a server, or all agents of a
// Kubernetes cluster), dials it and asks it. It turns what goes wrong on the way into one sentence and the next
// command to try. It never formats an answer and knows nothing of flags; the
// command line reads it.
package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/relay"
)

// Observer is whom a command asks: a Client, or a Cluster.
type Observer interface {
	relay.Observer
	// Who reads as in "no answer from the agent at localhost:9090".
	Who() string
	// Try is the next command when no node answered.
	Try() string
	// Close hangs up, and stops what was started for this question.
	Close() error
}

var _ Observer = (*Client)(nil)

const (
	// connectTimeout bounds dialing and the first words of HTTP/2, so that
	// neither a black hole nor something that only accepts can hang a command.
	connectTimeout = 2 * time.Second
	// answerTimeout bounds one question.
	answerTimeout = 10 * time.Second
	// pulse is how often a quiet stream is checked, and how long one check may
	// take: an agent whose node froze or fell off the network says nothing.
	pulse = 3 * time.Second
)

// Client asks one Observer. Its methods are safe for concurrent use.
type Client struct {
	Address Address
	api     orb8v1.ObserverClient
	health  healthv1.HealthClient
	dial    *dialer
	close   func() error
	pulse   time.Duration
	// Why it may not answer, where somebody else says so; nil where nobody does.
	doubt func() string
}

// Dial prepares a client for an address that is no pod; the connection is made
// by the first question.
func Dial(a Address) (*Client, error) {
	d := &dialer{dial: func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, a.network(), a.Place)
	}}
	return dial(a, d, grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 2, MaxDelay: time.Second},
		MinConnectTimeout: connectTimeout,
	})
}

func dial(a Address, d *dialer, p grpc.ConnectParams) (*Client, error) {
	conn, err := grpc.NewClient("passthrough:///"+a.Place,
		// An agent listens on loopback and on a unix socket only; the way to a
		// pod is in the hands of the API server.
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"),
		grpc.WithContextDialer(d.dialContext),
		grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(p))
	if err != nil {
		return nil, &Error{Text: a.String() + " cannot be dialed: " + err.Error(), Try: "orb8 --help"}
	}
	return newClient(a, conn, d), nil
}

func newClient(a Address, conn *grpc.ClientConn, d *dialer) *Client {
	return &Client{
		Address: a,
		api:     orb8v1.NewObserverClient(conn),
		health:  healthv1.NewHealthClient(conn),
		dial:    d,
		close:   conn.Close,
		pulse:   pulse,
	}
}

// Who is the address.
func (c *Client) Who() string { return c.Address.String() }

// Try is to ask a node itself.
func (c *Client) Try() string { return "orb8 --agent NODE status" }

// Close hangs up, and stops what was started for this client.
func (c *Client) Close() error { return c.close() }

// Status asks for the state of every node behind the address.
func (c *Client) Status(ctx context.Context) (*orb8v1.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	answer, err := c.api.Status(ctx, &orb8v1.StatusRequest{})
	if err != nil {
		return nil, c.explain(ctx, err, false)
	}
	return answer, nil
}

// Flows asks once; the answer arrives message by message. An error comes last.
func (c *Client) Flows(ctx context.Context, q *orb8v1.FlowsRequest) iter.Seq2[*orb8v1.FlowsResponse, error] {
	return once(ctx, c, func(ctx context.Context) (grpc.ServerStreamingClient[orb8v1.FlowsResponse], error) {
		return c.api.Flows(ctx, q)
	})
}

// Pods asks once, as Flows does.
func (c *Client) Pods(ctx context.Context, q *orb8v1.PodsRequest) iter.Seq2[*orb8v1.PodsResponse, error] {
	return once(ctx, c, func(ctx context.Context) (grpc.ServerStreamingClient[orb8v1.PodsResponse], error) {
		return c.api.Pods(ctx, q)
	})
}

// Drops asks once, as Flows does.
func (c *Client) Drops(ctx context.Context, q *orb8v1.DropsRequest) iter.Seq2[*orb8v1.DropsResponse, error] {
	return once(ctx, c, func(ctx context.Context) (grpc.ServerStreamingClient[orb8v1.DropsResponse], error) {
		return c.api.Drops(ctx, q)
	})
}

// Dns asks once, as Flows does.
func (c *Client) Dns(ctx context.Context, q *orb8v1.DnsRequest) iter.Seq2[*orb8v1.DnsResponse, error] {
	return once(ctx, c, func(ctx context.Context) (grpc.ServerStreamingClient[orb8v1.DnsResponse], error) {
		return c.api.Dns(ctx, q)
	})
}

// Gpus asks once, as Flows does.
func (c *Client) Gpus(ctx context.Context, q *orb8v1.GpusRequest) iter.Seq2[*orb8v1.GpusResponse, error] {
	return once(ctx, c, func(ctx context.Context) (grpc.ServerStreamingClient[orb8v1.GpusResponse], error) {
		return c.api.Gpus(ctx, q)
	})
}

// GpuDriver has the driver released, or taken up again.
func (c *Client) GpuDriver(ctx context.Context, q *orb8v1.GpuDriverRequest) (*orb8v1.GpuDriverResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	answer, err := c.api.GpuDriver(ctx, q)
	if err != nil {
		return nil, c.explain(ctx, err, false)
	}
	return answer, nil
}

// Sockets asks once, as Flows does.
func (c *Client) Sockets(ctx context.Context, q *orb8v1.SocketsRequest) iter.Seq2[*orb8v1.SocketsResponse, error] {
	return once(ctx, c, func(ctx context.Context) (grpc.ServerStreamingClient[orb8v1.SocketsResponse], error) {
		return c.api.Sockets(ctx, q)
	})
}

// once reads an answer that has an end.
func once[M any](ctx context.Context, c *Client, question func(context.Context) (grpc.ServerStreamingClient[M], error)) iter.Seq2[*M, error] {
	return func(yield func(*M, error) bool) {
		ctx, cancel := context.WithTimeout(ctx, answerTimeout)
		defer cancel()
		stream, err := question(ctx)
		if err != nil {
			yield(nil, c.explain(ctx, err, false))
			return
		}
		for {
			m, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(nil, c.explain(ctx, err, true))
				return
			}
			if !yield(m, nil) {
				return
			}
		}
	}
}

// dialer remembers why dialing failed: gRPC keeps only the words.
type dialer struct {
	dial func(context.Context) (net.Conn, error)

	mu   sync.Mutex
	err  error
	conn net.Conn
}

func (d *dialer) dialContext(ctx context.Context, _ string) (net.Conn, error) {
	conn, err := d.dial(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
	if err == nil {
		d.conn = conn
	}
	return conn, err
}

// connected tells whether somebody has accepted a connection.
func (d *dialer) connected() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.conn != nil
}

// lastError is why there is no connection. The way to a pod may turn out to end
// before its port only after it was made.
func (d *dialer) lastError() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f, ok := d.conn.(interface{ Fault() error }); ok && d.err == nil {
		return f.Fault()
	}
	return d.err
}
