/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A packet as the kernel holds it when it is freed: where it was, whose it is,
 * what it weighs. No programs, no maps.
 */
#ifndef ORB8_FREED_H
#define ORB8_FREED_H

#include "../../../bpf/packet.h"
#include "../../../bpf/pid.h"

#define FIRST_INODE 0xEFFFFFF0 /* of namespaces; what is below is none */
#define DST_NOREF 1UL /* in the pointer to a packet's route */
#define HEADER_BYTES 256 /* that may have been taken off already */
#define SUPER_BYTES 1500 /* what is shorter is taken for one segment */

/* The kernel's, as far as it is read. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct net {
	struct ns_common ns;
};
typedef struct {
	struct net *net;
} possible_net_t;
struct net_device {
	possible_net_t nd_net;
	int ifindex;
};
struct sock_common {
	possible_net_t skc_net;
};
struct sock {
	struct sock_common __sk_common;
};
struct dst_entry {
	struct net_device *dev;
};
struct sk_buff {
	struct net_device *dev;
	struct sock *sk;
	unsigned long _skb_refdst;
	unsigned int len;
	int skb_iif;
	__be16 protocol;
	__u16 network_header;
	unsigned int tail;
	unsigned int end;
	unsigned char *head;
	unsigned char *data;
};
struct skb_shared_info {
	unsigned short gso_segs;
};
#pragma clang attribute pop

static __always_inline bool set_device(struct flow_key *key, struct net_device *dev)
{
	__u32 netns = dev->nd_net.net->ns.inum;

	if (netns < FIRST_INODE)
		return false;
	key->netns = netns;
	key->ifindex = dev->ifindex;
	return true;
}

/* Where a packet was, as far as it tells; false: at no device. The receiver's word
 * goes before a device's: in queues the kernel uses the device's place in a packet
 * for other things. */
static __always_inline bool set_place(struct flow_key *key, struct sk_buff *skb, struct sock *receiver)
{
	struct net_device *dev = skb->dev;
	struct sock *sk = skb->sk;
	struct dst_entry *dst;
	__u32 iif = skb->skb_iif;

	if (receiver) {
		key->netns = receiver->__sk_common.skc_net.net->ns.inum;
		key->ifindex = iif;
		return false;
	}
	if (dev && set_device(key, dev))
		return true;
	key->ifindex = iif;
	if (sk)
		key->netns = sk->__sk_common.skc_net.net->ns.inum;
	if (sk && iif)
		return false;
	dst = (struct dst_entry *)(skb->_skb_refdst & ~DST_NOREF);
	dev = BPF_CORE_READ(dst, dev);
	if (!key->netns)
		key->netns = BPF_CORE_READ(dev, nd_net.net, ns.inum);
	if (!iif)
		key->ifindex = BPF_CORE_READ(dev, ifindex);
	if (key->netns < FIRST_INODE)
		key->netns = key->ifindex = 0;
	return false;
}

/* Its protocol has it: what is before has been taken off. */
static __always_inline bool is_delivered(struct sk_buff *skb)
{
	return (__u64)skb->data > (__u64)skb->head + skb->network_header;
}

/* Sent to a group, or to all. */
static __always_inline bool is_grouped(const struct flow_key *key, bool sent)
{
	const __u8 *to = (const __u8 *)(sent ? key->remote : key->local);

	return to[0] == 0xff || (to[10] == 0xff && to[12] >= 0xe0);
}

/* The headers of a packet as they are in memory, in one read: behind them there
 * is always the shared info. */
struct headers {
	union {
		struct {
			struct iphdr ip4;
			__u32 rest4[7];
		};
		struct {
			struct ipv6hdr ip6;
			__u32 rest6[2];
		};
	};
};
_Static_assert(sizeof(struct headers) == 48, "IPv6 and the first 8 bytes behind it");

/* Ports, or the echo of which it is a part. */
static __always_inline void set_transport(struct flow_key *key, const __u32 *transport, bool sent)
{
	__u32 first = transport[0];
	__u8 type = first & 0xff;

	switch (key->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		key->local_port_be = sent ? first & 0xffff : first >> 16;
		key->remote_port_be = sent ? first >> 16 : first & 0xffff;
		return;
	case IPPROTO_ICMP:
		if (type != 8 && type != 0)
			return;
		key->kind = (type == 8) == sent ? CONN_ECHO_LOCAL : CONN_ECHO_REMOTE;
		break;
	case IPPROTO_ICMPV6:
		if (type != 128 && type != 129)
			return;
		key->kind = (type == 128) == sent ? CONN_ECHO_LOCAL : CONN_ECHO_REMOTE;
		break;
	default:
		return;
	}
	key->local_port_be = transport[1] & 0xffff;
}

/* Writes the connection, as far as the packet tells, and gives its length. */
static __always_inline __u32 set_conn(struct flow_key *key, struct sk_buff *skb, bool sent)
{
	__u32 at = skb->network_header, held = skb->tail - at, size;
	struct headers h;

	if (bpf_probe_read_kernel(&h, sizeof(h), skb->head + at) || held < sizeof(struct iphdr))
		return 0;
	if (h.ip4.version == 4 && skb->protocol == bpf_htons(ETH_P_IP)) {
		key->local[2] = key->remote[2] = bpf_htonl(0xffff);
		key->local[3] = sent ? h.ip4.saddr : h.ip4.daddr;
		key->remote[3] = sent ? h.ip4.daddr : h.ip4.saddr;
		key->protocol = h.ip4.protocol;
		if (h.ip4.frag_off & bpf_htons(0x1fff))
			key->kind = CONN_FRAGMENT;
		else if (h.ip4.ihl == 5 && held >= 28)
			set_transport(key, h.rest4, sent);
		size = bpf_ntohs(h.ip4.tot_len);
	} else if (h.ip6.version == 6 && skb->protocol == bpf_htons(ETH_P_IPV6) && held >= sizeof(h.ip6)) {
		set_ends(key, h.ip6.saddr.in6_u.u6_addr32, h.ip6.daddr.in6_u.u6_addr32, sent);
		key->protocol = h.ip6.nexthdr;
		if (held >= 48)
			set_transport(key, h.rest6, sent);
		size = bpf_ntohs(h.ip6.payload_len);
		if (size)
			size += sizeof(h.ip6);
	} else {
		return 0;
	}
	return size;
}

struct amount {
	__u64 packets, bytes;
};

static __always_inline void weigh(struct sk_buff *skb, __u32 size, struct amount *a)
{
	struct skb_shared_info *shared;

	a->packets = 1;
	/* What the memory begins with depends on how far the packet had come; what the
	 * header says may be wrong. */
	if (!size || size > skb->len + HEADER_BYTES)
		size = skb->len;
	a->bytes = size + ETH_HLEN;
	if (likely(a->bytes <= SUPER_BYTES + ETH_HLEN))
		return;
	shared = (void *)skb->head + skb->end;
	a->packets = BPF_CORE_READ(shared, gso_segs);
	if (!a->packets)
		a->packets = 1;
}

#endif
