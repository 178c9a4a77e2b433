// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/orb8/orb8/internal/probe/flow"
)

const (
	dnsRate = 20_000 // questions a second
	// fewSockets are connections that are known. With manySockets, as many as a
	// process may have where little is allowed, a question is the first packet of its
	// connection in its second, all but one in ten: resolvers ask from a new port each
	// time.
	fewSockets  = 64
	manySockets = 18_000
)

// dnsRows: what is asked and answered, in the kernel, and through the agent.
func (b *bench) dnsRows() error {
	for _, k := range []struct {
		sockets int
		what    string
	}{{fewSockets, "of a known connection"}, {manySockets, "of a new connection"}} {
		if err := b.copied(k.sockets, k.what); err != nil {
			return err
		}
	}
	if err := b.pair(); err != nil {
		return err
	}
	return b.dnsAgents()
}

// listener takes copied packets off the ring of a tap, as the agent does.
type listener struct {
	tap    *flow.Tap
	copies atomic.Uint64
	stop   context.CancelFunc
	done   chan error
}

func listen(t *flow.Tap) *listener {
	ctx, cancel := context.WithCancel(context.Background())
	l := &listener{tap: t, stop: cancel, done: make(chan error, 1)}
	go func() {
		l.done <- t.Copies(ctx, func(*flow.Copy) { l.copies.Add(1) }, func(int64) {})
	}()
	return l
}

// copied: questions and their answers, which are counted and copied.
func (b *bench) copied(sockets int, what string) error {
	r, err := resolve(b.lab, sockets, dnsRate)
	if err != nil {
		return err
	}
	defer r.close()
	asked, answered := results{}, results{}
	var lost uint64
	err = withStats(func() error {
		return b.interleave(copying, func(v *variant) error {
			ns, n, err := b.heard(v)
			if err != nil {
				return err
			}
			lost += n
			asked.add(v, ns[0])
			answered.add(v, ns[1])
			return nil
		})
	})
	if err != nil {
		return err
	}
	b.copiedRow("a question to the DNS "+what+", net", asked, lost)
	b.copiedRow("  its answer, net", answered, lost)
	return r.end()
}

// heard does the same as fresh with somebody who takes what is copied, if anything
// is; and tells how many found no room.
func (b *bench) heard(v *variant) (ns []float64, lost uint64, err error) {
	if v != &b.load.tap.variant {
		ns, err = b.fresh(v)
		return ns, 0, err
	}
	l := listen(b.load.tap.flow)
	ns, err = b.fresh(v)
	l.stop()
	if err = errors.Join(err, <-l.done); err == nil && l.copies.Load() == 0 {
		err = errors.New("no packet was copied")
	}
	return ns, l.tap.Uncopied(), err
}

// fresh measures a variant in a table that was used and is empty: of what is asked
// and what is answered.
func (b *bench) fresh(v *variant) ([]float64, error) {
	places := []place{b.lab.nearEgress(), b.lab.nearIngress()}
	slice := func() error {
		time.Sleep(b.slice)
		return nil
	}
	if err := v.used(places, slice); err != nil {
		return nil, err
	}
	return v.measure(places, slice)
}

func (b *bench) copiedRow(measure string, got results, lost uint64) {
	row := result{Measure: measure, Unit: "ns", Bar: atMost(600)}.of(got.net("tap"))
	row = row.beside("of it the copy", got["tap"].minus(got["counted"])).beside("empty", got["empty"])
	if lost > 0 {
		row.Baselines = append(row.Baselines, baseline{"found no room", float64(lost), "packets"})
	}
	b.add(row)
}

// pair is what a question and its answer cost after the kernel.
func (b *bench) pair() error {
	var took series
	for range min(b.rounds, 5) {
		ns, _, err := goBench("./internal/lookup", "BenchmarkPair/answered")
		if err != nil {
			return err
		}
		took = append(took, ns/1000)
	}
	b.add(result{Measure: "a question and its answer, parsed and joined", Unit: "µs", Bar: atMost(5)}.of(took))
	return nil
}

// dnsAgents: an agent where much is asked.
func (b *bench) dnsAgents() error {
	bin, err := buildBinaries()
	if err != nil {
		return err
	}
	defer bin.close()
	for _, k := range []struct {
		sockets int
		what    string
	}{{fewSockets, "64 sockets"}, {manySockets, "a new connection each"}} {
		if err := b.dnsAgent(bin, k.sockets, k.what); err != nil {
			return fmt.Errorf("%s: %w", k.what, err)
		}
	}
	return nil
}

func (b *bench) dnsAgent(bin *binaries, sockets int, what string) error {
	l, err := newLab()
	if err != nil {
		return err
	}
	defer l.close()
	a, err := bin.startAgent(l.near)
	if err != nil {
		return err
	}
	defer a.close()
	if err := a.ready(); err != nil {
		return err
	}
	start := time.Now()
	r, err := resolve(l, sockets, dnsRate)
	if err != nil {
		return err
	}
	defer r.close()
	time.Sleep(3 * time.Second)
	share, err := a.cpuShare(b.watch())
	if err = errors.Join(err, r.asking.end()); err != nil {
		return err
	}
	rate := float64(r.asker.asked) / time.Since(start).Seconds()
	if err := r.end(); err != nil {
		return err
	}
	time.Sleep(8 * time.Second) // what has no answer is given up
	told, err := a.told()
	if err != nil {
		return err
	}
	now, peak, err := a.resident()
	if err != nil {
		return err
	}
	maps, err := a.mapMemory()
	if err != nil {
		return err
	}
	row := result{Measure: fmt.Sprintf("agent CPU, %d DNS queries/s, %s", dnsRate, what), Unit: "% of a core", Value: share, Bar: atMost(25)}
	row.Baselines = []baseline{{"asked", rate, "queries/s"}, {"resident", now, "MiB"}, {"peak", peak, "MiB"}, {"its maps", maps, "MiB"}}
	b.add(row)
	asked, answered := float64(r.asker.asked), float64(r.asker.answered)
	row = result{Measure: "  lost", Unit: "look-ups", Value: asked - told.lookups, Bar: atMost(0)}
	row.Baselines = []baseline{{"asked", asked, ""}, {"answered", answered, ""}, {"told as answered", told.answered, ""}, {"not copied", told.lost["copies"], "packets"}, {"no room", told.lost["lookups"], ""}}
	b.add(row)
	return nil
}

// told is what the agent tells of the DNS.
type told struct {
	lookups, answered float64
	lost              map[string]float64 // by stage
}

func (a *agent) told() (t told, err error) {
	out, err := a.ask("dns", "-o", "json")
	if err != nil {
		return t, err
	}
	for line := range bytes.Lines(out) {
		var row struct{ Lookups, Timeouts float64 }
		if err := json.Unmarshal(line, &row); err != nil {
			return t, fmt.Errorf("orb8 dns: %w", err)
		}
		t.lookups += row.Lookups
		t.answered += row.Lookups - row.Timeouts
	}
	if out, err = a.ask("status", "-o", "json"); err != nil {
		return t, err
	}
	var status struct {
		Losses []struct {
			Stage string
			Count float64
		}
	}
	if err := json.Unmarshal(out, &status); err != nil {
		return t, fmt.Errorf("orb8 status: %w", err)
	}
	t.lost = map[string]float64{}
	for _, l := range status.Losses {
		t.lost[l.Stage] += l.Count
	}
	return t, nil
}
