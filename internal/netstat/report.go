// SPDX-License-Identifier: Apache-2.0

package netstat

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Report is what is known of a namespace now.
type Report struct {
	// Sockets in use, IPv4 and IPv6.
	TCP, TimeWait, UDP uint64
	// Those that are not 0.
	Counters []Counter
	// The worst first.
	Findings []Finding
}

// Counter is one of the kernel's, by its name in nstat.
type Counter struct {
	Name string
	Growth
}

// Growth is how far a counter came.
type Growth struct {
	// Since the namespace was made, since it was first read, and in the last
	// minute.
	Total, Seen, Minute uint64
}

func (g Growth) less(o Growth) Growth {
	return Growth{g.Total - min(g.Total, o.Total), g.Seen - min(g.Seen, o.Seen), g.Minute - min(g.Minute, o.Minute)}
}

// Finding is something that is, or was, wrong.
type Finding struct {
	Counter string
	Growth
	// One sentence: what it is, and what to try.
	Meaning string
}

// Illness is how bad it is: 2 for what goes wrong now, 1 for what did since the
// namespace was first read, else 0.
func (r *Report) Illness() (worst int) {
	for i := range r.Findings {
		worst = max(worst, r.Findings[i].rank())
	}
	return worst
}

func (f *Finding) rank() int {
	switch {
	case f.Minute > 0:
		return 2
	case f.Seen > 0:
		return 1
	}
	return 0
}

// Read reads a namespace's counters now.
func (s *Sampler) Read(inode uint32) (Report, error) {
	r := newReader(s)
	now := sample{values: make([]uint64, len(s.counters))}
	var u inUse
	of := s.space(inode)
	err := s.cfg.Enter(inode, func() (err error) {
		if err = r.counters(now.values); err == nil {
			u, err = r.inUse()
		}
		return err
	})
	if err != nil {
		return Report{}, fmt.Errorf("read the counters of sockets: %w", err)
	}
	now.at = time.Now()
	s.mu.Lock()
	first, ago := of.before(now)
	s.mu.Unlock()
	report := s.report(now.values, first, ago)
	report.TCP, report.TimeWait, report.UDP = u.TCP, u.TimeWait, u.UDP
	report.Findings = append(u.findings(), report.Findings...)
	return report, nil
}

// findings tells of TIME_WAIT before connections are closed without it.
func (u *inUse) findings() []Finding {
	if u.maxTimeWait == 0 || u.TimeWait*10 < u.maxTimeWait*9 {
		return nil
	}
	return []Finding{{
		Counter: "tcp_max_tw_buckets", Growth: Growth{u.TimeWait, u.TimeWait, u.TimeWait},
		Meaning: fmt.Sprintf("%d connections in TIME_WAIT of at most %d: keep connections open for reuse, or raise net.ipv4.tcp_max_tw_buckets", u.TimeWait, u.maxTimeWait),
	}}
}

// report compares what was read now with how it was.
func (s *Sampler) report(now, first, ago []uint64) (r Report) {
	growth := func(i int) Growth { return Growth{now[i], now[i] - first[i], now[i] - min(now[i], ago[i])} }
	for i := range s.counters {
		c := &s.counters[i]
		g := growth(i)
		if g.Total == 0 {
			continue
		}
		r.Counters = append(r.Counters, Counter{c.name, g})
		for _, name := range c.less {
			g = g.less(growth(s.columns[name]))
		}
		if c.noun != "" && g.Total > 0 {
			r.Findings = append(r.Findings, Finding{c.name, g, c.meaning(g.Total)})
		}
	}
	// Of those that are as recent as each other, the order of the catalogue.
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return cmp.Compare(b.rank(), a.rank()) })
	return r
}

// meaning puts a number into words.
func (c *counter) meaning(n uint64) string {
	noun := c.noun
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%s%d %s%s", c.before, n, noun, c.after)
}
