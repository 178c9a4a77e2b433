// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"time"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// noon is when the fixed answers were made.
var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC).UnixNano()

const second = int64(time.Second)

// A hostile process: moves the cursor, hides a name behind a direction
// override, and rings.
const hostile = "evil\x1b[2J\u202egnp.exe \u009b31m\a"

func sshd() *orb8v1.FlowRecord {
	return &orb8v1.FlowRecord{
		ConnectionId: 0x1234, Node: "gpu-1", AgentInstance: 7, Epoch: 9,
		Tap:      &orb8v1.Tap{Netns: 4026531840, Ifindex: 2, Interface: "eth0"},
		Protocol: 6, OpenedBy: orb8v1.Opener_OPENER_REMOTE,
		Local:       &orb8v1.End{Ip: "10.0.0.1", Port: 22, Unit: "ssh.service", Process: "sshd", Pid: 812, Class: "host", CgroupId: 4711, Node: "gpu-1"},
		Remote:      &orb8v1.End{Ip: "192.0.2.7", Port: 51812, Class: "external"},
		Total:       &orb8v1.Traffic{TxBytes: 1_400_000, TxPackets: 1200, RxBytes: 35_000, RxPackets: 900},
		FirstSeenNs: noon - 90*second, LastSeenNs: noon - second,
		DurationNs: new(90 * second),
		State:      "established", Health: &orb8v1.Health{
			RttUs: 1234, MinRttUs: 900, HandshakeUs: new(uint32(45)), RetransmitRatio: new(0.0), OutOfOrder: new(uint64(0)), ZeroWindowsRx: 3,
		},
	}
}

func trainer() *orb8v1.FlowRecord {
	return &orb8v1.FlowRecord{
		ConnectionId: 0xabcdef, Node: "gpu-1", Tap: &orb8v1.Tap{Netns: 4026532001, Ifindex: 3, Interface: "eth0", Namespace: "cni-7f9c"},
		Protocol: 6, OpenedBy: orb8v1.Opener_OPENER_LOCAL,
		Local: &orb8v1.End{
			Ip: "fd00::1", Port: 40000, Namespace: "training", Pod: "llama-worker-7f9c4d-x2x7q", Container: "main",
			Workload: &orb8v1.Workload{Kind: "Deployment", Name: "llama-worker"}, Labels: map[string]string{"team": "nlp"}, Class: "pod",
		},
		Remote:      &orb8v1.End{Ip: "fd00::2", Port: 443, Fqdn: "s3.eu-west-1.example.com", FqdnSource: "dns", Class: "external"},
		Tls:         &orb8v1.Tls{ServerName: "s3.eu-west-1.example.com", Alpn: []string{"h2", "http/1.1"}, Version: "TLS 1.3"},
		Total:       &orb8v1.Traffic{TxBytes: 999, TxPackets: 9, RxBytes: 12_345_678_901, RxPackets: 8_000_000},
		FirstSeenNs: noon - 3600*second, LastSeenNs: noon,
		State: "established", Health: &orb8v1.Health{RttUs: 85, MinRttUs: 60, Retransmits: 17, RetransmitRatio: new(0.0375), OutOfOrder: new(uint64(1200))},
	}
}

func attacker() *orb8v1.FlowRecord {
	return &orb8v1.FlowRecord{
		ConnectionId: 0xbad, Node: "gpu-1", Tap: &orb8v1.Tap{Netns: 4026531840, Ifindex: 2, Interface: "eth0"},
		Protocol: 17, OpenedBy: orb8v1.Opener_OPENER_LOCAL,
		Local:       &orb8v1.End{Ip: "10.0.0.1", Port: 5353, Process: hostile, Pid: 666, Class: "host"},
		Remote:      &orb8v1.End{Ip: "2001:db8::5", Port: 53, Class: "external"},
		Total:       &orb8v1.Traffic{TxBytes: 120, TxPackets: 2},
		FirstSeenNs: noon - 5*second, LastSeenNs: noon - 5*second,
	}
}

