// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// The libraries read the same variables, but go on with defaults where one cannot
// be read, and print it, headers included. So they are read here, and what cannot
// be is refused by its name, never by its value.

// signal is where one sort of telemetry goes, and how.
type signal struct {
	// Host and port, and the path of HTTP.
	host, path string
	grpc       bool
	insecure   bool
	gzip       bool
	tls        *tls.Config
	headers    map[string]string
	// Of one attempt.
	timeout time.Duration
}

// batching is how records are gathered: the variables of the SDK's batch processor,
// with more room, because an epoch's records come at once.
type batching struct {
	queue, batch int
	delay        time.Duration
}

type settings struct {
	// nil: not exported.
	logs, metrics *signal
	batching      batching
	interval      time.Duration
	// Histograms with exponential buckets.
	exponential bool
}

// environment reads variables.
type environment func(string) string

func (get environment) settings() (s settings, err error) {
	s.batching = batching{queue: 20_000, batch: 1000, delay: time.Second}
	s.interval = time.Minute
	if strings.EqualFold(get("OTEL_SDK_DISABLED"), "true") {
		return s, nil
	}
	var all [6]error
	s.exponential = strings.EqualFold(get("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"), "base2_exponential_bucket_histogram")
	s.logs, all[0] = get.signal("LOGS")
	s.metrics, all[1] = get.signal("METRICS")
	all[2] = get.number("OTEL_BLRP_MAX_QUEUE_SIZE", 1_000_000, &s.batching.queue)
	all[3] = get.number("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", 10_000, &s.batching.batch)
	all[4] = get.milliseconds("OTEL_BLRP_SCHEDULE_DELAY", &s.batching.delay)
	all[5] = get.milliseconds("OTEL_METRIC_EXPORT_INTERVAL", &s.interval)
	if all[0] != nil && all[1] != nil && all[0].Error() == all[1].Error() { // of both
		all[1] = nil
	}
	return s, errors.Join(all[:]...)
}

// signal is nil where there is no endpoint.
func (get environment) signal(name string) (*signal, error) {
	switch v := get("OTEL_" + name + "_EXPORTER"); v {
	case "", "otlp":
	case "none":
		return nil, nil
	default:
		return nil, fmt.Errorf("OTEL_%s_EXPORTER: must be otlp or none", name)
	}
	endpoint, key := get.variant(name, "ENDPOINT")
	if endpoint == "" {
		return nil, nil
	}
	s := &signal{timeout: 10 * time.Second}
	protocol, which := get.variant(name, "PROTOCOL")
	switch protocol {
	case "grpc":
		s.grpc = true
	case "", "http/protobuf":
	default:
		return nil, fmt.Errorf("%s: must be grpc or http/protobuf", which)
	}
	if err := s.locate(endpoint, key, name); err != nil {
		return nil, err
	}
	if plain, which := get.variant(name, "INSECURE"); plain != "" && !strings.Contains(endpoint, "://") {
		var err error
		if s.insecure, err = strconv.ParseBool(plain); err != nil {
			return nil, fmt.Errorf("%s: must be true or false", which)
		}
	}
	return s, get.rest(name, s)
}

// locate reads an endpoint. That of all signals is a base, to which HTTP adds the
// signal's path; that of one is taken as it is.
func (s *signal) locate(endpoint, key, name string) error {
	bad := fmt.Errorf("%s: must be http://HOST:PORT or https://HOST:PORT, with gRPC also HOST:PORT", key)
	if s.grpc && !strings.Contains(endpoint, "://") {
		s.host = endpoint
		if _, _, err := net.SplitHostPort(endpoint); err != nil {
			return bad
		}
		return nil
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return bad
	}
	if u.User != nil {
		return fmt.Errorf("%s: a password does not belong there: use OTEL_EXPORTER_OTLP_HEADERS", key)
	}
	s.host, s.path, s.insecure = u.Host, u.Path, u.Scheme == "http"
	switch own := strings.Contains(key, "_"+name+"_"); {
	case !own:
		s.path = path.Join("/", u.Path, "v1", strings.ToLower(name))
	case s.path == "":
		s.path = "/"
	}
	return nil
}

func (get environment) rest(name string, s *signal) (err error) {
	if text, key := get.variant(name, "HEADERS"); text != "" {
		if s.headers, err = parseHeaders(text); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	switch text, key := get.variant(name, "COMPRESSION"); text {
	case "", "none":
	case "gzip":
		s.gzip = true
	default:
		return fmt.Errorf("%s: must be gzip or none", key)
	}
	if _, key := get.variant(name, "TIMEOUT"); key != "" {
		if err := get.milliseconds(key, &s.timeout); err != nil {
			return err
		}
	}
	if s.insecure {
		return nil
	}
	s.tls, err = get.tls(name)
	return err
}

func (get environment) tls(name string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if file, key := get.variant(name, "CERTIFICATE"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: %s holds no certificate (PEM)", key, file)
		}
	}
	cert, key := get.variant(name, "CLIENT_CERTIFICATE")
	private, other := get.variant(name, "CLIENT_KEY")
	if (cert == "") != (private == "") {
		return nil, fmt.Errorf("%s%s: a client has a certificate and a key, or none of them", key, other)
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, private)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// parseHeaders reads key=value,key=value, with values as in a URL.
func parseHeaders(text string) (map[string]string, error) {
	headers := map[string]string{}
	for pair := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		key, value, found := strings.Cut(pair, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		if !found || !httpguts.ValidHeaderFieldName(key) {
			return nil, errors.New("must be NAME=VALUE, with commas between; in values a comma is %2C")
		}
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if err != nil || !httpguts.ValidHeaderFieldValue(value) {
			return nil, fmt.Errorf("the value of %s cannot be read: what is no plain character is written %%XX", key)
		}
		headers[key] = value
	}
	return headers, nil
}

// variant is a variable of one signal, or else that of all, and which it is.
func (get environment) variant(signal, name string) (value, key string) {
	for _, key := range []string{"OTEL_EXPORTER_OTLP_" + signal + "_" + name, "OTEL_EXPORTER_OTLP_" + name} {
		if v := strings.TrimSpace(get(key)); v != "" {
			return v, key
		}
	}
	return "", ""
}

func (get environment) number(key string, most int, to *int) error {
	text := get(key)
	if text == "" {
		return nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return fmt.Errorf("%s: must be from 1 to %d", key, most)
	}
	*to = n
	return nil
}

func (get environment) milliseconds(key string, to *time.Duration) error {
	ms := int(to.Milliseconds())
	if err := get.number(key, 86_400_000, &ms); err != nil {
		return fmt.Errorf("%w milliseconds", err)
	}
	*to = time.Duration(ms) * time.Millisecond
	return nil
}
