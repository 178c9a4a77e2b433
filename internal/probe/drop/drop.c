// SPDX-License-Identifier: Apache-2.0
//go:build ignore

/*
 * What the kernel throws away: at skb:kfree_skb each packet with a reason is
 * added to the record of its connection, reason and place, in the kernel, so that
 * a storm costs a look-up a packet and no more. No packet is changed or copied.
 */
#include "../../../bpf/packet.h"
#include "../../../bpf/pid.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define REASONS 256 /* of the network stack itself; others have a subsystem above bit 16 */
#define SYMBOL_BYTES 160
#define FIRST_INODE 0xF0000000 /* of namespaces; what is below is none */
#define DST_NOREF 1UL /* in the pointer to a packet's route */
#define FOLDED 1 /* packets of any connection */
#define SUPER_BYTES 1500 /* what is shorter is taken for one segment */

/* The tracepoint tells which socket was to receive (6.11). */
const volatile bool has_receiver;
/* Reasons that are no loss: the packet did what it was for. By number. */
const volatile __u8 harmless[REASONS];
/* The reason of what is freed without one. It counts where the packet was on its
 * way, at a device: what a socket's queue held when it was closed is freed the
 * same way, and what is sent to a group and nobody here has joined. */
const volatile __u32 unspecified = 2;
/* The reason of what nobody listens for. Answers to echoes are freed for it where
 * a raw socket has had its copy, as of most programs that ping. */
const volatile __u32 no_socket = 3;
/* Connections that one epoch has room for. */
const volatile __u32 detail_bound = 4096;

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
};
struct skb_shared_info {
	unsigned short gso_segs;
};
#pragma clang attribute pop

struct drop_key {
	/* Where there is no room for more, zero but for the namespace and the mark
	 * FOLDED in its last field. */
	struct flow_key conn;
	__u64 location; /* in the kernel's code */
	__u32 reason;
	__u32 cpu; /* each adds to records of its own */
};
_Static_assert(sizeof(struct drop_key) == 64, "the Go side reads these bytes");

struct drop_value {
	__u64 packets; /* segments */
	__u64 bytes; /* with an Ethernet header */
	__u32 first; /* jiffies, low half */
	__u32 last;
};
_Static_assert(sizeof(struct drop_value) == 24, "the Go side reads these bytes");

/* Set by the programs when they make a record, cleared by user space before it
 * reads. */
__u64 drop_marked;
/* Records with a connection that were made since user space cleared it. */
__u32 drop_details;

/* key: connection, reason, place; value: what was dropped in this epoch. Written
 * by the program, read and emptied by user space while it is not active. Bound:
 * detail_bound, and a rest for records without a connection. */
struct drop_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct drop_key);
	__type(value, struct drop_value);
};

/* Without it the compiler leaves the type of the inner map's key out. */
const struct drop_key *drop_key_type __attribute__((unused));

/* key: 0; value: the table that counts now. Only user space writes it, and the
 * write returns when no program is left on the old table. Bound: 1. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct drop_table);
} drop_active SEC(".maps");

/* key: 0; value: what found no room even without its connection, since loading.
 * Bound: 1. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct drop_value);
} drop_rest SEC(".maps");

/* key: 0; value: the name of an address in the kernel's code. Written by
 * drop_symbol, read by user space after it. Bound: 1. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, char[SYMBOL_BYTES]);
} drop_name SEC(".maps");

/* Where a packet was, as far as it tells. A socket's word goes before a device's:
 * in queues the kernel uses the device's place in a packet for other things. */
static __always_inline bool set_device(struct flow_key *key, struct net_device *dev)
{
	__u32 netns = dev->nd_net.net->ns.inum;

	if (netns < FIRST_INODE)
		return false;
	key->netns = netns;
	key->ifindex = dev->ifindex;
	return true;
}

/* false: it is at no device. */
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
	a->bytes = (size ? size : skb->len) + ETH_HLEN;
	if (likely(a->bytes <= SUPER_BYTES + ETH_HLEN))
		return;
	shared = (void *)skb->head + skb->end;
	a->packets = BPF_CORE_READ(shared, gso_segs);
	if (!a->packets)
		a->packets = 1;
}

