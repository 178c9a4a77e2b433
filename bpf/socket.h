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

enum sender {
	SENDER_UNKNOWN = 0, /* nothing was sent */
	SENDER_OWN = 1,     /* the socket that the header names, in this namespace */
	SENDER_FOREIGN = 2, /* another one, as inside of a tunnel, or none, as behind NAT */
};

/* Whether this namespace has a socket for the connection: a socket of another
 * one stays attached where a packet is redirected and translated. */
static __always_inline bool is_local(struct __sk_buff *skb, const struct flow_key *key)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;
	__u32 len;

	/* Looked up as for what comes in: the source is the remote end. */
	if (key->local[2] == bpf_htonl(0xffff) && !key->local[0] && !key->local[1]) {
		tuple.ipv4.saddr = key->remote[3];
		tuple.ipv4.daddr = key->local[3];
		tuple.ipv4.sport = key->remote_port_be;
		tuple.ipv4.dport = key->local_port_be;
		len = sizeof(tuple.ipv4);
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, key->remote, 16);
		__builtin_memcpy(tuple.ipv6.daddr, key->local, 16);
		tuple.ipv6.sport = key->remote_port_be;
		tuple.ipv6.dport = key->local_port_be;
		len = sizeof(tuple.ipv6);
	}
	if (key->protocol == IPPROTO_TCP) {
		sk = len == sizeof(tuple.ipv4) ?
			bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0) :
			bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	} else {
		sk = len == sizeof(tuple.ipv4) ?
			bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0) :
			bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	if (!sk)
		return false;
	bpf_sk_release(sk);
	return true;
}

/*
 * Judges a packet that is being sent. Raw and mini-sockets are this namespace's
 * own: resets, acknowledgements in TIME_WAIT and echo replies look like that.
 * look_up tells that packets of other namespaces come by with their sockets.
 */
static __always_inline enum sender judge(struct __sk_buff *skb, const struct flow_key *key, bool look_up)
{
	struct bpf_sock *sk = skb->sk;
	bool ports;

	if (!sk)
		return SENDER_FOREIGN;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return SENDER_OWN;
	if (sk->type == SOCK_RAW || (sk->family != AF_INET && sk->family != AF_INET6))
		return SENDER_OWN;
	if (sk->protocol != key->protocol)
		return SENDER_FOREIGN;
	ports = key->kind == CONN_PLAIN && (key->protocol == IPPROTO_TCP || key->protocol == IPPROTO_UDP);
	if (!ports)
		return SENDER_OWN;
	if (sk->src_port != bpf_ntohs(key->local_port_be))
		return SENDER_FOREIGN;
	if (look_up && !is_local(skb, key))
		return SENDER_FOREIGN;
	return SENDER_OWN;
}

#endif
