/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The third way of flow.c, after a packet has been counted: what it carries is
 * copied into a ring, where that is a question to the DNS, its answer, or the
 * beginning of TLS. User space understands it; here nobody does.
 */
#ifndef ORB8_FLOW_COPY_H
#define ORB8_FLOW_COPY_H

#define COPY_DNS 4096 /* bytes of one packet; EDNS has that many at most */
#define COPY_MAX (16 << 10) /* and of a ClientHello: a TLS record has that many */
#define HELLO_SEGMENTS 16 /* in which a ClientHello comes, at most */
#define HELLO_MAX (16 << 10)
#define LOOPBACK 1 /* ifindex */

#define COPY_SENT 1 /* by the local end */
#define COPY_HELLO 2 /* of TLS; else of the DNS */
#define COPY_LOCAL_DNS 4 /* the local port is a DNS port */
#define COPY_REMOTE_DNS 8

struct flow_copy {
	__u64 time; /* nanoseconds since boot, without sleep */
	struct flow_key key;
	__u64 cookie; /* of the local socket, where it sends */
	__u64 cgroup;
	__u32 seq; /* TCP */
	__u32 length; /* of the payload */
	__u16 copied; /* of it, what follows */
	__u8 flags; /* TCP */
	__u8 what; /* COPY_… */
	__u32 zero;
};
_Static_assert(sizeof(struct flow_copy) == 88, "the Go side reads these bytes");

struct flow_copied {
	struct flow_copy head;
	__u8 data[COPY_MAX];
};

/* What was copied, in the order that it came by. Written by the programs, read by
 * user space, which sleeps between two looks: it is woken by the first record
 * after it has read all, not by each. Bound: set before loading. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} flow_copies SEC(".maps");

/* key: 0; value: packets that found no room in flow_copies. Bound: 1. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} flow_copies_lost SEC(".maps");

/* key: 0; value: a record that is being made. Bound: 1. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_copied);
} flow_copy_room SEC(".maps");

static __always_inline bool is_dns_port(__u16 port_be)
{
#pragma unroll
	for (int i = 0; i < DNS_PORTS; i++)
		if (dns_ports_be[i] == port_be)
			return port_be;
	return false;
}

static __always_inline bool is_dns(const struct flow_key *key)
{
	return (key->protocol == IPPROTO_UDP || key->protocol == IPPROTO_TCP) && key->kind == CONN_PLAIN &&
		(is_dns_port(key->remote_port_be) || is_dns_port(key->local_port_be));
}

/* Whether the local end is about to say its first words: it opens a connection, or
 * it has opened one in which little was said. */
static __always_inline __u8 expect_hello(struct __sk_buff *skb, __u8 flags)
{
	struct bpf_sock *sk = skb->sk;
	struct bpf_tcp_sock *tp;

	if (flags & TCP_SYN)
		return flags & TCP_ACK ? 0 : WATCH_HELLO;
	if (!sk || sk->state == SOCKET_CLOSED)
		return 0;
	tp = bpf_tcp_sock(sk);
	if (!tp || tp->data_segs_in || tp->bytes_acked > HELLO_MAX)
		return 0;
	return WATCH_HELLO | WATCH_BLIND;
}

/* A segment of the local end's first words: false where they are no ClientHello. */
static __always_inline bool is_hello(struct flow_value *v, const struct flow_copied *c)
{
	__u32 left = v->hello_left;

	if (v->watch & WATCH_BLIND) {
		if (++v->hello_segments >= HELLO_SEGMENTS)
			v->watch &= WATCH_DNS;
		return true;
	}
	if (!left) {
		if (c->head.copied < 6 && c->data[0] == 22) {
			v->watch |= WATCH_BLIND; /* it may become one */
			v->hello_segments++;
			return true;
		}
		/* A TLS record of a handshake, which begins with a ClientHello. */
		if (c->head.copied < 6 || c->data[0] != 22 || c->data[1] != 3 || c->data[5] != 1) {
			v->watch &= WATCH_DNS;
			return false;
		}
		left = 5 + (c->data[3] << 8 | c->data[4]);
	}
	if (left <= c->head.length || ++v->hello_segments >= HELLO_SEGMENTS)
		v->watch &= WATCH_DNS;
	else
		v->hello_left = left - c->head.length;
	return true;
}

