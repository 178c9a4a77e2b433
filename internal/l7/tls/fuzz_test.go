// SPDX-License-Identifier: Apache-2.0

package tls

import (
	"bytes"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orb8/orb8/internal/event"
)

// recording is a connection whose other end has said all that it says.
type recording struct{ bytes.Reader }

func (*recording) Write(b []byte) (int, error)      { return len(b), nil }
func (*recording) Close() error                     { return nil }
func (*recording) LocalAddr() net.Addr              { return nil }
func (*recording) RemoteAddr() net.Addr             { return nil }
func (*recording) SetDeadline(time.Time) error      { return nil }
func (*recording) SetReadDeadline(time.Time) error  { return nil }
func (*recording) SetWriteDeadline(time.Time) error { return nil }

// heard is what Go's server takes from a hello; nil when it refuses it.
func heard(b []byte) (info *tls.ClientHelloInfo) {
	var conn recording
	conn.Reset(b)
	_ = tls.Server(&conn, &tls.Config{
		GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
			info = i
			return nil, errors.New("it is heard")
		},
	}).Handshake()
	return info
}

func seeds(t testing.TB) (all [][]byte) {
	for _, config := range hellos(t) {
		b := said(t, config)
		all = append(all, b, split(b, 500))
	}
	return append(all, extended(
		extensionServerName, sni("a\x00b"), extensionALPN, list16(list8("\x1a\x1a")+list8("x")), extensionVersions, list8("\x0a\x0a\x03\x04"),
	))
}

// What is asked for is honest, and nothing that is told can do harm.
func FuzzParseClientHello(f *testing.F) {
	for _, b := range seeds(f) {
		if len(b) < 600 { // of longer ones the fuzzer's time goes into making them short
			f.Add(b)
		}
	}
	f.Add([]byte{0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, need, err := ParseClientHello(b)
		var cause Cause
		switch {
		case errors.Is(err, ErrIncomplete):
			if need <= len(b) || need > 2*recordHeader+len(b)+MaxHello {
				t.Errorf("%d of %d bytes", need, len(b))
			}
			return
		case err != nil:
			if h != nil || need != 0 || !errors.As(err, &cause) {
				t.Errorf("%+v, %d, %v", h, need, err)
			}
			return
		}
		for _, text := range append(slices.Clone(h.ALPN), h.ServerName) {
			if bad := strings.IndexFunc(text, func(c rune) bool { return c <= ' ' || c >= 0x7f }); bad >= 0 || len(text) > 4*255 {
				t.Errorf("%q", text)
			}
		}
		if !LooksLikeHello(b) || len(h.ALPN) > maxProtocols {
			t.Errorf("%+v of %q", h, b)
		}
	})
}

// What Go's server takes from a hello is the same, whatever is changed in it. This
// is no fuzz target: no two runs of the server's take the same way.
func TestHeardAsByGosServer(t *testing.T) {
	random := rand.New(rand.NewPCG(6, 6))
	both := 0
	for _, seed := range seeds(t) {
		for range 300 {
			b := slices.Clone(seed)
			for range random.IntN(4) {
				b[random.IntN(len(b))] = byte(random.IntN(256))
			}
			h, _, err := ParseClientHello(b)
			info := heard(b)
			if errors.Is(err, ErrIncomplete) && info != nil {
				t.Errorf("Go's server takes %x for the whole", b)
			}
			if err == nil && info != nil {
				compare(t, h, info)
				both++
			}
		}
	}
	if both < 1000 {
		t.Errorf("both understood only %d", both)
	}
}

func compare(t *testing.T, h *event.Hello, info *tls.ClientHelloInfo) {
	t.Helper()
	if want := lower([]byte(info.ServerName)); h.ServerName != want {
		t.Errorf("%q, not %q", h.ServerName, want)
	}
	var protocols []string
	for _, p := range info.SupportedProtos {
		if !isGreaseName([]byte(p)) && len(protocols) < maxProtocols {
			protocols = append(protocols, plain([]byte(p)))
		}
	}
	if diff := cmp.Diff(protocols, h.ALPN); diff != "" {
		t.Error(diff)
	}
	versions := slices.DeleteFunc(slices.Clone(info.SupportedVersions), func(v uint16) bool { return v>>8 != majorVersion })
	if len(versions) > 0 && h.Version <= tls.VersionTLS13 && h.Version != slices.Max(versions) {
		t.Errorf("version %x of %x", h.Version, info.SupportedVersions)
	}
}

func BenchmarkParseClientHello(b *testing.B) {
	config := &tls.Config{ServerName: "s3.eu-central-1.amazonaws.com", NextProtos: []string{"h2", "http/1.1"}}
	whole := said(b, config)
	for name, hello := range map[string][]byte{"one record": whole, "four records": split(whole, len(whole)/4+1), "half": whole[:len(whole)/2]} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _, _ = ParseClientHello(hello)
			}
		})
	}
}

func BenchmarkLooksLikeHello(b *testing.B) {
	hello := said(b, &tls.Config{ServerName: "example.com"})
	for b.Loop() {
		if !LooksLikeHello(hello) {
			b.Fatal("it does not")
		}
	}
}
