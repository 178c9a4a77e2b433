// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"
)

const hotFlows = 16

// variants that are compared; the ring only where it says so, since it takes
// a processor of its own to drain.
func (b *bench) variants(more ...*variant) []*variant {
	v := []*variant{b.base.empty, b.base.plain, &b.tap.variant}
	return append(append(v, b.extra...), more...)
}

// timed measures variants in one place under traffic that is already running.
func (b *bench) timed(at place, variants []*variant) (map[string]series, error) {
	return interleave(b.rounds, variants, func(v *variant) (float64, error) {
		ns, err := v.measure([]place{at}, func() error {
			time.Sleep(b.slice)
			return nil
		})
		if err != nil {
			return 0, err
		}
		return ns[0], nil
	})
}

// net adds the row of the tap, and one for each changed tap, net of the empty
// program.
func (b *bench) net(measure string, limit *bar, got map[string]series) {
	empty := got["empty"]
	plain := got["plain"].minus(empty)
	for _, v := range append([]*variant{&b.tap.variant}, b.extra...) {
		row := result{Measure: measure, Unit: "ns", Bar: limit}
		if v != &b.tap.variant {
			row.Measure += ", " + v.name
		}
		row = row.of(got[v.name].minus(empty)).beside("plain", plain).beside("empty", empty)
		b.add(row)
	}
}

// ratio adds rows of the quotient to the plain program.
func (b *bench) ratio(measure string, limit *bar, got map[string]series) {
	plain := got["plain"].minus(got["empty"])
	for _, v := range append([]*variant{&b.tap.variant}, b.extra...) {
		row := result{Measure: measure, Unit: "×", Bar: limit}
		if v != &b.tap.variant {
			row.Measure += ", " + v.name
		}
		b.add(row.of(got[v.name].minus(got["empty"]).over(plain)))
	}
}

func (b *bench) udpHot() error {
	sinks, err := newSinks(b.lab.far, farAddr(), hotFlows)
	if err != nil {
		return err
	}
	defer sinks.close()
	src, err := newUDPSource(b.lab.near, farAddr(), sendBatch, hotFlows)
	if err != nil {
		return err
	}
	defer src.close()
	src.repeat(hotFlows)
	w := startWorker(0, func() (int, error) { return src.send(sendBatch) })
	defer w.end()
	var got map[string]series
	err = withStats(func() (err error) {
		got, err = b.timed(b.lab.nearEgress(), b.variants(b.base.ring))
		return err
	})
	if err != nil {
		return err
	}
	b.net(fmt.Sprintf("UDP egress, %d hot flows, net", hotFlows), atMost(80), got)
	b.ratio("  the same ÷ plain", atMost(1.2), got)
	tap, ring := got["tap"].minus(got["empty"]), got["ring"].minus(got["empty"])
	row := result{Measure: "  an event a packet on a ring ÷ tap", Unit: "×", Bar: atLeast(25)}.of(ring.over(tap))
	row.Baselines = []baseline{{"ring", ring.median(), "ns"}}
	b.add(row)
	return w.end()
}

func (b *bench) tcpBulk() error {
	flood, err := newTCPFlood(b.lab)
	if err != nil {
		return err
	}
	defer flood.end()
	for _, d := range []struct {
		name string
		at   place
	}{{"egress", b.lab.nearEgress()}, {"ingress", b.lab.farIngress()}} {
		err := withStats(func() error {
			got, err := b.timed(d.at, b.variants())
			if err == nil {
				b.net("TCP bulk, super-packets, "+d.name+", net", atMost(120), got)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return flood.end()
}

// manyFlows: one packet for each of 100,000 connections in an empty table, and
// once more when all are in it and most are not in the processor's caches.
func (b *bench) manyFlows() error {
	src, err := newUDPSource(b.lab.near, behindFar(), tableEntries, 1000)
	if err != nil {
		return err
	}
	defer src.close()
	// What arrives behind far is not for it, and is dropped there.
	fresh, again := map[string]series{}, map[string]series{}
	err = withStats(func() error {
		at := []place{b.lab.nearEgress()}
		for range b.rounds {
			for _, v := range b.variants() {
				for _, into := range []map[string]series{fresh, again} {
					ns, err := v.measure(at, func() error {
						return onThread(func() error {
							if err := pin(0); err != nil {
								return err
							}
							return src.pass()
						})
					})
					if err != nil {
						return err
					}
					into[v.name] = append(into[v.name], ns[0])
				}
				if v.forget == nil {
					continue
				}
				if err := v.forget(); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	b.net("100,000 flows, one packet each, insertion, net", nil, fresh)
	b.net("  the next packet of each, net", nil, again)
	return nil
}

// twoCPUs: one connection is sent on one processor and received on another, so
// that its record moves between their caches.
func (b *bench) twoCPUs() error {
	near, far, err := newUDPPair(b.lab)
	if err != nil {
		return err
	}
	defer near.close()
	defer far.close()
	w0 := startWorker(0, func() (int, error) { return near.send(sendBatch) })
	defer w0.end()
	w1 := startWorker(1, func() (int, error) { return far.send(sendBatch) })
	defer w1.end()
	places := []place{b.lab.nearEgress(), b.lab.nearIngress()}
	tx, rx := map[string]series{}, map[string]series{}
	err = withStats(func() error {
		_, err := interleave(b.rounds, b.variants(), func(v *variant) (float64, error) {
			ns, err := v.measure(places, func() error {
				time.Sleep(b.slice)
				return nil
			})
			if err != nil {
				return 0, err
			}
			tx[v.name], rx[v.name] = append(tx[v.name], ns[0]), append(rx[v.name], ns[1])
			return ns[0], nil
		})
		return err
	})
	if err != nil {
		return err
	}
	b.net("one flow on two CPUs, tx, net", nil, tx)
	b.net("one flow on two CPUs, rx, net", nil, rx)
	return nil
}
