// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// resources says who tells: this agent, on its node. What the variables say
// (OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME) goes before.
func resources(ctx context.Context, cfg *Config) (*resource.Resource, error) {
	attrs := []attribute.KeyValue{
		semconv.ServiceName("orb8-agent"),
		semconv.ServiceVersion(cfg.Version),
		semconv.ServiceInstanceID(instance()),
		semconv.HostName(cfg.Host),
	}
	if cfg.Kubernetes {
		attrs = append(attrs, semconv.K8SNodeName(cfg.Node))
	}
	r, err := resource.New(ctx,
		resource.WithSchemaURL(semconv.SchemaURL),
		resource.WithTelemetrySDK(),
		resource.WithAttributes(attrs...),
		resource.WithFromEnv(),
	)
	if err != nil { // its text holds values
		return nil, errors.New("OTEL_RESOURCE_ATTRIBUTES: must be NAME=VALUE, with commas between; in values a comma is %2C")
	}
	return r, nil
}

// instance is a UUID (version 4) of this run.
func instance() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
