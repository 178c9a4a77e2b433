// SPDX-License-Identifier: Apache-2.0
//go:build ignore

/*
 * Connects that fail: a socket that goes from asking to closed has an error that
 * says why, or none where its process did not wait. Nothing is refused, changed
 * or counted here.
 */
#include <stdbool.h>

#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define TCP_SYN_SENT 2
#define TCP_CLOSE 7
#define LOOPBACK 1 /* index of the interface, in each namespace */
#define RING_BYTES (256 * 1024)

/* The kernel's, as far as it is read. */
#define KERNEL __attribute__((preserve_access_index))
struct ns_common {
	unsigned int inum;
} KERNEL;
struct net {
	struct ns_common ns;
} KERNEL;
typedef struct {
	struct net *net;
} KERNEL possible_net_t;
typedef struct {
	long counter;
} KERNEL atomic64_t;
struct in6_addr {
	union {
		__be32 u6_addr32[4];
	} in6_u;
} KERNEL;
struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	unsigned short skc_family;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	atomic64_t skc_cookie;
} KERNEL;
struct net_device {
	int ifindex;
} KERNEL;
struct dst_entry {
	struct net_device *dev;
} KERNEL;
struct kernfs_node {
	__u64 id;
} KERNEL;
struct cgroup {
	struct kernfs_node *kn;
} KERNEL;
struct sock_cgroup_data {
	struct cgroup *cgroup;
} KERNEL;
struct sock {
	struct sock_common __sk_common;
	struct dst_entry *sk_dst_cache;
	__u16 sk_protocol;
	int sk_err;
	int sk_err_soft;
	struct sock_cgroup_data sk_cgrp_data;
} KERNEL;
struct inet_sock {
	__be16 inet_sport;
} KERNEL;
struct tcp_sock {
	__u32 total_retrans;
} KERNEL;

/* A connect that failed. */
struct connect_event {
	__u64 time_ns; /* since boot, without suspension */
	__u64 cookie; /* 0: nobody has asked the kernel for it */
	__u64 cgroup; /* of the socket; 0 before 5.15 */
	__u32 local[4]; /* network order, IPv4 mapped into IPv6 */
	__u32 remote[4];
	__u32 netns; /* inode */
	__u32 ifindex; /* 0: there is no route any more */
	__u32 retransmits;
	__u16 local_port_be;
	__u16 remote_port_be;
	__u32 error; /* errno; 0: the process did not wait */
	__u32 zero;
};
_Static_assert(sizeof(struct connect_event) == 80, "the Go side reads these bytes");

/* Only so that the Go side learns the type. */
const struct connect_event *connect_event_type __attribute__((unused));

/* Events. Written by the program, read by user space. Bound: RING_BYTES; what
 * finds no room is counted in connect_lost. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} connect_ring SEC(".maps");

/* key: 0; value: events that found no room. Written by the program, never
 * deleted. Bound: 1. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} connect_lost SEC(".maps");

static __always_inline bool is_loopback(struct connect_event *e)
{
	if (e->ifindex == LOOPBACK)
		return true;
	if (e->local[0] == e->remote[0] && e->local[1] == e->remote[1] &&
	    e->local[2] == e->remote[2] && e->local[3] == e->remote[3])
		return true;
	return e->remote[2] == bpf_htonl(0xffff) && (e->remote[3] & bpf_htonl(0xff000000)) == bpf_htonl(127 << 24);
}

/* Where it is going; false for what is none of the tap's. */
static __always_inline bool describe(struct connect_event *e, struct sock *sk)
{
	struct sock_common *c = &sk->__sk_common;
	__u16 family = BPF_CORE_READ(c, skc_family);

	if (family == AF_INET) {
		e->local[2] = e->remote[2] = bpf_htonl(0xffff);
		e->local[3] = BPF_CORE_READ(c, skc_rcv_saddr);
		e->remote[3] = BPF_CORE_READ(c, skc_daddr);
	} else if (family == AF_INET6) {
		BPF_CORE_READ_INTO(&e->local, c, skc_v6_rcv_saddr.in6_u.u6_addr32);
		BPF_CORE_READ_INTO(&e->remote, c, skc_v6_daddr.in6_u.u6_addr32);
	} else {
		return false;
	}
	/* The port is given back by now, and this is what is left of it. */
	e->local_port_be = BPF_CORE_READ((struct inet_sock *)sk, inet_sport);
	e->remote_port_be = BPF_CORE_READ(c, skc_dport);
	e->ifindex = BPF_CORE_READ(sk, sk_dst_cache, dev, ifindex);
	/* Without a port of its own it asked nobody: there was none left. */
	return e->local_port_be && !is_loopback(e);
}

/* args: the socket, its old state, its new one. The error is set before. */
SEC("tp_btf/inet_sock_set_state")
int connect_failed(__u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	struct connect_event e = {};
	__u32 zero = 0;
	__u64 *lost;

	if ((int)ctx[1] != TCP_SYN_SENT || (int)ctx[2] != TCP_CLOSE)
		return 0;
	if (BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP || !describe(&e, sk))
		return 0;
	e.time_ns = bpf_ktime_get_ns();
	e.cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	e.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	e.retransmits = BPF_CORE_READ((struct tcp_sock *)sk, total_retrans);
	e.error = BPF_CORE_READ(sk, sk_err);
	if (!e.error) /* what the network had said when the process closed it */
		e.error = BPF_CORE_READ(sk, sk_err_soft);
	if (bpf_core_field_exists(sk->sk_cgrp_data.cgroup))
		e.cgroup = BPF_CORE_READ(sk, sk_cgrp_data.cgroup, kn, id);
	if (bpf_ringbuf_output(&connect_ring, &e, sizeof(e), BPF_RB_NO_WAKEUP) == 0)
		return 0;
	lost = bpf_map_lookup_elem(&connect_lost, &zero);
	if (lost)
		__sync_fetch_and_add(lost, 1);
	return 0;
}
