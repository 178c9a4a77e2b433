// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	collog "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	grpcgzip "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// transport hands a request over. An answer says how many of its records were
// refused, and why.
type transport interface {
	send(ctx context.Context, request []byte) (*collog.ExportLogsPartialSuccess, error)
	close()
}

// passing is an error that may pass, at the earliest after wait.
type passing struct {
	error
	wait time.Duration
}

func (p *passing) Unwrap() error { return p.error }

// logs makes the way to a receiver; nothing connects before it is used.
func (s *signal) logs(version string) (transport, error) {
	agent := "orb8-agent/" + version
	if !s.grpc {
		return newPost(s, agent), nil
	}
	secured := insecure.NewCredentials()
	if !s.insecure {
		secured = credentials.NewTLS(s.tls)
	}
	options := append(dial(), grpc.WithTransportCredentials(secured), grpc.WithUserAgent(agent))
	call := []grpc.CallOption{grpc.ForceCodecV2(raw{encoding.GetCodecV2("proto")})}
	if s.gzip {
		call = append(call, grpc.UseCompressor(grpcgzip.Name))
	}
	conn, err := grpc.NewClient(s.host, append(options, grpc.WithDefaultCallOptions(call...))...)
	if err != nil {
		return nil, err
	}
	return &rpc{conn: conn, headers: metadata.New(s.headers)}, nil
}

const exportLogs = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"

// rpc is OTLP over gRPC.
type rpc struct {
	conn    *grpc.ClientConn
	headers metadata.MD
}

// raw sends requests as they are.
type raw struct{ encoding.CodecV2 }

func (r raw) Marshal(v any) (mem.BufferSlice, error) {
	if request, ok := v.([]byte); ok {
		return mem.BufferSlice{mem.SliceBuffer(request)}, nil
	}
	return r.CodecV2.Marshal(v)
}

func (r *rpc) send(ctx context.Context, request []byte) (*collog.ExportLogsPartialSuccess, error) {
	var answer collog.ExportLogsServiceResponse
	err := r.conn.Invoke(metadata.NewOutgoingContext(ctx, r.headers), exportLogs, request, &answer)
	if err == nil {
		return answer.PartialSuccess, nil
	}
	s := status.Convert(err)
	wait, asks := time.Duration(0), false
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			wait, asks = info.RetryDelay.AsDuration(), true
		}
	}
	switch s.Code() {
	case codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss:
		return nil, &passing{err, wait}
	case codes.ResourceExhausted:
		if asks {
			return nil, &passing{err, wait}
		}
	}
	return nil, err
}

func (r *rpc) close() { _ = r.conn.Close() }

// post is OTLP over HTTP.
type post struct {
	client *http.Client
	url    string
	header http.Header
	zipped *gzip.Writer // nil where requests are not compressed
	buf    bytes.Buffer
}

func newPost(s *signal, agent string) *post {
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: s.tls, TLSHandshakeTimeout: s.timeout, IdleConnTimeout: 90 * time.Second,
		ForceAttemptHTTP2: true,
		// A connection that nobody acknowledges would be used until TCP gives up.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
	}
	p := &post{
		// Where a receiver has moved to is for its owner to say.
		client: &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		url:    "https://" + s.host + s.path,
		header: http.Header{"Content-Type": {"application/x-protobuf"}, "User-Agent": {agent}},
	}
	if s.insecure {
		p.url = "http://" + s.host + s.path
	}
	for k, v := range s.headers {
		p.header.Set(k, v)
	}
	if s.gzip {
		p.zipped, _ = gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is one
		p.header.Set("Content-Encoding", "gzip")
	}
	return p
}

// mostAnswer bounds what is read of an answer.
const mostAnswer = 64 << 10

func (p *post) send(ctx context.Context, request []byte) (*collog.ExportLogsPartialSuccess, error) {
	if p.zipped != nil {
		p.buf.Reset()
		p.zipped.Reset(&p.buf)
		_, err := p.zipped.Write(request)
		if err = errors.Join(err, p.zipped.Close()); err != nil {
			return nil, err
		}
		request = bytes.Clone(p.buf.Bytes()) // it may be read for a while after an error
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	req.Header = p.header
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, &passing{error: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer))
	switch code := resp.StatusCode; {
	case code/100 == 2 && err != nil:
		return nil, &passing{error: err}
	case code/100 == 2:
		return partial(resp.Header.Get("Content-Type"), body), nil
	case code == http.StatusTooManyRequests, code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		return nil, &passing{answered(resp, body), retryAfter(resp.Header.Get("Retry-After"), time.Now())}
	}
	return nil, answered(resp, body)
}

func (p *post) close() { p.client.CloseIdleConnections() }

// partial reads the answer to a request that was taken. What cannot be read tells
// of nothing that was refused.
func partial(kind string, body []byte) *collog.ExportLogsPartialSuccess {
	var answer collog.ExportLogsServiceResponse
	if kind != "application/x-protobuf" || proto.Unmarshal(body, &answer) != nil {
		return nil
	}
	return answer.PartialSuccess
}

func answered(resp *http.Response, body []byte) error {
	return fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(strings.ToValidUTF8(string(body), "?")))
}

// retryAfter reads seconds, or a date.
func retryAfter(text string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
