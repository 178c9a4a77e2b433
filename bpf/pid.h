/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The number of a process as user space sees it. Shared by the kernel programs:
 * no programs, no maps.
 */
#ifndef ORB8_PID_H
#define ORB8_PID_H

#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#define PID_FIRST 0xEFFFFFFC /* inode of the first pid namespace, which numbers all */
#define PID_DEPTH 8 /* namespaces within each other that are looked through */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
};

struct pid_namespace {
	struct ns_common ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

/* The kernel's array is as long as the namespace is deep. */
struct pid {
	unsigned int level;
	struct upid numbers[1];
};

#pragma clang attribute pop

/* The number in the namespace of that inode; 0 where it has none. first is the
 * number in the first namespace, which is known without looking. */
static __always_inline __u32 pid_number(struct pid *pid, __u32 first, __u32 pid_namespace)
{
	const char *numbers;
	__u32 level;

	if (pid_namespace == PID_FIRST)
		return first;
	numbers = (const char *)pid + bpf_core_field_offset(struct pid, numbers);
	level = BPF_CORE_READ(pid, level);
#pragma unroll
	for (__u32 i = 1; i <= PID_DEPTH; i++) {
		struct upid *at = (struct upid *)(numbers + i * bpf_core_type_size(struct upid));

		if (i > level)
			break;
		if (BPF_CORE_READ(at, ns, ns.inum) == pid_namespace)
			return BPF_CORE_READ(at, nr);
	}
	return 0;
}

#endif
