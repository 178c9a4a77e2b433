// SPDX-License-Identifier: Apache-2.0
//go:build ignore

/*
 * What the kernel throws away: at skb:kfree_skb each packet with a reason is
 * added to the record of its connection, reason and place, in the kernel, so that
 * a storm costs a look-up a packet and no more. No packet is changed or copied.
 */
#include "freed.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define REASONS 256 /* of the network stack itself; others have a subsystem above bit 16 */
#define SYMBOL_BYTES 160
#define FOLDED 1 /* packets of more than one connection */

/* The tracepoint tells which socket was to receive (6.11). */
const volatile bool has_receiver;

/* When a reason is no loss. */
enum harmless {
	HARMLESS = 1,
	/* The packet is sent to a group, which nobody here has joined. */
	HARMLESS_GROUPED = 2,
	/* Of ICMP: answers to echoes are freed where a raw socket has had its copy, as
	 * of most programs that ping. */
	HARMLESS_ICMP = 4,
	/* It had come to its protocol: what TCP has done with, as most that comes for a
	 * connection that is over, and what the queue of a socket holds as it is closed. */
	HARMLESS_DELIVERED = 8,
};
const volatile __u8 harmless[REASONS]; /* by reason: enum harmless, several */

/* Of this namespace alone, by its inode; 0: of all. */
const volatile __u32 only_netns;
/* Connections that one epoch has room for. */
const volatile __u32 detail_bound = 2048;
/* Pairs of addresses that it has room for beyond these. */
const volatile __u32 pair_bound = 256;

struct drop_key {
	/* Where there is no room for more, marked FOLDED in its last field, and
	 * without ports; where there is none for that either, without all but the
	 * namespace. */
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
/* Records with a connection, and with a pair of addresses, that were made since
 * user space cleared it. */
__u32 drop_details;
__u32 drop_pairs;

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

static __always_inline bool is_excused(__u8 excused, const struct flow_key *key, bool on_way, bool sent)
{
	if (excused & HARMLESS_DELIVERED && !on_way)
		return true;
	if (excused & HARMLESS_ICMP && (key->protocol == IPPROTO_ICMP || key->protocol == IPPROTO_ICMPV6))
		return true;
	return excused & HARMLESS_GROUPED && is_grouped(key, sent);
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

/* The record of a packet that is the first of its kind in an epoch. A storm of
 * many connections is between few places, mostly: those keep their names where the
 * connections have no room. */
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
	conn->zero = FOLDED;
	if (drop_pairs < pair_bound) { /* else there are too many places, too */
		conn->local_port_be = conn->remote_port_be = 0;
		conn->kind = CONN_PLAIN;
		v = bpf_map_lookup_elem(table, key);
		if (v)
			return v;
		__sync_fetch_and_add(&drop_pairs, 1);
		v = make(table, key);
		if (v)
			return v;
	}
	__builtin_memset(conn, 0, offsetof(struct flow_key, ifindex));
	conn->ifindex = 0;
	conn->protocol = conn->kind = 0;
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
	bool on_way, sent;
	__u8 excused = 0;
	void *table;

	asm volatile("" : "+r"(reason)); /* or the bound is checked on another copy */
	if (reason < REASONS)
		excused = harmless[reason];
	if (excused & HARMLESS)
		return 0;
	protocol = skb->protocol;
	if (protocol != bpf_htons(ETH_P_IP) && protocol != bpf_htons(ETH_P_IPV6) && protocol != bpf_htons(ETH_P_ARP))
		return 0;
	table = bpf_map_lookup_elem(&drop_active, &zero);
	if (!table)
		return 0;
	if (has_receiver)
		receiver = (struct sock *)ctx[3];
	on_way = set_place(&key.conn, skb, receiver);
	if (only_netns && key.conn.netns != only_netns)
		return 0;
	sent = !receiver && !skb->skb_iif;
	weigh(skb, set_conn(&key.conn, skb, sent), &a);
	if (excused && is_excused(excused, &key.conn, on_way && !is_delivered(skb), sent))
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
