/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The long way of flow.c, for what its short way does not do: a connection's
 * first packet in an epoch, headers that are not plain, and what has no
 * connection. It finds the same as the short way would.
 */
#ifndef ORB8_FLOW_RARE_H
#define ORB8_FLOW_RARE_H

struct rest {
	enum packet_class class;
	enum direction dir;
	__u32 headers;
	__u32 hidden;
	__u8 protocol;
};

static __always_inline void mark_moved(void)
{
	__u32 zero = 0;
	__u64 *moved = bpf_map_lookup_elem(&flow_moved, &zero);

	if (moved && !*moved)
		*moved = 1;
}

static __noinline int count_rest(struct __sk_buff *skb, struct rest *r)
{
	struct rest_key key = {
		.netns = skb->cb[CB_NETNS],
		.ifindex = skb->ifindex,
		.class = r->class,
		.protocol = r->class == PACKET_FORWARDED ? 0 : r->protocol,
		.direction = r->dir,
	};
	__u32 slot = r->dir, place = skb->ifindex % SLOTS;
	struct flow_slot *forwarded;
	struct rest_value *v;
	struct size s = {};

	measure(skb, r->headers, r->hidden, &s);
	if (r->class == PACKET_FORWARDED) {
		forwarded = bpf_map_lookup_elem(&flow_slots, &place);
		if (forwarded && forwarded->ifindex == skb->ifindex) {
			add_rest(&forwarded->forwarded[r->dir & 1], &s);
			return 0;
		}
	}
	mark_moved();
	v = bpf_map_lookup_elem(&flow_rest, &key);
	if (!v) {
		struct rest_value none = {};

		bpf_map_update_elem(&flow_rest, &key, &none, BPF_NOEXIST);
		v = bpf_map_lookup_elem(&flow_rest, &key);
	}
	if (!v)
		v = bpf_map_lookup_elem(&flow_rest_lost, &slot);
	if (v)
		add_rest(v, &s);
	return 0;
}

/* Where packets of others pass through: is this one of them? What is sent to
 * all is received here, too. */
static __always_inline bool is_others(struct __sk_buff *skb, struct flow_key *key)
{
	return skb->cb[CB_FORWARDS] &&
		(!maybe_address(key->local) || !bpf_map_lookup_elem(&flow_addresses, key->local));
}

static __always_inline bool is_forwarded(struct __sk_buff *skb, struct flow_key *key,
					 const enum direction dir)
{
	if (dir == INGRESS && (skb->pkt_type == PKT_BROADCAST || skb->pkt_type == PKT_MULTICAST))
		return false;
	return is_others(skb, key);
}

/*
 * An ICMP error is a packet of its own, counted as such; what it says belongs
 * to the connection that it quotes, seen from the same local end: the quoted
 * source where the error arrives, the quoted destination where it is sent.
 */
