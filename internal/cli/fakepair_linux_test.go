// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// paired is a cluster of two nodes: of one connection both ends are tapped, of
// the others one.
func paired() *fake {
	f := healthy()
	client := &orb8v1.End{Ip: "10.244.1.5", Port: 41000, Namespace: "shop", Pod: "web-0", Class: "pod", Node: "n1"}
	server := &orb8v1.End{Ip: "10.244.2.7", Port: 8080, Namespace: "shop", Pod: "cart-0", Class: "pod", Node: "n2"}
	asked := &orb8v1.End{Ip: "10.96.7.7", Port: 80, Namespace: "shop", Pod: "cart-0", Class: "pod", Node: "n2", Service: "shop/cart"}
	outside := &orb8v1.End{Ip: "198.51.100.7", Port: 443, Class: "external"}
	shook := func(rtt uint32, again uint64) *orb8v1.Health {
		ratio := float64(again) / 1200
		return &orb8v1.Health{RttUs: rtt, MinRttUs: rtt, Retransmits: again, RetransmitRatio: &ratio, TcpFlagsTx: 18, TcpFlagsRx: 18}
	}
	f.flows = []*orb8v1.FlowsResponse{
		flow(&orb8v1.FlowRecord{
			ConnectionId: 5, Node: "n1", Tap: &orb8v1.Tap{Netns: 4026532777, Ifindex: 2, Interface: "eth0"}, Protocol: 6, OpenedBy: orb8v1.Opener_OPENER_LOCAL,
			Local: client, Remote: asked, TranslatedLocal: &orb8v1.End{Ip: client.Ip, Port: 41000}, TranslatedRemote: &orb8v1.End{Ip: server.Ip, Port: 8080},
			Total: &orb8v1.Traffic{TxBytes: 140_000, TxPackets: 1400, RxBytes: 9_000, RxPackets: 697}, FirstSeenNs: noon, LastSeenNs: noon + second, State: "established", Health: shook(350, 12),
		}),
		flow(&orb8v1.FlowRecord{
			ConnectionId: 6, Node: "n1", Tap: &orb8v1.Tap{Netns: 4026532777, Ifindex: 2, Interface: "eth0"}, Protocol: 6, OpenedBy: orb8v1.Opener_OPENER_LOCAL,
			Local: &orb8v1.End{Ip: "10.244.1.5", Port: 41001, Namespace: "shop", Pod: "web-0", Class: "pod", Node: "n1"}, Remote: outside,
			Total: &orb8v1.Traffic{TxBytes: 5_000, TxPackets: 10, RxBytes: 4_000, RxPackets: 9}, FirstSeenNs: noon, LastSeenNs: noon + second, State: "closed", Health: shook(900, 0),
		}),
		flow(&orb8v1.FlowRecord{
			ConnectionId: 5, Node: "n2", Tap: &orb8v1.Tap{Netns: 4026532778, Ifindex: 2, Interface: "eth0"}, Protocol: 6, OpenedBy: orb8v1.Opener_OPENER_REMOTE,
			Local: server, Remote: client, Total: &orb8v1.Traffic{TxBytes: 9_100, TxPackets: 700, RxBytes: 138_800, RxPackets: 1388}, FirstSeenNs: noon, LastSeenNs: noon + second, State: "established", Health: shook(360, 3),
		}),
		flow(&orb8v1.FlowRecord{
			ConnectionId: 8, Node: "n2", Tap: &orb8v1.Tap{Netns: 4026532778, Ifindex: 2, Interface: "eth0"}, Protocol: 17, OpenedBy: orb8v1.Opener_OPENER_UNKNOWN,
			Local: server, Remote: outside, Total: &orb8v1.Traffic{TxBytes: 100, TxPackets: 1}, FirstSeenNs: noon, LastSeenNs: noon,
		}),
	}
	f.summary = &orb8v1.Summary{MatchedFlows: 4, KnownFlows: 10, Nodes: []*orb8v1.NodeState{{Node: "n1", Answered: true}, {Node: "n2", Answered: true}}}
	return f
}