/* One CPU's own record; but what it is doing may be interrupted. */
static __always_inline void add(struct drop_value *v, const struct amount *a)
{
	__sync_fetch_and_add(&v->packets, a->packets);
	__sync_fetch_and_add(&v->bytes, a->bytes);
	v->last = bpf_jiffies64();
}

/* Makes the record of a key; NULL where there is no room. */
static __always_inline struct drop_value *make(void *table, const struct drop_key *key)
{
	struct drop_value fresh = {};

	fresh.first = fresh.last = bpf_jiffies64();
	bpf_map_update_elem(table, key, &fresh, BPF_NOEXIST);
	drop_marked = 1;
	return bpf_map_lookup_elem(table, key);
}

/* The record of a packet that is the first of its kind in an epoch. */
static __always_inline struct drop_value *first(void *table, struct drop_key *key)
{
	struct flow_key *conn = &key->conn;
	struct drop_value *v;

	if (drop_details < detail_bound) {
		__sync_fetch_and_add(&drop_details, 1);
		v = make(table, key);
		if (v)
			return v;
	}
	__builtin_memset(conn, 0, offsetof(struct flow_key, ifindex));
	conn->ifindex = 0;
	conn->protocol = conn->kind = 0;
	conn->zero = FOLDED;
	v = bpf_map_lookup_elem(table, key);
	return v ? v : make(table, key);
}

/* args: the packet; where it was freed; why, since 5.17; who was to receive it,
 * since 6.11. */
SEC("tp_btf/kfree_skb")
int drop_packet(__u64 *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx[0];
	struct sock *receiver = NULL;
	struct drop_key key = {};
	struct drop_value *v;
	struct amount a;
	__u32 reason = ctx[2], zero = 0;
	__u16 protocol;
	bool at_device, sent;
	void *table;

	asm volatile("" : "+r"(reason)); /* or the bound is checked on another copy */
	if (reason < REASONS && harmless[reason])
		return 0;
	protocol = skb->protocol;
	if (protocol != bpf_htons(ETH_P_IP) && protocol != bpf_htons(ETH_P_IPV6) && protocol != bpf_htons(ETH_P_ARP))
		return 0;
	table = bpf_map_lookup_elem(&drop_active, &zero);
	if (!table)
		return 0;
	if (has_receiver)
		receiver = (struct sock *)ctx[3];
	at_device = set_place(&key.conn, skb, receiver);
	sent = !receiver && !skb->skb_iif;
	weigh(skb, set_conn(&key.conn, skb, sent), &a);
	if (reason == no_socket && (key.conn.protocol == IPPROTO_ICMP || key.conn.protocol == IPPROTO_ICMPV6))
		return 0;
	if (reason == unspecified && (!at_device || is_grouped(&key.conn, sent)))
		return 0;
	key.location = ctx[1];
	key.reason = reason;
	key.cpu = bpf_get_smp_processor_id();
	v = bpf_map_lookup_elem(table, &key);
	if (unlikely(!v))
		v = first(table, &key);
	if (unlikely(!v))
		v = bpf_map_lookup_elem(&drop_rest, &zero);
	if (v)
		add(v, &a);
	return 0;
}

struct symbol {
	__u64 address;
};

/* Run by user space, never attached: what the kernel calls a place in its code,
 * which needs neither its table of symbols nor the right to read that. */
SEC("syscall")
int drop_symbol(struct symbol *ctx)
{
	static const char format[] = "%pS";
	__u64 address = ctx->address;
	__u32 zero = 0;
	char *name = bpf_map_lookup_elem(&drop_name, &zero);

	if (!name)
		return -1;
	return bpf_snprintf(name, SYMBOL_BYTES, format, &address, sizeof(address));
}

/* Run by user space, never attached: the clock of the stamps above. */
SEC("syscall")
int drop_clock(void *ctx)
{
	return bpf_jiffies64();
}
