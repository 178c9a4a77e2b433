// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"strings"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// machine is an agent outside Kubernetes: local ends of every sort.
func machine() *fake {
	id := strings.Repeat("0123456789abcdef", 4)
	ends := []*orb8v1.End{
		{Class: "container", Container: id, Process: "nginx", Pid: 900},
		{Class: "container", Container: "lxc\u202e\x1b[2J", Process: "init", Pid: 901},
		{Class: "host", Unit: "ssh.service", Process: "sshd", Pid: 812},
		{Class: "host", Unit: "session-3.scope", Process: "iperf3", Pid: 99},
		{Class: "host", Process: hostile},
		{Class: "kernel:nfs"},
		{Class: "kernel"},
		{Class: "unknown"},
	}
	f := healthy()
	f.events, f.flows = nil, nil
	for i, e := range ends {
		e.Ip, e.Port, e.Node = "10.0.0.1", uint32(1000+i), "gpu-1"
		f.flows = append(f.flows, flow(&orb8v1.FlowRecord{
			ConnectionId: uint64(i) + 1, Node: "gpu-1", Tap: &orb8v1.Tap{Netns: 4026531840, Ifindex: 2, Interface: "eth0"},
			Protocol: 6, OpenedBy: orb8v1.Opener_OPENER_LOCAL, Local: e,
			Remote: &orb8v1.End{Ip: "10.0.0.2", Port: 2049, Class: "host", Node: "gpu-1"},
			Total:  &orb8v1.Traffic{TxBytes: 100, TxPackets: 1}, FirstSeenNs: noon, LastSeenNs: noon,
		}))
	}
	f.summary.MatchedFlows, f.summary.KnownFlows = uint64(len(ends)), uint64(len(ends))
	return f
}
