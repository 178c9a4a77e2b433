/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the own interface of a bridge sends, and what only seems so. A frame from
 * port to port does not pass it, with one exception: where a Service gave it
 * another address on its way (br_netfilter), and the kernel is not sure of that
 * neighbour, the interface is told to send it, and takes it back before it counts.
 */
#ifndef ORB8_FLOW_BRIDGE_H
#define ORB8_FLOW_BRIDGE_H

const volatile __u32 bridge = 0; /* this instance is on one, where packets of others pass */

#define PKT_OTHERHOST 3 /* of skb->pkt_type */

/* key: interface of the namespace that forwards, a bridge's port; value: nothing.
 * Written and deleted by user space. Bound: 1024. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u8);
} flow_bridged SEC(".maps");

/* What is sent never came in by a port; what was routed came in by the bridge.
 * The first test does for all ports but one whose address the bridge shares, and
 * for a port that user space has not heard of. */
static __always_inline bool between_ports(struct __sk_buff *skb)
{
	__u32 from = skb->ingress_ifindex;

	return bridge && from && from != skb->ifindex &&
		(skb->pkt_type == PKT_OTHERHOST || bpf_map_lookup_elem(&flow_bridged, &from));
}

#endif
