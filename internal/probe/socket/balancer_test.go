// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/orb8/orb8/internal/bpftest"
)

// balancer attaches a program that lets all pass where load balancers choose.
func balancer(t *testing.T, group, name string, at ebpf.AttachType) link.Link {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: name, Type: ebpf.CGroupSockAddr, AttachType: at, License: "Apache-2.0",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	l, err := link.AttachCgroup(link.CgroupOptions{Path: group, Attach: at, Program: p})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestBalancers(t *testing.T) {
	bpftest.RequireKernel(t)
	group := ownGroup(t)
	b := OpenBalancers(group, slog.New(slog.DiscardHandler))
	if b.Any() || b.Problems() != nil {
		t.Fatalf("found %v", b.Problems())
	}
	tcp := balancer(t, group, "sock4_connect", ebpf.AttachCGroupInet4Connect)
	udp := balancer(t, group, "sock6_sendmsg", ebpf.AttachCGroupUDP6Sendmsg)
	b.look()
	if p := b.Problems(); !b.Any() || len(p) != 1 || !strings.HasPrefix(p[0], "sock4_connect, sock6_sendmsg may answer ") {
		t.Errorf("found %v", p)
	}
	for _, l := range []link.Link{tcp, udp} {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if b.look(); b.Any() || b.Problems() != nil {
		t.Errorf("found %v after they have gone", b.Problems())
	}
}

func TestNoBalancers(t *testing.T) {
	var none *Balancers
	if none.Any() || none.Problems() != nil {
		t.Error("nil has some")
	}
	b := OpenBalancers(filepath.Join(t.TempDir(), "gone"), slog.New(slog.DiscardHandler))
	if p := b.Problems(); b.Any() || len(p) != 1 || !strings.HasPrefix(p[0], "whether a load balancer answers ") {
		t.Errorf("found %v", p)
	}
}
