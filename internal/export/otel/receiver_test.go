// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	collog "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	colmetric "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/encoding/gzip" // the receiver takes it
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// receiver is an OTLP receiver on a port of loopback, by the official messages and
// services. What it does with a batch, answer says.
type receiver struct {
	collog.UnimplementedLogsServiceServer
	t       *testing.T
	grpc    bool
	tls     *tls.Config
	address string
	stop    func()

	mu       sync.Mutex
	records  map[string]*logs.LogRecord // by the name that was asked for
	metrics  map[string]*metrics.Metric
	resource *resourcepb.Resource
	headers  map[string]string
	zipped   bool
	// nil takes all.
	answer func(ctx context.Context, asked int) (*collog.ExportLogsPartialSuccess, error)
	status func(asked int) (code int, header map[string]string)
	asked  int
}

func newReceiver(t *testing.T, overGRPC bool, conf *tls.Config) *receiver {
	r := &receiver{t: t, grpc: overGRPC, tls: conf, records: map[string]*logs.LogRecord{}, metrics: map[string]*metrics.Metric{}}
	r.start("127.0.0.2:0") // where no client has its port: it may be taken again
	t.Cleanup(func() { r.stop() })
	return r
}

func (r *receiver) start(address string) {
	r.t.Helper()
	lis, err := net.Listen("tcp", address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.address = lis.Addr().String()
	if r.grpc {
		var options []grpc.ServerOption
		if r.tls != nil {
			options = append(options, grpc.Creds(credentials.NewTLS(r.tls)))
		}
		s := grpc.NewServer(options...)
		collog.RegisterLogsServiceServer(s, r)
		colmetric.RegisterMetricsServiceServer(s, &metricReceiver{r: r})
		go func() { _ = s.Serve(lis) }()
		r.stop = s.Stop
		return
	}
	s := &http.Server{Handler: http.HandlerFunc(r.serve), TLSConfig: r.tls}
	go func() {
		if r.tls != nil {
			_ = s.ServeTLS(lis, "", "")
			return
		}
		_ = s.Serve(lis)
	}()
	r.stop = func() { _ = s.Close() }
}

func (r *receiver) Export(ctx context.Context, req *collog.ExportLogsServiceRequest) (*collog.ExportLogsServiceResponse, error) {
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		h := map[string]string{}
		for k, v := range md {
			h[k] = v[0]
		}
		r.saw(h)
	}
	r.mu.Lock()
	r.asked++
	answer, asked := r.answer, r.asked
	r.mu.Unlock()
	resp := &collog.ExportLogsServiceResponse{}
	if answer != nil {
		var err error
		if resp.PartialSuccess, err = answer(ctx, asked); err != nil {
			return nil, err
		}
	}
	r.keep(req, int(resp.GetPartialSuccess().GetRejectedLogRecords()))
	return resp, nil
}

func (r *receiver) saw(h map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.headers = h
}

// keep all but the first ones.
func (r *receiver) keep(req *collog.ExportLogsServiceRequest, but int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rl := range req.ResourceLogs {
		r.resource = rl.Resource
		for _, sl := range rl.ScopeLogs {
			for _, rec := range sl.LogRecords {
				if but--; but < 0 {
					r.records[value(rec, "dns.question.name")] = rec
				}
			}
		}
	}
}

func value(rec *logs.LogRecord, key string) string {
	for _, kv := range rec.Attributes {
		if kv.Key == key {
			return kv.Value.GetStringValue()
		}
	}
	return ""
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.records)
}

