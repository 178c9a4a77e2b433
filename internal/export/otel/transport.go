// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// What may pass is tried again, first after so long, and never less often than
// that.
const (
	retryFirst = time.Second
	retryMost  = 10 * time.Second
)

// metrics are the SDK's business, with retries until the reader's time is over.
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

// brief is an error as it is shown: what a receiver says may be long.
func brief(err error) error {
	const most = 300
	if text := err.Error(); len(text) > most {
		return fmt.Errorf("%s…", text[:most])
	}
	return err
}
