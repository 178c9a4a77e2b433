// SPDX-License-Identifier: Apache-2.0
//go:build ignore

/*
 * The tap: every packet of a tapped interface is added to the record of its
 * connection, once, in the kernel. No packet is changed, delayed or sent to
 * user space.
 *
 * Each namespace has its own instance of flow_ingress and flow_egress, which do
 * the short way that nearly every packet takes: a plain header, a record that
 * exists. All else goes on to flow_rare_…, of which there is one for all. So an
 * instance is small and quick to load, and the verifier sees the long way once.
 */
#include "../../../bpf/packet.h"
#include "../../../bpf/size.h"
#include "../../../bpf/socket.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define NEXT (-1) /* TCX_NEXT, and TC_ACT_UNSPEC for clsact: never a verdict */

const volatile __u32 netns = 0; /* inode of the namespace this instance is in */
const volatile __u32 link_header = ETH_HLEN; /* or LINK_UNKNOWN */
const volatile __u32 forwards = 0; /* packets of others pass through this namespace */
/* Where this kernel's struct tcp_sock counts segments that came out of order; 0
 * where that is not known. */
const volatile __u32 out_of_order_at = 0;
/* What is said to and from these ports is copied; 0: none. */
#define DNS_PORTS 8
const volatile __u16 dns_ports_be[DNS_PORTS] = {};

enum direction { INGRESS = 0, EGRESS = 1 };

/* What an instance tells the rare programs, in the packet's scratch space. */
enum { CB_NETNS = 0, CB_LINK = 1, CB_FORWARDS = 2 };

#define PKT_BROADCAST 1 /* of skb->pkt_type */
#define PKT_MULTICAST 2

#define SEG_SHIFT 35

/* What changes a connection's life is noted by the rare programs. */
#define TCP_LIFE (TCP_FIN | TCP_SYN | TCP_RST)

#define WINDOW_SHUT 1 /* by the last packet */
#define WINDOW_BEGAN_SHUT 2 /* by the first of the epoch */

#define FIRST_SENT 1
#define FIRST_ANSWERS 2 /* SYN and ACK: the other end opened the connection */
#define FIRST_TAGGED 4 /* with a VLAN tag */

#define WATCH_DNS 1 /* what both sides say is copied */
#define WATCH_HELLO 2 /* the local side's first words are copied, if they are TLS */
#define WATCH_BLIND 4 /* with it: they may have begun before */

/* One direction of a connection in one epoch. Counters are added to by several
 * CPUs at once; the rest is written by whoever comes last. */
struct flow_side {
	__u64 bytes; /* on the wire with the link-layer header, per segment */
	__u64 packets; /* segments */
	/* Of it, what the device did not see, since it counts a super-packet
	 * once: segments << SEG_SHIFT | bytes, for one atomic add instead of
	 * two. Good for 500 million segments, a minute at 100 Gbit/s. */
	__u64 seg;
	__u32 last; /* jiffies, low half */
	__u32 retransmits; /* tx only: segments, over the socket's life */
	/* One byte a TCP flag: two CPUs that set different flags at once both
	 * keep theirs, without atomic-or (5.12). */
	__u8 seen[8];
	__u32 out_of_order; /* tx only: segments received so, over the socket's life */
	__u16 zero_windows; /* times that the window was said to be zero from then on */
	__u8 window; /* WINDOW_… */
	__u8 ended; /* TCP_FIN, TCP_RST: this side was the first to send one */
};

/*
 * One connection in one epoch. The kernel puts 96 bytes before a value; with
 * 160 of value an entry is four cache lines, of which each direction has one.
 */
struct flow_value {
	__u64 cookie; /* of the local socket, 0 until it has sent */
	__u64 cgroup;
	__u32 first; /* jiffies, low half */
	__u32 icmp_errors; /* that quoted this connection */
	__u8 flags[2]; /* by direction: TCP flags known to be in seen[] */
	__u8 first_was; /* FIRST_…, of the first packet of the epoch */
	__u8 has_health;
	__u8 icmp_type; /* of the last error */
	__u8 icmp_code;
	__u8 sender; /* enum sender, of the first packet that was sent */
	__u8 watch; /* WATCH_… */
	struct flow_side tx;
	__u64 bytes_acked;
	__u32 srtt_us8; /* microseconds × 8, as the kernel keeps it */
	__u32 min_rtt_us;
	struct flow_side rx;
	/* Microseconds of no known beginning; 0: none was seen in this epoch. */
	__u32 syn;
	__u32 syn_ack;
	__u32 retransmits_before; /* of the socket, at the first packet sent */
	__u16 hello_left; /* bytes of the ClientHello that are still to come */
	__u8 hello_segments; /* of it, seen */
	__u8 spare;
};
_Static_assert(sizeof(struct flow_value) == 160, "the Go side reads these bytes");

