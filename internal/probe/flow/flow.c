// SPDX-License-Identifier: Apache-2.0
//go:build ignore

/*
 * The tap: every packet of a tapped interface is added to the record of its
 * connection, once, in the kernel. No packet is changed, delayed or sent to
 * user space.
 */
#include "../../../bpf/packet.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define NEXT (-1) /* TCX_NEXT, and TC_ACT_UNSPEC for clsact: never a verdict */

const volatile __u32 netns = 0; /* inode of the namespace this instance is in */
const volatile __u32 link_header = ETH_HLEN;

enum direction { INGRESS = 0, EGRESS = 1 };

#define SEG_SHIFT 35

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
	__u8 first_egress; /* the first packet of the epoch was sent */
	__u8 has_health;
	__u8 icmp_type; /* of the last error */
	__u8 icmp_code;
	__u16 zero;
	struct flow_side tx;
	__u64 bytes_acked;
	__u32 srtt_us8; /* microseconds × 8, as the kernel keeps it */
	__u32 min_rtt_us;
	__u64 spare_tx;
	struct flow_side rx;
	__u64 spare_rx[3];
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

/* key: connection; value: its epoch. Written by the programs below, read and
 * emptied by user space while it is not active. Bound: ORB8_TABLE_ENTRIES. */
struct flow_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct flow_key);
	__type(value, struct flow_value);
};

/* key: 0; value: the table that counts now. Only user space writes it, and the
 * write returns when no program is left on the old table. Bound: 1. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct flow_table);
} flow_active SEC(".maps");

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

struct size {
	__u64 bytes, packets; /* on the wire */
	__u64 seg_bytes, seg_packets; /* of it, more than the device saw */
};

/*
 * A super-packet stands for segments that each carry the headers again. A tag
 * that the kernel keeps beside the packet is on the wire, too; on the way in
 * that is each outer tag, taken out before the tap runs.
 */
static __always_inline void measure(struct __sk_buff *skb, __u32 headers, struct size *s)
{
	__u32 gso_size = skb->gso_size;
	__u32 tag = skb->vlan_present ? 4 : 0;

	s->bytes = skb->len + tag;
	s->packets = 1;
	if (!gso_size)
		return;
	s->packets = skb->gso_segs;
	if (!s->packets && skb->len > headers) /* the driver left it out */
		s->packets = (skb->len - headers + gso_size - 1) / gso_size;
	if (s->packets <= 1) {
		s->packets = 1;
		return;
	}
	s->seg_packets = s->packets - 1;
	s->seg_bytes = s->seg_packets * headers;
	/* On egress the kernel has worked it out, since 6.17 with the inner
	 * headers of a tunnel. */
	if (skb->wire_len > skb->len + s->seg_bytes)
		s->seg_bytes = skb->wire_len - skb->len;
	s->seg_bytes += s->seg_packets * tag;
	s->bytes += s->seg_bytes;
}

struct rest {
	enum packet_class class;
	enum direction dir;
	__u32 headers;
	__u8 protocol;
};

static __noinline int count_rest(struct __sk_buff *skb, struct rest *r)
{
	struct rest_key key = {
		.netns = netns,
		.ifindex = skb->ifindex,
		.class = r->class,
		.protocol = r->protocol,
		.direction = r->dir,
	};
	struct rest_value *v = bpf_map_lookup_elem(&flow_rest, &key);
	struct size s = {};
	__u32 slot = r->dir;

	if (!v) {
		struct rest_value none = {};

		bpf_map_update_elem(&flow_rest, &key, &none, BPF_NOEXIST);
		v = bpf_map_lookup_elem(&flow_rest, &key);
	}
	if (!v)
		v = bpf_map_lookup_elem(&flow_rest_lost, &slot);
	if (!v)
		return 0;
	measure(skb, r->headers, &s);
	v->bytes += s.bytes; /* this CPU's own copy, nothing else on it meanwhile */
	v->packets += s.packets;
	v->seg_bytes += s.seg_bytes;
	v->seg_packets += s.seg_packets;
	return 0;
}

static __noinline int set_flags(struct flow_value *v, struct flow_side *side, __u8 flags)
{
	for (int i = 0; i < 8; i++)
		if (flags & (1 << i))
			side->seen[i] = 1;
	v->flags[side == &v->tx] |= flags;
	return 0;
}

/* The socket is still attached to what it sends. */
static __always_inline void read_socket(struct __sk_buff *skb, struct flow_value *v, __u8 protocol)
{
	struct bpf_sock *sk = skb->sk;
	struct bpf_tcp_sock *tp;

	if (!sk)
		return;
	if (!v->cookie || !v->cgroup) {
		v->cookie = bpf_get_socket_cookie(skb);
		v->cgroup = bpf_skb_cgroup_id(skb);
	}
	if (protocol != IPPROTO_TCP)
		return;
	tp = bpf_tcp_sock(sk);
	if (!tp)
		return;
	v->has_health = 1;
	v->srtt_us8 = tp->srtt_us;
	v->min_rtt_us = tp->rtt_min;
	v->tx.retransmits = tp->total_retrans;
	v->bytes_acked = tp->bytes_acked;
}

/*
 * An ICMP error is a packet of its own, counted as such; what it says belongs
 * to the connection that it quotes, seen from the same local end: the quoted
 * source where the error arrives, the quoted destination where it is sent.
 */
