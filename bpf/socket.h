/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose packet it is that leaves. Shared by the kernel programs: no programs,
 * no maps.
 */
#ifndef ORB8_SOCKET_H
#define ORB8_SOCKET_H

#include "packet.h"

#define AF_INET 2
#define AF_INET6 10
#define SOCK_RAW 3
#define SOCKET_CLOSED 7 /* TCP_CLOSE */

enum sender {
	SENDER_UNKNOWN = 0, /* nothing was sent */
	SENDER_OWN = 1,     /* the socket that the header names, in this namespace */
	SENDER_FOREIGN = 2, /* another one, as inside of a tunnel, or none, as behind NAT */
	/* another of this namespace: the host translates its own, or it is inside */
	SENDER_TRANSLATED = 3,
};

/* Whether sk is a socket of this namespace: one of another stays attached where
 * a packet is redirected and translated. It is looked up by what it is bound and
 * connected to itself, since the header may be translated already; of what it is
 * not bound to, the header tells. */
static __always_inline bool is_local(struct __sk_buff *skb, struct bpf_sock *sk, const struct flow_key *key)
{
	/* Looked up as for what comes in: the source is the remote end. */
	bool v4 = key->local[2] == bpf_htonl(0xffff) && !key->local[0] && !key->local[1];
	bool ports_agree = sk->src_port == bpf_ntohs(key->local_port_be);
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *found;
	bool same;

	if (v4) {
		tuple.ipv4.saddr = key->remote[3];
		tuple.ipv4.daddr = key->local[3];
		tuple.ipv4.sport = key->remote_port_be;
		tuple.ipv4.dport = bpf_htons(sk->src_port);
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, key->remote, 16);
		__builtin_memcpy(tuple.ipv6.daddr, key->local, 16);
		tuple.ipv6.sport = key->remote_port_be;
		tuple.ipv6.dport = bpf_htons(sk->src_port);
	}
	/* A barrier, or the compiler chooses between pointers instead of values,
	 * which the verifier does not take. */
	asm volatile("" ::: "memory");
	if (v4) {
		if (sk->src_ip4)
			tuple.ipv4.daddr = sk->src_ip4;
	} else if (sk->src_ip6[0] | sk->src_ip6[1] | sk->src_ip6[2] | sk->src_ip6[3]) {
		tuple.ipv6.daddr[0] = sk->src_ip6[0];
		tuple.ipv6.daddr[1] = sk->src_ip6[1];
		tuple.ipv6.daddr[2] = sk->src_ip6[2];
		tuple.ipv6.daddr[3] = sk->src_ip6[3];
	}
	asm volatile("" ::: "memory");
	if (sk->dst_port) {
		if (v4) {
			tuple.ipv4.saddr = sk->dst_ip4;
			tuple.ipv4.sport = sk->dst_port;
		} else {
			tuple.ipv6.saddr[0] = sk->dst_ip6[0];
			tuple.ipv6.saddr[1] = sk->dst_ip6[1];
			tuple.ipv6.saddr[2] = sk->dst_ip6[2];
			tuple.ipv6.saddr[3] = sk->dst_ip6[3];
			tuple.ipv6.sport = sk->dst_port;
		}
	}
	asm volatile("" ::: "memory");
	if (v4)
		found = key->protocol == IPPROTO_TCP ?
			bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0) :
			bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	else
		found = key->protocol == IPPROTO_TCP ?
			bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0) :
			bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	if (!found)
		return false;
	/* Another of the same port may be another namespace's, and one that shares
	 * its port is not always the one that is found. */
	same = found == sk;
	bpf_sk_release(found);
	return same || ports_agree;
}

/*
 * Judges a packet that is being sent. Raw and mini-sockets are this namespace's
 * own: resets, acknowledgements in TIME_WAIT and echo replies look like that.
 * Inside of a tunnel they have another protocol than the header. look_up tells
 * that packets of other namespaces come by with their sockets.
 */
static __always_inline enum sender judge(struct __sk_buff *skb, const struct flow_key *key, bool look_up)
{
	struct bpf_sock *sk = skb->sk;
	bool ports, agree;

	if (!sk)
		return SENDER_FOREIGN;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return key->protocol == IPPROTO_TCP ? SENDER_OWN : SENDER_FOREIGN;
	if (sk->family != AF_INET && sk->family != AF_INET6)
		return SENDER_OWN; /* a packet socket may send anything */
	if (sk->type == SOCK_RAW && sk->protocol == IPPROTO_RAW)
		return SENDER_OWN;
	if (sk->protocol != key->protocol)
		return SENDER_FOREIGN;
	ports = key->kind == CONN_PLAIN && (key->protocol == IPPROTO_TCP || key->protocol == IPPROTO_UDP);
	if (!ports || sk->type == SOCK_RAW)
		return SENDER_OWN;
	agree = sk->src_port == bpf_ntohs(key->local_port_be);
	if (!look_up || (agree && sk->bound_dev_if)) /* bound to a VRF it is not found from its member */
		return agree ? SENDER_OWN : SENDER_FOREIGN;
	if (!is_local(skb, sk, key))
		return SENDER_FOREIGN;
	return agree ? SENDER_OWN : SENDER_TRANSLATED;
}

#endif
