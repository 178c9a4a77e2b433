// SPDX-License-Identifier: Apache-2.0
//go:build ignore
/*
 * Packets on demand: those that a filter lets through are copied into a ring,
 * with their time, up to so many bytes of each. No packet is changed, delayed or
 * stopped.
 *
 * Nothing of this is loaded but while a capture runs. Each interface has its own
 * instance, whose filter is constant: the verifier takes out what it does not
 * ask. The ring never wakes its reader, who looks every few milliseconds: a
 * wake-up costs more than all the rest.
 */
#include "../../../bpf/packet.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define NEXT (-1) /* TCX_NEXT: never a verdict */
#define NOTHING 0 /* of a socket's filter: nothing into its queue */

#define MAX_PROTOCOLS 16
#define MAX_PORTS 64
#define MAX_PREFIXES 64

enum direction { INGRESS = 0, EGRESS = 1 };

/* A list is looked through only where a packet's number has its bit: for most
 * that do not match that is one load, however long the list. */
#define BITS 1024
#define HASH 0x9e3779b97f4a7c15ULL

struct capture_ports {
	__u64 bits[BITS / 64]; /* by the last bits of port_be */
	__u64 count;
	__u16 port_be[MAX_PORTS];
};

struct capture_prefix {
	__u64 address[2]; /* network order, IPv4 mapped into IPv6 */
	__u64 mask[2];
};

struct capture_prefixes {
	__u64 bits[BITS / 64]; /* by hash(), of those that are whole addresses */
	__u32 wide; /* the others, which come first */
	__u32 count;
	struct capture_prefix prefix[MAX_PREFIXES];
};

/* Ends that are pods: this one, or those that have an address. */
struct capture_ends {
	__u32 set;
	__u32 local; /* whose interface it is, is one of them */
	struct capture_prefixes remote;
};

/* What a packet is asked; a list that is empty asks nothing. src is who sent the
 * packet, dst whom it is for. */
struct capture_fields {
	__u32 protocols;
	__u8 protocol[MAX_PROTOCOLS];
	__u32 directions; /* bits, by enum direction */
	struct capture_ports ports, src_ports, dst_ports;
	struct capture_prefixes ips, src_ips, dst_ips;
	struct capture_ends from, to;
};

const volatile struct capture_fields include = {}; /* all of it must hold */
const volatile struct capture_fields exclude = {}; /* nothing of it may */
const volatile __u32 everything = 1; /* no filter at all */
const volatile __u32 interface = 0; /* number in this capture */
const volatile __u32 snaplen = 256;
const volatile __u32 raw = 0; /* no Ethernet: packets begin with their IP header */

struct capture_head {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u32 interface;
	__u32 length;   /* of the packet */
	__u32 captured; /* bytes after this head; the record may be longer */
	__u16 vlan_tci; /* of a tag that the kernel keeps beside the packet */
	__u16 vlan_proto_be; /* 0: there is none */
	__u8 egress;
	__u8 zero[7];
};
_Static_assert(sizeof(struct capture_head) == 32, "the Go side reads these bytes");

struct capture_count {
	__u64 matched;
	__u64 dropped; /* of those: no room in the ring */
};

/* struct capture_head and the packet. Written by the programs, read by user
 * space. Bound: set by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} capture_ring SEC(".maps");

/* key: interface; value: counts of this capture. Written by the programs. Bound:
 * the interfaces of one capture. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct capture_count);
} capture_counts SEC(".maps");

/* A packet as the filter sees it. */
struct view {
	__u64 src[2], dst[2];
	__u16 src_port_be, dst_port_be;
	bool ports; /* else the numbers are none */
	__u8 protocol;
};

static __always_inline bool maybe(const volatile __u64 *bits, __u32 number)
{
	return bits[number / 64 % (BITS / 64)] >> (number % 64) & 1;
}

static __always_inline bool has_port(const volatile struct capture_ports *list, const struct view *v,
				     bool src, bool dst)
{
	if (!v->ports || !((src && maybe(list->bits, v->src_port_be)) || (dst && maybe(list->bits, v->dst_port_be))))
		return false;
	for (__u32 i = 0; i < MAX_PORTS; i++) {
		if (i >= list->count)
			break;
		if ((src && list->port_be[i] == v->src_port_be) || (dst && list->port_be[i] == v->dst_port_be))
			return true;
	}
	return false;
}

