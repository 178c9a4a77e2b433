// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"io"
	"net"
	"testing"
	"time"

	. "github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

// twoTaps is a tap at each end of a connection.
type twoTaps struct {
	*Pair
	a, b *live
}

func tapBoth(t *testing.T, how Attach) *twoTaps {
	p := NewPair(t)
	return &twoTaps{p, tapOn(t, p.A.Netns, Config{Attach: how}), tapOn(t, p.B.Netns, Config{Attach: how})}
}

// see ends epochs until nothing moves, and gives what each end has of the
// connection that c has in A.
func (p *twoTaps) see(c net.Conn, server uint16) (a, b *event.Delta) {
	p.a.settle()
	p.b.settle()
	port := c.LocalAddr().(*net.TCPAddr).AddrPort().Port()
	return p.a.find(event.TCP, port, server), p.b.find(event.TCP, server, port)
}

// The handshake is seen from both ends with one clock, and the one that asks has
// what the other has, and the way there and back. The first question is lost, so
// that it takes a second and many epochs.
func TestHandshake(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		p := tapBoth(t, how)
		for _, args := range [][]string{
			{"add", "table", "inet", "loss"},
			{"add", "chain", "inet", "loss", "in", "{ type filter hook input priority 0; }"},
			{"add", "rule", "inet", "loss", "in", "tcp flags & (syn | ack) == syn numgen inc mod 1000 == 0 drop"},
		} {
			p.B.Command("nft", args...)
		}
		stopA, stopB := p.a.every(100*time.Millisecond), p.b.every(100*time.Millisecond)
		server := p.B.ListenTCP(false, ServeDiscard)
		slow := p.A.DialTCP(server)
		quick := p.A.DialTCP(server)
		stopA()
		stopB()
		for name, c := range map[string]struct {
			conn     net.Conn
			min, max uint32 // microseconds
			again    uint32
		}{
			"answered at once":                 {quick, 0, 900_000, 0},
			"answered when it asked once more": {slow, 900_000, 30_000_000, 1},
		} {
			a, b := p.see(c.conn, server.Port())
			at := [...]uint32{a.Health.SYN, b.Health.SYN, b.Health.SYNACK, a.Health.SYNACK}
			for i := range at[1:] {
				if at[i] == 0 || int32(at[i+1]-at[i]) < 0 {
					t.Errorf("%s: asked, heard, answered and heard at %d", name, at)
				}
			}
			if took := at[3] - at[0]; took < c.min || took > c.max || a.Health.Retransmits != c.again || a.Health.RetransmitsBefore != 0 {
				t.Errorf("%s: it took %d µs, %d segments sent again", name, took, a.Health.Retransmits)
			}
			t.Logf("%s: %d µs, of which %d at the other end", name, at[3]-at[0], at[2]-at[1])
		}
	})
}

// A process that does not read makes its window zero, as often as its kernel
// counts.
func TestZeroWindow(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		p := tapBoth(t, how)
		read := make(chan int)
		server := p.B.ListenTCP(false, func(c *net.TCPConn) {
			_ = c.SetReadBuffer(64 << 10)
			for n := range read {
				_, _ = io.CopyN(io.Discard, c, int64(n))
			}
			ServeDiscard(c)
		})
		const counter = "TcpExt: TCPToZeroWindowAdv"
		before := p.B.SNMP(counter)[0]
		c := p.A.DialTCP(server)
		sent := make(chan error, 1)
		go func() {
			_, err := c.Write(make([]byte, 6<<20))
			_ = c.CloseWrite()
			sent <- err
		}()
		stopA, stopB := p.a.every(100*time.Millisecond), p.b.every(70*time.Millisecond)
		for i := range uint64(5) {
			Eventually(t, "the window to be zero", func() bool { return p.B.SNMP(counter)[0] > before+i })
			time.Sleep(250 * time.Millisecond) // over some epochs
			read <- 1 << 20
		}
		close(read)
		if err := <-sent; err != nil {
			t.Error(err)
		}
		_, _ = io.Copy(io.Discard, c)
		stopA()
		stopB()
		a, b := p.see(c, server.Port())
		want := uint32(p.B.SNMP(counter)[0] - before)
		if a.Health.ZeroWindowsRx != want || b.Health.ZeroWindowsTx != want || want < 5 {
			t.Errorf("zero %d times as sent and %d times as received, the kernel says %d", b.Health.ZeroWindowsTx, a.Health.ZeroWindowsRx, want)
		}
		if a.Health.ZeroWindowsTx != 0 || b.Health.ZeroWindowsRx != 0 || a.Health.ShutRx || b.Health.ShutTx {
			t.Errorf("the other end: %+v, %+v", a.Health, b.Health)
		}
	})
}

