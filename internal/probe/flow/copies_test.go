// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

// copied collects what a tap copies until the test ends.
type copied struct {
	mu  sync.Mutex
	all []Copy
}

func (l *live) copies() *copied {
	c := &copied{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := l.tap.Copies(ctx, func(one *Copy) {
			kept := *one
			kept.Data = bytes.Clone(one.Data)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.all = append(c.all, kept)
		}, func(int64) {})
		if err != nil {
			l.t.Error(err)
		}
	}()
	l.t.Cleanup(func() { cancel(); <-done })
	return c
}

func (c *copied) take(wants func(*Copy) bool) (found []Copy) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.all {
		if wants(&c.all[i]) {
			found = append(found, c.all[i])
		}
	}
	return found
}

// with waits for as many copies of these contents as are wanted.
func (c *copied) with(t *testing.T, n int, data string) []Copy {
	t.Helper()
	var found []Copy
	bpftest.Eventually(t, "copies of "+data, func() bool {
		found = c.take(func(one *Copy) bool { return bytes.Contains(one.Data, []byte(data)) })
		return len(found) >= n
	})
	if len(found) != n {
		t.Fatalf("%d copies of %q, want %d", len(found), data, n)
	}
	return found
}

// serve answers on a port, in upper case, until the test ends.
func serve(t *testing.T, ns *bpftest.Netns, network string, at netip.AddrPort) {
	t.Helper()
	ns.Do(func() {
		if strings.HasPrefix(network, "udp") {
			pc, err := net.ListenPacket(network, at.String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { pc.Close() })
			go func() {
				b := make([]byte, 65536)
				for {
					n, from, err := pc.ReadFrom(b)
					if err != nil {
						return
					}
					_, _ = pc.WriteTo(bytes.ToUpper(b[:n]), from)
				}
			}()
			return
		}
		ln, err := net.Listen(network, at.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					b := make([]byte, 65536)
					for {
						n, err := conn.Read(b)
						if err != nil {
							return
						}
						_, _ = conn.Write(bytes.ToUpper(b[:n]))
					}
				}()
			}
		}()
	})
}

type dialled struct {
	network string
	at      netip.AddrPort
}

// ask says something and waits for its answer.
func ask(t *testing.T, ns *bpftest.Netns, to dialled, what string) {
	t.Helper()
	ns.Do(func() {
		conn, err := net.DialTimeout(to.network, to.at.String(), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := conn.Write([]byte(what)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, len(what))); err != nil {
			t.Fatal(err)
		}
	})
}

var dnsPorts = []uint16{53, 5353}

// What is said to and from a port of the DNS is copied, as each end sees it.
func TestCopiesOfTheDNS(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		for _, v6 := range []bool{false, true} {
			for _, network := range []string{"udp", "tcp"} {
				p := bpftest.NewPair(t)
				client := tapOn(t, p.A.Netns, Config{Attach: how, DNSPorts: dnsPorts})
				server := tapOn(t, p.B.Netns, Config{Attach: how, DNSPorts: dnsPorts, TableEntries: 1})
				atClient, atServer := client.copies(), server.copies()
				to := netip.AddrPortFrom(p.B.IP(v6), 5353)
				serve(t, p.B.Netns, network, to)
				other := netip.AddrPortFrom(p.B.IP(v6), 5354)
				serve(t, p.B.Netns, network, other)
				ask(t, p.A.Netns, dialled{network, other}, "nobody's")
				ask(t, p.A.Netns, dialled{network, to}, "question")

				q, a := atClient.with(t, 1, "question")[0], atClient.with(t, 1, "QUESTION")[0]
				if !q.Sent || a.Sent || !q.RemoteDNS || q.LocalDNS || q.Hello || q.Conn != a.Conn ||
					q.Conn.RemotePort != 5353 || q.Conn.Remote != event.IPFrom(to.Addr()) || q.Conn.Netns != p.A.Netns.Inode() {
					t.Errorf("%s: question %+v, answer %+v", network, q, a)
				}
				if q.Cookie == 0 || q.Length != 8 || a.Length != 8 || a.Time < q.Time || time.Since(time.Unix(0, q.Time)).Abs() > time.Minute {
					t.Errorf("%s: question %+v, answer %+v", network, q, a)
				}
				q, a = atServer.with(t, 1, "question")[0], atServer.with(t, 1, "QUESTION")[0]
				if q.Sent || !a.Sent || q.RemoteDNS || !q.LocalDNS || q.Conn.LocalPort != 5353 {
					t.Errorf("%s, at the server: question %+v, answer %+v", network, q, a)
				}
				if more := atClient.take(func(c *Copy) bool { return c.Conn.RemotePort == 5354 }); len(more) > 0 {
					t.Errorf("%s: copied from another port: %+v", network, more)
				}
				client.close()
				server.close()
			}
		}
	})
}

