// SPDX-License-Identifier: Apache-2.0

// Package cgroup names control groups: the id that the kernel gives with a
// socket or a process becomes a path in the v2 hierarchy, and the path tells
// the container or the systemd unit. It never asks a container runtime, never
// changes a group, and knows nothing of connections. Enrichment asks it, and
// whoever needs the processes of a container.
package cgroup

import "strings"

// Info is what a path tells. It is immutable and shared.
type Info struct {
	// From the root of the hierarchy: "/system.slice/ssh.service".
	Path string
	// "containerd", "cri-o", "docker", "podman", "nerdctl", "lxc"; "" where
	// there is no container, or the path does not say whose it is.
	Runtime string
	// As its runtime calls it: 64 hexadecimal digits, of LXC a name.
	Container string
	// In Kubernetes, of a container or of what the kubelet runs beside it.
	PodUID string
	// The deepest systemd unit but for slices, where there is no container.
	Unit string
}

// Parse reads a path. Where containers are nested, the innermost is who runs
// there: in kind a node is a container, and its pods are in it. Only in a pod
// it is the one right below the pod, since that is all that Kubernetes knows:
// what a container of a pod starts (Docker in Docker) is part of it, and so is
// what it names like a pod, where it may make groups.
func Parse(path string) Info {
	info := Info{Path: path}
	inPods, inPod := false, false
	parent := ""
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" {
			continue
		}
		inPods = inPods || strings.Contains(segment, pods)
		if podName(segment) != "" && inPods && !inPod {
			info.PodUID, info.Container, info.Runtime, inPod = podUID(segment), "", "", true
		}
		if runtime, id := container(parent, segment); id != "" && (info.Container == "" || !inPod) {
			info.Container, info.Runtime = id, runtime
		}
		if isUnit(segment) && !(segment == "init.scope" && info.Unit != "") {
			// The init.scope of a user's manager is the manager, not the system's.
			info.Unit = segment
		}
		parent = segment
	}
	if info.Container != "" {
		info.Unit = ""
	}
	return info
}

// pods is in the name of the group that a kubelet keeps all pods in.
const pods = "kubepods"

// scopes are how runtimes name the groups of their containers: with a scope's
// ending under systemd, without it where they make groups themselves.
var scopes = [...]struct{ prefix, runtime string }{
	{"cri-containerd-", "containerd"},
	{"crio-", "cri-o"},
	{"docker-", "docker"},
	{"libpod-", "podman"},
	{"nerdctl-", "nerdctl"},
}

// container gives the runtime and the id of the container whose group a
// segment is. Monitors (crio-conmon-, libpod-conmon-) are none: what follows
// their prefix is no id.
func container(parent, segment string) (runtime, id string) {
	name := strings.TrimSuffix(segment, ".scope")
	if isID(name) {
		if parent == "docker" {
			return "docker", name
		}
		return "", name
	}
	for _, s := range scopes {
		if id, ok := strings.CutPrefix(name, s.prefix); ok && isID(id) {
			return s.runtime, id
		}
	}
	// The kubelet speaks systemd's language and the runtime does not.
	if _, id, ok := strings.Cut(segment, ":cri-containerd:"); ok && isID(id) {
		return "containerd", id
	}
	if id, ok := strings.CutPrefix(segment, "lxc.payload."); ok {
		return "lxc", id
	}
	if parent == "lxc" || parent == "lxc.payload" {
		return "lxc", segment
	}
	return "", ""
}

// podUID reads kubepods-burstable-podUID.slice, where systemd's rules put "_"
// for "-", and podUID.
func podUID(segment string) string { return strings.ReplaceAll(podName(segment), "_", "-") }

// podName is the UID as it is written.
func podName(segment string) string {
	name, slice := strings.CutSuffix(segment, ".slice")
	if !slice {
		// kubepods-pod….slice:cri-containerd:ID
		name, _, slice = strings.Cut(segment, ".slice:")
	}
	dash := byte('-')
	if slice {
		at := strings.LastIndex(name, "-pod")
		if at < 0 || !strings.Contains(name[:at], pods) {
			return ""
		}
		name, dash = name[at+1:], '_'
	}
	uid, ok := strings.CutPrefix(name, "pod")
	if !ok || !isUID(uid, dash) {
		return ""
	}
	return uid
}

// isUID: of the API server a UUID, of a static pod 32 hexadecimal digits.
func isUID(s string, dash byte) bool {
	if len(s) != 36 {
		return len(s) == 32 && isHex(s)
	}
	for i := range 4 {
		if s[8+5*i] != dash {
			return false
		}
	}
	return isHex(s[:8]) && isHex(s[9:13]) && isHex(s[14:18]) && isHex(s[19:23]) && isHex(s[24:])
}

func isID(s string) bool { return len(s) == 64 && isHex(s) }

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func isUnit(segment string) bool {
	for _, suffix := range [...]string{".service", ".scope", ".socket", ".mount", ".swap", ".timer", ".path"} {
		if len(segment) > len(suffix) && strings.HasSuffix(segment, suffix) {
			return true
		}
	}
	return false
}
