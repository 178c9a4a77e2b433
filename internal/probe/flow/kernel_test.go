// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

// The ends of the packets that are built by hand.
var (
	src4, dst4 = netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("10.9.8.7")
	src6, dst6 = netip.MustParseAddr("fd00:1::5"), netip.MustParseAddr("fd00:2::6")
)

// kernel runs the tap's programs on packets, attached to nothing.
type kernel struct {
	t        *testing.T
	ns       *bpftest.Netns
	tap      *Tap
	instance *instance
}

func newKernel(t *testing.T, entries int) *kernel {
	t.Helper()
	bpftest.RequireKernel(t, bpftest.BPF)
	k := &kernel{t: t, ns: bpftest.NewNetns(t)}
	k.ns.Do(func() {
		tap, err := Open(Config{TableEntries: entries, StateDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		k.tap = tap
	})
	t.Cleanup(func() {
		if err := k.tap.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return k
}

// run gives one frame to the program of a direction.
func (k *kernel) run(egress bool, frame []byte) {
	k.t.Helper()
	k.runAs(egress, frame, nil)
}

// runAs is run with what the kernel knows of a packet beside its bytes.
func (k *kernel) runAs(egress bool, frame []byte, skb *bpftest.SkBuff) {
	k.t.Helper()
	opts := &ebpf.RunOptions{Data: frame}
	if skb != nil {
		opts.Context = skb
	}
	// The packet is on the loopback of the namespace that the thread is in.
	k.ns.Do(func() {
		verdict, err := k.prog(egress).Run(opts)
		if err != nil {
			k.t.Fatalf("run %d bytes: %v", len(frame), err)
		}
		if int32(verdict) != -1 {
			k.t.Fatalf("verdict %d: the tap never decides", int32(verdict))
		}
	})
}

// seen is all that the tap counted since the last look.
type seen struct {
	deltas []event.Delta
	rest   map[kernelRestKey]kernelRestValue
	lost   event.Counter
}

// look reads and empties everything. Nothing runs meanwhile, so that no swap is
// needed.
func (k *kernel) look() seen {
	k.t.Helper()
	s := seen{rest: map[kernelRestKey]kernelRestValue{}}
	err := k.tap.empty(k.tap.tables[k.tap.active], func(d *event.Delta) { s.deltas = append(s.deltas, *d) })
	if err != nil {
		k.t.Fatal(err)
	}
	var key kernelRestKey
	var perCPU []kernelRestValue
	for it := k.tap.kernel.rest.Iterate(); it.Next(&key, &perCPU); {
		wire, seg := sum(perCPU)
		s.rest[key] = kernelRestValue{Bytes: wire.Bytes, Packets: wire.Packets, SegBytes: seg.Bytes, SegPackets: seg.Packets}
	}
	for key := range s.rest {
		if err := k.tap.kernel.rest.Delete(key); err != nil {
			k.t.Fatal(err)
		}
	}
	for dir := range uint32(2) {
		if err := k.tap.kernel.lost.Lookup(dir, &perCPU); err != nil {
			k.t.Fatal(err)
		}
		wire, _ := sum(perCPU)
		s.lost.Add(wire)
		clear(perCPU)
		if err := k.tap.kernel.lost.Put(dir, perCPU); err != nil {
			k.t.Fatal(err)
		}
	}
	return s
}

// total is everything that was counted, on the wire and as a device counts.
func (s *seen) total() (wire, device event.Counter) {
	var seg event.Counter
	for i := range s.deltas {
		for c, sum := range map[*event.Traffic]*event.Counter{&s.deltas[i].Traffic: &wire, &s.deltas[i].Segmentation: &seg} {
			sum.Add(c.Tx())
			sum.Add(c.Rx())
		}
	}
	for _, v := range s.rest {
		wire.Add(event.Counter{Bytes: v.Bytes, Packets: v.Packets})
		seg.Add(event.Counter{Bytes: v.SegBytes, Packets: v.SegPackets})
	}
	wire.Add(s.lost)
	return wire, event.Counter{Bytes: wire.Bytes - seg.Bytes, Packets: wire.Packets - seg.Packets}
}

// classes is how many packets had no connection, by reason.
func (s *seen) classes() map[uint8]uint64 {
	m := map[uint8]uint64{}
	for k, v := range s.rest {
		m[k.Class] += v.Packets
	}
	return m
}

// conn is a connection on the loopback of k.
func (k *kernel) conn(protocol event.Protocol, local, remote netip.AddrPort) event.Conn {
	return event.Conn{
		Local: event.IPFrom(local.Addr()), Remote: event.IPFrom(remote.Addr()),
		LocalPort: local.Port(), RemotePort: remote.Port(),
		Ifindex: 1, Netns: k.ns.Inode(), Protocol: protocol,
	}
}

// mirror is the connection as its other end has it.
func mirror(c event.Conn) event.Conn {
	c.Local, c.Remote = c.Remote, c.Local
	switch c.Kind {
	case event.ConnEchoOpenedLocal:
		c.Kind = event.ConnEchoOpenedRemote
	case event.ConnEchoOpenedRemote:
		c.Kind = event.ConnEchoOpenedLocal
	default:
		c.LocalPort, c.RemotePort = c.RemotePort, c.LocalPort
	}
	return c
}

// record is a packet and the connection that it belongs to where its source is
// the local end.
type record struct {
	name     string
	frame    []byte
	protocol event.Protocol
	kind     event.ConnKind
	// Of source and destination; an echo's id is the first.
	ports [2]uint16
	v6    bool
}

// checkRecords runs each packet in both directions and expects one connection,
// one packet, its length in bytes and nothing else.
func (k *kernel) checkRecords(t *testing.T, records []record) {
	for _, r := range records {
		t.Run(r.name, func(t *testing.T) {
			src, dst := src4, dst4
			if r.v6 {
				src, dst = src6, dst6
			}
			want := k.conn(r.protocol, netip.AddrPortFrom(src, r.ports[0]), netip.AddrPortFrom(dst, r.ports[1]))
			want.Kind = r.kind
			for _, egress := range []bool{true, false} {
				k.run(egress, r.frame)
				n := uint64(len(r.frame))
				traffic := event.Traffic{TxBytes: n, TxPackets: 1}
				if !egress {
					want, traffic = mirror(want), event.Traffic{RxBytes: n, RxPackets: 1}
				}
				got := k.look()
				if len(got.deltas) != 1 || len(got.rest) != 0 {
					t.Fatalf("egress %v: records %+v, rest %+v", egress, got.deltas, got.rest)
				}
				d := got.deltas[0]
				if d.Conn != want || d.Traffic != traffic || d.FirstTx != egress {
					t.Errorf("egress %v:\n got %+v %+v\nwant %+v %+v", egress, d.Conn, d.Traffic, want, traffic)
				}
			}
		})
	}
}

// misfit is a packet without a connection, and why.
type misfit struct {
	name     string
	frame    []byte
	class    uint8
	protocol uint8
}

func (k *kernel) checkMisfits(t *testing.T, misfits []misfit) {
	for _, m := range misfits {
		t.Run(m.name, func(t *testing.T) {
			for dir := range uint8(2) {
				k.run(dir == 1, m.frame)
				got := k.look()
				key := kernelRestKey{Netns: k.ns.Inode(), Ifindex: 1, Class: m.class, Protocol: m.protocol, Direction: dir}
				want := kernelRestValue{Bytes: uint64(len(m.frame)), Packets: 1}
				if len(got.deltas) != 0 || len(got.rest) != 1 || got.rest[key] != want {
					t.Errorf("got %+v and %+v, want %+v: %+v", got.deltas, got.rest, key, want)
				}
			}
		})
	}
}

// tryRun is runAs for packets that the kernel may refuse to run a program on,
// before the program has seen them; it tells whether it ran.
func (k *kernel) tryRun(egress bool, frame []byte, skb *bpftest.SkBuff) bool {
	k.t.Helper()
	var err error
	k.ns.Do(func() { _, err = k.prog(egress).Run(&ebpf.RunOptions{Data: frame, Context: skb}) })
	if err != nil && !errors.Is(err, unix.EINVAL) {
		k.t.Fatalf("run %d bytes: %v", len(frame), err)
	}
	return err == nil
}

// prog is an instance that taps nobody's interface, in a namespace that
// forwards nothing: each packet is its own.
func (k *kernel) prog(egress bool) *ebpf.Program {
	if k.instance == nil {
		k.load(constants{netns: k.tap.own.inode, linkHeader: etherHeader})
	}
	if egress {
		return k.instance.Egress
	}
	return k.instance.Ingress
}

// load takes an instance with other constants.
func (k *kernel) load(c constants) {
	k.t.Helper()
	i, err := k.tap.kernel.instance(c)
	if err != nil {
		k.t.Fatal(err)
	}
	k.instance = i
	k.t.Cleanup(func() { _ = i.Close() })
}

func possibleCPUs(t *testing.T) int {
	t.Helper()
	n, err := ebpf.PossibleCPU()
	if err != nil {
		t.Fatal(err)
	}
	return n
}
