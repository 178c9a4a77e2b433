// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"testing"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

func TestSCTP(t *testing.T) {
	bpftest.RequireSCTP(t)
	topo := plain().Topology(t)
	warm(topo)
	node := tap(t, topo, "")
	r := round{t, "SCTP", topo, node, counted(node.Audit())}
	client, server := bpftest.TalkSCTP(topo.Client, topo.Server, 20, 1000)
	bpftest.Settle(t, topo.Places)
	r.check(talk{event.SCTP, client, server, server, client, 0})
}
