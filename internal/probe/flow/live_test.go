// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"cmp"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

// bothWays runs a test with each of the kernel's interfaces for attaching.
func bothWays(t *testing.T, fn func(t *testing.T, how Attach)) {
	t.Run("tcx", func(t *testing.T) {
		bpftest.RequireKernel(t, bpftest.BPF, bpftest.TCX)
		fn(t, AttachTCX)
	})
	t.Run("clsact", func(t *testing.T) {
		bpftest.RequireKernel(t, bpftest.BPF)
		fn(t, AttachClsact)
	})
}

// live is a tap on a namespace, and all that it has told so far.
type live struct {
	t   *testing.T
	ns  *bpftest.Netns
	tap *Tap

	mu    sync.Mutex
	flows map[event.Conn]*event.Delta // sums, and the last of what is not a sum
}

// tapOn opens a tap in a namespace and attaches it.
func tapOn(t *testing.T, ns *bpftest.Netns, cfg Config) *live {
	t.Helper()
	if cfg.StateDir == "" {
		cfg.StateDir = t.TempDir()
	}
	l := &live{t: t, ns: ns, flows: map[event.Conn]*event.Delta{}}
	own := ns
	if cfg.Enter != nil {
		own = bpftest.NewNetns(t)
	}
	own.Do(func() {
		tap, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		l.tap = tap
	})
	t.Cleanup(l.close)
	if own != ns {
		l.tap.Add(ns.Inode(), "pod", time.Now())
	}
	l.sync()
	return l
}

// fromOutside is a tap on the namespace as on one of many: the tap's own is
// another, and nothing is forwarded in this one.
func fromOutside(ns *bpftest.Netns, cfg Config) Config {
	cfg.Enter = func(_ uint32, fn func() error) (err error) {
		ns.Do(func() { err = fn() })
		return err
	}
	return cfg
}

// tapQuiet is tapOn for an idle interface: nothing may pass while the tap is
// being attached, since nobody could tell whether that was tapped.
func tapQuiet(t *testing.T, e *bpftest.End, cfg Config) *live {
	t.Helper()
	l := tapOn(t, e.Netns, cfg)
	bpftest.Eventually(t, "a quiet interface", func() bool {
		before := e.Counters()
		l.close()
		*l = *tapOn(t, e.Netns, cfg)
		return before == e.Counters()
	})
	return l
}

func (l *live) close() {
	l.ns.Do(func() {
		if err := l.tap.Close(); err != nil {
			l.t.Errorf("close: %v", err)
		}
	})
}

func (l *live) sync() {
	l.t.Helper()
	l.ns.Do(func() {
		if err := l.tap.Sync(); err != nil {
			l.t.Fatal(err)
		}
	})
}

// epoch ends one and adds it up. It tells whether anything had moved.
func (l *live) epoch() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	moved := false
	l.ns.Do(func() {
		err := l.tap.Epoch(true, func(d *event.Delta) {
			moved = true
			l.add(d)
		})
		if err != nil {
			l.t.Errorf("epoch: %v", err)
		}
	})
	return moved
}

func (l *live) add(d *event.Delta) {
	old := l.flows[d.Conn]
	sum := *d
	if old != nil {
		sum.Traffic.Add(old.Traffic)
		sum.Segmentation.Add(old.Segmentation)
		sum.Health = addHealth(old, d)
		sum.HasSocket = d.HasSocket || old.HasSocket
		if sum.Cookie == 0 {
			sum.Cookie, sum.Cgroup = old.Cookie, old.Cgroup
		}
	}
	l.flows[d.Conn] = &sum
}

// addHealth is what two epochs together tell.
func addHealth(old, d *event.Delta) event.Health {
	h, was := d.Health, &old.Health
	if !d.HasSocket { // an epoch in which it sent nothing
		h.RTT, h.MinRTT, h.BytesAcked = was.RTT, was.MinRTT, was.BytesAcked
		h.Retransmits, h.OutOfOrder, h.TellsOrder = was.Retransmits, was.OutOfOrder, was.TellsOrder
	}
	if old.HasSocket {
		h.RetransmitsBefore = was.RetransmitsBefore
	}
	h.SYN, h.SYNACK = cmp.Or(was.SYN, h.SYN), cmp.Or(was.SYNACK, h.SYNACK)
	h.ClosedBy, h.ResetBy = cmp.Or(was.ClosedBy, h.ClosedBy), cmp.Or(was.ResetBy, h.ResetBy)
	if was.ShutTx && d.BeganShutTx {
		h.ZeroWindowsTx--
	}
	if was.ShutRx && d.BeganShutRx {
		h.ZeroWindowsRx--
	}
	h.ZeroWindowsTx += was.ZeroWindowsTx
	h.ZeroWindowsRx += was.ZeroWindowsRx
	h.ShutTx = h.ShutTx || was.ShutTx && d.Traffic.TxPackets == 0
	h.ShutRx = h.ShutRx || was.ShutRx && d.Traffic.RxPackets == 0
	h.FlagsTx |= was.FlagsTx
	h.FlagsRx |= was.FlagsRx
	h.ICMPErrors += was.ICMPErrors
	return h
}

