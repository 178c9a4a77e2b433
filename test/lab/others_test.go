// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"testing"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/probe/flow"
)

// Programs of others, before and after on the same hook, let the tap see
// everything and are not disturbed by it; one that ends the chain comes after.
func TestOthersOnTheHook(t *testing.T) {
	for _, how := range attachments() {
		for _, verdict := range []int32{bpftest.Next, bpftest.Pass} {
			t.Run(fmt.Sprintf("%s/verdict %d", how, verdict), func(t *testing.T) {
				requireAttachment(t, how)
				topo := plain().Topology(t)
				warm(topo)
				server := topo.Hosts[1]
				bpftest.Settle(t, topo.Places)
				// There is one before the tap comes, and one comes after it.
				before, after := server.CountingProgram(verdict), server.CountingProgram(verdict)
				hook := bpftest.Hook{Device: server.Name, Clsact: how == flow.AttachClsact, Last: true}
				server.Attach(before, hook)
				node := tap(t, topo, how)
				hook.After = true
				server.Attach(after, hook)
				r := round{t, "UDP", topo, node, counted(node.Audit())}
				k := traffics[0].run(t, topo, false)
				r.check(k)
				seen, err := before.Packets()
				if err != nil || seen != k.packets {
					t.Errorf("the other's program saw %d packets of %d, %v", seen, k.packets, err)
				}
				hidden, err := after.Packets()
				if want := map[int32]uint64{bpftest.Next: k.packets, bpftest.Pass: 0}[verdict]; err != nil || hidden != want {
					t.Errorf("the last program saw %d packets, want %d, %v", hidden, want, err)
				}
			})
		}
	}
}

// A program that gets before the tap and ends the chain hides what it lets
// pass: that shows in the audit until the tap is first again.
func TestHiddenByAnother(t *testing.T) {
	requireAttachment(t, flow.AttachTCX)
	topo := plain().Topology(t)
	warm(topo)
	node := tap(t, topo, flow.AttachTCX)
	server := topo.Hosts[1]
	server.Attach(server.CountingProgram(bpftest.Pass), bpftest.Hook{Device: server.Name})
	k := traffics[0].run(t, topo, false)
	for _, a := range node.Audit() {
		if a.Iface == ifaceOf(topo.Places[len(topo.Places)-1]) && (a.Ingress.UnaccountedPackets != int64(k.packets) || a.Egress.UnaccountedPackets != 0) {
			t.Errorf("%d packets hidden on the way in and %d on the way out, want %d and 0", a.Ingress.UnaccountedPackets, a.Egress.UnaccountedPackets, k.packets)
		}
	}
	node.(interface{ Sync() }).Sync()
	r := round{t, "first again", topo, node, counted(node.Audit())}
	k = traffics[0].run(t, topo, false)
	node.Audit()
	if _, back := r.ends(k); back != k.packets {
		t.Errorf("%d packets back of %d", back, k.packets)
	}
}

// plain is the topology of two hosts and nothing else.
func plain() *bpftest.Layout { return &bpftest.Layouts()[0] }