static __always_inline bool within(const volatile struct capture_prefix *p, const __u64 *address)
{
	return (address[0] & p->mask[0]) == p->address[0] && (address[1] & p->mask[1]) == p->address[1];
}

/* The bit of an address: a host's and a network's are counted up alike, so the
 * last ones alone would be those of many. */
static __always_inline __u32 hash(const __u64 *address)
{
	return (address[0] ^ address[1]) * HASH >> 54;
}

static __always_inline bool has_ip(const volatile struct capture_prefixes *list, const struct view *v,
				   bool src, bool dst)
{
	__u32 end = list->wide;

	if ((src && maybe(list->bits, hash(v->src))) || (dst && maybe(list->bits, hash(v->dst))))
		end = list->count;
	for (__u32 i = 0; i < MAX_PREFIXES; i++) {
		if (i >= end)
			break;
		if ((src && within(&list->prefix[i], v->src)) || (dst && within(&list->prefix[i], v->dst)))
			return true;
	}
	return false;
}

static __always_inline bool has_protocol(const volatile struct capture_fields *f, const struct view *v)
{
	for (__u32 i = 0; i < MAX_PROTOCOLS; i++) {
		if (i >= f->protocols)
			break;
		if (f->protocol[i] == v->protocol)
			return true;
	}
	return false;
}

/* Tells whether each field that asks something answers as wanted. v is NULL for
 * what is not IP: it has no protocol, port or address. */
static __always_inline bool each(const volatile struct capture_fields *f, const struct view *v,
				 const enum direction dir, const bool wanted)
{
	const bool egress = dir == EGRESS;

	if (f->directions && !!(f->directions & (1 << dir)) != wanted)
		return false;
	if (f->protocols && (v && has_protocol(f, v)) != wanted)
		return false;
	if (f->ports.count && (v && has_port(&f->ports, v, true, true)) != wanted)
		return false;
	if (f->src_ports.count && (v && has_port(&f->src_ports, v, true, false)) != wanted)
		return false;
	if (f->dst_ports.count && (v && has_port(&f->dst_ports, v, false, true)) != wanted)
		return false;
	if (f->ips.count && (v && has_ip(&f->ips, v, true, true)) != wanted)
		return false;
	if (f->src_ips.count && (v && has_ip(&f->src_ips, v, true, false)) != wanted)
		return false;
	if (f->dst_ips.count && (v && has_ip(&f->dst_ips, v, false, true)) != wanted)
		return false;
	if (f->from.set && (egress ? !!f->from.local : v && has_ip(&f->from.remote, v, true, false)) != wanted)
		return false;
	if (f->to.set && (egress ? v && has_ip(&f->to.remote, v, false, true) : !!f->to.local) != wanted)
		return false;
	return true;
}

static __always_inline bool matches(struct __sk_buff *skb, const enum direction dir, const bool linear)
{
	struct plain plain = { .link = ETH_HLEN };
	const bool egress = dir == EGRESS;
	struct packet p = {};
	struct view v = {};
	__u64 *local = (__u64 *)p.key.local, *remote = (__u64 *)p.key.remote;
	bool ip = true;

	if (everything)
		return true;
	if (linear && !raw && parse_plain(skb, &p.key, &plain, egress)) {
		v.protocol = plain.protocol;
		v.ports = true;
	} else {
		__builtin_memset(&p, 0, sizeof(p));
		ip = parse_packet(skb, raw ? LINK_UNKNOWN : ETH_HLEN, &p, egress) == PACKET_CONN;
		v.protocol = p.key.protocol;
		v.ports = p.key.kind == CONN_PLAIN && (p.key.local_port_be || p.key.remote_port_be);
	}
	v.src[0] = egress ? local[0] : remote[0];
	v.src[1] = egress ? local[1] : remote[1];
	v.dst[0] = egress ? remote[0] : local[0];
	v.dst[1] = egress ? remote[1] : local[1];
	v.src_port_be = egress ? p.key.local_port_be : p.key.remote_port_be;
	v.dst_port_be = egress ? p.key.remote_port_be : p.key.local_port_be;
	if (!ip)
		return each(&include, NULL, dir, true) && each(&exclude, NULL, dir, false);
	return each(&include, &v, dir, true) && each(&exclude, &v, dir, false);
}

