// SPDX-License-Identifier: Apache-2.0

package lookup

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/event"
)

// said is what Go's client says first.
func said(t testing.TB, name string, protocols ...string) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	go tls.Client(client, &tls.Config{ServerName: name, NextProtos: protocols}).Handshake()
	b := make([]byte, 16<<10)
	n, err := server.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// speaker is a client that speaks TLS.
func speaker(w *world, port uint16) *talk {
	k := &talk{w: w, conn: conn(port), to: 0xffffffff - 100}
	k.conn.Protocol, k.conn.RemotePort = event.TCP, 443
	return k
}

// says is a segment at an offset of what the client says.
func (k *talk) says(b []byte, from, to int) {
	k.w.now += ms
	k.w.Take(&Packet{Conn: k.conn, Time: k.w.now, Sent: true, Hello: true, Seq: k.to + uint32(from), Length: to - from, Data: b[from:to]})
}

func TestHello(t *testing.T) {
	b := said(t, "s3.amazonaws.com", "h2", "http/1.1")
	n := len(b)
	for _, c := range []struct {
		what string
		say  func(k *talk)
	}{
		{"one segment", func(k *talk) { k.says(b, 0, n) }},
		{"three segments", func(k *talk) { k.says(b, 0, 100); k.says(b, 100, 150); k.says(b, 150, n) }},
		{"a byte a segment", func(k *talk) {
			for i := range b {
				k.says(b, i, i+1)
			}
		}},
		{"out of order", func(k *talk) { k.says(b, 150, n); k.says(b, 100, 150); k.says(b, 0, 100) }},
		{"sent again", func(k *talk) {
			k.says(b, 0, 100)
			k.says(b, 0, 100)
			k.says(b, 50, 200)
			k.says(b, 200, n)
			k.says(b, 200, n)
			k.says(b, 0, n)
		}},
		{"and what comes next", func(k *talk) {
			more := append(b[:n:n], "and data"...)
			k.says(more, 0, n+2)
			k.says(more, n+2, n+8)
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			w := newWorld(t, Config{})
			c.say(speaker(w, 1))
			if len(w.hellos) != 1 {
				t.Fatalf("%d hellos, %+v", len(w.hellos), w.Counts())
			}
			if h := w.hellos[0]; h.ServerName != "s3.amazonaws.com" || len(h.ALPN) != 2 || h.Version != tls.VersionTLS13 {
				t.Errorf("%+v", h)
			}
			w.after(time.Minute)
			if len(w.hellos) != 1 || len(w.hellos0()) != 0 || w.counts.HelloIncomplete != 0 {
				t.Errorf("%+v", w.Counts())
			}
		})
	}
}

func (w *world) hellos0() map[event.Conn]*hello { return w.Tracker.hellos.all }

func TestHelloOfTheSameTuple(t *testing.T) {
	w := newWorld(t, Config{})
	k := speaker(w, 1)
	for _, name := range []string{"a.example", "b.example", "c.example"} {
		if name == "b.example" {
			k.w.Take(&Packet{Conn: k.conn, Time: w.now, Sent: true, Hello: true, SYN: true, Seq: k.to + 7})
			k.to += 8
		} else {
			k.to += 1 << 20
		}
		b := said(t, name)
		k.says(b, 0, len(b))
		if h := w.hellos[len(w.hellos)-1]; h.ServerName != name {
			t.Errorf("%q, want %q", h.ServerName, name)
		}
	}
}

func TestNoHello(t *testing.T) {
	b := said(t, "s3.amazonaws.com")
	w := newWorld(t, Config{})
	k := speaker(w, 1)
	for range 2 * maxHeld { // it may have begun before, and did not
		k.says([]byte("GET / HTTP/1.1\r\n"), 0, 16)
		k.to += 16
	}
	speaker(w, 2).says(b, 0, 100)
	k = speaker(w, 3)
	k.copied(true, k.to, b, 50) // DNS would be read so
	k.w.Take(&Packet{Conn: k.conn, Time: w.now, Sent: true, Hello: true, Seq: k.to, Length: len(b), Data: b[:50]})
	broken := append([]byte{22, 3, 1, 0, 9, 1, 0, 0, 5, 9, 9}, make([]byte, 9)...)
	speaker(w, 4).says(broken, 0, len(broken))
	k = speaker(w, 5)
	k.says(b, 0, 100)
	k.w.Take(&Packet{Conn: k.conn, Time: w.now, Sent: true, Hello: true, RST: true})
	k = speaker(w, 6)
	k.w.Take(&Packet{Conn: k.conn, Time: w.now, Hello: true, Length: len(b), Data: b}) // what it is told
	w.after(time.Minute)
	c := w.Counts()
	if len(w.hellos) != 0 || c.HelloIncomplete != 3 || c.MalformedHello["malformed"] != 1 || len(w.hellos0()) != 0 {
		t.Errorf("%d hellos, %+v", len(w.hellos), c)
	}
}

func TestBoundedHellos(t *testing.T) {
	b := said(t, "s3.amazonaws.com")
	w := newWorld(t, Config{MaxHellos: 10})
	for i := range 100 {
		speaker(w, uint16(1000+i)).says(b, 0, 100)
	}
	if len(w.hellos0()) != 10 || w.counts.HelloEvicted != 90 || w.Tracker.hellos.order.len != 10 {
		t.Errorf("%d, %+v", len(w.hellos0()), w.Counts())
	}
	k := speaker(w, 1)
	long := append([]byte{22, 3, 1, 64, 0, 1, 0, 0x7f, 0}, make([]byte, 32<<10)...)
	for i := 0; i < len(long); i += 1000 {
		k.says(long, i, min(len(long), i+1000))
	}
	for i := 2; i < 20; i++ {
		speaker(w, 2).says(long, 1000*i, 1000*i+900)
	}
	for _, h := range w.hellos0() {
		if n := cap(h.buf) + h.waiting(); n > 2*maxHello {
			t.Errorf("%d bytes are kept", n)
		}
	}
}