/* What is counted without a connection. */
struct rest_key {
	__u32 netns;
	__u32 ifindex;
	__u8 class; /* enum packet_class, never PACKET_CONN */
	__u8 protocol;
	__u8 direction;
	__u8 zero;
};
_Static_assert(sizeof(struct rest_key) == 12, "the Go side reads these bytes");

struct rest_value {
	__u64 bytes;
	__u64 packets;
	__u64 seg_bytes;
	__u64 seg_packets;
};

#define SLOTS 256

/* What passed through one interface, by direction. */
struct flow_slot {
	__u32 ifindex; /* 0: free */
	__u32 zero;
	struct rest_value forwarded[2];
};

/* key: connection; value: its epoch. Written by the programs below, read and
 * emptied by user space while it is not active. Bound: ORB8_TABLE_ENTRIES. */
struct flow_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct flow_key);
	__type(value, struct flow_value);
};

/* key: 0; value: the table that counts now, or none while detail is shed. Only
 * user space writes it, and the write returns when no program is left on the
 * old table. Bound: 1. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct flow_table);
} flow_active SEC(".maps");

/* key: 0; value: 1 when there is something to read. Set by the programs, cleared
 * by user space before it reads. Bound: 1. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} flow_moved SEC(".maps");

/* key: interface and reason; value: totals since loading. Written by the
 * programs, deleted by user space when the interface is gone. Bound: 4096. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct rest_key);
	__type(value, struct rest_value);
} flow_rest SEC(".maps");

/* key: direction; value: what found no room in flow_rest. Bound: 2. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct rest_value);
} flow_rest_lost SEC(".maps");

/* key: ifindex % SLOTS, in the namespace that forwards; value: a cheap place for
 * what passes through that interface. Given out and cleared by user space; an
 * interface that has none counts in flow_rest. Bound: SLOTS. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct flow_slot);
} flow_slots SEC(".maps");

/* key: 0; value: a bit for the last 16 bits of each address in flow_addresses,
 * so that most packets of others are known by one load. Written by user space.
 * Bound: 1. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64[1024]);
} flow_address_bits SEC(".maps");

/* key: address of the namespace that forwards; value: nothing. Written and
 * deleted by user space. Bound: 16384. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32[4]);
	__type(value, __u8);
} flow_addresses SEC(".maps");

/* key: RARE or COPY, plus the direction; value: flow_rare_…, flow_copy_….
 * Written by user space at the start. Bound: 4. */
enum { RARE = 0, COPY = 2 };
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} flow_rare SEC(".maps");

static __always_inline bool maybe_address(const __u32 *address)
{
	__u32 zero = 0, low = address[3] >> 16; /* the last two bytes, as loaded */
	__u64 *bits = bpf_map_lookup_elem(&flow_address_bits, &zero);

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	low = address[3] & 0xffff;
#endif
	return bits && bits[low >> 6 & 1023] >> (low & 63) & 1;
}

static __always_inline void add_flags(struct flow_value *v, const enum direction dir, __u8 flags)
{
	struct flow_side *side = dir == EGRESS ? &v->tx : &v->rx;

#pragma unroll
	for (int i = 0; i < 8; i++)
		if (flags & (1 << i))
			side->seen[i] = 1;
	v->flags[dir] |= flags;
}

static __always_inline void add_packet(struct flow_side *side, const struct size *s)
{
	__sync_fetch_and_add(&side->bytes, s->bytes);
	__sync_fetch_and_add(&side->packets, s->packets);
	if (s->seg_packets)
		__sync_fetch_and_add(&side->seg, s->seg_packets << SEG_SHIFT | s->seg_bytes);
	side->last = bpf_jiffies64(); /* a load, not a call: 1 ns against 17 */
}

/* This CPU's own copy, nothing else on it meanwhile. */
static __always_inline void add_rest(struct rest_value *v, const struct size *s)
{
	v->bytes += s->bytes;
	v->packets += s->packets;
	v->seg_bytes += s->seg_bytes;
	v->seg_packets += s->seg_packets;
}

