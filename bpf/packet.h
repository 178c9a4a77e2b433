/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parsing of a packet into the key of its connection. Shared by the kernel
 * programs: no programs, no maps. Nothing here changes a packet; headers that
 * are not linear are copied out, never pulled.
 */
#ifndef ORB8_PACKET_H
#define ORB8_PACKET_H

#include <stdbool.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define VLAN_DEPTH 2 /* 802.1Q and 802.1ad tags left in the data */
#define EXT_DEPTH 8  /* IPv6 extension headers followed */

enum conn_kind {
	CONN_PLAIN = 0,
	CONN_ECHO_LOCAL = 1,  /* the local end asked */
	CONN_ECHO_REMOTE = 2, /* the remote end asked */
	CONN_FRAGMENT = 3,    /* later fragments: no ports */
};

#define TCP_FIN 1
#define TCP_SYN 2
#define TCP_RST 4
#define TCP_ACK 16

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

struct flow_key {
	__u32 local[4]; /* network order, IPv4 mapped into IPv6 */
	__u32 remote[4];
	__u16 local_port_be; /* or the ICMP echo id */
	__u16 remote_port_be;
	__u32 ifindex;
	__u32 netns;
	__u8 protocol;
	__u8 kind; /* enum conn_kind */
	__u16 zero;
} __attribute__((aligned(8)));
_Static_assert(sizeof(struct flow_key) == 48, "the Go side reads these bytes");

/* Why a packet has no connection record; the number is part of a map's key. */
enum packet_class {
	PACKET_CONN = 0,
	PACKET_NOT_IP = 1,
	PACKET_BAD_IP = 2,        /* truncated or inconsistent IP header */
	PACKET_BAD_TRANSPORT = 3, /* truncated TCP, UDP, SCTP or ICMP header */
	PACKET_BAD_EXTENSION = 4, /* IPv6 extension headers too deep or cut */
	PACKET_OVERFLOW = 5,      /* the connection table is full, or switched off */
	PACKET_FORWARDED = 6,     /* between others, through a namespace that forwards */
};

/* A device whose link-layer header has no length that is known beforehand: its
 * packets are read from the network header on. */
#define LINK_UNKNOWN 0xff

struct packet {
	struct flow_key key;
	__u32 transport; /* offset of the transport header */
	__u32 payload;   /* offset of what it carries */
	__u32 end;       /* offset of where it ends, by its own length: a short one is padded; 0: it does not say */
	__u8 tcp_flags;
	bool shut; /* TCP: the window is said to be zero */
	__u8 icmp_type;
	__u8 icmp_code;
	bool icmp_error; /* quotes the packet that it is about */
	bool from_network; /* offsets count from the network header */
	__u8 jumbo; /* bytes of a header that BIG TCP has in memory, not on the wire */
	__u8 outer; /* bytes before the network header that the device does not count */
};

/* Copies len bytes at off into buf, wherever in the packet they are; false when
 * the packet ends before. A copy costs a call and spares the verifier the two
 * ways that a header in place or not would open, at each header. */
static __always_inline bool copy(struct __sk_buff *skb, const struct packet *p, __u32 off,
				 void *buf, __u32 len)
{
	if (unlikely(p->from_network))
		return bpf_skb_load_bytes_relative(skb, off, buf, len, BPF_HDR_START_NET) == 0;
	return bpf_skb_load_bytes(skb, off, buf, len) == 0;
}

static __always_inline void set_ends(struct flow_key *key, const __u32 *src, const __u32 *dst,
				     const bool egress)
{
	const __u32 *local = egress ? src : dst, *remote = egress ? dst : src;

	key->local[0] = local[0];
	key->local[1] = local[1];
	key->local[2] = local[2];
	key->local[3] = local[3];
	key->remote[0] = remote[0];
	key->remote[1] = remote[1];
	key->remote[2] = remote[2];
	key->remote[3] = remote[3];
}

static __always_inline enum packet_class parse_ipv4(struct __sk_buff *skb, __u32 off,
						    struct packet *p, const bool egress)
{
	struct flow_key *key = &p->key;
	struct iphdr ip;

