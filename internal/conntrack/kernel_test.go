// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"runtime"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

// yard is a node with two pods and another machine. The node masquerades what
// leaves by its uplink, and what a pod sends to itself.
type yard struct {
	t         testing.TB
	node, far *bpftest.Host
	a, b      *bpftest.Pod
	table     *Table
}

func newYard(t testing.TB) *yard {
	t.Helper()
	bpftest.RequireKernel(t)
	w := bpftest.NewWire(t)
	y := &yard{t: t, node: w.Host(), far: w.Host()}
	y.a, y.b = y.node.RoutedPod(), y.node.RoutedPod()
	y.node.Masquerade(y.node.Name)
	y.node.Do(func() {
		var err error
		if y.table, err = Open(Config{}); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() {
		if err := errors.Join(y.table.Close(), y.table.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(run(t, y.table))
	return y
}

// vip is the address of a Service: nobody has it, and there is a route to it.
func vip(v6 bool, port uint16) netip.AddrPort {
	if v6 {
		return netip.AddrPortFrom(netip.MustParseAddr("fd88:2:96::1"), port)
	}
	return netip.AddrPortFrom(netip.MustParseAddr("10.96.0.1"), port)
}

// fromNode makes a port a Service for the node's own processes.
func (y *yard) fromNode(port uint16, to netip.AddrPort) {
	family := byte(unix.NFPROTO_IPV4)
	if to.Addr().Is6() {
		family = unix.NFPROTO_IPV6
	}
	y.rule(&nftables.Chain{Name: "out", Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest}, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, port)},
		&expr.Immediate{Register: 1, Data: to.Addr().AsSlice()},
		&expr.Immediate{Register: 2, Data: binary.BigEndian.AppendUint16(nil, to.Port())},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(family), RegAddrMin: 1, RegProtoMin: 2},
	})
}

// hairpin masquerades what goes back to the pod that it came from.
func (y *yard) hairpin(p *bpftest.Pod) {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, p.HostEnd)
	y.rule(&nftables.Chain{Name: "hairpin", Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource}, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
		&expr.Masq{ToPorts: false},
	})
}

func (y *yard) rule(chain *nftables.Chain, rule []expr.Any) {
	y.t.Helper()
	var err error
	y.node.Do(func() {
		var c *nftables.Conn
		if c, err = nftables.New(); err != nil {
			return
		}
		chain.Table = c.AddTable(&nftables.Table{Name: "services", Family: nftables.TableFamilyINet})
		c.AddRule(&nftables.Rule{Table: chain.Table, Chain: c.AddChain(chain), Exprs: rule})
		err = c.Flush()
	})
	if err != nil {
		y.t.Fatal(err)
	}
}

// is looks a connection up and compares the other tuple, nil where it is not
// translated.
func (y *yard) is(what string, c event.Conn, host bool, want *event.Translation) {
	y.t.Helper()
	y.table.Want(c, host)
	var got *event.Translation
	bpftest.Eventually(y.t, "an answer", func() bool {
		answered := false
		y.table.Answers(func(of event.Conn, o *event.Translation) {
			answered, got = true, o
			if of != c {
				y.t.Errorf("%s: answered is %+v", what, of)
			}
		})
		return answered
	})
	if (got == nil) != (want == nil) || got != nil && *got != *want {
		y.t.Errorf("%s: %+v, want %+v", what, got, want)
	}
	if now, ok := y.table.Now(c, host); ok && ((now == nil) != (want == nil) || now != nil && *now != *want) || !ok && want != nil {
		y.t.Errorf("%s, at once: %+v, %v, want %+v", what, now, ok, want)
	}
}

type ask struct {
	protocol event.Protocol
	serve    func(e *bpftest.End, v6 bool) netip.AddrPort
	talk     func(e *bpftest.End, to netip.AddrPort) netip.AddrPort
}

func asks() []ask {
	return []ask{
		{
			event.UDP, func(e *bpftest.End, v6 bool) netip.AddrPort { return e.EchoUDP(v6).Addr },
			func(e *bpftest.End, to netip.AddrPort) netip.AddrPort { return e.AskUDP(to, 2, 100) },
		},
		{
			event.TCP, func(e *bpftest.End, v6 bool) netip.AddrPort { return e.EchoTCP(v6).Addr },
			func(e *bpftest.End, to netip.AddrPort) netip.AddrPort { return e.AskTCP(to, 1000) },
		},
	}
}

func between(p event.Protocol, local, remote netip.AddrPort) event.Conn {
	return conn(p, local.String(), remote.String())
}

func becomes(local, remote netip.AddrPort, ofSocket bool) *event.Translation {
	return other(local.String(), remote.String(), ofSocket)
}

