// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// DropPort drops what comes in for a port, as a network policy does, or with out
// what is sent to it. It returns what the kernel counts of that.
func (n *Netns) DropPort(protocol byte, port uint16, v6, out bool) (packets func() uint64) {
	n.t.Helper()
	policy := nftables.ChainPolicyAccept
	hook := nftables.ChainHookInput
	if out {
		hook = nftables.ChainHookOutput
	}
	n.nft(&nftables.Chain{
		Name: "drop", Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityFilter, Policy: &policy,
	}, append(matchPort(protocol, port, v6), &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}))
	return func() uint64 {
		n.t.Helper()
		c, err := nftables.New(nftables.WithNetNSFd(int(n.handle)))
		n.check(err)
		table := &nftables.Table{Name: "test", Family: nftables.TableFamilyINet}
		rules, err := c.GetRules(table, &nftables.Chain{Name: "drop", Table: table})
		n.check(err)
		sum := uint64(0)
		for _, r := range rules {
			for _, e := range r.Exprs {
				if counter, ok := e.(*expr.Counter); ok {
					sum += counter.Packets
				}
			}
		}
		return sum
	}
}
