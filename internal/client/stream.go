// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// Events follows until ctx ends, which is no error, or the Observer goes away,
// which is.
func (c *Client) Events(ctx context.Context, q *orb8v1.EventsRequest) iter.Seq2[*orb8v1.EventsResponse, error] {
	return lasting(ctx, c, func(ctx context.Context) (grpc.ServerStreamingClient[orb8v1.EventsResponse], error) {
		return c.api.Events(ctx, q)
	}, nil)
}

// Capture is as Events, and ends by itself with a summary.
func (c *Client) Capture(ctx context.Context, q *orb8v1.CaptureRequest) iter.Seq2[*orb8v1.CaptureResponse, error] {
	return lasting(ctx, c, func(ctx context.Context) (grpc.ServerStreamingClient[orb8v1.CaptureResponse], error) {
		return c.api.Capture(ctx, q)
	}, func(m *orb8v1.CaptureResponse) bool { return m.GetSummary() != nil })
}

// lasting reads an answer that goes on. isLast, unless it is nil, tells the
// message after which it may end.
func lasting[M any](ctx context.Context, c *Client, question func(context.Context) (grpc.ServerStreamingClient[M], error), isLast func(*M) bool) iter.Seq2[*M, error] {
	return func(yield func(*M, error) bool) {
		caller := ctx
		// The caller's deadline is its normal end: told to the Observer, it
		// would come back as an error, in a race with the caller's own clock.
		ctx, cancel := context.WithCancelCause(context.WithoutCancel(caller))
		defer cancel(nil)
		defer context.AfterFunc(caller, func() { cancel(nil) })()
		stream, err := question(ctx)
		if err != nil {
			if caller.Err() == nil {
				yield(nil, c.explain(ctx, err, false))
			}
			return
		}
		go c.feelPulse(ctx, cancel)
		last := false
		for {
			m, err := stream.Recv()
			switch {
			case caller.Err() != nil, last && errors.Is(err, io.EOF):
				return
			case ctx.Err() != nil:
				yield(nil, context.Cause(ctx))
				return
			case err != nil:
				yield(nil, c.explain(ctx, err, true))
				return
			case !yield(m, nil):
				return
			}
			last = isLast != nil && isLast(m)
		}
	}
}

// feelPulse ends a stream when the Observer stops to answer. Any answer will
// do; a connection that breaks is noticed by the stream itself.
func (c *Client) feelPulse(ctx context.Context, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(c.pulse)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		check, done := context.WithTimeout(ctx, c.pulse)
		_, err := c.health.Check(check, &healthv1.HealthCheckRequest{})
		done()
		if status.Code(err) == codes.DeadlineExceeded && ctx.Err() == nil {
			cancel(c.doubted(&Error{c.Address.String() + " does not answer any more", c.command("status")}))
			return
		}
	}
}
