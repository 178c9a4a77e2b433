// SPDX-License-Identifier: Apache-2.0

package tls

import (
	"crypto/tls"
	"errors"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

// check expects a hello of b, of every way to put it into records, and of no part.
func check(t *testing.T, b []byte, want *event.Hello) {
	t.Helper()
	for _, n := range []int{len(b), 7, 100, len(b) - recordHeader - 1} {
		b := split(b, n)
		h, need, err := ParseClientHello(b)
		if err != nil || need != 0 {
			t.Fatalf("records of %d: %v, needs %d", n, err, need)
		}
		if diff := cmp.Diff(want, h); diff != "" {
			t.Fatalf("records of %d:\n%s", n, diff)
		}
		if n >= handshakeHeader && !LooksLikeHello(b) {
			t.Error("does not look like a hello")
		}
		for n := range b {
			if _, need, err := ParseClientHello(b[:n]); !errors.Is(err, ErrIncomplete) || need <= n || need > len(b) {
				t.Fatalf("%d of %d bytes: needs %d, %v", n, len(b), need, err)
			}
		}
		if h, _, err := ParseClientHello(append(b, 20, 3, 3, 0, 1, 1)); err != nil || !cmp.Equal(want, h) {
			t.Errorf("with what follows: %+v, %v", h, err)
		}
	}
}

func hellos(t testing.TB) map[string]*tls.Config {
	return map[string]*tls.Config{
		"1.3":            {ServerName: "Example.COM", NextProtos: []string{"h2", "http/1.1"}, CurvePreferences: []tls.CurveID{tls.X25519}},
		"1.2":            {ServerName: "example.com", MaxVersion: tls.VersionTLS12},
		"1.0":            {ServerName: "example.com", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10},
		"without a name": {InsecureSkipVerify: true},
		"post-quantum":   {ServerName: "example.com", CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.X25519}},
		"resumed 1.3":    resuming(t, tls.VersionTLS13),
		"resumed 1.2":    resuming(t, tls.VersionTLS12),
		"encrypted": {
			ServerName: "secret.example", NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13,
			EncryptedClientHelloConfigList: echConfigs(t, "public.example"),
		},
	}
}

func TestHellosOfGo(t *testing.T) {
	want := map[string]event.Hello{
		"1.3":            {ServerName: "example.com", ALPN: []string{"h2", "http/1.1"}, Version: tls.VersionTLS13},
		"1.2":            {ServerName: "example.com", Version: tls.VersionTLS12},
		"1.0":            {ServerName: "example.com", Version: tls.VersionTLS10},
		"without a name": {Version: tls.VersionTLS13},
		"post-quantum":   {ServerName: "example.com", Version: tls.VersionTLS13},
		"resumed 1.3":    {ServerName: "example.com", Version: tls.VersionTLS13},
		"resumed 1.2":    {ServerName: "example.com", Version: tls.VersionTLS12},
		"encrypted":      {ServerName: "public.example", ALPN: []string{"h2"}, Version: tls.VersionTLS13, ECH: true},
	}
	for name, config := range hellos(t) {
		t.Run(name, func(t *testing.T) {
			b := said(t, config)
			t.Log(len(b), "bytes")
			wanted := want[name]
			check(t, b, &wanted)
		})
	}
}

func TestHellosOfOpenSSL(t *testing.T) {
	bpftest.RequireProgram(t, "openssl")
	tests := map[string]event.Hello{
		"-servername Example.com -alpn h2,http/1.1": {ServerName: "example.com", ALPN: []string{"h2", "http/1.1"}, Version: tls.VersionTLS13},
		"-servername example.com -tls1_2":           {ServerName: "example.com", Version: tls.VersionTLS12},
		"-noservername":                             {Version: tls.VersionTLS13},
	}
	for args, want := range tests {
		t.Run(args, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			client := exec.Command("openssl", append([]string{"s_client", "-connect", l.Addr().String()}, strings.Fields(args)...)...)
			if err := client.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = client.Wait() }()
			defer func() { _ = client.Process.Kill() }()
			_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(30 * time.Second))
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(30 * time.Second))
			check(t, first(t, c), &want)
		})
	}
}

// Who asks for what is needed, and no more, gets there with nothing left over.
func TestNeedLeadsToTheEnd(t *testing.T) {
	b := extended(extensionServerName, sni("example.com"), 21, strings.Repeat("x", 20_000))
	for _, n := range []int{1, 5, 1000, maxRecord} {
		whole := split(append(b[:recordHeader:recordHeader], joinedRecords(b)...), n)
		at := 0
		for {
			h, need, err := ParseClientHello(whole[:at])
			if err == nil {
				if h.ServerName != "example.com" || at != len(whole) {
					t.Errorf("records of %d: %+v after %d of %d bytes", n, h, at, len(whole))
				}
				break
			}
			if !errors.Is(err, ErrIncomplete) || need <= at || need > len(whole) {
				t.Fatalf("records of %d, %d of %d bytes: needs %d, %v", n, at, len(whole), need, err)
			}
			at = need
		}
	}
}

// joinedRecords is what is in the records of b.
func joinedRecords(b []byte) (out []byte) {
	for len(b) > 0 {
		n := recordHeader + int(b[3])<<8 + int(b[4])
		out = append(out, b[recordHeader:n]...)
		b = b[n:]
	}
	return out
}

