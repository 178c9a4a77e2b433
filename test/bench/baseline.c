// SPDX-License-Identifier: Apache-2.0
//go:build ignore

/*
 * What the tap is compared with: a program that does nothing, the plainest
 * program that counts connections, and an event to user space per packet.
 */
#include "../../bpf/packet.h"

#include <linux/tcp.h>
#include <linux/udp.h>

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define NEXT (-1) /* TCX_NEXT: never a verdict */

struct plain_value {
	__u64 bytes;
	__u64 packets;
	__u64 last_ns;
};

/* What an agent that sends each packet to user space puts on the ring. */
struct packet_event {
	struct flow_key key;
	__u64 time_ns;
	__u32 len;
	__u32 direction;
};
_Static_assert(sizeof(struct packet_event) == 64, "one cache line a packet");

/* key: connection; value: its counts. Written by bench_plain, emptied by user
 * space between rounds. Bound: as many as the tap's table. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 100000);
	__type(key, struct flow_key);
	__type(value, struct plain_value);
} bench_table SEC(".maps");

/* Events of bench_ring; user space drains it. Bound: 16 MiB. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 24);
} bench_events SEC(".maps");

/* The textbook parser: Ethernet, IPv4 without options or IPv6 without
 * extensions, ports. Source and destination as on the wire. */
static __always_inline bool parse(struct __sk_buff *skb, struct flow_key *key)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct udphdr *ports; /* TCP has its ports in the same place */

	if ((void *)(eth + 1) > end)
		return false;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(eth + 1);

		ports = (void *)(ip + 1);
		if ((void *)(ports + 1) > end)
			return false;
		key->local[3] = ip->saddr;
		key->remote[3] = ip->daddr;
		key->protocol = ip->protocol;
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)(eth + 1);

		ports = (void *)(ip + 1);
		if ((void *)(ports + 1) > end)
			return false;
		__builtin_memcpy(key->local, &ip->saddr, 16);
		__builtin_memcpy(key->remote, &ip->daddr, 16);
		key->protocol = ip->nexthdr;
	} else {
		return false;
	}
	if (key->protocol == IPPROTO_UDP || key->protocol == IPPROTO_TCP) {
		key->local_port_be = ports->source;
		key->remote_port_be = ports->dest;
	}
	key->ifindex = skb->ifindex;
	return true;
}

SEC("tc")
int bench_empty(struct __sk_buff *skb)
{
	return NEXT;
}

SEC("tc")
int bench_plain(struct __sk_buff *skb)
{
	struct flow_key key = {};
	struct plain_value *v;

	if (!parse(skb, &key))
		return NEXT;
	v = bpf_map_lookup_elem(&bench_table, &key);
	if (!v) {
		struct plain_value first = {
			.bytes = skb->len,
			.packets = 1,
			.last_ns = bpf_ktime_get_coarse_ns(),
		};

		bpf_map_update_elem(&bench_table, &key, &first, BPF_NOEXIST);
		return NEXT;
	}
	__sync_fetch_and_add(&v->bytes, skb->len);
	__sync_fetch_and_add(&v->packets, 1);
	v->last_ns = bpf_ktime_get_coarse_ns();
	return NEXT;
}

SEC("tc")
int bench_ring(struct __sk_buff *skb)
{
	struct packet_event e = {};

	if (!parse(skb, &e.key))
		return NEXT;
	e.time_ns = bpf_ktime_get_ns();
	e.len = skb->len;
	bpf_ringbuf_output(&bench_events, &e, sizeof(e), 0);
	return NEXT;
}
