// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/cgroup"
)

// node is which part of the machine is this node. It does not change.
type node struct {
	// All of the node is below it; "/" is all of the machine.
	root string
	// Where this node's pods are, told by the agent's own place; "" where it runs
	// in no pod: wherever below root a kubelet has some.
	pods string
	// Nothing is known of the node's cgroups: no pod is its own.
	lost bool
	// /proc shows the processes of other pods.
	sight    bool
	problems []string
}

// initialPIDs is the inode of the first pid namespace.
const initialPIDs = 0xeffffffc

// findNode looks where this process is, and what is mounted for it.
func findNode(groups *cgroup.Resolver, proc string) node {
	n := node{root: "/", lost: true}
	if groups == nil {
		n.problem("which network namespace is which pod's is not known without cgroups (mount the host's /sys/fs/cgroup): " +
			"only the agent's own and those under /run/netns are tapped")
		return n
	}
	self, err := groups.Self(proc)
	if err != nil {
		n.problem(fmt.Sprintf("which pods are this node's is not known: %v: only the agent's own network namespace and those under /run/netns are tapped", err))
		return n
	}
	n.lost = false
	n.place(self, groups.Mounted())
	n.sight = n.seesAll(groups, proc, self)
	if !n.sight {
		n.problem("processes of other pods cannot be seen (give the agent hostPID): namespaces are found under /run/netns only, " +
			"and a pod's when it starts a process or sends something")
	}
	return n
}

func (n *node) problem(text string) { n.problems = append(n.problems, text) }

// place takes the node from the agent's own path and from what is mounted: the
// deepest group of which one of them says that it is a machine's root.
func (n *node) place(self string, mounted []string) {
	root, inPod := cgroup.PodsRoot(self)
	if !inPod {
		for i, m := range mounted {
			if i == 0 || len(m) < len(n.root) {
				n.root = m
			}
		}
		return
	}
	n.pods = root
	n.root = cgroup.ContainerRoot(filepath.Dir(root))
	for _, m := range mounted {
		if m != root && cgroup.Below(m, root) && len(m) > len(n.root) {
			n.root = m
		}
	}
	if cgroup.PodGroup(n.root, n.pods) != "" {
		// The node is in a pod, and not as a container that is known as one.
		n.root = filepath.Dir(n.pods)
	}
}

// seesAll: in a pid namespace of a pod's own its first process is the pod's.
func (n *node) seesAll(groups *cgroup.Resolver, proc, self string) bool {
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(proc, "self/ns/pid"), &st); err == nil && st.Ino == initialPIDs {
		return true
	}
	if n.pods == "" {
		return true
	}
	if os.Getpid() == 1 {
		return false
	}
	init, err := groups.Of(proc, 1)
	return err == nil && !cgroup.Below(cgroup.PodGroup(filepath.Dir(n.pods), self), init)
}

// podGroup is the group of the pod of this node that a path is in; "" where it
// is in none.
func (s *Sandboxes) podGroup(path string) string {
	if s.node.lost {
		return ""
	}
	base := s.node.root
	if s.node.pods != "" {
		if !cgroup.Below(s.node.pods, path) {
			return ""
		}
		base = filepath.Dir(s.node.pods)
	} else if !cgroup.Below(base, path) {
		return ""
	}
	return cgroup.PodGroup(base, path)
}

// uid of a pod by its group.
func (s *Sandboxes) uid(group string) string { return cgroup.ParseBelow(s.base(), group).PodUID }

// base is what paths of pods are read from.
func (s *Sandboxes) base() string {
	if s.node.pods != "" {
		return filepath.Dir(s.node.pods)
	}
	return s.node.root
}