// Who ends a connection is told of both ends alike, though it begins and ends in
// one epoch.
func TestWhoEnds(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		p := tapBoth(t, how)
		for name, c := range map[string]struct {
			serve, ask    func(*net.TCPConn)
			closed, reset event.Side // as A has it
		}{
			"the one that asked":     {ServeDiscard, func(c *net.TCPConn) { _ = c.Close() }, event.SideLocal, event.SideUnknown},
			"the one that was asked": {func(*net.TCPConn) {}, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c); _ = c.Close() }, event.SideRemote, event.SideUnknown},
			"reset by who asked":     {ServeDiscard, func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() }, event.SideUnknown, event.SideLocal},
			"reset by who was asked": {func(c *net.TCPConn) { _, _ = c.Read(make([]byte, 1)); _ = c.SetLinger(0) }, func(c *net.TCPConn) { _, _ = c.Write([]byte{1}); _, _ = io.Copy(io.Discard, c) }, event.SideUnknown, event.SideRemote},
			"closed, and data behind": {func(c *net.TCPConn) { _, _ = c.Read(make([]byte, 1)) }, func(c *net.TCPConn) {
				_, _ = c.Write([]byte{1})
				_, _ = io.Copy(io.Discard, c)
				_, _ = c.Write([]byte{2})
			}, event.SideRemote, event.SideRemote},
		} {
			server := p.B.ListenTCP(false, c.serve)
			conn := p.A.DialTCP(server)
			c.ask(conn)
			a, b := p.see(conn, server.Port())
			if a.Health.ClosedBy != c.closed || a.Health.ResetBy != c.reset ||
				b.Health.ClosedBy != c.closed.Other() || b.Health.ResetBy != c.reset.Other() {
				t.Errorf("%s: closed by %q and %q, reset by %q and %q", name, a.Health.ClosedBy, b.Health.ClosedBy, a.Health.ResetBy, b.Health.ResetBy)
			}
		}
	})
}

// Who asks and then does not wait for the answer resets it, before the connection
// was open.
func TestResetInTheHandshake(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		p := tapBoth(t, how)
		server := p.B.ListenTCP(false, ServeDiscard)
		for _, args := range [][]string{
			{"add", "table", "inet", "late"},
			{"add", "chain", "inet", "late", "in", "{ type filter hook input priority 0; }"},
			{"add", "rule", "inet", "late", "in", "tcp flags & (syn | ack) == (syn | ack) drop"},
		} {
			p.A.Command("nft", args...)
		}
		p.A.Do(func() {
			if c, err := net.DialTimeout("tcp", server.String(), 200*time.Millisecond); err == nil {
				_ = c.Close()
				t.Error("the answer was to be lost")
			}
		})
		p.A.Command("nft", "delete", "table", "inet", "late")
		var b *event.Delta
		Eventually(t, "the answer to be reset", func() bool {
			p.a.settle()
			p.b.settle()
			for c, d := range p.b.flows {
				if c.LocalPort == server.Port() {
					b = d
				}
			}
			return b != nil && b.Health.FlagsRx&event.FlagRST != 0
		})
		if h := b.Health; h.FlagsRx != event.FlagSYN|event.FlagRST || h.FlagsTx != event.FlagSYN|event.FlagACK || h.ResetBy != event.SideRemote {
			t.Errorf("%+v", h)
		}
	})
}

// Of a connection that is older than the tap its past is not the tap's, nor is its
// beginning known.
func TestOlderThanTheTap(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		pair := NewPair(t)
		loseOneIn(&pair.B, "40")
		server := pair.B.ListenTCP(false, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
		c := pair.A.DialTCP(server)
		exchange := func() {
			go func() { _, _ = c.Write(make([]byte, 2<<20)) }()
			if _, err := io.CopyN(io.Discard, c, 2<<20); err != nil {
				t.Fatal(err)
			}
		}
		exchange()
		// What was asked for may have been answered twice; let it all arrive.
		Eventually(t, "all to be acknowledged", func() bool {
			i := pair.A.TCPInfo(c)
			return i.Unacked == 0 && i.Retrans == 0
		})
		p := &twoTaps{pair, tapOn(t, pair.A.Netns, Config{Attach: how}), tapOn(t, pair.B.Netns, Config{Attach: how})}
		past := pair.A.TCPInfo(c).Total_retrans
		exchange()
		a, b := p.see(c, server.Port())
		now := pair.A.TCPInfo(c).Total_retrans
		if h := a.Health; h.SYN != 0 || h.SYNACK != 0 || b.Health.SYN != 0 || h.RetransmitsBefore != past || past == 0 || h.Retransmits != now || now == past {
			t.Errorf("%+v; the socket sent %d segments again before and %d in all", h, past, now)
		}
	})
}