// What is asked over loopback is copied once, as who asks sees it, and counts as
// nothing. A loopback that is tapped tells the same.
func TestCopiesOnLoopback(t *testing.T) {
	for _, tapped := range []bool{false, true} {
		bothWays(t, func(t *testing.T, how Attach) {
			ns := bpftest.NewNetns(t)
			ns.Command("ip", "link", "set", "lo", "up")
			l := tapOn(t, ns, Config{Attach: how, DNSPorts: dnsPorts, Loopback: tapped})
			c := l.copies()
			to := netip.MustParseAddrPort("127.0.0.53:53")
			for _, network := range []string{"udp", "tcp"} {
				what := "question over " + network
				serve(t, ns, network, to)
				ask(t, ns, dialled{network, to}, what)
				q, a := c.with(t, 1, what)[0], c.with(t, 1, strings.ToUpper(what))[0]
				if !q.Sent || a.Sent || !q.RemoteDNS || q.LocalDNS || !a.RemoteDNS || a.LocalDNS || q.Conn != a.Conn || q.Conn.RemotePort != 53 {
					t.Errorf("%s: question %+v, answer %+v", network, q, a)
				}
			}
			l.close()
			if n := hooked(t, ns, "lo"); n != 0 {
				t.Errorf("%d programs are left on loopback", n)
			}
		})
	}
}

// Where more comes all the time than is read, it is handed on in portions.
func TestCopiesInPortions(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p := bpftest.NewPair(t)
	l := tapOn(t, p.A.Netns, Config{DNSPorts: dnsPorts})
	const n = copyPortion + 1000
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	sent := make(chan struct{})
	time.AfterFunc(30*time.Second, cancel)
	var taken int
	var portions []int
	done := make(chan error)
	go func() {
		done <- l.tap.Copies(ctx, func(*Copy) {
			<-sent // all are there
			taken++
		}, func(int64) {
			if taken > 0 {
				portions = append(portions, taken)
			}
			if taken >= n {
				cancel()
			}
		})
	}()
	p.A.Netns.Do(func() {
		conn, err := net.Dial("udp", netip.AddrPortFrom(p.B.IP(false), 53).String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for left := n; left > 0; {
			if _, err := conn.Write([]byte("question")); err == nil { // nobody listens, and that is told
				left--
			}
		}
	})
	close(sent)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if taken < n || portions[0] != copyPortion {
		t.Errorf("%d of %d were taken, after the portions %v", taken, n, portions)
	}
}

// A ClientHello is copied whole, in as many segments as it takes, and nothing else
// of a connection, while the tables are swapped all the time.
func TestCopiesOfClientHellos(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p := bpftest.NewPair(t)
	l := tapOn(t, p.A.Netns, Config{DNSPorts: dnsPorts})
	c := l.copies()
	stop := l.every(time.Millisecond)
	defer stop()
	to := netip.AddrPortFrom(p.B.IP(false), 8443)
	listens(t, p.B.Netns, to)

	const n = 50
	sent := map[uint16]*bytes.Buffer{}
	for i := range n {
		p.A.Netns.Do(func() {
			conn, err := net.DialTimeout("tcp", to.String(), 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			told := &bytes.Buffer{}
			sent[uint16(conn.LocalAddr().(*net.TCPAddr).Port)] = told
			if i%2 == 0 {
				_, _ = conn.Write([]byte("GET / HTTP/1.1\r\n"))
				return
			}
			alpn := strings.Fields(strings.Repeat("protocol-of-some-length ", 130)) // beyond two segments
			spy := struct{ net.Conn }{conn}
			_ = tls.Client(&teeConn{spy, told, 1 + i%5}, &tls.Config{ServerName: "api.example.com", NextProtos: alpn}).Handshake()
		})
	}
	for port, told := range sent {
		var got []byte
		bpftest.Eventually(t, "the ClientHello", func() bool {
			got = nil
			for _, one := range c.take(func(c *Copy) bool { return c.Conn.LocalPort == port && c.Hello }) {
				got = append(got, one.Data...)
			}
			return len(got) >= told.Len()
		})

		if want := told.Bytes(); len(want) > 0 && !bytes.HasPrefix(got, want) || len(want) > 0 && len(want) < 2500 {
			t.Errorf("port %d: %d bytes were copied, %d were said", port, len(got), len(want))
		}
	}
	if lost := l.tap.Uncopied(); lost > 0 {
		t.Errorf("%d found no room", lost)
	}
}

// listens reads and says nothing, as a server does until a ClientHello is whole.
func listens(t *testing.T, ns *bpftest.Netns, at netip.AddrPort) {
	ns.Do(func() {
		ln, err := net.Listen("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				go func() { _, _ = io.Copy(io.Discard, conn); conn.Close() }()
			}
		}()
	})
}

// teeConn keeps what is written first, sends it in parts, and hears nothing.
type teeConn struct {
	net.Conn
	told  *bytes.Buffer
	parts int
}

func (c *teeConn) Write(b []byte) (n int, err error) {
	c.told.Write(b)
	for part := range slices.Chunk(b, len(b)/c.parts+1) {
		m, err := c.Conn.Write(part)
		if n += m; err != nil {
			return n, err
		}
	}
	return n, nil
}

func (c *teeConn) Read([]byte) (int, error) { return 0, io.EOF }
