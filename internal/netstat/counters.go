// SPDX-License-Identifier: Apache-2.0

package netstat

// counter is one that tells of health.
type counter struct {
	// As nstat calls it.
	name string
	// What it means: before, "312 times", after. Empty where by itself it tells of
	// nothing wrong.
	before, noun, after string
	// Part of it is counted by these, too, and told by them.
	less []string
}

// catalogue holds the counters, the worst first.
func catalogue() []counter {
	return append(append(tcpCounters(), udpCounters()...), ipCounters()...)
}

func columns(counters []counter) map[string]int {
	at := make(map[string]int, len(counters))
	for i := range counters {
		at[counters[i].name] = i
	}
	return at
}

func tcpCounters() []counter {
	return []counter{
		{name: "TcpExtListenOverflows", before: "accept queue full ", noun: "time", after: ": the process does not accept fast enough; give it more CPU or replicas, or raise its backlog and net.core.somaxconn"},
		{name: "TcpExtTCPReqQFullDrop", before: "SYN queue full ", noun: "time", after: ", each time a connection attempt was dropped: too many at once, or a SYN flood; turn net.ipv4.tcp_syncookies on"},
		{name: "TcpExtTCPReqQFullDoCookies", before: "SYN queue full ", noun: "time", after: ", answered with SYN cookies: too many connection attempts at once, or a SYN flood; raise the backlog and net.ipv4.tcp_max_syn_backlog"},
		{name: "TcpExtListenDrops", less: []string{"TcpExtListenOverflows", "TcpExtTCPReqQFullDrop"}, noun: "connection attempt", after: " dropped by a listening socket for other reasons: no route back, or no memory; see orb8 drops"},
		{name: "TcpExtTCPAbortOnMemory", noun: "connection", after: " aborted for lack of memory, or as one orphan too many: raise net.ipv4.tcp_mem or tcp_max_orphans of the node, or find who leaves connections half closed"},
		{name: "TcpExtTCPMemoryPressures", before: "TCP short of memory ", noun: "time", after: ": the buffers of the whole node reached net.ipv4.tcp_mem; find who does not read (orb8 health), or raise it"},
		{name: "TcpExtTCPRcvQDrop", noun: "segment", after: " dropped, the receive queue was full: the process does not read fast enough"},
		{name: "TcpExtRcvPruned", noun: "segment", after: " dropped, no room in the receive buffer: the process does not read fast enough; or raise net.ipv4.tcp_rmem"},
		{name: "TcpExtOfoPruned", before: "out-of-order segments thrown away ", noun: "time", after: ", the receive buffer was full: loss on the way and a process that does not read fast enough"},
		{name: "TcpExtTCPOFODrop", noun: "out-of-order segment", after: " dropped, the receive buffer was full: loss on the way and a process that does not read fast enough"},
		{name: "TcpExtTCPBacklogDrop", noun: "segment", after: " dropped, its socket was busy for too long: the process holds it in a long call, or lacks CPU"},
		{name: "TcpExtTCPZeroWindowDrop", noun: "segment", after: " dropped, sent into a closed window: the process does not read fast enough"},
		{name: "TcpExtTCPToZeroWindowAdv", before: "receive window closed ", noun: "time", after: ": the process does not read fast enough, and its peers wait"},
		{name: "TcpExtPruneCalled", before: "receive buffer overrun ", noun: "time", after: ": the process does not read fast enough; or raise net.ipv4.tcp_rmem"},
		{name: "TcpExtTCPRcvCollapsed"},
		{name: "TcpExtTCPTimeWaitOverflow", noun: "connection", after: " closed without TIME_WAIT, there were too many: keep connections open for reuse, or raise net.ipv4.tcp_max_tw_buckets"},
		{name: "TcpExtTCPAbortOnTimeout", noun: "connection", after: " given up, the other end did not answer any more: it is gone, or a firewall forgot the connection"},
		{name: "TcpExtTCPSynRetrans", before: "connecting repeated ", noun: "time", after: ": no answer to the first SYN; the other end is overloaded or gone, or a policy drops it"},
		{name: "TcpExtTCPRetransFail", noun: "retransmission", after: " could not be sent: the interface's queue is full, or there is no memory or route"},
		{name: "TcpExtTCPWqueueTooBig", before: "send queue too large ", noun: "time", after: ": the process writes tiny pieces, or lowered SO_SNDBUF too far"},
		{name: "TcpInCsumErrors", noun: "segment", after: " with a wrong checksum: damaged on the way, or by a faulty interface or its offloads"},
		{name: "TcpExtIPReversePathFilter", noun: "packet", after: " dropped by the reverse path filter: they came by another interface than answers take; set net.ipv4.conf.*.rp_filter to 2"},
		{name: "TcpAttemptFails"},
		{name: "TcpEstabResets"},
		{name: "TcpRetransSegs"},
		{name: "TcpOutRsts"},
	}
}

// udpCounters are those of IPv4 and of IPv6.
func udpCounters() (list []counter) {
	for _, udp := range []struct{ name, noun string }{{"Udp", "datagram"}, {"Udp6", "IPv6 datagram"}} {
		list = append(list,
			counter{name: udp.name + "RcvbufErrors", noun: udp.noun, after: " dropped, the receive buffer was full: the process does not read fast enough; or raise SO_RCVBUF and net.core.rmem_max"},
			counter{name: udp.name + "MemErrors", noun: udp.noun, after: " dropped for lack of memory: the buffers of the whole node reached net.ipv4.udp_mem"},
			counter{name: udp.name + "SndbufErrors", noun: udp.noun, after: " not sent, the send buffer was full: the process sends faster than the network takes"},
			counter{name: udp.name + "InCsumErrors", noun: udp.noun, after: " with a wrong checksum: damaged on the way, or by a faulty interface or its offloads"},
			counter{name: udp.name + "InErrors"},
			counter{name: udp.name + "NoPorts"},
		)
	}
	return list
}

func ipCounters() (list []counter) {
	for _, ip := range []struct{ name, noun string }{{"Ip", "packet"}, {"Ip6", "IPv6 packet"}} {
		list = append(list,
			counter{name: ip.name + "OutNoRoutes", noun: ip.noun, after: " not sent, there was no route: look at the routes in the namespace (ip route)"},
			counter{name: ip.name + "InAddrErrors", noun: ip.noun, after: " dropped, their address is not here: somebody has an old address or route"},
			counter{name: ip.name + "OutDiscards", noun: ip.noun, after: " not sent for lack of memory, or because the interface took no more"},
			counter{name: ip.name + "InDiscards", noun: ip.noun, after: " dropped on arrival for lack of memory"},
			counter{name: ip.name + "ReasmFails", before: "fragments never became whole ", noun: "time", after: ": some were lost on the way; mind the MTU"},
			counter{name: ip.name + "FragFails", noun: ip.noun, after: " too big for the way and not to be fragmented: the MTU is too large, or ICMP is filtered"},
		)
	}
	return list
}
