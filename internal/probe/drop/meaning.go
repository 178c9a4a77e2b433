// SPDX-License-Identifier: Apache-2.0

package drop

import "slices"

const (
	oldSequence     = "TCP_OLD_SEQUENCE"
	invalidSequence = "TCP_INVALID_SEQUENCE"
)

// harmless are the reasons of packets that were not lost, though the kernel
// frees them by the same way.
var harmless = []string{
	// They did what they were for.
	"NOT_DROPPED_YET", "CONSUMED", "TCP_RESET",
	// They were another's, and came by: a bridge floods them to all.
	"OTHERHOST", "IPV6_NDISC_NS_OTHERHOST",
	// What they carry has come already: probes of keepalive do so on purpose.
	oldSequence, "TCP_OLD_DATA", "TCP_OFOMERGE", "TCP_OLD_ACK",
	// They had arrived, and their socket was closed before they were read; of
	// most this is the mark of the connection's end.
	"QUEUE_PURGE", "SOCKET_CLOSE",
	// Not of IP, and named here so that none of it is taken for a loss.
	"UNIX_DISCONNECT", "UNIX_SKIP_OOB",
}

// The kernel's enum harmless.
const (
	always = 1 << iota
	whenGrouped
	whenICMP
	whenDelivered
)

// harmlessness tells when packets that are freed for a reason were not lost.
func (n *names) harmlessness(name string) uint8 {
	switch {
	case slices.Contains(harmless, name):
		return always
	case name == invalidSequence && !n.oldApart:
		return always // the kernel has one reason for both, and most are keepalive's
	}
	switch name {
	case "NOT_SPECIFIED":
		// As often the end of what is done with as a loss: it counts where the packet
		// was on its way, at a device, to one receiver.
		return whenGrouped | whenDelivered
	case "NO_SOCKET":
		return whenGrouped | whenICMP
	case "IP_INNOROUTES", "IP_INADDRERRORS", "IPV6DISABLED":
		return whenGrouped
	}
	return 0
}

// hints are what the common reasons mean. Those of later kernels have none.
var hints = map[string]string{
	"NOT_SPECIFIED":            "the kernel gives no reason; the place may tell",
	"NO_SOCKET":                "nothing listens on that port, or it has just been closed",
	"SOCKET_FILTER":            "a filter program on the socket refused it",
	"SOCKET_RCVBUFF":           "the socket's receive buffer is full: its process does not read fast enough",
	"SOCKET_BACKLOG":           "the socket was busy and its backlog is full: its process cannot keep up",
	"PROTO_MEM":                "all sockets together use as much memory as they may (net.ipv4.tcp_mem, udp_mem)",
	"PKT_TOO_SMALL":            "shorter than its headers say",
	"PKT_TOO_BIG":              "larger than the next link takes (MTU)",
	"TCP_CSUM":                 "the TCP checksum is wrong: damaged on the way, or by faulty offload",
	"UDP_CSUM":                 "the UDP checksum is wrong: damaged on the way, or by faulty offload",
	"ICMP_CSUM":                "the ICMP checksum is wrong: damaged on the way",
	"IP_CSUM":                  "the IP header's checksum is wrong: damaged on the way",
	"SKB_CSUM":                 "the checksum could not be computed or is wrong",
	"IP_INHDR":                 "the IP header is not valid, or its time to live is over",
	"IP_RPFILTER":              "its source would be answered by another interface (rp_filter)",
	"IP_NOPROTO":               "nothing here speaks that protocol",
	"IP_OUTNOROUTES":           "no route to where it should go",
	"IP_INNOROUTES":            "it came in, and there is no route to its destination",
	"IP_INADDRERRORS":          "its destination is not reachable from here, or this node does not forward",
	"IP_INVALID_SOURCE":        "its source address is none that a packet can have",
	"IP_LOCAL_SOURCE":          "it came from outside with one of this host's own addresses",
	"NETFILTER_DROP":           "a rule of nftables or iptables dropped it, as network policies do",
	"XFRM_POLICY":              "an IPsec policy refused it",
	"BPF_CGROUP_EGRESS":        "a program of the cgroup refused to send it",
	"SECURITY_HOOK":            "a security module refused it",
	"XDP":                      "an XDP program dropped it",
	"TC_INGRESS":               "a tc program or filter dropped it on the way in",
	"TC_EGRESS":                "a tc program or filter dropped it on the way out",
	"QDISC_DROP":               "the queue of the interface is full or shaped: more is sent than it takes",
	"QDISC_OVERLIMIT":          "the queue of the interface is full: more is sent than it takes",
	"CPU_BACKLOG":              "the CPU's queue of received packets is full (net.core.netdev_max_backlog)",
	"FULL_RING":                "the ring to a virtual machine, a container or a process is full",
	"NOMEM":                    "no memory for it",
	"DEV_READY":                "the interface is down or not ready",
	"NEIGH_FAILED":             "the neighbour did not answer: nobody has that address on the link",
	"NEIGH_QUEUEFULL":          "too many packets wait for the neighbour's answer",
	"NEIGH_DEAD":               "the neighbour's entry was removed while it waited",
	"FRAG_REASM_TIMEOUT":       "the rest of its fragments did not come in time",
	"TCP_LISTEN_OVERFLOW":      "the accept queue is full: the process does not accept fast enough",
	"TCP_FLAGS":                "its TCP flags fit no connection",
	"TCP_ZEROWINDOW":           "the receiver had said that it has no room: its process does not read",
	"TCP_OVERWINDOW":           "more than the receiver had room for",
	"TCP_RFC7323_PAWS":         "its timestamp is older than what came before: an old duplicate, or several hosts behind one address",
	"TCP_RFC7323_TW_PAWS":      "its timestamp is older than that of the connection before on the same ports",
	invalidSequence:            "its sequence number is outside of what the connection expects",
	"TCP_INVALID_ACK_SEQUENCE": "it acknowledges what was not sent",
	"TCP_INVALID_SYN":          "a SYN in the middle of a connection",
	"TCP_CLOSE":                "its connection is closed already",
	"TCP_ABORT_ON_DATA":        "data for a connection that its process has closed: it is reset",
	"TCP_OFO_QUEUE_PRUNE":      "the receive buffer is full of data that waits for a lost segment",
	"TCP_OFO_DROP":             "out of order, and the receive buffer has no room for it",
	"TCP_MINTTL":               "its time to live is below what the socket takes",
	"TCP_MD5NOTFOUND":          "not signed, where the socket wants it",
	"VXLAN_VNI_NOT_FOUND":      "of a VXLAN network that is not known here",
	"NO_TX_TARGET":             "the tunnel or bridge has nobody to send it to",
	"BRIDGE_INGRESS_STP_STATE": "the bridge's port is not forwarding",
	"RECURSION_LIMIT":          "it went round too many interfaces within this host",
}