/* Of a packet without Ethernet: what stands before its IP header is not shown. */
static __always_inline __u32 ip_length(struct __sk_buff *skb)
{
	__u32 length = 0;
	__be16 words[4];

	if (bpf_skb_load_bytes_relative(skb, 0, words, sizeof(words), BPF_HDR_START_NET))
		return skb->len;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		length = bpf_ntohs(words[1]);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6) && words[2])
		length = bpf_ntohs(words[2]) + sizeof(struct ipv6hdr);
	/* BIG TCP has none. */
	return length && length < skb->len ? length : skb->len;
}

/* One size of record, since a reservation's must be known beforehand. */
static __always_inline bool put(struct __sk_buff *skb, __u32 length, __u32 captured,
				const __u32 size, const enum direction dir)
{
	struct capture_head *head = bpf_ringbuf_reserve(&capture_ring, sizeof(*head) + size, 0);
	__u64 n = captured, one = 1;
	long err;

	if (!head)
		return false;
	head->time_ns = bpf_ktime_get_ns();
	head->interface = interface;
	head->length = length;
	head->captured = captured;
	head->vlan_tci = skb->vlan_present ? skb->vlan_tci : 0;
	head->vlan_proto_be = skb->vlan_present ? skb->vlan_proto : 0;
	head->egress = dir == EGRESS;
	__builtin_memset(head->zero, 0, sizeof(head->zero));
	/* As the verifier of 6.1 follows it: the register itself is compared, and
	 * with less than one, since from unequal to 0 it learns nothing. */
	barrier_var(n);
	barrier_var(one);
	if (n < one || n > size) {
		bpf_ringbuf_discard(head, BPF_RB_NO_WAKEUP);
		return false;
	}
	if (raw)
		err = bpf_skb_load_bytes_relative(skb, 0, head + 1, n, BPF_HDR_START_NET);
	else
		err = bpf_skb_load_bytes(skb, 0, head + 1, n);
	if (err) {
		bpf_ringbuf_discard(head, BPF_RB_NO_WAKEUP);
		return false;
	}
	bpf_ringbuf_submit(head, BPF_RB_NO_WAKEUP);
	return true;
}

static __always_inline void keep(struct __sk_buff *skb, const enum direction dir)
{
	__u32 number = interface, length = raw ? ip_length(skb) : skb->len;
	__u32 captured = length < snaplen ? length : snaplen;
	struct capture_count *count = bpf_map_lookup_elem(&capture_counts, &number);
	bool kept;

	if (!count)
		return;
	count->matched++; /* of this CPU */
	if (captured <= 160)
		kept = put(skb, length, captured, 160, dir);
	else if (captured <= 512)
		kept = put(skb, length, captured, 512, dir);
	else if (captured <= 2048)
		kept = put(skb, length, captured, 2048, dir);
	else if (captured <= 16384)
		kept = put(skb, length, captured, 16384, dir);
	else
		kept = put(skb, length, captured, 65536, dir);
	if (!kept)
		count->dropped++;
}

/* By its name the tap knows that what runs before it is orb8's, and hides
 * nothing. */
SEC("tc")
int flow_capture_in(struct __sk_buff *skb)
{
	if (matches(skb, INGRESS, true))
		keep(skb, INGRESS);
	return NEXT;
}

SEC("tc")
int flow_capture_out(struct __sk_buff *skb)
{
	if (matches(skb, EGRESS, true))
		keep(skb, EGRESS);
	return NEXT;
}

#define PKT_OUTGOING 4 /* of skb->pkt_type */

/* For kernels without TCX: the filter of a packet socket that lets nothing in. */
SEC("socket")
int capture_socket(struct __sk_buff *skb)
{
	if (skb->pkt_type == PKT_OUTGOING) {
		if (matches(skb, EGRESS, false))
			keep(skb, EGRESS);
	} else if (matches(skb, INGRESS, false)) {
		keep(skb, INGRESS);
	}
	return NOTHING;
}