	if (!copy(skb, p, off, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return PACKET_BAD_IP;
	key->local[2] = bpf_htonl(0xffff);
	key->local[3] = egress ? ip.saddr : ip.daddr;
	key->remote[2] = bpf_htonl(0xffff);
	key->remote[3] = egress ? ip.daddr : ip.saddr;
	key->protocol = ip.protocol;
	if (ip.frag_off & bpf_htons(0x1fff))
		key->kind = CONN_FRAGMENT;
	p->transport = off + ip.ihl * 4;
	p->end = ip.tot_len ? off + bpf_ntohs(ip.tot_len) : 0;
	return PACKET_CONN;
}

/* Follows the extension headers to the transport; a fragment that is not the
 * first ends the walk, since what follows it is payload. */
static __always_inline enum packet_class walk_extensions(struct __sk_buff *skb, __u32 off,
							 __u8 next, struct packet *p)
{
	struct {
		__u8 next, len;
		__be16 frag;
	} ext;

#pragma unroll
	for (int i = 0; i <= EXT_DEPTH; i++) {
		switch (next) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
		case IPPROTO_FRAGMENT:
		case IPPROTO_AH:
		case IPPROTO_MH:
			break;
		default:
			p->key.protocol = next;
			p->transport = off;
			return PACKET_CONN;
		}
		if (!copy(skb, p, off, &ext, sizeof(ext)))
			return PACKET_BAD_EXTENSION;
		if (next == IPPROTO_FRAGMENT) {
			off += 8;
			if (ext.frag & bpf_htons(0xfff8)) {
				p->key.protocol = ext.next;
				p->key.kind = CONN_FRAGMENT;
				p->transport = off;
				return PACKET_CONN;
			}
		} else if (next == IPPROTO_AH) {
			off += (ext.len + 2) * 4;
		} else {
			/* BIG TCP: a jumbo payload option, alone in the only header. */
			if (i == 0 && next == IPPROTO_HOPOPTS && ext.len == 0 &&
			    ext.next == IPPROTO_TCP && ext.frag == bpf_htons(0xc204))
				p->jumbo = 8;
			off += (ext.len + 1) * 8;
		}
		next = ext.next;
	}
	return PACKET_BAD_EXTENSION;
}

static __always_inline enum packet_class parse_ipv6(struct __sk_buff *skb, __u32 off,
						    struct packet *p, const bool egress)
{
	struct ipv6hdr ip;

