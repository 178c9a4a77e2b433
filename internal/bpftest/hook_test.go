// SPDX-License-Identifier: Apache-2.0

package bpftest

import "testing"

// A program of somebody else sees what passes its hook, unless one before it
// has ended the chain.
func TestHooks(t *testing.T) {
	for name, clsact := range map[string]bool{"clsact": true, "tcx": false} {
		t.Run(name, func(t *testing.T) {
			RequireKernel(t, BPF)
			if !clsact {
				RequireKernel(t, TCX)
			}
			p := NewPair(t)
			const n = 20
			Settle(t, []Place{{p.B.Netns, p.B.Name, Own}})
			first, last, hidden := p.B.CountingProgram(Next), p.B.CountingProgram(Pass), p.B.CountingProgram(Next)
			egress := p.B.CountingProgram(Next)
			p.B.Attach(last, Hook{Device: p.B.Name, Clsact: clsact, Last: true})
			p.B.Attach(first, Hook{Device: p.B.Name, Clsact: clsact})
			p.B.Attach(egress, Hook{Device: p.B.Name, Clsact: clsact, Egress: true})
			p.B.Attach(hidden, Hook{Device: p.B.Name, Clsact: clsact, Last: true, After: true})
			p.A.AskUDP(p.B.EchoUDP(false).Addr, n, 100)
			for what, c := range map[string]struct {
				p    *Program
				want uint64
			}{"first": {first, n}, "last": {last, n}, "behind what ended the chain": {hidden, 0}, "egress": {egress, n}} {
				if got, err := c.p.Packets(); err != nil || got != c.want {
					t.Errorf("%s saw %d packets of %d, %v", what, got, c.want, err)
				}
			}
		})
	}
}
