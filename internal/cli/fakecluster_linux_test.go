// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/kube/reach/reachtest"
)

// shopper is a pod of a web shop that asks a Service.
func shopper(node string) *orb8v1.FlowRecord {
	return &orb8v1.FlowRecord{
		ConnectionId: 0x5409, Node: node, Tap: &orb8v1.Tap{Netns: 4026532777, Ifindex: 2, Interface: "eth0"},
		Protocol: 6, OpenedBy: orb8v1.Opener_OPENER_LOCAL,
		Local: &orb8v1.End{
			Ip: "10.244.1.5", Port: 41000, Namespace: "shop", Pod: "web-7f9c-x2x7q", PodUid: "u-1", Container: "nginx", Class: "pod",
			Workload: &orb8v1.Workload{Kind: "Deployment", Name: "web"}, Node: node, Zone: "z1", Labels: map[string]string{"app": "web"},
		},
		Remote: &orb8v1.End{
			Ip: "10.96.0.20", Port: 80, Namespace: "shop", Pod: "cart-0", PodUid: "u-2", Class: "pod", Service: "shop/cart",
			Workload: &orb8v1.Workload{Kind: "StatefulSet", Name: "cart"}, Node: "n2",
		},
		TranslatedLocal:  &orb8v1.End{Ip: "10.244.1.5", Port: 41000},
		TranslatedRemote: &orb8v1.End{Ip: "10.244.2.7", Port: 8080},
		Total:            &orb8v1.Traffic{TxBytes: 5000, TxPackets: 10, RxBytes: 70_000, RxPackets: 60},
		FirstSeenNs:      noon - 10*second, LastSeenNs: noon,
		State: "established", Health: &orb8v1.Health{RttUs: 250, MinRttUs: 200},
	}
}

// prober is the kubelet, as a pod sees it, and what that pod asks the API server.
func prober(node string) []*orb8v1.FlowRecord {
	local := &orb8v1.End{Ip: "10.244.2.7", Port: 8080, Namespace: "shop", Pod: "cart-0", Class: "pod", Node: node}
	asker := &orb8v1.End{Ip: "10.244.2.7", Port: 50000, Namespace: "shop", Pod: "cart-0", Class: "pod", Node: node}
	tap := &orb8v1.Tap{Netns: 4026532778, Ifindex: 2, Interface: "eth0"}
	return []*orb8v1.FlowRecord{
		{
			ConnectionId: 1, Node: node, Tap: tap, Protocol: 6, OpenedBy: orb8v1.Opener_OPENER_REMOTE, Local: local,
			Remote: &orb8v1.End{Ip: "10.244.2.1", Port: 33000, Class: "node", Node: node},
			Total:  &orb8v1.Traffic{TxBytes: 60_000, TxPackets: 6, RxBytes: 500, RxPackets: 5}, FirstSeenNs: noon, LastSeenNs: noon, State: "closed",
		},
		{
			ConnectionId: 2, Node: node, Tap: tap, Protocol: 6, OpenedBy: orb8v1.Opener_OPENER_LOCAL, Local: asker,
			Remote:          &orb8v1.End{Ip: "10.96.0.1", Port: 443, Class: "apiserver", Service: "default/kubernetes"},
			TranslatedLocal: &orb8v1.End{Ip: "10.244.2.7", Port: 50000}, TranslatedRemote: &orb8v1.End{Ip: "172.30.0.1", Port: 6443},
			Total: &orb8v1.Traffic{TxBytes: 100, TxPackets: 1}, FirstSeenNs: noon, LastSeenNs: noon, State: "established",
		},
	}
}

