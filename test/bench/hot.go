// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
)

// alike is what two ways of counting may differ by, in ns: where the kernel
// happens to put their code makes as much.
const alike = 5

// udpHot: few connections that send all the time, in a pod's namespace, in the
// one that forwards, and past it.
func (b *bench) udpHot() error {
	sinks, err := newSinks(b.lab.far, farAddr(), hotFlows)
	if err != nil {
		return err
	}
	defer sinks.close()
	src, err := hotSource(b.lab.near)
	if err != nil {
		return err
	}
	defer src.close()
	w := startWorker(0, func() (int, error) { return src.send(sendBatch) })
	defer w.end()
	got := results{}
	err = withStats(func() error {
		return b.interleave(all, func(v *variant) error {
			return b.hot(v, b.lab, wanted(v, countedOwn), got)
		})
	})
	if err != nil {
		return err
	}
	b.hotRows(got)
	return w.end()
}

func hotSource(ns namespace) (*udpSource, error) {
	src, err := newUDPSource(ns, farAddr(), sendBatch, hotFlows)
	if err == nil {
		src.repeat(hotFlows)
	}
	return src, err
}

// wanted: in a namespace without their address, all packets are others'.
func wanted(v *variant, k kind) kind {
	if v.name == "forwarded" {
		return countedForwarded
	}
	return k
}

// hot measures a variant under the traffic that is running, which it must count
// as such.
func (b *bench) hot(v *variant, l *lab, want kind, into results) error {
	ns, err := v.measure([]place{l.nearEgress()}, func() error {
		time.Sleep(b.slice)
		return nil
	})
	if err != nil {
		return err
	}
	into.add(v, ns[0])
	return v.saw(want)
}

func (b *bench) hotRows(got results) {
	b.net(fmt.Sprintf("UDP egress, %d hot flows, net", hotFlows), atMost(80), got)
	for _, c := range b.load.changed {
		row := result{Measure: "  tap − " + c.name, Unit: "ns", Bar: atMost(alike)}
		b.add(row.of(got["tap"].minus(got[c.name])))
	}
	b.ratio("  the same ÷ plain", atMost(1.2), got)
	b.add(result{Measure: "  own in the host's namespace, net", Unit: "ns", Bar: atMost(80)}.of(got.net("host")))
	b.add(result{Measure: "  the same − tap", Unit: "ns", Bar: atMost(alike)}.of(got["host"].minus(got["tap"])))
	b.add(result{Measure: "  forwarded, net", Unit: "ns", Bar: atMost(30)}.of(got.net("forwarded")))
	row := result{Measure: "  an event a packet on a ring ÷ tap", Unit: "×", Bar: atLeast(25)}
	row = row.of(got.net("ring").over(got.net("tap")))
	row.Baselines = []baseline{{"ring", got.net("ring").median(), "ns"}}
	b.add(row)
}

// carried: through the host's namespace pass packets that bear its address and
// have no socket in it, as masquerade leaves them, beside packets of its own.
func (b *bench) carried() error {
	l, err := newLab()
	if err != nil {
		return err
	}
	defer l.close()
	guest, err := newGuest(l)
	if err != nil {
		return err
	}
	defer guest.close()
	sinks, err := newSinks(l.far, farAddr(), hotFlows)
	if err != nil {
		return err
	}
	defer sinks.close()
	own, err := hotSource(l.near)
	if err != nil {
		return err
	}
	defer own.close()
	others, err := hotSource(guest)
	if err != nil {
		return err
	}
	defer others.close()
	var source atomic.Pointer[udpSource]
	source.Store(own)
	w := startWorker(0, func() (int, error) { return source.Load().send(sendBatch) })
	defer w.end()
	mine, passing := results{}, results{}
	err = withStats(func() error {
		return b.interleave(hosts, func(v *variant) error {
			for _, t := range []struct {
				src  *udpSource
				kind kind
				into results
			}{{own, countedOwn, mine}, {others, countedCarried, passing}} {
				source.Store(t.src)
				time.Sleep(b.slice / 20) // what the other sent is through
				if err := b.hot(v, l, wanted(v, t.kind), t.into); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	row := result{Measure: "carried through the host's namespace, net", Unit: "ns"}
	b.add(row.of(passing.net("host")).beside("counted", mine.net("host")).beside("empty", passing["empty"]))
	row = result{Measure: "  carried − counted", Unit: "ns", Bar: atMost(alike)}
	b.add(row.of(passing.net("host").minus(mine.net("host"))))
	row = result{Measure: "  forwarded, of another namespace, net", Unit: "ns", Bar: atMost(30)}
	b.add(row.of(passing.net("forwarded")))
	return w.end()
}

// newGuest makes a namespace behind near that sends with near's address.
func newGuest(l *lab) (namespace, error) {
	guest, err := newNamespace()
	if err != nil {
		return guest, err
	}
	gate, door := netip.MustParseAddr("10.79.0.1"), netip.MustParseAddr("10.79.0.2")
	err = l.near.do(func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "gate"}, PeerName: "door", PeerNamespace: netlink.NsFd(int(guest.handle))}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("veth: %w", err)
		}
		var err error
		for name, value := range map[string]string{
			"ip_forward": "1", "conf/all/rp_filter": "0", "conf/gate/rp_filter": "0", "conf/gate/accept_local": "1",
		} {
			// The kernel shows each thread the settings of its own namespace.
			err = errors.Join(err, os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0o644))
		}
		return err
	})
	if err == nil {
		_, err = l.near.address("gate", gate)
	}
	if err == nil {
		_, err = guest.address("door", door)
	}
	if err == nil {
		_, err = guest.address("lo", nearAddr())
	}
	if err == nil {
		err = guest.do(func() error {
			far := &net.IPNet{IP: farAddr().AsSlice(), Mask: net.CIDRMask(32, 32)}
			return netlink.RouteAdd(&netlink.Route{Dst: far, Gw: gate.AsSlice(), Src: nearAddr().AsSlice()})
		})
	}
	if err != nil {
		guest.close()
		return guest, fmt.Errorf("guest: %w", err)
	}
	return guest, nil
}