// every ends epochs until stop is called, as an agent does.
func (l *live) every(period time.Duration) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.NewTicker(period); ; {
			select {
			case <-quit:
				tick.Stop()
				return
			case <-tick.C:
				l.epoch()
			}
		}
	}()
	stop = sync.OnceFunc(func() { close(quit); <-done })
	l.t.Cleanup(stop)
	return stop
}

// settle ends epochs until nothing moves any more.
func (l *live) settle() {
	l.t.Helper()
	bpftest.Eventually(l.t, "the traffic to end", func() bool { return !l.epoch() })
}

// account is what was counted on an interface in one direction.
type account struct {
	flows, rest, seg, device event.Counter
	other                    event.Account
}

// wire is everything on the wire, tapped what the device should have counted.
func (a *account) wire() event.Counter {
	w := a.flows
	w.Add(a.rest)
	return w
}

func (a *account) tapped() event.Counter {
	w := a.wire()
	return event.Counter{Bytes: w.Bytes - a.seg.Bytes, Packets: w.Packets - a.seg.Packets}
}

// accounts adds up one interface, which must be quiet.
func (l *live) accounts(name string) (rx, tx account) {
	l.t.Helper()
	var found event.Interface
	for _, i := range l.tap.Interfaces() {
		if i.Name == name {
			found = i
		}
	}
	if found.How == "" {
		l.t.Fatalf("%s is not tapped: %+v", name, found)
	}
	rx, tx = l.rest(&found.Ingress), l.rest(&found.Egress)
	for _, f := range l.flows {
		if f.Conn.Iface() != found.Iface {
			continue
		}
		rx.flows.Add(f.Traffic.Rx())
		tx.flows.Add(f.Traffic.Tx())
		rx.seg.Add(f.Segmentation.Rx())
		tx.seg.Add(f.Segmentation.Tx())
	}
	return rx, tx
}

func (l *live) rest(a *event.Account) account {
	l.t.Helper()
	if a.DeviceLow != a.DeviceHigh {
		l.t.Errorf("the device counted between %+v and %+v, though it is quiet", a.DeviceLow, a.DeviceHigh)
	}
	out := account{seg: a.Segmentation, device: a.DeviceLow, other: *a}
	for _, c := range []event.Counter{a.Overflow, a.NotIP, a.Malformed} {
		out.rest.Add(c)
	}
	return out
}

// checkConserved expects the tap's sums to be the device's, exactly.
func (l *live) checkConserved(e *bpftest.End) (rx, tx account) {
	l.t.Helper()
	rx, tx = l.accounts(e.Name)
	for name, a := range map[string]account{"received": rx, "sent": tx} {
		if got := a.tapped(); got != a.device {
			l.t.Errorf("%s: tapped %+v, the device counted %+v: %+v", name, got, a.device, a)
		}
	}
	if n := dropped(e); n != 0 {
		l.t.Errorf("the driver dropped %d packets: the comparison is worth nothing", n)
	}
	l.t.Logf("received %+v, sent %+v, %d connections", rx.wire(), tx.wire(), len(l.flows))
	return rx, tx
}

func dropped(e *bpftest.End) uint64 {
	return e.Link(e.Name).Attrs().Statistics.TxDropped
}

// find returns the one connection with this local and remote port.
func (l *live) find(protocol event.Protocol, local, remote uint16) *event.Delta {
	l.t.Helper()
	for c, d := range l.flows {
		if c.Protocol == protocol && c.LocalPort == local && c.RemotePort == remote {
			return d
		}
	}
	l.t.Fatalf("no %v connection from port %d to %d among %d", protocol, local, remote, len(l.flows))
	return nil
}

// tappedNames are the interfaces that the tap is on.
func (l *live) tappedNames() map[string]string {
	names := map[string]string{}
	for _, i := range l.tap.Interfaces() {
		if i.How != "" {
			names[i.Name] = i.How
		}
	}
	return names
}

// link changes interfaces in the namespace.
func (l *live) link(fn func() error) {
	l.t.Helper()
	l.ns.Do(func() {
		if err := fn(); err != nil {
			l.t.Fatal(err)
		}
	})
}

func byName(name string) *netlink.GenericLink {
	return &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: name}}
}