// member is the agent of one node of a cluster.
func member(node string, flows ...*orb8v1.FlowRecord) *fake {
	st := node1()
	st.Node, st.PodsTracked = node, 2
	f := &fake{
		status:  &orb8v1.StatusResponse{Nodes: []*orb8v1.NodeStatus{st}},
		summary: &orb8v1.Summary{MatchedFlows: uint64(len(flows)), KnownFlows: 10, Matched: &orb8v1.Traffic{TxBytes: 1000}, Nodes: []*orb8v1.NodeState{{Node: node, Answered: true}}},
		events:  []*orb8v1.EventsResponse{{Message: &orb8v1.EventsResponse_Node{Node: &orb8v1.NodeState{Node: node, Answered: true}}}},
	}
	for _, r := range flows {
		f.flows = append(f.flows, flow(r))
		f.events = append(f.events, happened(orb8v1.EventKind_EVENT_KIND_OPENED, 0, r))
	}
	f.pods = []*orb8v1.PodRecord{
		{
			SeenBy: node, Node: node, Zone: "z1", Namespace: "shop", Name: "web-on-" + node, Uid: "u-" + node, Workload: &orb8v1.Workload{Kind: "Deployment", Name: "web"},
			Labels: map[string]string{"app": "web", "tier": "front"}, Ips: []string{"10.244.1.5", "fd00::5"}, Phase: "Running", Netns: 4026532777,
			Containers: []*orb8v1.PodContainer{{Name: "nginx", Id: "0123"}, {Name: "nginx", Id: "4567"}, {Name: "log", Id: "89ab"}},
			CreatedNs:  noon - 90*second, StartedNs: noon - 80*second, Flows: 12,
		},
		{SeenBy: node, Node: node, Namespace: "system", Name: "proxy-" + node, Ips: []string{"172.30.0.11"}, HostNetwork: true, Phase: "Running", CreatedNs: noon - 900*second, DeletingNs: noon - second, DeletedNs: noon},
	}
	f.sockets = sockets(node)
	return f
}

// sockets are of a pod that is ill, of the node, and of what nobody named.
func sockets(node string) []*orb8v1.SocketsRecord {
	const overflows = "TcpExtListenOverflows"
	return []*orb8v1.SocketsRecord{
		{
			Node: node, Netns: 4026532777, Name: "cni-1234", Owner: &orb8v1.End{Namespace: "shop", Pod: "web-on-" + node, PodUid: "u-" + node, Class: "pod", Node: node},
			TcpInUse: 1400, TcpTimeWait: 12, TcpOrphans: 1, UdpInUse: 2, MemoryBytes: 4374208,
			Counters: []*orb8v1.SocketsCounter{{Name: overflows, Count: 312, SinceSeen: 300, LastMinute: 12}, {Name: "TcpAttemptFails", Count: 4}},
			Findings: []*orb8v1.Finding{
				{Current: true, Counter: overflows, Count: 312, SinceSeen: 300, LastMinute: 12, Meaning: "accept queue full 312 times: the process does not accept fast enough"},
				{Counter: "UdpRcvbufErrors", Count: 1, SinceSeen: 1, Meaning: "1 datagram dropped, the receive buffer was full: the process does not read fast enough"},
			},
		},
		{
			Node: node, Netns: 4026531840, Owner: &orb8v1.End{Class: "host", Node: node}, TcpInUse: 30,
			Findings: []*orb8v1.Finding{{Counter: "IpOutNoRoutes", Count: 7, Meaning: "7 packets not sent, there was no \x1b[31mroute"}},
		},
		{Node: node, Netns: 4026532888, Name: "blue", Owner: &orb8v1.End{Class: "unknown", Node: node}, Problem: "list sockets: permission denied"},
		{Node: node, Netns: 4026532999, Owner: &orb8v1.End{Class: "unknown", Node: node}},
	}
}

// cluster starts an API server with an agent on each of three nodes, of which
// one is not ready, and gives the kubeconfig that leads there.
func cluster(env *testscript.Env) error {
	pods := []reachtest.Pod{{Name: "orb8-agent-bad", Node: "n3", Waiting: "CrashLoopBackOff"}}
	for node, f := range map[string]*fake{"n1": member("n1", shopper("n1")), "n2": member("n2", prober("n2")...)} {
		address, err := serve(env.Defer, f, false)
		if err != nil {
			return err
		}
		pods = append(pods, reachtest.Pod{Name: "orb8-agent-" + node, Node: node, Address: address})
	}
	dead := []reachtest.Pod{pods[0]}
	forbidden := reachtest.New(pods...)
	forbidden.Forbid("create")
	unlisted := reachtest.New(pods...)
	unlisted.Forbid("list")
	away := reachtest.New()
	away.Close()
	for name, s := range map[string]*reachtest.Server{
		"KUBE": reachtest.New(pods...), "KUBE_EMPTY": reachtest.New(), "KUBE_DEAD": reachtest.New(dead...), "KUBE_FORBIDDEN": forbidden,
		"KUBE_UNLISTED": unlisted, "KUBE_AWAY": away,
	} {
		env.Defer(s.Close)
		path := filepath.Join(env.WorkDir, name)
		if err := s.Kubeconfig(path); err != nil {
			return err
		}
		env.Setenv(name, path)
	}
	return nil
}
