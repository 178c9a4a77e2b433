// SPDX-License-Identifier: Apache-2.0

package accelerator

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/orb8/orb8/internal/event"
)

// random is a machine of which everything is left to chance, the driver's lies
// included.
func random(n *node, r *rand.Rand) {
	n.GPUs, n.Samples, n.Held, n.Xids = nil, nil, nil, nil
	some := func(v float64) event.Reading {
		switch r.IntN(6) {
		case 0:
			return event.Reading{}
		case 1:
			return reading(0)
		}
		return reading(v)
	}
	n.GPUs, n.Samples = make([]event.GPU, 0, 100), make([]event.GPUSample, 0, 100)
	for range 1 + r.IntN(4) {
		gpu := len(n.GPUs)
		n.gpu(r.Float64())
		if r.IntN(3) == 0 {
			for range r.IntN(8) {
				n.instance(gpu, []string{"1g.10gb", "3g.40gb", "1c.2g.20gb", ""}[r.IntN(4)], r.Float64())
			}
		}
	}
	for i := range n.Samples {
		s := &n.Samples[i]
		for _, v := range []*event.Reading{&s.Busy, &s.SM, &s.Occupancy, &s.Tensor, &s.DRAM, &s.Power, &s.MemoryUsed, &s.Energy} {
			*v = some(v.Value)
		}
		s.ProcessesKnown = r.IntN(5) != 0
		s.Throttle = event.GPUThrottle(r.Uint32() & 0x7ff)
		for range r.IntN(6) * r.IntN(2) {
			if !s.ProcessesKnown {
				break
			}
			p := n.process(s, pod(fmt.Sprint(r.IntN(5))), r.Float64(), r.Float64()*30e9)
			p.Busy, p.Memory = some(p.Busy.Value), some(p.Memory.Value)
			p.Kind = event.GPUProcessKind(r.IntN(8))
			if r.IntN(4) == 0 {
				p.Instance = uint32(r.IntN(4))
			}
			switch r.IntN(4) {
			case 0:
				n.who[p.PID] = nil
			case 1:
				n.who[p.PID] = host("python", p.PID)
			}
			n.in[p.PID] = []string{"", "x", "y"}[r.IntN(3)]
		}
		switch r.IntN(12) {
		case 0:
			*s = event.GPUSample{UUID: s.UUID, At: s.At, State: event.GPUHung}
		case 1:
			*s = event.GPUSample{UUID: s.UUID, At: s.At, State: event.GPULost}
		}
		for range r.IntN(3) {
			n.held(pod(fmt.Sprint(r.IntN(5))), n.GPUs[i].UUID+[]string{"", "::0", "::1"}[r.IntN(3)])
		}
		if r.IntN(3) == 0 {
			n.Xids = append(n.Xids, event.GPUXid{UUID: s.UUID, Code: 79, Instance: event.NoInstance})
		}
	}
}

func FuzzRowsAddUp(f *testing.F) {
	for seed := range uint64(300) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 8))
		n := newNode()
		tracker := New(Config{})
		last := map[string]float64{}
		spent := 0.0
		for range 4 {
			n.next()
			random(n, r)
			for i := range n.Samples {
				s := &n.Samples[i]
				if n.GPUs[i].Parent != "" || !s.Energy.Known {
					continue
				}
				if v, ok := last[s.UUID]; ok {
					s.Energy.Value = v + r.Float64()*700
					spent += s.Energy.Value - v
				}
				last[s.UUID] = s.Energy.Value
			}
			view, events := tracker.Round(&n.Round)
			adds(t, view)
			sum := 0.0
			for i := range view.Accounts {
				sum += view.Accounts[i].Energy
			}
			if math.Abs(sum-spent) > 1e-6 {
				t.Errorf("accounts have %v J, devices %v", sum, spent)
			}
			for _, e := range events {
				if len(e.Holders) == 0 || e.Holders[0] == nil {
					t.Errorf("an event of nobody: %+v", e)
				}
			}
		}
	})
}