func TestKernelTranslations(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, k := range asks() {
			t.Run(fmt.Sprintf("%v, IPv6 %v", k.protocol, v6), func(t *testing.T) {
				y := newYard(t)
				p := k.protocol

				server := k.serve(&y.b.End, v6)
				service := vip(v6, 80)
				y.node.NodePort(80, server)
				c := k.talk(&y.a.End, service)
				y.is("client of a Service", between(p, c, service), false, becomes(c, server, false))
				y.is("server behind a Service", between(p, server, c), false, becomes(service, c, false))

				c = k.talk(&y.a.End, server)
				y.is("pod to pod", between(p, c, server), false, nil)
				y.is("pod from pod", between(p, server, c), false, nil)

				y.hairpin(y.b)
				c = k.talk(&y.b.End, service)
				self := netip.AddrPortFrom(y.node.IP(v6), c.Port())
				y.is("client of itself", between(p, c, service), false, becomes(self, server, false))
				y.is("itself as server", between(p, server, self), false, becomes(service, c, false))

				outside := k.serve(&y.far.End, v6)
				c = k.talk(&y.a.End, outside)
				wire := netip.AddrPortFrom(y.node.IP(v6), c.Port())
				y.is("masqueraded", between(p, c, outside), false, becomes(wire, outside, false))
				y.is("masqueraded, on the wire", between(p, wire, outside), true, becomes(c, outside, true))

				c = k.talk(&y.node.End, outside)
				y.is("node to outside", between(p, c, outside), true, nil)
				y.fromNode(81, outside)
				service = vip(v6, 81)
				c = k.talk(&y.node.End, service)
				y.is("node to a Service", between(p, c, outside), true, becomes(c, service, true))

				nobody := netip.AddrPortFrom(y.far.IP(v6), 1)
				y.is("nothing", between(p, c, nobody), false, nil)
				if l, problems := y.table.Losses(), y.table.Problems(); l != nil || problems != nil {
					t.Errorf("%v, %v", l, problems)
				}
			})
		}
	}
}

func TestKernelEcho(t *testing.T) {
	y := newYard(t)
	for _, v6 := range []bool{false, true} {
		to, from, node := y.far.IP(v6), y.a.IP(v6), y.node.IP(v6)
		if y.a.Ping(to, 1) != 1 {
			t.Fatal("no answer")
		}
		p := event.ICMP
		if v6 {
			p = event.ICMPv6
		}
		echo := func(local netip.Addr) event.Conn {
			c := between(p, netip.AddrPortFrom(local, 77), netip.AddrPortFrom(to, 0))
			c.Kind = event.ConnEchoOpenedLocal
			return c
		}
		at := func(a netip.Addr, id uint16) netip.AddrPort { return netip.AddrPortFrom(a, id) }
		y.is("masqueraded echo", echo(from), false, becomes(at(node, 77), at(to, 0), false))
		y.is("masqueraded echo, on the wire", echo(node), true, becomes(at(from, 77), at(to, 0), true))
		if y.a.Ping(y.b.IP(v6), 1) != 1 {
			t.Fatal("no answer")
		}
		c := between(p, at(y.b.IP(v6), 77), at(from, 0))
		c.Kind = event.ConnEchoOpenedRemote
		y.is("echo as it is", c, false, nil)
	}
}

// A kernel that has no SCTP of its own tracks that of others.
func TestKernelSCTP(t *testing.T) {
	y := newYard(t)
	c, s := netip.AddrPortFrom(y.a.IP4, 5000), netip.AddrPortFrom(y.far.IP4, 2000)
	var raw net.Conn
	var err error
	y.a.Do(func() { raw, err = net.DialIP("ip4:132", nil, &net.IPAddr{IP: s.Addr().AsSlice()}) })
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	initiation := []byte{1, 0, 0, 20, 0, 0, 0, 1, 0, 0, 16, 0, 0, 1, 0, 1, 0, 0, 0, 1}
	packet := bpftest.Packet(bpftest.SCTP{Src: c.Port(), Dst: s.Port()}, bpftest.Data{Bytes: initiation})
	binary.LittleEndian.PutUint32(packet[8:], crc32.Checksum(packet, crc32.MakeTable(crc32.Castagnoli)))
	if _, err := raw.Write(packet); err != nil {
		t.Fatal(err)
	}
	wire := netip.AddrPortFrom(y.node.IP4, c.Port())
	y.is("masqueraded", between(event.SCTP, c, s), false, becomes(wire, s, false))
	y.is("masqueraded, on the wire", between(event.SCTP, wire, s), true, becomes(c, s, true))
}

// Without the right to ask, Open says what is missing.
func TestOpenWithoutTheRight(t *testing.T) {
	bpftest.RequireKernel(t)
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and the thread ends with its rights gone
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		err := unix.Capset(&header, &none[0])
		if err == nil {
			_, err = Open(Config{})
		}
		done <- err
	}()
	if err := <-done; !errors.Is(err, unix.EPERM) || err.Error() == "" {
		t.Errorf("%v", err)
	}
}

func TestClosedTable(t *testing.T) {
	bpftest.RequireKernel(t)
	table, err := Open(Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(table.Close(), table.Close()); err != nil {
		t.Error(err)
	}
	if _, err := table.lookUp(tcp(client, service)); !errors.Is(err, errClosed) {
		t.Errorf("%v", err)
	}
}

// BenchmarkLookUp is one question to the kernel.
func BenchmarkLookUp(b *testing.B) {
	y := newYard(b)
	to := y.far.EchoUDP(false).Addr
	c := between(event.UDP, y.a.AskUDP(to, 1, 10), to)
	for name, remote := range map[string]uint16{"found": to.Port(), "none": 1} {
		c.RemotePort = remote
		asked, _ := tupleOf(&c, false)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := y.table.lookUp(asked); (err == nil) != (name == "found") {
					b.Fatal(err)
				}
			}
		})
	}
}