	if (!copy(skb, p, off, &ip, sizeof(ip)) || ip.version != 6)
		return PACKET_BAD_IP;
	set_ends(&p->key, ip.saddr.in6_u.u6_addr32, ip.daddr.in6_u.u6_addr32, egress);
	p->end = ip.payload_len ? off + sizeof(ip) + bpf_ntohs(ip.payload_len) : 0;
	return walk_extensions(skb, off + sizeof(ip), ip.nexthdr, p);
}

/* An echo's request and reply are one conversation, whoever of the two asked. */
static __always_inline void set_echo(struct packet *p, __u16 id, bool request, const bool egress)
{
	p->key.local_port_be = id;
	p->key.kind = request == egress ? CONN_ECHO_LOCAL : CONN_ECHO_REMOTE;
}

static __always_inline enum packet_class parse_icmp(struct __sk_buff *skb, struct packet *p,
						    const bool egress)
{
	struct {
		__u8 type, code;
		__u16 sum, id, seq;
	} icmp;

	if (!copy(skb, p, p->transport, &icmp, sizeof(icmp)))
		return PACKET_BAD_TRANSPORT;
	p->payload = p->transport + 8;
	p->icmp_type = icmp.type;
	p->icmp_code = icmp.code;
	if (p->key.protocol == IPPROTO_ICMP) {
		if (icmp.type == 8 || icmp.type == 0)
			set_echo(p, icmp.id, icmp.type == 8, egress);
		else if (icmp.type == 3 || icmp.type == 11 || icmp.type == 12)
			p->icmp_error = true;
	} else {
		if (icmp.type == 128 || icmp.type == 129)
			set_echo(p, icmp.id, icmp.type == 128, egress);
		else if (icmp.type < 128)
			p->icmp_error = true;
	}
	return PACKET_CONN;
}

static __always_inline void set_ports(struct packet *p, const __u16 *src, const __u16 *dst,
				      const bool egress)
{
	p->key.local_port_be = egress ? *src : *dst;
	p->key.remote_port_be = egress ? *dst : *src;
}

/* A reset says nothing of its window, and with SYN no data can have filled it. */
static __always_inline bool is_shut(__u8 flags, __be16 window)
{
	return !window && !(flags & (TCP_SYN | TCP_RST));
}

static __always_inline enum packet_class parse_transport(struct __sk_buff *skb, struct packet *p,
							 const bool egress)
{
	struct {
		__u16 src, dst;
		__u32 seq, ack;
		__u8 doff, flags;
		__be16 window;
	} h;

	p->payload = p->transport;
	if (p->key.kind == CONN_FRAGMENT)
		return PACKET_CONN;
	switch (p->key.protocol) {
	case IPPROTO_TCP:
		if (!copy(skb, p, p->transport, &h, 16) || h.doff < 0x50)
			return PACKET_BAD_TRANSPORT;
		set_ports(p, &h.src, &h.dst, egress);
		p->tcp_flags = h.flags;
		p->shut = is_shut(h.flags, h.window);
		p->payload = p->transport + (h.doff >> 4) * 4;
		return PACKET_CONN;
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		if (!copy(skb, p, p->transport, &h, 8))
			return PACKET_BAD_TRANSPORT;
		set_ports(p, &h.src, &h.dst, egress);
		p->payload = p->transport + (p->key.protocol == IPPROTO_UDP ? 8 : 12);
		return PACKET_CONN;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return parse_icmp(skb, p, egress);
	}
	return PACKET_CONN;
}

/*
 * Where the network header is, on a device whose link-layer header has no known
 * length. Nearly always where the packet begins. A tunnel to anybody (GRE) has
 * its outer headers before, which its device does not count: they have the
 * length that the packet's own leaves.
 */
static __always_inline void find_network(struct __sk_buff *skb, struct packet *p)
{
	union {
		__u32 words[5];
		__u8 bytes[20];
		struct iphdr v4;
	} net, first;
	__u32 len;
	bool gre;

	if (bpf_skb_load_bytes_relative(skb, 0, &net, sizeof(net), BPF_HDR_START_NET)) {
		/* Not linear: it is where the packet begins. Or it is cut. */
		p->from_network = bpf_skb_load_bytes_relative(skb, 0, &net, 1, BPF_HDR_START_NET) == 0;
		return;
	}
	if (bpf_skb_load_bytes(skb, 0, &first, sizeof(first)))
		return;
	if (__builtin_memcmp(&net, &first, sizeof(net)) == 0)
		return;
	p->from_network = true;
	gre = first.v4.version == 4 ? first.v4.protocol == IPPROTO_GRE :
		first.v4.version == 6 && first.bytes[6] == IPPROTO_GRE;
	/* IPv6 has its payload's length at 4. */
	len = net.v4.version == 4 ? bpf_ntohs(net.v4.tot_len) : bpf_ntohs(net.v4.id) + 40;
	len = skb->len - len;
	if (gre && len && len <= 128 && bpf_skb_load_bytes(skb, len, &first, sizeof(first)) == 0 &&
	    __builtin_memcmp(&net, &first, sizeof(net)) == 0)
		p->outer = len;
}

/* Any packet. link is the length of the device's link-layer header. */
static __always_inline enum packet_class parse_packet(struct __sk_buff *skb, __u32 link,
						      struct packet *p, const bool egress)
{
	__be16 proto = skb->protocol;
	__u32 off = link;
	enum packet_class class;