static __noinline int blame_quoted(struct __sk_buff *skb, void *table, struct packet *p,
				   __u8 egress)
{
	struct packet q = {};
	struct flow_value *v;
	enum packet_class class;

	if (p->key.protocol == IPPROTO_ICMP)
		class = parse_ipv4(skb, p->payload, &q, !egress);
	else
		class = parse_ipv6(skb, p->payload, &q, !egress);
	if (class != PACKET_CONN || q.key.kind == CONN_FRAGMENT)
		return 0;
	if (q.key.protocol == IPPROTO_TCP || q.key.protocol == IPPROTO_UDP ||
	    q.key.protocol == IPPROTO_SCTP) {
		__u16 ports[2];

		if (bpf_skb_load_bytes(skb, q.transport, ports, sizeof(ports)))
			return 0;
		set_ports(&q, &ports[0], &ports[1], !egress);
	} else if (q.key.protocol == IPPROTO_ICMP || q.key.protocol == IPPROTO_ICMPV6) {
		if (parse_icmp(skb, &q, !egress) != PACKET_CONN)
			return 0;
	}
	q.key.netns = p->key.netns;
	q.key.ifindex = p->key.ifindex;
	v = bpf_map_lookup_elem(table, &q.key);
	if (!v) {
		struct flow_value none = { .first = bpf_jiffies64(), .first_egress = !egress };

		bpf_map_update_elem(table, &q.key, &none, BPF_NOEXIST);
		v = bpf_map_lookup_elem(table, &q.key);
	}
	if (!v)
		return 0;
	__sync_fetch_and_add(&v->icmp_errors, 1);
	v->icmp_type = p->icmp_type;
	v->icmp_code = p->icmp_code;
	return 0;
}

struct first {
	struct flow_key *key;
	__u32 headers;
	__u8 protocol;
	__u8 flags;
	__u8 egress;
};

/* The first packet of a connection in an epoch: the record is made with it
 * inside. Not 0 when there was a record already, or no room. */
static __noinline int insert(struct __sk_buff *skb, void *table, struct first *f)
{
	struct flow_value v = { .first = bpf_jiffies64(), .first_egress = f->egress };
	struct flow_side *side = f->egress ? &v.tx : &v.rx;
	struct size s = {};

	measure(skb, f->headers, &s);
	side->bytes = s.bytes;
	side->packets = s.packets;
	side->seg = s.seg_packets << SEG_SHIFT | s.seg_bytes;
	side->last = v.first;
	if (f->flags)
		set_flags(&v, side, f->flags);
	if (f->egress)
		read_socket(skb, &v, f->protocol);
	return bpf_map_update_elem(table, f->key, &v, BPF_NOEXIST);
}

static __noinline int parse_rare(struct __sk_buff *skb, struct packet *p, __u8 egress)
{
	enum packet_class class;

	__builtin_memset(p, 0, sizeof(*p));
	class = parse_packet(skb, link_header, p, egress);
	p->key.netns = netns;
	p->key.ifindex = skb->ifindex;
	return class;
}

static __always_inline int observe(struct __sk_buff *skb, const enum direction dir)
{
	struct plain plain = { .link = link_header, .netns = netns };
	enum packet_class class = PACKET_CONN;
	bool icmp_error = false;
	struct flow_side *side;
	struct flow_value *v;
	struct size s = {};
	struct packet p;
	__u32 zero = 0;
	void *table;

	if (unlikely(!parse_plain(skb, &p.key, &plain, dir == EGRESS))) {
		class = parse_rare(skb, &p, dir == EGRESS);
		plain.headers = p.payload;
		plain.protocol = p.key.protocol;
		plain.tcp_flags = p.tcp_flags;
		icmp_error = p.icmp_error;
		if (class != PACKET_CONN)
			goto rest;
	}
	table = bpf_map_lookup_elem(&flow_active, &zero);
	if (unlikely(!table))
		return NEXT;
	v = bpf_map_lookup_elem(table, &p.key);
	if (unlikely(!v)) {
		struct first f = {
			.key = &p.key,
			.headers = plain.headers,
			.protocol = plain.protocol,
			.flags = plain.tcp_flags,
			.egress = dir == EGRESS,
		};

		if (insert(skb, table, &f) == 0)
			goto counted;
		/* Another CPU was first: its record is as good. */
		v = bpf_map_lookup_elem(table, &p.key);
		if (!v) {
			class = PACKET_OVERFLOW;
			goto rest;
		}
	}
	measure(skb, plain.headers, &s);
	side = dir == EGRESS ? &v->tx : &v->rx;
	__sync_fetch_and_add(&side->bytes, s.bytes);
	__sync_fetch_and_add(&side->packets, s.packets);
	if (s.seg_packets)
		__sync_fetch_and_add(&side->seg, s.seg_packets << SEG_SHIFT | s.seg_bytes);
	side->last = bpf_jiffies64(); /* a load, not a call: 1 ns against 17 */
	if (unlikely(plain.tcp_flags & ~v->flags[dir]))
		set_flags(v, side, plain.tcp_flags);
	if (dir == EGRESS && (plain.protocol == IPPROTO_TCP || unlikely(!v->cookie)))
		read_socket(skb, v, plain.protocol);
counted:
	if (unlikely(icmp_error))
		blame_quoted(skb, table, &p, dir == EGRESS);
	return NEXT;
rest:;
	struct rest r = { .class = class, .dir = dir, .headers = plain.headers, .protocol = plain.protocol };

	count_rest(skb, &r);
	return NEXT;
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

/* Run by user space, never attached: the clock of the stamps above. */
SEC("tc")
int flow_clock(struct __sk_buff *skb)
{
	return bpf_jiffies64();
}