// lost is a connect that nobody answered.
func lost() *orb8v1.FlowRecord {
	return &orb8v1.FlowRecord{
		ConnectionId: 0xdead, Node: "gpu-1", Tap: &orb8v1.Tap{Netns: 4026531840, Ifindex: 2, Interface: "eth0"},
		Protocol: 6, OpenedBy: orb8v1.Opener_OPENER_LOCAL,
		Local:       &orb8v1.End{Ip: "10.0.0.1", Port: 40404, Process: "curl", Pid: 77, Class: "host"},
		Remote:      &orb8v1.End{Ip: "192.0.2.99", Port: 443, Class: "external"},
		Total:       &orb8v1.Traffic{TxBytes: 518, TxPackets: 7},
		FirstSeenNs: noon - 122*second, LastSeenNs: noon + 5*second, DurationNs: new(127 * second),
	}
}

func ended(f *orb8v1.FlowRecord, state string, h *orb8v1.Health) *orb8v1.FlowRecord {
	h.RttUs, h.MinRttUs = f.GetHealth().GetRttUs(), f.GetHealth().GetMinRttUs()
	f.State, f.Health = state, h
	return f
}

func ping() *orb8v1.FlowRecord {
	return &orb8v1.FlowRecord{
		ConnectionId: 0xec40, Node: "gpu-1", Tap: &orb8v1.Tap{Netns: 4026531840, Ifindex: 2, Interface: "eth0"},
		Protocol:    1,
		Local:       &orb8v1.End{Ip: "10.0.0.1", Class: "unknown"},
		Remote:      &orb8v1.End{Ip: "10.0.0.9", Class: "external"},
		Total:       &orb8v1.Traffic{TxBytes: 98, TxPackets: 1, RxBytes: 98, RxPackets: 1},
		FirstSeenNs: noon - 2*second, LastSeenNs: noon - 2*second,
	}
}

func flow(f *orb8v1.FlowRecord) *orb8v1.FlowsResponse {
	return &orb8v1.FlowsResponse{Message: &orb8v1.FlowsResponse_Flow{Flow: f}}
}

// healthy is an agent where all is well.
func healthy() *fake {
	return &fake{
		status: &orb8v1.StatusResponse{Nodes: []*orb8v1.NodeStatus{node1()}},
		flows:  []*orb8v1.FlowsResponse{flow(trainer()), flow(sshd()), flow(ping()), flow(attacker())},
		summary: &orb8v1.Summary{
			MatchedFlows: 4, KnownFlows: 1234,
			Matched: &orb8v1.Traffic{TxBytes: 1_401_217, RxBytes: 12_345_713_999},
			Nodes:   []*orb8v1.NodeState{{Node: "gpu-1", Answered: true}},
		},
		events: []*orb8v1.EventsResponse{
			happened(orb8v1.EventKind_EVENT_KIND_OPENED, 0, sshd()),
			moved(1, sshd(), 1000, 50),
			moved(2, sshd(), 2000, 150),
			happened(orb8v1.EventKind_EVENT_KIND_REFUSED, 2, attacker()),
			moved(3, attacker(), 60, 0),
			happened(orb8v1.EventKind_EVENT_KIND_CLOSED, 3, ended(sshd(), "closed", &orb8v1.Health{ClosedBy: "remote"})),
			happened(orb8v1.EventKind_EVENT_KIND_RESET, 4, ended(trainer(), "reset", &orb8v1.Health{ResetBy: "local", Retransmits: 17})),
			happened(orb8v1.EventKind_EVENT_KIND_FAILED, 5, ended(lost(), "failed", &orb8v1.Health{Failure: "timed_out", Retransmits: 6})),
		},
	}
}

func happened(kind orb8v1.EventKind, at int64, f *orb8v1.FlowRecord) *orb8v1.EventsResponse {
	return &orb8v1.EventsResponse{Message: &orb8v1.EventsResponse_Event{
		Event: &orb8v1.Event{Kind: kind, TimeNs: noon + at*second, Flow: f},
	}}
}

func moved(at int64, f *orb8v1.FlowRecord, tx, rx uint64) *orb8v1.EventsResponse {
	f.Delta = &orb8v1.Traffic{TxBytes: tx, TxPackets: tx / 50, RxBytes: rx, RxPackets: rx / 50}
	f.DeltaStartNs, f.DeltaEndNs = noon+(at-1)*second, noon+at*second
	return happened(orb8v1.EventKind_EVENT_KIND_TRAFFIC, at, f)
}

