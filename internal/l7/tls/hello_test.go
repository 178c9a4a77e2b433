// SPDX-License-Identifier: Apache-2.0

package tls

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orb8/orb8/internal/event"
)

// said gives the bytes that a client of Go's says first.
func said(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(client, config).HandshakeContext(context.Background())
		client.Close()
	}()
	head := make([]byte, recordHeader)
	if _, err := io.ReadFull(server, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(head[3])<<8|int(head[4]))
	if _, err := io.ReadFull(server, body); err != nil {
		t.Fatal(err)
	}
	server.Close()
	<-done
	return append(head, body...)
}

func TestHellosOfGo(t *testing.T) {
	tests := map[string]struct {
		config tls.Config
		want   event.Hello
	}{
		"1.3": {
			tls.Config{ServerName: "Example.COM", NextProtos: []string{"h2", "http/1.1"}},
			event.Hello{ServerName: "example.com", ALPN: []string{"h2", "http/1.1"}, Version: tls.VersionTLS13},
		},
		"1.2": {
			tls.Config{ServerName: "example.com", MaxVersion: tls.VersionTLS12},
			event.Hello{ServerName: "example.com", Version: tls.VersionTLS12},
		},
		"without a name": {
			tls.Config{InsecureSkipVerify: true},
			event.Hello{Version: tls.VersionTLS13},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := said(t, &test.config)
			h, need, err := ParseClientHello(b)
			if err != nil || need != 0 {
				t.Fatal(need, err)
			}
			if diff := cmp.Diff(&test.want, h); diff != "" {
				t.Error(diff)
			}
			everyPrefix(t, b)
			if !bytes.Equal(b, said(t, &test.config)) && !LooksLikeHello(b) {
				t.Error("does not look like a hello")
			}
		})
	}
}

// everyPrefix checks that what is not the whole says honestly what it needs.
func everyPrefix(t *testing.T, b []byte) {
	t.Helper()
	for n := range b {
		_, need, err := ParseClientHello(b[:n])
		if !errors.Is(err, ErrIncomplete) || need <= n || need > len(b) {
			t.Fatalf("%d of %d bytes: needs %d, %v", n, len(b), need, err)
		}
	}
}
