// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"time"

	"github.com/orb8/orb8/internal/event"
)

// Living are the pods that are there, as labels tell them.
type Living struct {
	level Level
	owns  map[Own]bool
	peers map[Peer]bool
}

// Living makes a set without pods.
func (m *Meter) Living() *Living {
	return &Living{m.cfg.Level, map[Own]bool{}, map[Peer]bool{}}
}

// Add adds a pod; here: it is one of this node.
func (l *Living) Add(pod *event.Identity, here bool) {
	if here {
		o := l.level.own(pod)
		l.owns[o], l.owns[o.at(Workload)] = true, true
	}
	l.peers[l.level.peer(pod)] = true
}

// own: who is no pod with a name does not go.
func (l *Living) own(o Own) bool { return o.Namespace == "" || l.owns[o] }

// peer: a name of the outside, or a Service, is there while it is used.
func (l *Living) peer(p Peer) bool {
	switch {
	case p.Class == string(event.ClassPod) && p.Namespace != "":
		return l.peers[p]
	case p.Class == string(event.ClassService):
		return p.Workload == ""
	}
	return p.FQDN == ""
}

// Sweep ends the series of pods that are gone and to which nothing was added for
// the time of grace. What they counted goes with them. Whoever comes back begins
// again.
func (m *Meter) Sweep(now time.Time, living *Living) {
	before := now.Add(-m.cfg.Grace).UnixNano()
	used := map[*Timing]bool{}
	ended := false
	for labels, p := range m.pairs {
		if p.seen >= before || living.own(labels.Own) && living.peer(labels.Peer) {
			used[p.timing] = true
			continue
		}
		delete(m.pairs, labels)
		ended = true
		m.series[Network] -= 2
		for _, n := range p.Failed {
			if n > 0 {
				m.series[Failed]--
			}
		}
	}
	for o, e := range m.ends {
		if e.seen >= before || living.own(o) {
			used[m.timings[o.at(Workload)]] = true
			continue
		}
		delete(m.ends, o)
		m.giveBack(e)
	}
	for o, t := range m.timings {
		if used[t] || living.own(o) {
			continue
		}
		delete(m.timings, o)
		for metric, h := range map[Metric]*Histogram{RTT: t.RTT, Handshake: t.Handshake} {
			m.giveBackHistogram(metric, h)
		}
		m.giveBackHistogram(DNSLatency, t.DNS[0])
		m.giveBackHistogram(DNSLatency, t.DNS[1])
	}
	// Links that are not used any more are forgotten, and with them identities.
	m.old, m.young = m.young, map[link]*Pair{}
	if ended { // what was counted beyond the cap may have room now
		clear(m.old)
	}
}

func (m *Meter) giveBack(e *End) {
	m.series[Drops] -= len(e.Drops)
	for _, d := range e.DNS {
		if d != nil {
			m.series[Queries]--
			m.series[Responses] -= len(d.Responses)
		}
	}
}

func (m *Meter) giveBackHistogram(of Metric, h *Histogram) {
	if h != nil {
		m.series[of] -= HistogramSeries
	}
}
