// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func read(variables map[string]string) (settings, error) {
	return environment(func(k string) string { return variables[k] }).settings()
}

func TestEndpoints(t *testing.T) {
	const all, logs = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"
	for _, c := range []struct {
		key, endpoint, protocol string
		host, path              string
		insecure                bool
	}{
		{all, "http://collector:4318", "", "collector:4318", "/v1/logs", true},
		{all, "https://collector:4318/otlp/", "http/protobuf", "collector:4318", "/otlp/v1/logs", false},
		{logs, "https://collector:4318/mine", "", "collector:4318", "/mine", false},
		{logs, "https://collector:4318", "", "collector:4318", "/", false},
		{all, "http://collector:4317", "grpc", "collector:4317", "/v1/logs", true},
		{all, "collector:4317", "grpc", "collector:4317", "", false},
		{all, "[fd00::1]:4317", "grpc", "[fd00::1]:4317", "", false},
	} {
		s, err := read(map[string]string{c.key: c.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": c.protocol})
		if err != nil || s.logs == nil {
			t.Errorf("%s: %v", c.endpoint, err)
			continue
		}
		if l := s.logs; l.host != c.host || l.path != c.path || l.insecure != c.insecure || l.grpc != (c.protocol == "grpc") {
			t.Errorf("%s: %+v", c.endpoint, l)
		}
		if (s.metrics == nil) != (c.key == logs) {
			t.Errorf("%s: metrics go to %+v", c.endpoint, s.metrics)
		}
	}
}

// A signal's own variable goes before that of all.
func TestVariants(t *testing.T) {
	s, err := read(map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://all:4318", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "metrics:4317",
		"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_METRICS_INSECURE": "true",
		"OTEL_EXPORTER_OTLP_HEADERS": "a=1", "OTEL_EXPORTER_OTLP_LOGS_HEADERS": "b=2%2C3, c = 4 ",
		"OTEL_EXPORTER_OTLP_TIMEOUT": "3000", "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "500",
		"OTEL_EXPORTER_OTLP_LOGS_COMPRESSION": "gzip", "OTEL_METRIC_EXPORT_INTERVAL": "15000",
		"OTEL_BLRP_MAX_QUEUE_SIZE": "7", "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "5", "OTEL_BLRP_SCHEDULE_DELAY": "250",
		"OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "base2_exponential_bucket_histogram",
	})
	if err != nil {
		t.Fatal(err)
	}
	l, m := s.logs, s.metrics
	if l.grpc || !l.gzip || !maps.Equal(l.headers, map[string]string{"b": "2,3", "c": "4"}) || l.timeout != 3*time.Second {
		t.Errorf("logs: %+v", l)
	}
	if !m.grpc || m.gzip || !m.insecure || m.host != "metrics:4317" || m.headers["a"] != "1" || m.timeout != 500*time.Millisecond {
		t.Errorf("metrics: %+v", m)
	}
	if s.interval != 15*time.Second || s.batching != (batching{7, 5, 250 * time.Millisecond}) || !s.exponential {
		t.Errorf("%+v", s)
	}
}

// What cannot be read is refused by name, and what it holds is not told.
func TestWhatCannotBeRead(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "s3cret.pem")
	if err := os.WriteFile(empty, []byte("s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for key, values := range map[string][]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT":           {"s3cret", "s3cret:4317", "https://", "https://user:s3cret@collector", "ftp://s3cret", "://s3cret", "http://s3cret\x7f"},
		"OTEL_EXPORTER_OTLP_PROTOCOL":           {"http/json", "s3cret"},
		"OTEL_EXPORTER_OTLP_HEADERS":            {"s3cret", "a b=s3cret", "a=s3cret%", "a=s3cret%0a", "a=b,=s3cret"},
		"OTEL_EXPORTER_OTLP_COMPRESSION":        {"s3cret"},
		"OTEL_EXPORTER_OTLP_TIMEOUT":            {"s3cret", "-1", "0", "10s"},
		"OTEL_EXPORTER_OTLP_CERTIFICATE":        {"/nowhere/ca.pem", empty},
		"OTEL_EXPORTER_OTLP_CLIENT_KEY":         {empty},
		"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": {empty},
		"OTEL_LOGS_EXPORTER":                    {"console", "s3cret"},
		"OTEL_METRICS_EXPORTER":                 {"prometheus"},
		"OTEL_BLRP_MAX_QUEUE_SIZE":              {"0", "s3cret", "100000000"},
		"OTEL_METRIC_EXPORT_INTERVAL":           {"1m"},
	} {
		for _, v := range values {
			_, err := read(map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector:4318", key: v})
			if err == nil || !strings.Contains(err.Error(), key) && !strings.Contains(err.Error(), "_CLIENT_") {
				t.Errorf("%s=%q: %v", key, v, err)
			} else if strings.Count(err.Error(), "\n") > 0 {
				t.Errorf("%s=%q: said twice: %v", key, v, err)
			} else if strings.Contains(strings.ReplaceAll(err.Error(), empty, ""), "s3cret") {
				t.Errorf("%s=%q: the value is told: %v", key, v, err)
			}
		}
	}
}

func FuzzHeaders(f *testing.F) {
	for _, seed := range []string{"a=b", "authorization=Bearer%20x,b=%2C", "=,", "a=%zz", "a\n=b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		headers, err := parseHeaders(text)
		for k, v := range headers {
			if err != nil || k == "" || strings.ContainsAny(k+v, "\r\n") {
				t.Errorf("%q: %q=%q, %v", text, k, v, err)
			}
		}
	})
}
