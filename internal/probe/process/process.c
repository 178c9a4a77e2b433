// SPDX-License-Identifier: Apache-2.0
//go:build ignore

/*
 * Two announcements: a process that execs in a network namespace that user
 * space does not know, and a cgroup as it is made. Both come before the new
 * container's own program runs. Nothing is held up, changed or counted here.
 */
#include <stdbool.h>

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "../../../bpf/pid.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define PATH_BYTES 512
#define RING_BYTES (256 * 1024)
#define NETNS_BOUND 65536
#define CGROUP_DEFAULT 0 /* hierarchy of cgroup v2 */

/* What the agent's /proc shows: the inode of its pid namespace. */
const volatile __u32 pid_namespace = PID_FIRST;
/* The group that all of this node is in, and how many it is below the root; 0
 * is the root itself. Several nodes may share a kernel. */
const volatile __u64 node_group;
const volatile __u32 node_level;

enum event_kind { EXEC_EVENT = 1, CGROUP_EVENT = 2 };

/* The kernel's, as far as it is read. */
#define KERNEL __attribute__((preserve_access_index))
struct net {
	struct ns_common ns;
} KERNEL;
struct nsproxy {
	struct net *net_ns;
} KERNEL;
struct task_struct {
	int tgid;
	struct pid *thread_pid;
	struct nsproxy *nsproxy;
} KERNEL;
struct kernfs_node {
	__u64 id;
} KERNEL;
struct cgroup_root {
	int hierarchy_id;
} KERNEL;
struct cgroup {
	struct kernfs_node *kn;
	struct cgroup_root *root;
} KERNEL;

struct exec_event {
	__u32 kind;
	__u32 netns; /* inode */
	__u32 pid; /* 0: none in the agent's pid namespace */
	__u32 zero;
	__u64 cgroup; /* of the default hierarchy */
};
_Static_assert(sizeof(struct exec_event) == 24, "the Go side reads these bytes");

struct cgroup_event {
	__u32 kind;
	__u16 length; /* of the path */
	__u16 truncated;
	__u64 id; /* inode of its directory */
	char path[PATH_BYTES + 8]; /* the rest tells whether there was more */
};
_Static_assert(sizeof(struct cgroup_event) == 16 + PATH_BYTES + 8, "the Go side reads these bytes");

/* key: inode of a network namespace; value: 1. Written and deleted by user
 * space: what it knows already. Bound: NETNS_BOUND, memory as used. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NETNS_BOUND);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u8);
} process_netns SEC(".maps");

/* Events. Written by the programs, read by user space. Bound: RING_BYTES; what
 * finds no room is counted in process_lost. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} process_ring SEC(".maps");

/* key: 0; value: events that found no room. Written by the programs, never
 * deleted. Bound: 1. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} process_lost SEC(".maps");

static __always_inline void lost(void)
{
	__u32 zero = 0;
	__u64 *n = bpf_map_lookup_elem(&process_lost, &zero);

	if (n) /* a program on the same CPU may be interrupted by another */
		__sync_fetch_and_add(n, 1);
}

/* The level is a constant, so the verifier drops this where one node has all. */
static __always_inline bool is_elsewhere(void)
{
	return node_level && bpf_get_current_ancestor_cgroup_id(node_level) != node_group;
}

/* args: the task, which is the current one; its old PID; the binary. */
SEC("tp_btf/sched_process_exec")
int process_exec(__u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	__u32 netns = task->nsproxy->net_ns->ns.inum;
	struct exec_event *e;

	if (bpf_map_lookup_elem(&process_netns, &netns) || is_elsewhere())
		return 0;
	e = bpf_ringbuf_reserve(&process_ring, sizeof(*e), 0);
	if (!e) {
		lost();
		return 0;
	}
	e->kind = EXEC_EVENT;
	e->netns = netns;
	e->pid = pid_number(task->thread_pid, task->tgid, pid_namespace);
	e->zero = 0;
	e->cgroup = bpf_get_current_cgroup_id();
	bpf_ringbuf_submit(e, 0);
	return 0;
}

/* args: the cgroup, which nobody can be in yet; its path from the root. */
SEC("tp_btf/cgroup_mkdir")
int process_cgroup(__u64 *ctx)
{
	struct cgroup *cgrp = (struct cgroup *)ctx[0];
	const char *path = (const char *)ctx[1];
	struct cgroup_event *e;
	long n;

	/* Whoever makes groups for a node's containers is of that node, too. */
	if (cgrp->root->hierarchy_id != CGROUP_DEFAULT || is_elsewhere())
		return 0;
	e = bpf_ringbuf_reserve(&process_ring, sizeof(*e), 0);
	if (!e) {
		lost();
		return 0;
	}
	e->kind = CGROUP_EVENT;
	e->id = cgrp->kn->id;
	/* The helper counts the end mark, and cuts in silence. */
	n = bpf_probe_read_kernel_str(e->path, PATH_BYTES + 2, path) - 1;
	if (n < 0)
		n = 0;
	e->truncated = n > PATH_BYTES;
	e->length = n > PATH_BYTES ? PATH_BYTES : n;
	bpf_ringbuf_submit(e, 0);
	return 0;
}
