// SPDX-License-Identifier: Apache-2.0

package cgroup

import "strings"

// Below tells whether a path is a group's own or below it.
func Below(group, path string) bool {
	if group == "/" || group == "" {
		return true
	}
	rest, ok := strings.CutPrefix(path, group)
	return ok && (rest == "" || rest[0] == '/')
}

// ParseBelow is Parse for whom a group is the root: in a node that is itself a
// container, or runs in a pod, neither is told.
func ParseBelow(base, path string) Info {
	if base == "" || base == "/" || !Below(base, path) {
		return Parse(path)
	}
	info := Parse(path[len(base):])
	info.Path = path
	return info
}

// PodsRoot finds, in the path of a process in a pod, the group in which its
// node keeps all pods: of nodes within each other the innermost. Only a process
// that is trusted may be asked about, since one can make groups of any name
// below its own. In systemd's way of the kubelet and not of the runtime, it is
// whatever the containers are in.
func PodsRoot(path string) (root string, ok bool) {
	candidate := ""
	for start, end := range segments(path) {
		switch segment := path[start:end]; {
		case podName(segment) != "" && candidate != "":
			root, ok, candidate = candidate, true, ""
		case podName(segment) != "" && strings.Contains(segment, pods):
			root, ok = path[:max(1, start-1)], true
		case segment == pods || strings.HasSuffix(segment, pods+".slice"):
			candidate = path[:end]
		}
	}
	return root, ok
}

// PodGroup is the part of a path down to the pod's own group, where path is
// read from below base; "" where there is no pod in it.
func PodGroup(base, path string) string {
	if base == "/" || !Below(base, path) {
		base = ""
	}
	inPods := false
	for start, end := range segments(path[len(base):]) {
		segment := path[len(base)+start : len(base)+end]
		inPods = inPods || strings.Contains(segment, pods)
		if inPods && podName(segment) != "" {
			return path[:len(base)+end]
		}
	}
	return ""
}

// ContainerRoot is the part of a path down to the innermost container's group;
// "/" where there is none: what is the root to those who live in it.
func ContainerRoot(path string) string {
	root, parent := "/", ""
	for start, end := range segments(path) {
		segment := path[start:end]
		if _, id := container(parent, segment); id != "" {
			root = path[:end]
		}
		parent = segment
	}
	return root
}

// segments gives where each name in a path starts and ends.
func segments(path string) func(yield func(start, end int) bool) {
	return func(yield func(start, end int) bool) {
		for start := 0; start < len(path); {
			if path[start] == '/' {
				start++
				continue
			}
			end := start
			for end < len(path) && path[end] != '/' {
				end++
			}
			if !yield(start, end) {
				return
			}
			start = end
		}
	}
}
