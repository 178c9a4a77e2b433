// SPDX-License-Identifier: Apache-2.0

package tls

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
)

// said gives the bytes that a client of Go's says first.
func said(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(client, config).HandshakeContext(context.Background())
		client.Close()
	}()
	b := first(t, server)
	server.Close()
	<-done
	return b
}

// first reads one record.
func first(t testing.TB, from io.Reader) []byte {
	t.Helper()
	head := make([]byte, recordHeader)
	if _, err := io.ReadFull(from, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := io.ReadFull(from, body); err != nil {
		t.Fatal(err)
	}
	return append(head, body...)
}

// resuming is a client's configuration after it was at a server once.
func resuming(t testing.TB, version uint16) *tls.Config {
	t.Helper()
	config := &tls.Config{
		ServerName: "example.com", InsecureSkipVerify: true, MaxVersion: version,
		ClientSessionCache: tls.NewLRUClientSessionCache(1),
	}
	a, b := connected(t) // a pipe holds nothing, and both write at once
	client, server := tls.Client(a, config), tls.Server(b, &tls.Config{Certificates: []tls.Certificate{certificate(t)}})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = server.Write([]byte("x")) // the ticket goes before it
	}()
	if _, err := client.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	<-done
	b.Close()
	a.Close()
	return config
}

func connected(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func certificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"example.com"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// echConfigs is what the DNS would tell a client: to say publicName outside.
func echConfigs(t testing.TB, publicName string) []byte {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var b cryptobyte.Builder
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint16(extensionECH)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			b.AddUint8(1)       // the key's number
			b.AddUint16(0x0020) // X25519
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(key.PublicKey().Bytes()) })
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddUint32(0x0001_0001) })
			b.AddUint8(64)
			b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(publicName)) })
			b.AddUint16(0)
		})
	})
	return b.BytesOrPanic()
}

// split puts a hello that is in one record into records of n bytes.
func split(b []byte, n int) (out []byte) {
	for rest := b[recordHeader:]; len(rest) > 0; rest = rest[min(n, len(rest)):] {
		part := rest[:min(n, len(rest))]
		out = append(out, b[:3]...)
		out = binary.BigEndian.AppendUint16(out, uint16(len(part)))
		out = append(out, part...)
	}
	return out
}

// extended is a hello with these extensions: kind, data, kind, data.
func extended(parts ...any) []byte {
	var extensions []byte
	for i := 0; i < len(parts); i += 2 {
		data := parts[i+1].(string)
		extensions = binary.BigEndian.AppendUint16(extensions, uint16(parts[i].(int)))
		extensions = binary.BigEndian.AppendUint16(extensions, uint16(len(data)))
		extensions = append(extensions, data...)
	}
	body := append([]byte{3, 3}, bytes.Repeat([]byte{7}, randomSize)...)
	body = append(body, 0, 0, 2, 0x13, 1, 1, 0)
	body = binary.BigEndian.AppendUint16(body, uint16(len(extensions)))
	return recorded(append(body, extensions...))
}

// recorded is the body of a hello in its message, in as few records as hold it.
func recorded(body []byte) []byte {
	message := append([]byte{typeClientHello, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
	return split(append([]byte{contentHandshake, 3, 1, 0, 0}, message...), maxRecord)
}

// list16 and list8 put a length before a text.
func list16(s string) string { return string([]byte{byte(len(s) >> 8), byte(len(s))}) + s }
func list8(s string) string  { return string([]byte{byte(len(s))}) + s }

func sni(name string) string { return list16("\x00" + list16(name)) }