func TestExtensions(t *testing.T) {
	many, kept := "", []string{}
	for i := range 100 {
		many += list8("p" + strconv.Itoa(i))
		if i < maxProtocols {
			kept = append(kept, "p"+strconv.Itoa(i))
		}
	}
	name := func(s string) *event.Hello { return &event.Hello{ServerName: s, Version: 0x0303} }
	version := func(v uint16) *event.Hello { return &event.Hello{Version: v} }
	tests := map[string]struct {
		b    []byte
		want *event.Hello
	}{
		"none":                      {extended(), version(0x0303)},
		"no list of them":           {recorded(joinedRecords(extended())[handshakeHeader:][:2+randomSize+1+4+2]), version(0x0303)},
		"a last dot":                {extended(0, sni("example.com.")), name("example.com")},
		"only a dot":                {extended(0, sni(".")), name(".")},
		"IPv4":                      {extended(0, sni("192.0.2.1")), name("192.0.2.1")},
		"IPv6":                      {extended(0, sni("2001:DB8::1")), name("2001:db8::1")},
		"control characters":        {extended(0, sni("a\x00\x1b[2J\\b \xff")), name(`a\000\027[2j\\b\032\255`)},
		"the longest name":          {extended(0, sni(strings.Repeat("a", 254))), name(strings.Repeat("a", 254))},
		"a name too long":           {extended(0, sni(strings.Repeat("a", 255))), nil},
		"an empty name":             {extended(0, sni("")), nil},
		"no name":                   {extended(0, list16("")), nil},
		"a name of another kind":    {extended(0, list16("\x01"+list16("x")+"\x00"+list16("y"))), name("y")},
		"two names":                 {extended(0, list16("\x00"+list16("x")+"\x00"+list16("y"))), nil},
		"two lists of names":        {extended(0, sni("x"), 0, sni("y")), nil},
		"a name with more after it": {extended(0, sni("x")+"x"), nil},
		"a name without its end":    {extended(0, list16("\x00\x00\x09x")), nil},
		"protocols":                 {extended(16, list16(many)), &event.Hello{ALPN: kept, Version: 0x0303}},
		"GREASE":                    {extended(0x1a1a, "", 16, list16(list8("\x3a\x3a")+list8("h2")), 43, list8("\x5a\x5a\x03\x04\x03\x03")), &event.Hello{ALPN: []string{"h2"}, Version: 0x0304}},
		"a protocol of bytes":       {extended(16, list16(list8("a b\n\x80"))), &event.Hello{ALPN: []string{`a\032b\010\128`}, Version: 0x0303}},
		"an empty protocol":         {extended(16, list16(list8(""))), nil},
		"versions upside down":      {extended(43, list8("\x03\x01\x03\x03")), version(0x0303)},
		"only drafts":               {extended(43, list8("\x7f\x1c")), version(0x0303)},
		"half a version":            {extended(43, list8("\x03\x04\x03")), nil},
		"no version":                {extended(43, list8("")), nil},
		"outer":                     {extended(0xfe0d, "\x00\x00\x01\x00\x01\x07\x00\x00\x00\x00"), &event.Hello{ECH: true, Version: 0x0303}},
		"inner":                     {extended(0xfe0d, "\x01"), version(0x0303)},
		"empty":                     {extended(0xfe0d, ""), nil},
		"unknown ones, twice":       {extended(9999, "x", 9999, "x"), version(0x0303)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if test.want != nil {
				check(t, test.b, test.want)
				return
			}
			if h, _, err := ParseClientHello(test.b); !errors.Is(err, ErrMalformed) || h != nil {
				t.Error(h, err)
			}
		})
	}
}

func TestWhatIsNoHello(t *testing.T) {
	hello := extended()
	changed := func(at int, to byte) []byte {
		b := append([]byte(nil), hello...)
		b[at] = to
		return b
	}
	tests := map[string]struct {
		b    []byte
		want error
	}{
		"nothing":             {nil, ErrIncomplete},
		"HTTP":                {[]byte("GET / HTTP/1.1\r\n"), ErrNotTLS},
		"SSL 2":               {[]byte{0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10}, ErrNotTLS},
		"DTLS":                {[]byte{22, 0xfe, 0xfd, 0, 0, 0, 0}, ErrNotTLS},
		"data":                {changed(0, 23), ErrNotTLS},
		"a minor version":     {changed(2, 5), ErrNotTLS},
		"an empty record":     {[]byte{22, 3, 1, 0, 0}, ErrNotTLS},
		"a record too long":   {[]byte{22, 3, 1, 0x40, 1}, ErrNotTLS},
		"a ServerHello":       {changed(5, 2), ErrNotTLS},
		"a hello too long":    {changed(6, 1), ErrTooLong},
		"version 2":           {changed(9, 2), ErrMalformed},
		"a long session":      {changed(9+2+randomSize, 33), ErrMalformed},
		"extensions cut":      {changed(len(hello)-1, 1), ErrMalformed},
		"an alert in between": {append(append([]byte{22, 3, 1, 0, 2}, hello[5:7]...), 21, 3, 1, 0, 2, 1, 0), ErrMalformed},
		"an empty hello":      {recorded(nil), ErrMalformed},
	}
	for name, test := range tests {
		if h, _, err := ParseClientHello(test.b); !errors.Is(err, test.want) || h != nil {
			t.Errorf("%s: %v, %v", name, h, err)
		}
		if errors.Is(test.want, ErrNotTLS) && LooksLikeHello(test.b) {
			t.Errorf("%s looks like a hello", name)
		}
	}
}
