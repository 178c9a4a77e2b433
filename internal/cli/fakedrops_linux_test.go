// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"slices"

	"google.golang.org/grpc"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// dropping is an agent on whose node packets are dropped: of a pod by a network
// policy, of the host, and of nobody that is known, for a reason of a later kernel.
func dropping() *fake {
	policy := &orb8v1.DropRecord{
		Node: "gpu-1", Tap: &orb8v1.Tap{Netns: 4026532001, Namespace: "cni-7f9c"}, At: trainer().GetLocal(),
		Reason: "NETFILTER_DROP", Hint: "a rule of nftables or iptables dropped it, as network policies do", Location: "nft_do_chain+0x3e8[nf_tables]",
		Packets: 12_345, Bytes: 1_234_500, FirstNs: noon - 60*second, LastNs: noon,
	}
	at := func(d *orb8v1.DropRecord, f *orb8v1.FlowRecord, packets uint64) *orb8v1.EventsResponse {
		one := &orb8v1.DropRecord{
			Node: d.GetNode(), Tap: f.GetTap(), At: d.GetAt(), Reason: d.GetReason(), Hint: d.GetHint(), Location: d.GetLocation(),
			Packets: packets, Bytes: 100 * packets, FirstNs: noon, LastNs: noon,
		}
		return &orb8v1.EventsResponse{Message: &orb8v1.EventsResponse_Event{
			Event: &orb8v1.Event{Kind: orb8v1.EventKind_EVENT_KIND_DROP, TimeNs: noon, Flow: f, Drop: one},
		}}
	}
	host := &orb8v1.DropRecord{
		Node: "gpu-1", Tap: &orb8v1.Tap{Netns: 4026531840}, At: &orb8v1.End{Class: "host", Node: "gpu-1"},
		Reason: "NO_SOCKET", Hint: "nothing listens on that port, or it has just been closed", Location: "tcp_v4_rcv+0x91",
		Packets: 3, Bytes: 222, FirstNs: noon - 5*second, LastNs: noon - 4*second,
	}
	nobody := &orb8v1.DropRecord{
		Node: "gpu-1", Tap: &orb8v1.Tap{}, At: &orb8v1.End{Class: "unknown"}, Reason: hostile, Location: "0xffffffff81234567", Packets: 1, Bytes: 60, FirstNs: noon, LastNs: noon,
	}
	f := healthy()
	f.drops = []*orb8v1.DropRecord{policy, host, nobody}
	unseen := &orb8v1.FlowRecord{Node: "gpu-1", Tap: &orb8v1.Tap{}, Local: &orb8v1.End{Class: "unknown"}, Remote: &orb8v1.End{Class: "unknown"}}
	f.events = append(f.events, at(policy, trainer(), 40), at(host, ping(), 2), at(nobody, unseen, 1))
	return f
}

func (f *fake) Drops(q *orb8v1.DropsRequest, stream grpc.ServerStreamingServer[orb8v1.DropsResponse]) error {
	s := &orb8v1.DropsSummary{Nodes: f.summary.GetNodes(), StartNs: noon - 3600*second, EndNs: noon}
	if len(f.drops) > 0 {
		s.Losses = []*orb8v1.Loss{{Stage: "drops", Count: 5, Hint: "no room"}}
	}
	rows := uint32(0)
	for _, d := range f.drops {
		s.KnownPackets += d.GetPackets()
		if n := q.GetInclude().GetPods(); len(n) > 0 && !slices.Contains(n, d.GetAt().GetPod()) {
			continue
		}
		s.MatchedPackets += d.GetPackets()
		if rows++; rows > q.GetLimit() {
			continue
		}
		if err := stream.Send(&orb8v1.DropsResponse{Message: &orb8v1.DropsResponse_Drop{Drop: d}}); err != nil {
			return err
		}
	}
	return stream.Send(&orb8v1.DropsResponse{Message: &orb8v1.DropsResponse_Summary{Summary: s}})
}

// wanted tells whether a message is asked for.
func wanted(q *orb8v1.EventsRequest, m *orb8v1.EventsResponse) bool {
	e := m.GetEvent()
	return e == nil || (len(q.GetKinds()) == 0 || slices.Contains(q.GetKinds(), e.GetKind())) && (e.GetDns() == nil || passes(q, e.GetDns()))
}
