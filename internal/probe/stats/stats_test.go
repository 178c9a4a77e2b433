// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/orb8/orb8/internal/bpftest"
)

func program(t *testing.T) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "nothing", Type: ebpf.SocketFilter, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func run(t *testing.T, p *ebpf.Program, n int) {
	t.Helper()
	for range n {
		if _, err := p.Run(&ebpf.RunOptions{Data: make([]byte, 64)}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSums: programs of one name are one, and what is gone still counts.
func TestSums(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	s, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a, b, c := program(t), program(t), program(t)
	s.Add("twin", a)
	s.Add("twin", b)
	s.Add("other", c)
	s.Add("none", nil)
	run(t, a, 3)
	run(t, b, 4)
	check := func(twin, other uint64) {
		t.Helper()
		got := s.Read()
		if len(got) != 2 || got[0].Name != "other" || got[0].Runs != other || got[1].Runs != twin || got[1].Time <= 0 {
			t.Errorf("%v", got)
		}
	}
	check(7, 0)
	_ = a.Close()
	check(7, 0)
	run(t, b, 1)
	run(t, c, 2)
	check(8, 2)
	bpftest.Eventually(t, "the program that is gone to be left out", func() bool { s.Read(); return len(s.live) == 2 })
	_ = b.Close()
	_ = c.Close()
	bpftest.Eventually(t, "all to be left out", func() bool { s.Read(); return len(s.live) == 0 })
	check(8, 2)
}

func TestNothingIsCounted(t *testing.T) {
	var s *Stats
	s.Add("x", nil)
	if s.Read() != nil || s.Run(t.Context()) != nil || s.Close() != nil {
		t.Error("a nil one does something")
	}
}
