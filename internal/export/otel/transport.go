// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// What passes is tried again by the libraries, as the receiver asks for, until
// their context ends, which is the sender's to say.
const (
	retryFirst = time.Second
	retryMost  = 10 * time.Second
)

func (s *signal) logs(ctx context.Context) (sdklog.Exporter, error) {
	if s.grpc {
		options := []otlploggrpc.Option{
			otlploggrpc.WithEndpoint(s.host),
			otlploggrpc.WithHeaders(s.headers),
			otlploggrpc.WithTimeout(s.timeout),
			otlploggrpc.WithRetry(otlploggrpc.RetryConfig{Enabled: true, InitialInterval: retryFirst, MaxInterval: retryMost}),
			otlploggrpc.WithDialOption(dial()...),
		}
		if s.gzip {
			options = append(options, otlploggrpc.WithCompressor("gzip"))
		}
		if s.insecure {
			return otlploggrpc.New(ctx, append(options, otlploggrpc.WithInsecure())...)
		}
		return otlploggrpc.New(ctx, append(options, otlploggrpc.WithTLSCredentials(credentials.NewTLS(s.tls)))...)
	}
	options := []otlploghttp.Option{
		otlploghttp.WithEndpoint(s.host),
		otlploghttp.WithURLPath(s.path),
		otlploghttp.WithHeaders(s.headers),
		otlploghttp.WithTimeout(s.timeout),
		otlploghttp.WithRetry(otlploghttp.RetryConfig{Enabled: true, InitialInterval: retryFirst, MaxInterval: retryMost}),
	}
	if s.gzip {
		options = append(options, otlploghttp.WithCompression(otlploghttp.GzipCompression))
	}
	if s.insecure {
		return otlploghttp.New(ctx, append(options, otlploghttp.WithInsecure())...)
	}
	return otlploghttp.New(ctx, append(options, otlploghttp.WithTLSClientConfig(s.tls))...)
}

func (s *signal) metrics(ctx context.Context) (sdkmetric.Exporter, error) {
	if s.grpc {
		options := []otlpmetricgrpc.Option{
			otlpmetricgrpc.WithEndpoint(s.host),
			otlpmetricgrpc.WithHeaders(s.headers),
			otlpmetricgrpc.WithTimeout(s.timeout),
			otlpmetricgrpc.WithRetry(otlpmetricgrpc.RetryConfig{Enabled: true, InitialInterval: retryFirst, MaxInterval: retryMost}),
			otlpmetricgrpc.WithDialOption(dial()...),
		}
		if s.gzip {
			options = append(options, otlpmetricgrpc.WithCompressor("gzip"))
		}
		if s.insecure {
			return otlpmetricgrpc.New(ctx, append(options, otlpmetricgrpc.WithInsecure())...)
		}
		return otlpmetricgrpc.New(ctx, append(options, otlpmetricgrpc.WithTLSCredentials(credentials.NewTLS(s.tls)))...)
	}
	options := []otlpmetrichttp.Option{
		otlpmetrichttp.WithEndpoint(s.host),
		otlpmetrichttp.WithURLPath(s.path),
		otlpmetrichttp.WithHeaders(s.headers),
		otlpmetrichttp.WithTimeout(s.timeout),
		otlpmetrichttp.WithRetry(otlpmetrichttp.RetryConfig{Enabled: true, InitialInterval: retryFirst, MaxInterval: retryMost}),
	}
	if s.gzip {
		options = append(options, otlpmetrichttp.WithCompression(otlpmetrichttp.GzipCompression))
	}
	if s.insecure {
		return otlpmetrichttp.New(ctx, append(options, otlpmetrichttp.WithInsecure())...)
	}
	return otlpmetrichttp.New(ctx, append(options, otlpmetrichttp.WithTLSClientConfig(s.tls))...)
}

// dial: gRPC's own pause between two attempts to connect grows to two minutes, in
// which the queue would overflow. With keepalive, a connection that nobody
// acknowledges ends after its timeout; pings more often than every 5 minutes would
// be refused.
func dial() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: time.Second, Multiplier: 1.6, Jitter: 0.2, MaxDelay: retryMost},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Minute, Timeout: 20 * time.Second}),
	}
}

// passes tells whether it is worth to try again: nobody answered, or the receiver
// said so. The libraries give up such a one only with its context.
func passes(err error) bool {
	var unreached *url.Error // HTTP: a connection that fails is not tried again
	if errors.As(err, &unreached) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	s, ok := status.FromError(err)
	if !ok {
		return false
	}
	switch s.Code() {
	case codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss:
		return true
	case codes.ResourceExhausted:
		return slices.ContainsFunc(s.Details(), func(d any) bool { _, ok := d.(*errdetails.RetryInfo); return ok })
	}
	return false
}

// The libraries' type for it cannot be named. Its text ends so, whatever the
// receiver says before.
var rejectedText = regexp.MustCompile(`OTLP partial success: (?s:.*) \((\d+) (?:logs|metric data points) rejected\)$`)

// rejected is how many records of a batch the receiver took the batch without; ok
// is false where the error is no such answer.
func rejected(err error) (n int, ok bool) {
	m := rejectedText.FindStringSubmatch(err.Error())
	if m == nil {
		return 0, false
	}
	n, _ = strconv.Atoi(m[1])
	return n, true
}

// brief is an error as it is shown: what a receiver says may be long.
func brief(err error) error {
	const most = 300
	if text := err.Error(); len(text) > most {
		return fmt.Errorf("%s…", text[:most])
	}
	return err
}
