// SPDX-License-Identifier: Apache-2.0
//go:build ignore

/*
 * Who holds a socket. Two iterators list what there is when user space asks:
 * the sockets in the file tables of processes, and the kernel's own. A program
 * at the creation of a socket notes who asked for it, for processes that are
 * gone before anybody asks. Nothing is refused or changed.
 */
#include <stdbool.h>

#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "../../../bpf/pid.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define ALLOW 1

#define AF_INET 2
#define AF_INET6 10
#define COMM 16
#define TCP_TIME_WAIT 6
#define TCP_NEW_SYN_RECV 12

/* What the agent's /proc shows: the inode of its pid namespace. */
const volatile __u32 pid_namespace = PID_FIRST;

/* What is read of the kernel's own structures. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct net {
	struct ns_common ns;
};

struct kernfs_node {
	__u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct task_struct {
	int tgid;
	struct pid *thread_pid;
	struct task_struct *group_leader;
	__u64 start_time;
	char comm[COMM];
	struct css_set *cgroups;
};

typedef struct {
	long counter;
} atomic64_t;

typedef struct {
	struct net *net;
} possible_net_t;

struct in6_addr {
	union {
		__be32 u6_addr32[4];
	} in6_u;
};

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	unsigned char skc_ipv6only : 1;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	atomic64_t skc_cookie;
};

struct sock {
	struct sock_common __sk_common;
	__u8 sk_kern_sock : 1;
	__u16 sk_type;
	__u16 sk_protocol;
};

struct tcp_sock {
	bool is_mptcp;
};

struct socket {
	struct sock *sk;
};

struct inode {
	unsigned long i_ino;
};

struct file {
	struct inode *f_inode;
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
};

struct udp_sock;

struct bpf_iter__udp {
	struct bpf_iter_meta *meta;
	struct udp_sock *udp_sk;
};

#pragma clang attribute pop

/* One socket, as an iterator writes it; the second part is who holds it. */
struct socket_record {
	__u64 cookie; /* 0: nobody has asked the kernel for it */
	__u64 inode;
	__u32 local[4]; /* network order, IPv4 mapped into IPv6 */
	__u32 remote[4];
	__u32 netns;
	__u16 local_port;
	__u16 remote_port_be;
	__u16 protocol;
	__u16 type;
	__u8 state;
	__u8 family;
	__u8 v6only;
	__u8 kernel; /* no process: made by the kernel for itself */
	__u32 tgid; /* in the agent's pid namespace */
	__u32 zero;
	__u64 cgroup; /* of the process, not of the socket */
	__u64 start_ns; /* of the process, since boot */
	char comm[COMM];
};
_Static_assert(sizeof(struct socket_record) == 104, "the Go side reads these bytes");

/* Only so that the Go side learns the type. */
const struct socket_record *socket_record_type __attribute__((unused));

/* Who made a socket. */
struct socket_note {
	__u32 tgid; /* 0: none in the agent's pid namespace */
	__u32 zero;
	__u64 start_ns;
	char comm[COMM];
};
_Static_assert(sizeof(struct socket_note) == 32, "the Go side reads these bytes");

/* key: socket cookie; value: who made it. Written at creation, never deleted:
 * the oldest make room. Bound: 65,536. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct socket_note);
} socket_notes SEC(".maps");

/* Reads what is not a pointer known to the verifier; a socket that goes away
 * meanwhile reads as zeros. */
static __always_inline bool describe(struct socket_record *r, struct sock *sk)
{
	struct sock_common *c = &sk->__sk_common;

	r->family = BPF_CORE_READ(c, skc_family);
	if (r->family == AF_INET) {
		r->local[2] = r->remote[2] = bpf_htonl(0xffff);
		r->local[3] = BPF_CORE_READ(c, skc_rcv_saddr);
		r->remote[3] = BPF_CORE_READ(c, skc_daddr);
	} else if (r->family == AF_INET6) {
		BPF_CORE_READ_INTO(&r->local, c, skc_v6_rcv_saddr.in6_u.u6_addr32);
		BPF_CORE_READ_INTO(&r->remote, c, skc_v6_daddr.in6_u.u6_addr32);
		r->v6only = BPF_CORE_READ_BITFIELD_PROBED(c, skc_ipv6only);
	} else {
		return false;
	}
	r->cookie = BPF_CORE_READ(c, skc_cookie.counter);
	r->netns = BPF_CORE_READ(c, skc_net.net, ns.inum);
	r->local_port = BPF_CORE_READ(c, skc_num);
	r->remote_port_be = BPF_CORE_READ(c, skc_dport);
	r->state = BPF_CORE_READ(c, skc_state);
	r->protocol = BPF_CORE_READ(sk, sk_protocol);
	r->type = BPF_CORE_READ(sk, sk_type);
	return true;
}