func (r *receiver) set(answer func(context.Context, int) (*collog.ExportLogsPartialSuccess, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer, r.asked = answer, 0
}

func (r *receiver) serve(w http.ResponseWriter, req *http.Request) {
	h := map[string]string{}
	for k := range req.Header {
		h[http.CanonicalHeaderKey(k)] = req.Header.Get(k)
	}
	body := io.Reader(req.Body)
	if req.Header.Get("Content-Encoding") == "gzip" {
		body, _ = gzip.NewReader(req.Body)
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return
	}
	r.mu.Lock()
	r.headers = h
	r.zipped = req.Header.Get("Content-Encoding") == "gzip"
	r.asked++
	status, answer, asked := r.status, r.answer, r.asked
	r.mu.Unlock()
	if req.URL.Path == "/v1/metrics" {
		var m colmetric.ExportMetricsServiceRequest
		if err := proto.Unmarshal(data, &m); err != nil {
			r.t.Error(err)
		}
		r.keepMetrics(&m)
		return
	}
	if status != nil {
		if code, more := status(asked); code != 0 {
			for k, v := range more {
				w.Header().Set(k, v)
			}
			http.Error(w, "the receiver says no", code)
			return
		}
	}
	resp := &collog.ExportLogsServiceResponse{}
	if answer != nil {
		if resp.PartialSuccess, err = answer(req.Context(), asked); err != nil {
			return
		}
	}
	var l collog.ExportLogsServiceRequest
	if err := proto.Unmarshal(data, &l); err != nil || req.URL.Path != "/v1/logs" {
		r.t.Error(req.URL.Path, err)
	}
	r.keep(&l, int(resp.GetPartialSuccess().GetRejectedLogRecords()))
	w.Header().Set("Content-Type", "application/x-protobuf")
	out, _ := proto.Marshal(resp)
	_, _ = w.Write(out)
}

type metricReceiver struct {
	colmetric.UnimplementedMetricsServiceServer
	r *receiver
}

func (m *metricReceiver) Export(_ context.Context, req *colmetric.ExportMetricsServiceRequest) (*colmetric.ExportMetricsServiceResponse, error) {
	m.r.keepMetrics(req)
	return &colmetric.ExportMetricsServiceResponse{}, nil
}

func (r *receiver) keepMetrics(req *colmetric.ExportMetricsServiceRequest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rm := range req.ResourceMetrics {
		r.resource = rm.Resource
		for _, sm := range rm.ScopeMetrics {
			for _, m := range sm.Metrics {
				r.metrics[m.Name] = m
			}
		}
	}
}

// authority makes a CA, a server's certificate for loopback and a client's, and
// says what the standard's variables are with them.
func authority(t *testing.T) (server *tls.Config, variables map[string]string) {
	dir := t.TempDir()
	caKey, ca := certificate(t, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	srvKey, srv := certificate(t, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 2)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, ca, caKey)
	cliKey, cli := certificate(t, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, ca, caKey)
	key, err := x509.MarshalECPrivateKey(cliKey)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	server = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{srv.Raw}, PrivateKey: srvKey}},
		ClientCAs:    pool, ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"h2", "http/1.1"},
	}
	return server, map[string]string{
		"OTEL_EXPORTER_OTLP_CERTIFICATE":        write(t, filepath.Join(dir, "ca.pem"), "CERTIFICATE", ca.Raw),
		"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": write(t, filepath.Join(dir, "client.pem"), "CERTIFICATE", cli.Raw),
		"OTEL_EXPORTER_OTLP_CLIENT_KEY":         write(t, filepath.Join(dir, "client.key"), "EC PRIVATE KEY", key),
	}
}

func certificate(t *testing.T, c, by *x509.Certificate, byKey *ecdsa.PrivateKey) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: "orb8 test"}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if by == nil {
		by, byKey = c, key
	}
	raw, err := x509.CreateCertificate(rand.Reader, c, by, &key.PublicKey, byKey)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return key, made
}

func write(t *testing.T, path, kind string, raw []byte) string {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// variables of a receiver.
func (r *receiver) variables(more ...map[string]string) map[string]string {
	scheme, protocol := "http://", "http/protobuf"
	if r.tls != nil {
		scheme = "https://"
	}
	if r.grpc {
		protocol = "grpc"
	}
	v := map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": scheme + r.address, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
		"OTEL_BLRP_SCHEDULE_DELAY": "20",
	}
	for _, m := range more {
		maps.Copy(v, m)
	}
	return v
}