// lossy is a server that knows what it misses.
func lossy() *fake {
	table := &orb8v1.Loss{Stage: "table_full", Count: 12000, Hint: "raise ORB8_TABLE_ENTRIES"}
	f := healthy()
	f.summary.Remainder = &orb8v1.Traffic{TxBytes: 5_000_000, RxBytes: 1, TxPackets: 4000}
	f.summary.Overflow = &orb8v1.Traffic{RxBytes: 640, RxPackets: 10}
	f.summary.Unaccounted = &orb8v1.Traffic{TxBytes: 60, TxPackets: 1}
	f.summary.Nodes = append(f.summary.Nodes, &orb8v1.NodeState{Node: "gpu-2", Error: "connection refused"})
	f.summary.Losses = []*orb8v1.Loss{table}
	f.summary.Gaps = []*orb8v1.Gap{{Node: "gpu-1", StartNs: noon - 60*second, EndNs: noon - 50*second}}
	n := node1()
	n.EventsDropped, n.Losses = 12003, []*orb8v1.Loss{table, {Stage: "follower", Count: 3, Hint: "ask for less"}}
	n.Healthy, n.HealthMessage = false, "eth1 is not attached\x1b[0m"
	n.Notes = []string{"loopback is off: --loopback turns it on", hostile}
	n.Interfaces = append(n.Interfaces, &orb8v1.InterfaceStatus{
		Tap: &orb8v1.Tap{Netns: 4026531840, Ifindex: 3, Interface: "eth1"}, Attached: "none", State: "removed by another program",
		Ingress: &orb8v1.Audit{UnaccountedBytes: -60, UnaccountedPackets: -1},
	})
	n.Namespaces = []*orb8v1.NamespaceStatus{{Netns: 4026531840, Own: true, TappedSinceNs: noon}, {Netns: 4026532391, TappedSinceNs: noon, UntappedNs: 2_500_000}}
	n.Interfaces = append(n.Interfaces, gone(7, "t1"), gone(8, ""), gone(9, "t3"))
	n.Interfaces[3].Egress = &orb8v1.Audit{UnaccountedPackets: 2, UnaccountedBytes: 120}
	f.status = &orb8v1.StatusResponse{Nodes: []*orb8v1.NodeStatus{n, {Node: "gpu-2", Error: "connection refused"}}}
	f.events = append(f.events[:1:1], &orb8v1.EventsResponse{Message: &orb8v1.EventsResponse_Loss{
		Loss: &orb8v1.Loss{Stage: "follower", Count: 120, Hint: "this reader is too slow; ask for less"},
	}},
		&orb8v1.EventsResponse{Message: &orb8v1.EventsResponse_Node{Node: &orb8v1.NodeState{Node: "gpu-2", Error: "connection refused"}}})
	return f
}

// gone was an interface of a namespace without a name.
func gone(index uint32, name string) *orb8v1.InterfaceStatus {
	return &orb8v1.InterfaceStatus{
		Tap:      &orb8v1.Tap{Netns: 4026532391, Ifindex: index, Interface: name},
		Attached: "none", State: "gone", Ingress: &orb8v1.Audit{}, Egress: &orb8v1.Audit{},
	}
}

func node1() *orb8v1.NodeStatus {
	both := &orb8v1.Audit{
		Flows:     &orb8v1.Counter{Bytes: 1_900_000, Packets: 1900},
		Remainder: &orb8v1.Counter{Bytes: 99_000, Packets: 99}, NotIp: &orb8v1.Counter{Bytes: 1000, Packets: 1},
		Overflow: &orb8v1.Counter{}, Malformed: &orb8v1.Counter{}, Segmentation: &orb8v1.Counter{Bytes: 540, Packets: 10},
		Counted: &orb8v1.Counter{Bytes: 2_000_000, Packets: 2000}, Interface: &orb8v1.Counter{Bytes: 1_999_460, Packets: 1990},
	}
	return &orb8v1.NodeStatus{
		Node: "gpu-1", Version: "0.1.0", Healthy: true, UptimeNs: 93_784 * second, AgentInstance: 7, Epoch: 9,
		EventsProcessed: 1234567, ActiveFlows: 1234, MaxFlows: 100000,
		Interfaces: []*orb8v1.InterfaceStatus{{
			Tap: &orb8v1.Tap{Netns: 4026531840, Ifindex: 2, Interface: "eth0"}, Attached: "tcx", State: "attached", Ingress: both, Egress: both,
		}},
		Notes: []string{"loopback is off: --loopback turns it on"},
		Cost:  &orb8v1.Cost{CpuSeconds: 93.78, ResidentBytes: 31_457_280, KernelMapBytes: 41_943_040},
	}
}