/* Every socket in the file table of a process. The kernel visits each table
 * once, not once a thread. */
SEC("iter/task_file")
int socket_held(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct socket_record r = {};
	struct socket *socket;
	struct task_struct *leader;

	if (!task || !file)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket || !socket->sk || !describe(&r, socket->sk))
		return 0;
	r.inode = file->f_inode->i_ino;
	leader = task->group_leader;
	r.tgid = pid_number(BPF_CORE_READ(leader, thread_pid), task->tgid, pid_namespace);
	r.start_ns = BPF_CORE_READ(leader, start_time);
	BPF_CORE_READ_INTO(&r.comm, leader, comm);
	r.cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
	bpf_seq_write(ctx->meta->seq, &r, sizeof(r));
	return 0;
}

/* Of a multipath connection the kernel makes the parts, for a process. */
static __always_inline bool is_part(struct sock *sk)
{
	struct tcp_sock *tcp = (struct tcp_sock *)sk;

	return bpf_core_field_exists(tcp->is_mptcp) && BPF_CORE_READ(tcp, is_mptcp);
}

static __always_inline int write_kernel(struct seq_file *seq, struct sock *sk)
{
	struct socket_record r = { .kernel = 1 };

	if (BPF_CORE_READ_BITFIELD_PROBED(sk, sk_kern_sock) && describe(&r, sk))
		bpf_seq_write(seq, &r, sizeof(r));
	return 0;
}

/* The kernel's own TCP sockets of the reader's namespace. */
SEC("iter/tcp")
int socket_kernel_tcp(struct bpf_iter__tcp *ctx)
{
	struct sock_common *c = ctx->sk_common;

	/* Those two are no full sockets. */
	if (!c || c->skc_state == TCP_TIME_WAIT || c->skc_state == TCP_NEW_SYN_RECV || is_part((struct sock *)c))
		return 0;
	return write_kernel(ctx->meta->seq, (struct sock *)c);
}

/* The kernel's own UDP sockets of the reader's namespace: tunnels, mostly. */
SEC("iter/udp")
int socket_kernel_udp(struct bpf_iter__udp *ctx)
{
	struct udp_sock *udp = ctx->udp_sk;

	if (!udp)
		return 0;
	return write_kernel(ctx->meta->seq, (struct sock *)udp);
}

/* Runs for sockets that processes make, never for the kernel's own. */
SEC("cgroup/sock_create")
int socket_created(struct bpf_sock *sk)
{
	__u64 cookie = bpf_get_socket_cookie(sk);
	struct task_struct *leader = BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), group_leader);
	struct socket_note note = {};

	note.tgid = pid_number(BPF_CORE_READ(leader, thread_pid), BPF_CORE_READ(leader, tgid), pid_namespace);
	note.start_ns = BPF_CORE_READ(leader, start_time);
	BPF_CORE_READ_INTO(&note.comm, leader, comm);
	bpf_map_update_elem(&socket_notes, &cookie, &note, BPF_ANY);
	return ALLOW;
}

/* The same where the kernel refuses the other (no current task here). */
SEC("cgroup/sock_create")
int socket_created_plain(struct bpf_sock *sk)
{
	__u64 cookie = bpf_get_socket_cookie(sk);
	struct socket_note note = {};

	if (pid_namespace == PID_FIRST)
		note.tgid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(&note.comm, sizeof(note.comm));
	bpf_map_update_elem(&socket_notes, &cookie, &note, BPF_ANY);
	return ALLOW;
}