/* Both ends are here: the one that asks is the local one. */
static __always_inline void turn(struct flow_copy *head)
{
	struct flow_key *key = &head->key;
	__u64 *w = (__u64 *)key, first = w[0], second = w[1];
	__u16 port = key->local_port_be;

	w[0] = w[2];
	w[1] = w[3];
	w[2] = first;
	w[3] = second;
	key->local_port_be = key->remote_port_be;
	key->remote_port_be = port;
	head->what &= ~COPY_SENT;
	head->cookie = head->cgroup = 0;
}

/* The whole of what the packet carries, and of it what there is room for. What
 * begins and ends a stream may carry nothing. */
static __always_inline bool copy_payload(struct __sk_buff *skb, const struct packet *p, struct flow_copied *c, __u32 most)
{
	__u32 len = p->end ?: skb->len;

	if (len <= p->payload) {
		c->head.length = c->head.copied = 0;
		return most == COPY_DNS && p->tcp_flags & TCP_LIFE;
	}
	len -= p->payload;
	c->head.length = len;
	if (len > most)
		len = most;
	c->head.copied = len;
	/* It is within these bounds; older verifiers see it only where it is computed
	 * so, and the compiler would leave that out. */
	asm volatile("" : "+r"(len));
	len = ((len - 1) & (COPY_MAX - 1)) + 1;
	return copy(skb, p, p->payload, c->data, len);
}

static __noinline int parse_copied(struct __sk_buff *skb, struct packet *p, __u8 egress)
{
	__builtin_memset(p, 0, sizeof(*p));
	if (parse_packet(skb, skb->cb[CB_LINK] & 0xff, p, egress) != PACKET_CONN)
		return -1;
	p->key.netns = skb->cb[CB_NETNS];
	p->key.ifindex = skb->ifindex;
	return 0;
}

static __noinline int send_copy(struct flow_copied *c)
{
	__u32 size, zero = 0;
	__u64 *lost;

	if (!c)
		return -1;
	size = sizeof(c->head) + c->head.copied;
	asm volatile("" : "+r"(size));
	if (size > sizeof(*c))
		return -1;
	if (bpf_ringbuf_output(&flow_copies, c, size, 0) == 0)
		return 0;
	lost = bpf_map_lookup_elem(&flow_copies_lost, &zero);
	if (lost)
		++*lost;
	return -1;
}

static __always_inline int copy_packet(struct __sk_buff *skb, const enum direction dir)
{
	struct flow_copied *c;
	struct flow_value *v;
	struct packet p;
	__u32 zero = 0;
	__be32 seq = 0;
	void *table;
	bool dns;

	if (parse_copied(skb, &p, dir == EGRESS))
		return NEXT;
	dns = is_dns(&p.key);
	c = bpf_map_lookup_elem(&flow_copy_room, &zero);
	if (!c || !copy_payload(skb, &p, c, dns ? COPY_DNS : COPY_MAX))
		return NEXT;
	c->head.key = p.key;
	c->head.flags = p.tcp_flags;
	c->head.what = dir == EGRESS ? COPY_SENT : 0;
	c->head.zero = 0;
	c->head.cookie = c->head.cgroup = 0;
	if (dns) {
		c->head.what |= is_dns_port(p.key.local_port_be) ? COPY_LOCAL_DNS : 0;
		c->head.what |= is_dns_port(p.key.remote_port_be) ? COPY_REMOTE_DNS : 0;
	} else {
		table = bpf_map_lookup_elem(&flow_active, &zero);
		v = table ? bpf_map_lookup_elem(table, &p.key) : 0;
		/* Without it the tables were swapped since the packet was counted. */
		if (v && v->watch & WATCH_HELLO && !is_hello(v, c))
			return NEXT;
		c->head.what |= COPY_HELLO;
	}
	c->head.time = bpf_ktime_get_ns();
	if (dir == EGRESS) {
		c->head.cookie = bpf_get_socket_cookie(skb);
		c->head.cgroup = bpf_skb_cgroup_id(skb);
	}
	if (p.key.protocol == IPPROTO_TCP)
		copy(skb, &p, p.transport + 4, &seq, sizeof(seq));
	c->head.seq = bpf_ntohl(seq);
	if (skb->ifindex == LOOPBACK && c->head.what & COPY_LOCAL_DNS && !(c->head.what & COPY_REMOTE_DNS)) {
		turn(&c->head);
		c->head.what = COPY_REMOTE_DNS;
	}
	send_copy(c);
	return NEXT;
}

#endif
