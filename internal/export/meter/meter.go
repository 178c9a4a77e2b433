// SPDX-License-Identifier: Apache-2.0

// Package meter adds up what connections, drops and look-ups do into series of
// few labels, and keeps them few: a level says how much the labels tell, a cap
// how many series a metric has, and what is beyond it is counted together. It
// knows nothing of how numbers are told to the outside. The agent's pipeline
// counts here and takes snapshots; rooms beside this one render those.
//
// An increment is counted once and stays where it was counted: what was counted
// of an end that was not known yet stays there when it is.
package meter

import (
	"time"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/store"
)

// Config of a meter. The zero value works.
type Config struct {
	// 0 means Workload.
	Level Level
	// Series of one metric at the most; 0 means 5,000. A histogram has HistogramSeries
	// of them for each set of labels.
	MaxSeries int
	// How long the series of a pod that is gone stays; 0 means 5 minutes.
	Grace time.Duration
	// When counting begins.
	Start time.Time
}

// Metric is one that has a cap.
type Metric uint8

// The metrics. Others have the labels of one of these, and no more series.
const (
	Network Metric = iota
	Failed
	RTT
	Handshake
	Drops
	Queries
	Responses
	DNSLatency
	Metrics
)

// maxLinks bounds the pairs of identities of which it is remembered where they
// are counted.
const maxLinks = 65536

// Meter is for one goroutine.
type Meter struct {
	cfg Config
	now int64

	// Where a pair of identities is counted: of the last two spans.
	young, old map[link]*Pair
	pairs      map[Labels]*Pair
	ends       map[Own]*End
	timings    map[Own]*Timing
	// What is beyond the cap.
	otherPair   Pair
	otherEnd    End
	otherTiming Timing

	series [Metrics]int
	beyond [Metrics]uint64
	// All that was counted by connection, and what was not: of others, or for want
	// of room.
	total, apart event.Traffic
}

// link is two ends as connections have them: identities are shared.
type link struct {
	local, remote *event.Identity
	protocol      event.Protocol
}

// New makes a meter that has counted nothing.
func New(cfg Config) *Meter {
	if cfg.Level == 0 {
		cfg.Level = Workload
	}
	if cfg.MaxSeries <= 0 {
		cfg.MaxSeries = 5000
	}
	if cfg.Grace <= 0 {
		cfg.Grace = 5 * time.Minute
	}
	m := &Meter{
		cfg: cfg, now: cfg.Start.UnixNano(),
		young: map[link]*Pair{}, old: map[link]*Pair{},
		pairs: map[Labels]*Pair{}, ends: map[Own]*End{}, timings: map[Own]*Timing{},
	}
	other := Labels{others.at(cfg.Level), otherPeer.at(cfg.Level), Other}
	timed := other.Own.at(Workload)
	m.otherPair = Pair{Labels: &other, Since: m.now, TCP: true, timing: &m.otherTiming}
	m.otherEnd = End{Own: &other.Own, Since: m.now}
	m.otherTiming = Timing{Own: &timed, Since: m.now}
	return m
}

// Begin starts an epoch.
func (m *Meter) Begin(now time.Time) { m.now = now.UnixNano() }

// Flow counts what a connection did: what it moved, and what happened to it. Its
// ends are known as well as they will be for now.
func (m *Meter) Flow(f *event.Flow, moved *event.Traffic, happened store.Happened) {
	p := m.pair(link{f.Local, f.Remote, f.Conn.Protocol})
	p.seen = m.now
	p.Tx.Add(moved.Tx())
	p.Rx.Add(moved.Rx())
	m.total.Add(*moved)
	if f.Conn.Protocol == event.TCP {
		p.Resent += uint64(f.Health.Resent)
		// What has sent has told how its socket is.
		if f.HasSocket && moved.TxPackets > 0 && f.Health.RTT > 0 {
			m.observe(p.timing, RTT, int64(f.Health.RTT)*1000)
		}
	}
	if happened&^(1<<event.KindTraffic) != 0 {
		m.happened(p, f, happened)
	}
}

// Apart counts what was moved and is no connection's of this place, or had no
// room.
func (m *Meter) Apart(moved *event.Traffic) { m.apart.Add(*moved) }

func (m *Meter) happened(p *Pair, f *event.Flow, happened store.Happened) {
	if happened.Has(event.KindOpened) {
		p.Opened++
		// The end that asks sees how long the answer takes.
		if h := &f.Health; f.OpenedBy == event.OpenerLocal && h.SYN != 0 && h.SYNACK != 0 && int32(h.SYNACK-h.SYN) >= 0 {
			m.observe(p.timing, Handshake, int64(h.SYNACK-h.SYN)*1000)
		}
	}
	switch {
	case happened.Has(event.KindRefused):
		m.fail(p, event.FailureRefused)
	case happened.Has(event.KindFailed), happened.Has(event.KindReset) && f.Health.Failure != event.FailureNone:
		m.fail(p, f.Health.Failure)
	}
}

func (m *Meter) fail(p *Pair, why event.Failure) {
	if int(why) >= len(p.Failed) {
		why = event.FailureNone
	}
	if p.Failed[why] == 0 && p != &m.otherPair && !m.room(Failed, 1) {
		p = &m.otherPair
	}
	if p == &m.otherPair {
		p.seen = m.now
		m.beyond[Failed]++
	}
	p.Failed[why]++
}

// pair is where two ends are counted.
func (m *Meter) pair(k link) *Pair {
	p := m.young[k]
	if p == nil {
		if p = m.old[k]; p == nil {
			p = m.find(k)
		}
		if len(m.young) >= maxLinks/2 {
			m.old, m.young = m.young, make(map[link]*Pair, maxLinks/2)
		}
		m.young[k] = p
	}
	if p == &m.otherPair {
		m.beyond[Network]++
	}
	return p
}

func (m *Meter) find(k link) *Pair {
	labels := Labels{m.cfg.Level.own(k.local), m.cfg.Level.peer(k.remote), k.protocol.String()}
	p := m.pairs[labels]
	switch {
	case p != nil:
		return p
	case !m.room(Network, 2):
		return &m.otherPair
	}
	p = &Pair{Labels: &labels, Since: m.now, seen: m.now, TCP: k.protocol == event.TCP, timing: m.timing(labels.Own)}
	m.pairs[labels] = p
	return p
}

// room takes so many series of a metric, if there are.
func (m *Meter) room(of Metric, n int) bool {
	if m.series[of]+n > m.cfg.MaxSeries {
		return false
	}
	m.series[of] += n
	return true
}

func (m *Meter) observe(t *Timing, of Metric, ns int64) { m.histogram(t, of, 0).add(ns) }

// timing is where an end's times are counted. They tell no pods apart.
func (m *Meter) timing(o Own) *Timing {
	o = o.at(Workload)
	t := m.timings[o]
	switch {
	case t != nil:
		return t
	case len(m.timings) >= m.cfg.MaxSeries:
		return &m.otherTiming
	}
	t = &Timing{Own: &o, Since: m.now}
	m.timings[o] = t
	return t
}

func (m *Meter) histogram(t *Timing, of Metric, role event.Role) *Histogram {
	h := t.of(of, role)
	if *h == nil && t != &m.otherTiming && !m.room(of, HistogramSeries) {
		t = &m.otherTiming
		h = t.of(of, role)
	}
	if t == &m.otherTiming {
		m.beyond[of]++
	}
	if *h == nil {
		*h = &Histogram{}
	}
	return *h
}
