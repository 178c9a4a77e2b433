// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// place is a direction of an interface.
type place struct {
	ns  namespace
	dev int
	at  ebpf.AttachType
}

func (l *lab) nearEgress() place  { return place{l.near, l.nearDev, ebpf.AttachTCXEgress} }
func (l *lab) nearIngress() place { return place{l.near, l.nearDev, ebpf.AttachTCXIngress} }
func (l *lab) farIngress() place  { return place{l.far, l.farDev, ebpf.AttachTCXIngress} }

// variant is a program in its two directions; most are the same in both.
type variant struct {
	name            string
	ingress, egress *ebpf.Program
	// forget empties its table; nil where it has none.
	forget func() error
	// sees tells how it counted what was sent since it was asked before; nil for
	// what has no choice.
	sees func() (kind, error)
}

// saw fails unless that is how it counted.
func (v *variant) saw(want kind) error {
	if v.sees == nil {
		return nil
	}
	got, err := v.sees()
	if err == nil && got != want {
		err = fmt.Errorf("%s: packets counted as %q, not %q", v.name, got, want)
	}
	return err
}

func (v *variant) program(p place) *ebpf.Program {
	if p.at == ebpf.AttachTCXIngress {
		return v.ingress
	}
	return v.egress
}

func (v *variant) attach(p place) (link.Link, error) {
	var l link.Link
	err := p.ns.do(func() error {
		var err error
		l, err = link.AttachTCX(link.TCXOptions{Interface: p.dev, Program: v.program(p), Attach: p.at})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", v.name, err)
	}
	return l, nil
}

// reading is what the kernel counted for programs.
type reading struct {
	runs  uint64
	spent time.Duration
}

// measure runs f with the variant attached alone, and gives the mean time of
// one run of the program in ns, one number a place. On a busy machine traffic
// can stand still for as long as f: then f runs again.
func (v *variant) measure(places []place, f func() error) ([]float64, error) {
	for _, p := range places {
		l, err := v.attach(p)
		if err != nil {
			return nil, err
		}
		defer l.Close()
	}
	from, err := v.readings(places)
	if err != nil {
		return nil, err
	}
	const tries = 20
	for range tries {
		if err := f(); err != nil {
			return nil, err
		}
		to, err := v.readings(places)
		if err != nil {
			return nil, err
		}
		if out, ok := perRun(from, to); ok {
			return out, nil
		}
	}
	return nil, fmt.Errorf("%s: no packet came", v.name)
}

func (v *variant) readings(places []place) ([]reading, error) {
	out := make([]reading, len(places))
	for i, p := range places {
		s, err := v.program(p).Stats()
		if err != nil {
			return nil, fmt.Errorf("program statistics: %w", err)
		}
		out[i] = reading{s.RunCount, s.Runtime}
	}
	return out, nil
}

// perRun is the mean between two readings, in ns; false where one place had no
// run.
func perRun(from, to []reading) ([]float64, bool) {
	out := make([]float64, len(from))
	for i := range from {
		runs := to[i].runs - from[i].runs
		if runs == 0 {
			return nil, false
		}
		out[i] = float64(to[i].spent-from[i].spent) / float64(runs)
	}
	return out, true
}
