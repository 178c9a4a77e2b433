// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"time"
)

const hotFlows = 16

// results are each variant's rounds; in ns for a run of the program, where they
// are not rates.
type results map[string]series

func (r results) add(v *variant, ns float64) { r[v.name] = append(r[v.name], ns) }

// net is a variant's time without that of the empty program in the same round.
func (r results) net(name string) series { return r[name].minus(r["empty"]) }

// taps are the names of the tap and its changed versions.
func (b *bench) taps() []string {
	names := []string{"tap"}
	for _, c := range b.load.changed {
		names = append(names, c.name)
	}
	return names
}

func titled(measure, variant string) string {
	if variant == "tap" {
		return measure
	}
	return measure + ", " + variant
}

// timed measures variants in some places under traffic that is already
// running; one result a place.
func (b *bench) timed(pick choice, places ...place) ([]results, error) {
	out := make([]results, len(places))
	for i := range out {
		out[i] = results{}
	}
	err := withStats(func() error {
		return b.interleave(pick, func(v *variant) error {
			ns, err := v.measure(places, func() error {
				time.Sleep(b.slice)
				return nil
			})
			for i := range ns {
				out[i].add(v, ns[i])
			}
			return err
		})
	})
	return out, err
}

// net adds the row of the tap, net of the empty program.
func (b *bench) net(measure string, limit *bar, got results) {
	for _, name := range b.taps() {
		row := result{Measure: titled(measure, name), Unit: "ns", Bar: limit}
		b.add(row.of(got.net(name)).beside("plain", got.net("plain")).beside("empty", got["empty"]))
	}
}

// ratio adds the row of the quotient to the plain program.
func (b *bench) ratio(measure string, limit *bar, got results) {
	for _, name := range b.taps() {
		row := result{Measure: titled(measure, name), Unit: "×", Bar: limit}
		b.add(row.of(got.net(name).over(got.net("plain"))))
	}
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
		got, err := b.timed(usual, d.at)
		if err != nil {
			return err
		}
		b.net("TCP bulk, super-packets, "+d.name+", net", atMost(120), got[0])
	}
	return flood.end()
}

// manyFlows: one packet for each of 100,000 connections in an empty table, and
// once more when all are in it and most are not in the processor's caches.
func (b *bench) manyFlows() error {
	// What arrives behind far is not for it, and is dropped there.
	src, err := newUDPSource(b.lab.near, behindFar(), tableEntries, 1000)
	if err != nil {
		return err
	}
	defer src.close()
	pass := func() error {
		return onThread(func() error {
			if err := pin(0); err != nil {
				return err
			}
			return src.pass()
		})
	}
	at := []place{b.lab.nearEgress()}
	fresh, again := results{}, results{}
	err = withStats(func() error {
		return b.interleave(usual, func(v *variant) error {
			if err := v.used(at, pass); err != nil {
				return err
			}
			for _, into := range []results{fresh, again} {
				ns, err := v.measure(at, pass)
				if err != nil {
					return err
				}
				into.add(v, ns[0])
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	b.net("100,000 flows, one packet each, insertion, net", nil, fresh)
	b.net("  the next packet of each, net", nil, again)
	return nil
}

// used fills and empties all tables of a variant: a new table hands out its
// memory in order, one that has been in use does not, and that is slower.
func (v *variant) used(at []place, pass func() error) error {
	if v.forget == nil {
		return nil
	}
	for range 2 {
		if _, err := v.measure(at, pass); err != nil {
			return err
		}
		if err := v.forget(); err != nil {
			return err
		}
	}
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
	got, err := b.timed(usual, b.lab.nearEgress(), b.lab.nearIngress())
	if err != nil {
		return err
	}
	b.net("one flow on two CPUs, tx, net", nil, got[0])
	b.net("one flow on two CPUs, rx, net", nil, got[1])
	return errors.Join(w0.end(), w1.end())
}
