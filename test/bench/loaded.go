// SPDX-License-Identifier: Apache-2.0

package main

import "fmt"

// loaded are the programs as they lie in the kernel now.
type loaded struct {
	base *baselines
	tap  *tap
	// A tap whose own namespace has none of the addresses that are used, and that
	// copies nothing of the DNS.
	router *tap
	// Changed taps that are measured beside the tap.
	changed []*changed
}

func load(dev int, compare []string) (*loaded, error) {
	l := &loaded{}
	var err error
	if l.base, err = newBaselines(); err == nil {
		l.tap, err = newTap(home{index: dev, addr: nearAddr(), dnsPorts: []uint16{dnsPort, 5353}})
	}
	if err == nil {
		l.router, err = newTap(home{index: dev})
	}
	for _, path := range compare {
		if err != nil {
			break
		}
		var c *changed
		if c, err = newChanged(path); err == nil {
			l.changed = append(l.changed, c)
		}
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *loaded) close() {
	for _, c := range l.changed {
		c.close()
	}
	for _, t := range []*tap{l.tap, l.router} {
		if t != nil {
			t.close()
		}
	}
	if l.base != nil {
		l.base.close()
	}
}

// choice is which variants are measured beside each other.
type choice func(*loaded) []*variant

// usual are those of a namespace that forwards nothing.
func usual(l *loaded) []*variant {
	v := []*variant{l.base.empty, l.base.plain, &l.tap.variant}
	for _, c := range l.changed {
		v = append(v, &c.variant)
	}
	return v
}

// all of them: the ring only where it is asked for, since it takes a processor
// of its own to drain.
func all(l *loaded) []*variant {
	return append(usual(l), &l.tap.host, &l.router.host, l.base.ring)
}

// hosts are those of a namespace that forwards.
func hosts(l *loaded) []*variant {
	return []*variant{l.base.empty, &l.tap.host, &l.router.host}
}

// copying are the tap, and one that only counts.
func copying(l *loaded) []*variant {
	counts := l.router.variant
	counts.name = "counted"
	return []*variant{l.base.empty, &counts, &l.tap.variant}
}

// interleave measures each variant in each round, beginning with another one
// each time, so that what disturbs the machine disturbs all of them alike. The
// programs are loaded anew for each round: where the kernel happens to put
// code and tables makes several ns of difference, which the median then does
// not see.
func (b *bench) interleave(pick choice, one func(*variant) error) error {
	for r := range b.rounds {
		b.load.close()
		var err error
		if b.load, err = load(b.lab.nearDev, b.compare); err != nil {
			return fmt.Errorf("load: %w", err)
		}
		variants := pick(b.load)
		for i := range variants {
			if err := one(variants[(r+i)%len(variants)]); err != nil {
				return err
			}
		}
	}
	return nil
}
