// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
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

func read(p *ebpf.Program) (reading, error) {
	s, err := p.Stats()
	if err != nil {
		return reading{}, fmt.Errorf("program statistics: %w", err)
	}
	return reading{s.RunCount, s.Runtime}, nil
}

// perRun is the mean between two readings, in ns.
func perRun(from, to reading) (float64, error) {
	if to.runs == from.runs {
		return 0, errors.New("program statistics: the program did not run")
	}
	return float64(to.spent-from.spent) / float64(to.runs-from.runs), nil
}

// measure runs f with the variant attached alone, and gives the mean time of
// one run of the program in ns, one number a place.
func (v *variant) measure(places []place, f func() error) (out []float64, err error) {
	for _, p := range places {
		l, err := v.attach(p)
		if err != nil {
			return nil, err
		}
		defer l.Close()
	}
	from := make([]reading, len(places))
	for i, p := range places {
		if from[i], err = read(v.program(p)); err != nil {
			return nil, err
		}
	}
	if err := f(); err != nil {
		return nil, err
	}
	for i, p := range places {
		to, err := read(v.program(p))
		if err != nil {
			return nil, err
		}
		ns, err := perRun(from[i], to)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.name, err)
		}
		out = append(out, ns)
	}
	return out, nil
}
