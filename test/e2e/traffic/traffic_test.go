// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"testing"
	"time"
)

// TestWhatIsSentArrives: the program ends well only when every byte has gone
// there and back; what it prints is for others.
func TestWhatIsSentArrives(t *testing.T) {
	port := freePort(t)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, port) }()
	to := fmt.Sprintf("127.0.0.1:%d", port)
	for _, s := range []sending{
		{to: to, bytes: headLen, back: 0, times: 1},
		{to: to, bytes: 300_000, back: 200_000, times: 3},
		{to: to, bytes: 1000, back: 10, times: 5, every: time.Millisecond},
		{to: to, bytes: 1000, back: 1400, times: 5, udp: true},
	} {
		s.patience = 30 * time.Second
		if err := send(ctx, s); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
	}
	if err := shake(ctx, to); err != nil {
		t.Error(err)
	}
	if err := send(ctx, sending{to: to, bytes: headLen - 1}); err == nil {
		t.Error("a frame shorter than its head was sent")
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// TestCall: over TLS, in as many segments as are asked for, and in one session.
func TestCall(t *testing.T) {
	borrowed := httptest.NewTLSServer(nil)
	ln, err := tls.Listen("tcp4", "127.0.0.1:0", &tls.Config{Certificates: borrowed.TLS.Certificates, NextProtos: []string{"h2"}})
	borrowed.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = conn.Write([]byte{1})
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	for _, c := range []calling{
		{most: "1.3", times: 1, parts: 1},
		{most: "1.2", times: 3, parts: 3, serverName: "api.example.com"},
		{most: "1.3", times: 2, parts: 2, alpn: []string{"h2"}},
	} {
		c.to = ln.Addr().String()
		if err := call(t.Context(), c); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if err := call(t.Context(), calling{most: "1.1"}); err == nil {
		t.Error("a version that is not offered was")
	}
}