static __always_inline void read_health(struct __sk_buff *skb, struct flow_value *v)
{
	struct bpf_sock *sk = skb->sk;
	struct bpf_tcp_sock *tp;
	void *kernel;

	/* The kernel's own socket, by which it refuses, is a raw one of this protocol
	 * and always closed: it has no such numbers. */
	if (!sk || sk->state == SOCKET_CLOSED)
		return;
	tp = bpf_tcp_sock(sk);
	if (!tp)
		return;
	v->has_health = 1;
	v->srtt_us8 = tp->srtt_us;
	v->min_rtt_us = tp->rtt_min;
	v->tx.retransmits = tp->total_retrans;
	v->bytes_acked = tp->bytes_acked;
	if (!out_of_order_at) /* a constant: the verifier drops the rest */
		return;
	kernel = bpf_skc_to_tcp_sock(sk);
	if (kernel)
		v->tx.out_of_order = *(__u32 *)(kernel + out_of_order_at);
}

/* Here, or not at all: the agent has ended, and its programs with it. */
static __always_inline int go_on(struct __sk_buff *skb, __u32 program)
{
	skb->cb[CB_NETNS] = netns;
	skb->cb[CB_LINK] = link_header;
	skb->cb[CB_FORWARDS] = forwards;
	bpf_tail_call(skb, &flow_rare, program);
	return NEXT;
}

#include "bridge.h"
#include "copy.h"
#include "rare.h"

static __always_inline int observe(struct __sk_buff *skb, const enum direction dir)
{
	struct plain plain = { .link = link_header, .netns = netns };
	struct flow_key key;
	struct flow_slot *slot;
	struct flow_side *side;
	struct flow_value *v;
	struct size s = {};
	__u32 zero = 0, place;
	__u8 flags;
	void *table;

	if (dir == EGRESS && between_ports(skb))
		return NEXT;
	if (link_header == LINK_UNKNOWN || unlikely(!parse_plain(skb, &key, &plain, dir == EGRESS)))
		goto rare;
	if (forwards && !maybe_address(key.local)) {
		place = skb->ifindex % SLOTS;
		slot = bpf_map_lookup_elem(&flow_slots, &place);
		if (!slot || slot->ifindex != skb->ifindex)
			goto rare;
		if (dir == INGRESS && (skb->pkt_type == PKT_BROADCAST || skb->pkt_type == PKT_MULTICAST))
			goto rare;
		measure(skb, plain.headers, 0, &s);
		add_rest(&slot->forwarded[dir], &s);
		return NEXT;
	}
	table = bpf_map_lookup_elem(&flow_active, &zero);
	if (unlikely(!table))
		goto rare;
	v = bpf_map_lookup_elem(table, &key);
	if (unlikely(!v) || (dir == EGRESS && unlikely(!v->sender)))
		goto rare;
	side = dir == EGRESS ? &v->tx : &v->rx;
	flags = plain.tcp_flags & ~v->flags[dir];
	if (unlikely(flags & TCP_LIFE || plain.shut != (side->window & WINDOW_SHUT)))
		goto rare;
	measure(skb, plain.headers, 0, &s);
	add_packet(side, &s);
	if (unlikely(flags))
		add_flags(v, dir, plain.tcp_flags);
	if (dir == EGRESS && plain.protocol == IPPROTO_TCP)
		read_health(skb, v);
	if (unlikely(dir == EGRESS ? v->watch : v->watch & WATCH_DNS))
		return go_on(skb, COPY + dir);
	return NEXT;
rare:
	return go_on(skb, RARE + dir);
}

SEC("tc")
int flow_ingress(struct __sk_buff *skb)
{
	return observe(skb, INGRESS);
}

SEC("tc")
int flow_egress(struct __sk_buff *skb)
{
	return observe(skb, EGRESS);
}

SEC("tc")
int flow_rare_ingress(struct __sk_buff *skb)
{
	return observe_rare(skb, INGRESS);
}

SEC("tc")
int flow_rare_egress(struct __sk_buff *skb)
{
	return observe_rare(skb, EGRESS);
}

SEC("tc")
int flow_copy_ingress(struct __sk_buff *skb)
{
	return copy_packet(skb, INGRESS);
}

SEC("tc")
int flow_copy_egress(struct __sk_buff *skb)
{
	return copy_packet(skb, EGRESS);
}

/* On the way out of a loopback that is not tapped: a resolver of this namespace's
 * own is asked there. */
SEC("tc")
int flow_loopback(struct __sk_buff *skb)
{
	struct plain plain = { .link = ETH_HLEN, .netns = netns };
	struct flow_key key;

	if (parse_plain(skb, &key, &plain, true) && is_dns(&key))
		return go_on(skb, COPY + EGRESS);
	return NEXT;
}

/* Run by user space, never attached: the clock of the stamps above. */
SEC("tc")
int flow_clock(struct __sk_buff *skb)
{
	return bpf_jiffies64();
}