static __noinline int blame_quoted(struct __sk_buff *skb, void *table, struct packet *p,
				   __u8 egress)
{
	struct packet q = { .from_network = p->from_network };
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

		if (!copy(skb, &q, q.transport, ports, sizeof(ports)))
			return 0;
		set_ports(&q, &ports[0], &ports[1], !egress);
	} else if (q.key.protocol == IPPROTO_ICMP || q.key.protocol == IPPROTO_ICMPV6) {
		if (parse_icmp(skb, &q, !egress) != PACKET_CONN)
			return 0;
	}
	q.key.netns = p->key.netns;
	q.key.ifindex = p->key.ifindex;
	if (is_others(skb, &q.key))
		return 0; /* a packet that passes through, and this host complains of it */
	v = bpf_map_lookup_elem(table, &q.key);
	if (!v) {
		struct flow_value none = { .first = bpf_jiffies64(), .first_was = egress ? 0 : FIRST_SENT };

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

/* The first time that a socket is read is always a rare one. */
static __always_inline void read_first_health(struct __sk_buff *skb, struct flow_value *v)
{
	bool first = !v->has_health;

	read_health(skb, v);
	if (first)
		v->retransmits_before = v->tx.retransmits;
}

/* Not 0, which is none. */
static __always_inline __u32 microseconds(void)
{
	return bpf_ktime_get_ns() / 1000 ?: 1;
}

static __always_inline void note_beginning(struct flow_value *v, __u8 flags)
{
	if (!(flags & TCP_SYN))
		return;
	if (!(flags & TCP_ACK) && !v->syn)
		v->syn = microseconds();
	if (flags & TCP_ACK && !v->syn_ack)
		v->syn_ack = microseconds();
}

/* The window of one side, and how it ended; fresh are the flags that neither
 * side is known to have sent. */
static __always_inline void note_side(struct flow_side *side, __u8 fresh, __u8 flags, bool shut)
{
	bool was = side->window & WINDOW_SHUT;

	side->ended |= fresh & (TCP_FIN | TCP_RST);
	if (shut == was || flags & (TCP_SYN | TCP_RST))
		return;
	if (!shut) {
		side->window &= ~WINDOW_SHUT;
		return;
	}
	side->window |= side->packets ? WINDOW_SHUT : WINDOW_SHUT | WINDOW_BEGAN_SHUT;
	if (side->zero_windows < 0xffff)
		side->zero_windows++;
}

/* The first packet that is sent tells whose the connection is: its socket is
 * still attached. */
static __noinline int read_sender(struct __sk_buff *skb, struct flow_value *v, struct flow_key *key)
{
	v->sender = judge(skb, key, skb->cb[CB_FORWARDS]);
	if (v->sender == SENDER_FOREIGN) {
		v->watch = 0;
		return 0;
	}
	if (key->protocol == IPPROTO_TCP)
		v->watch |= expect_hello(skb, v->flags[EGRESS]);
	v->cookie = bpf_get_socket_cookie(skb);
	v->cgroup = bpf_skb_cgroup_id(skb);
	return 0;
}

#define TCP_SYN_ACK (TCP_SYN | TCP_ACK)

struct first {
	struct flow_key *key;
	__u32 headers;
	__u32 hidden;
	__u8 flags;
	__u8 egress;
	bool shut;
	__u8 watch; /* out: of the record that was made */
};

/* key: 0; value: a record that is being made. Used by the programs below. On the
 * stack each of its contents would be one more to look at for the verifier of
 * kernel 6.1, which gives up at a million instructions. Bound: 1. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_value);
} flow_fresh SEC(".maps");

/* The first packet of a connection in an epoch: the record is made with it
 * inside. Not 0 when there was a record already, or no room. */
static __noinline int insert(struct __sk_buff *skb, void *table, struct first *f)
{
	struct flow_side *side;
	struct flow_value *v;
	struct size s = {};
	__u32 zero = 0;

	v = bpf_map_lookup_elem(&flow_fresh, &zero);
	if (!v)
		return -1;
	__builtin_memset(v, 0, sizeof(*v));
	side = f->egress ? &v->tx : &v->rx;
	v->first = bpf_jiffies64();
	if (f->egress)
		v->first_was = FIRST_SENT;
	if ((f->flags & TCP_SYN_ACK) == TCP_SYN_ACK)
		v->first_was |= FIRST_ANSWERS;
	note_beginning(v, f->flags);
	note_side(side, f->flags, f->flags, f->shut);
	measure(skb, f->headers, f->hidden, &s);
	side->bytes = s.bytes;
	side->packets = s.packets;
	side->seg = s.seg_packets << SEG_SHIFT | s.seg_bytes;
	side->last = v->first;
	if (skb->vlan_present || skb->protocol == bpf_htons(ETH_P_8021Q) ||
	    skb->protocol == bpf_htons(ETH_P_8021AD))
		v->first_was |= FIRST_TAGGED;
	if (is_dns(f->key))
		v->watch = WATCH_DNS;
	add_flags(v, f->egress ? EGRESS : INGRESS, f->flags);
	if (f->egress) {
		read_sender(skb, v, f->key);
		if (f->key->protocol == IPPROTO_TCP)
			read_first_health(skb, v);
	}
	f->watch = v->watch;
	return bpf_map_update_elem(table, f->key, v, BPF_NOEXIST);
}

static __noinline int parse_rare(struct __sk_buff *skb, struct packet *p, __u8 egress)
{
	enum packet_class class;

	__builtin_memset(p, 0, sizeof(*p));
	class = parse_packet(skb, skb->cb[CB_LINK] & 0xff, p, egress);
	p->key.netns = skb->cb[CB_NETNS];
	p->key.ifindex = skb->ifindex;
	return class;
}

static __always_inline int observe_rare(struct __sk_buff *skb, const enum direction dir)
{
	struct rest r = { .dir = dir };
	struct flow_value *v;
	struct size s = {};
	struct packet p;
	void *table = 0;
	__u32 zero = 0;
	__u8 watch;

	r.class = parse_rare(skb, &p, dir == EGRESS);
	r.headers = p.payload;
	r.hidden = hidden(&p);
	r.protocol = p.key.protocol;
	if (r.class != PACKET_CONN)
		goto rest;
	r.class = PACKET_FORWARDED;
	if (is_forwarded(skb, &p.key, dir))
		goto rest;
	r.class = PACKET_OVERFLOW;
	table = bpf_map_lookup_elem(&flow_active, &zero);
	if (!table)
		goto rest;
	v = bpf_map_lookup_elem(table, &p.key);
	if (!v) {
		struct first f = {
			.key = &p.key,
			.headers = p.payload,
			.hidden = hidden(&p),
			.flags = p.tcp_flags,
			.egress = dir == EGRESS,
			.shut = p.shut,
		};

		mark_moved();
		if (insert(skb, table, &f) == 0) {
			watch = f.watch;
			goto counted;
		}
		/* Another CPU was first: its record is as good. */
		v = bpf_map_lookup_elem(table, &p.key);
		if (!v)
			goto rest;
	}
	note_beginning(v, p.tcp_flags);
	note_side(dir == EGRESS ? &v->tx : &v->rx, p.tcp_flags & ~v->flags[EGRESS] & ~v->flags[INGRESS],
		  p.tcp_flags, p.shut);
	measure(skb, p.payload, hidden(&p), &s);
	add_packet(dir == EGRESS ? &v->tx : &v->rx, &s);
	if (p.tcp_flags & ~v->flags[dir])
		add_flags(v, dir, p.tcp_flags);
	if (dir == EGRESS && !v->sender)
		read_sender(skb, v, &p.key);
	if (dir == EGRESS && p.key.protocol == IPPROTO_TCP)
		read_first_health(skb, v);
	watch = v->watch;
counted:
	if (p.icmp_error)
		blame_quoted(skb, table, &p, dir == EGRESS);
	if (dir == EGRESS ? watch : watch & WATCH_DNS)
		bpf_tail_call(skb, &flow_rare, COPY + dir);
	return NEXT;
rest:
	count_rest(skb, &r);
	/* What is asked is known also of a connection that has no room. */
	if (table && r.class == PACKET_OVERFLOW && is_dns(&p.key))
		bpf_tail_call(skb, &flow_rare, COPY + dir);
	return NEXT;
}

#endif
