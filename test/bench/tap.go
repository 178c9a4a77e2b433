// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/probe/flow"
)

// tap is the tap itself, opened as the agent does, in two namespaces where
// nothing moves: its own, which forwards, and another, as of a pod. Its programs
// are found there and attached where they are measured, so that each variant is
// attached in the same way.
type tap struct {
	variant         // of the other namespace
	host    variant // of its own
	flow    *flow.Tap
	own     namespace
	pod     namespace
	dev     int // the one interface of the own namespace
	passed  uint64
}

// home is how the own namespace of a tap looks.
type home struct {
	// Of its interface: as where the programs are measured, for there is a place
	// for what passes through it.
	index int
	// Its address; the zero value for none.
	addr netip.Addr
	// What is said to these ports is copied.
	dnsPorts []uint16
}

func newTap(h home) (*tap, error) {
	t := &tap{variant: variant{name: "tap"}, host: variant{name: "host"}, dev: h.index}
	if !h.addr.IsValid() {
		t.host.name = "forwarded"
	}
	err := t.open(h)
	if err != nil {
		t.close()
		return nil, fmt.Errorf("tap: %w", err)
	}
	t.forget, t.host.forget = t.epoch, t.epoch
	t.sees, t.host.sees = t.counted, t.counted
	return t, nil
}

func (t *tap) open(h home) (err error) {
	if t.own, err = newNamespace(); err != nil {
		return err
	}
	if t.pod, err = newNamespace(); err != nil {
		return err
	}
	if err := t.own.do(func() error { return t.openOwn(h) }); err != nil {
		return err
	}
	if err := t.find(&t.host, t.own, "still0"); err != nil {
		return err
	}
	return t.find(&t.variant, t.pod, "still1")
}

// openOwn runs in the own namespace.
func (t *tap) openOwn(h home) error {
	still := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: "still0", Index: h.index},
		PeerName:      "still1",
		PeerNamespace: netlink.NsFd(int(t.pod.handle)),
	}
	if err := netlink.LinkAdd(still); err != nil {
		return fmt.Errorf("veth: %w", err)
	}
	if h.addr.IsValid() {
		addr, err := netlink.ParseAddr(cidr(h.addr))
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(still, addr); err != nil {
			return fmt.Errorf("address: %w", err)
		}
	}
	inode, err := t.pod.inode()
	if err != nil {
		return err
	}
	t.flow, err = flow.Open(flow.Config{
		TableEntries: tableEntries,
		Attach:       flow.AttachTCX,
		DNSPorts:     h.dnsPorts,
		Enter:        func(_ uint32, fn func() error) error { return t.pod.do(fn) },
	})
	if err != nil {
		return err
	}
	if !t.flow.Add(inode, "pod", time.Now()) {
		return errors.New("no room for a namespace")
	}
	return t.flow.Sync()
}

// inode names a namespace.
func (n namespace) inode() (uint32, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(n.handle), &st); err != nil {
		return 0, fmt.Errorf("network namespace: %w", err)
	}
	return uint32(st.Ino), nil
}

// find takes the programs of an interface.
func (t *tap) find(v *variant, ns namespace, dev string) error {
	return ns.do(func() error {
		l, err := netlink.LinkByName(dev)
		if err != nil {
			return fmt.Errorf("%s: %w", dev, err)
		}
		if v.ingress, err = attached(l.Attrs().Index, ebpf.AttachTCXIngress); err != nil {
			return fmt.Errorf("%s: %w", dev, err)
		}
		if v.egress, err = attached(l.Attrs().Index, ebpf.AttachTCXEgress); err != nil {
			return fmt.Errorf("%s: %w", dev, err)
		}
		return nil
	})
}

// attached finds the program that is on an interface.
func attached(dev int, at ebpf.AttachType) (*ebpf.Program, error) {
	got, err := link.QueryPrograms(link.QueryOptions{Target: dev, Attach: at})
	if err != nil {
		return nil, err
	}
	if len(got.Programs) != 1 {
		return nil, fmt.Errorf("%d programs on the interface, not 1", len(got.Programs))
	}
	return ebpf.NewProgramFromID(got.Programs[0].ID)
}

func (t *tap) epoch() error {
	_, err := t.counted()
	return err
}

// kind is how the tap counted packets.
type kind string

const (
	countedOwn       kind = "own"
	countedCarried   kind = "carried"
	countedForwarded kind = "forwarded"
)

// counted tells how most packets that were sent since the last epoch were
// counted; "" when there were none.
func (t *tap) counted() (most kind, err error) {
	sum := map[kind]uint64{}
	err = t.own.do(func() error {
		return t.flow.Epoch(true, func(d *event.Delta) {
			if d.Place == event.PlaceCarried {
				sum[countedCarried] += d.Traffic.TxPackets
			} else {
				sum[countedOwn] += d.Traffic.TxPackets
			}
		})
	})
	for _, i := range t.flow.Interfaces() {
		if i.Iface.Index == uint32(t.dev) && i.Iface.Netns == t.flow.Folded().Netns {
			sum[countedForwarded], t.passed = i.Egress.Forwarded.Packets-t.passed, i.Egress.Forwarded.Packets
		}
	}
	for k, n := range sum {
		if n > sum[most] {
			most = k
		}
	}
	return most, err
}

// everySecond makes epochs as the agent does, until stop is called.
func (t *tap) everySecond() (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				done <- nil
				return
			case <-tick.C:
				if err := t.epoch(); err != nil {
					done <- err
					return
				}
			}
		}
	}()
	return func() error {
		cancel()
		return <-done
	}
}

func (t *tap) close() {
	for _, p := range []*ebpf.Program{t.ingress, t.egress, t.host.ingress, t.host.egress} {
		if p != nil {
			_ = p.Close()
		}
	}
	if t.flow != nil {
		_ = t.flow.Close()
	}
	t.own.close()
	t.pod.close()
}