	if (link == LINK_UNKNOWN) {
		find_network(skb, p);
		off = 0;
	}
#pragma unroll
	for (int i = 0; i < VLAN_DEPTH; i++) {
		struct {
			__be16 tci, proto;
		} tag;

		if (proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD))
			break;
		if (!copy(skb, p, off, &tag, sizeof(tag)))
			return PACKET_NOT_IP;
		proto = tag.proto;
		off += sizeof(tag);
	}
	if (proto == bpf_htons(ETH_P_IP))
		class = parse_ipv4(skb, off, p, egress);
	else if (proto == bpf_htons(ETH_P_IPV6))
		class = parse_ipv6(skb, off, p, egress);
	else
		return PACKET_NOT_IP;
	if (class != PACKET_CONN)
		return class;
	return parse_transport(skb, p, egress);
}

/* Two words of memory as one, for keys are hashed and compared faster when they
 * were written in whole words of eight bytes: a load that spans several younger
 * stores waits until they have left the processor. */
static __always_inline __u64 pair(__u32 first, __u32 second)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return first | (__u64)second << 32;
#else
	return second | (__u64)first << 32;
#endif
}

/* What is known of most packets beside the key; it stays in registers. */
struct plain {
	__u32 link; /* in: length of the link-layer header */
	__u32 netns; /* in */
	__u32 headers; /* length */
	__u8 protocol;
	__u8 tcp_flags;
	bool shut; /* as in struct packet */
};

/*
 * Nearly every packet: linear, no VLAN tag in the data, no IPv4 option, IPv6
 * extension or fragment, TCP or UDP. It writes the whole key, or returns false
 * and leaves the packet to parse_packet, which would find the same.
 */
static __always_inline bool parse_plain(struct __sk_buff *skb, struct flow_key *key,
					struct plain *plain, const bool egress)
{
	void *ip = (void *)(long)skb->data + plain->link, *end = (void *)(long)skb->data_end;
	__u64 *w = (__u64 *)key;
	__u32 ports;
	struct {
		__u32 ports, seq, ack;
		__u8 doff, flags;
		__be16 window;
	} *h;

	if (likely(skb->protocol == bpf_htons(ETH_P_IP))) {
		struct iphdr *v4 = ip;

		h = (void *)(v4 + 1);
		if (unlikely((void *)h + 8 > end))
			return false;
		/* Version, length without options; neither later nor first fragment. */
		if (unlikely(*(__u8 *)v4 != 0x45 || v4->frag_off & bpf_htons(0x3fff)))
			return false;
		plain->protocol = v4->protocol;
		w[0] = w[2] = 0;
		w[1] = pair(bpf_htonl(0xffff), egress ? v4->saddr : v4->daddr);
		w[3] = pair(bpf_htonl(0xffff), egress ? v4->daddr : v4->saddr);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *v6 = ip;
		__u32 *local, *remote;

		h = (void *)(v6 + 1);
		if (unlikely((void *)h + 8 > end || v6->version != 6))
			return false;
		plain->protocol = v6->nexthdr;
		local = egress ? v6->saddr.in6_u.u6_addr32 : v6->daddr.in6_u.u6_addr32;
		remote = egress ? v6->daddr.in6_u.u6_addr32 : v6->saddr.in6_u.u6_addr32;
		w[0] = pair(local[0], local[1]);
		w[1] = pair(local[2], local[3]);
		w[2] = pair(remote[0], remote[1]);
		w[3] = pair(remote[2], remote[3]);
	} else {
		return false;
	}
	plain->headers = (void *)h - (void *)(long)skb->data;
	plain->tcp_flags = 0;
	plain->shut = false;
	if (plain->protocol == IPPROTO_TCP) {
		if (unlikely((void *)h + 16 > end || h->doff < 0x50))
			return false;
		plain->tcp_flags = h->flags;
		plain->shut = is_shut(h->flags, h->window);
		plain->headers += (h->doff >> 4) * 4;
	} else if (plain->protocol == IPPROTO_UDP) {
		plain->headers += 8;
	} else {
		return false;
	}
	ports = h->ports;
	w[4] = pair(egress ? ports : ports << 16 | ports >> 16, skb->ifindex);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	w[5] = pair(plain->netns, plain->protocol);
#else
	w[5] = pair(plain->netns, plain->protocol << 24);
#endif
	return true;
}

#endif
