// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// initialNamespace is the inode of the first cgroup namespace, whose root is
// the hierarchy's.
const initialNamespace = 0xeffffffb

var errNowhere = errors.New("the root of the agent's cgroup namespace is not known")

// Self tells in which group this process is, by the path in the whole
// hierarchy: in a cgroup namespace /proc does not. It may look at all groups,
// so it is for the start; Of works after it.
func (r *Resolver) Self(proc string) (string, error) {
	seen, err := readGroup(filepath.Join(proc, "self/cgroup"))
	if err != nil {
		return "", fmt.Errorf("own cgroup: %w (mount /proc)", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(proc, "self/ns/cgroup"), &st); err == nil && st.Ino == initialNamespace && r.partial == "" {
		r.setVisible("/")
		return seen, nil
	}
	self := r.search(uint32(os.Getpid()))
	if self == "" {
		return "", errors.New("own cgroup: this process is in no group that can be read (mount the host's /sys/fs/cgroup)")
	}
	// What the namespace does not show is what its root is below.
	if root, below := strings.CutSuffix(self, strings.TrimSuffix(seen, "/")); below {
		r.setVisible(path.Join("/", root))
	}
	return self, nil
}

// search looks for the group of a process of this pid namespace: first in what is
// mounted, which is mostly it or not far above.
func (r *Resolver) search(pid uint32) (found string) {
	tops := append(r.Mounted(), "/")
	for i, top := range tops {
		if slices.Contains(tops[:i], top) {
			continue
		}
		r.walkFrom(top, func(_ uint64, group string) bool {
			// What could be read counts.
			if pids, _ := r.Processes(group); slices.Contains(pids, pid) {
				found = group
			}
			return found == ""
		})
		if found != "" {
			return found
		}
	}
	return ""
}

func (r *Resolver) setVisible(root string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.visible = root
}

// Of tells in which group a process is, after Self.
func (r *Resolver) Of(proc string, pid uint32) (string, error) {
	r.mu.Lock()
	visible := r.visible
	r.mu.Unlock()
	if visible == "" {
		return "", fmt.Errorf("cgroup of process %d: %w", pid, errNowhere)
	}
	seen, err := readGroup(filepath.Join(proc, strconv.FormatUint(uint64(pid), 10), "cgroup"))
	if err != nil {
		return "", fmt.Errorf("cgroup of process %d: %w", pid, err)
	}
	return path.Join(visible, seen), nil
}

func readGroup(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	group, ok := parseGroup(text)
	if !ok {
		return "", errors.New("it is in no v2 hierarchy")
	}
	return group, nil
}

// parseGroup reads the v2 line of /proc/PID/cgroup. One that begins with /..
// is outside of the reader's namespace.
func parseGroup(text []byte) (string, bool) {
	for line := range bytes.Lines(text) {
		if group, ok := bytes.CutPrefix(bytes.TrimSuffix(line, []byte("\n")), []byte("0::/")); ok {
			return "/" + strings.TrimSuffix(string(group), " (deleted)"), true
		}
	}
	return "", false
}

// Mounted gives the paths of the groups that this process sees as the root of
// the hierarchy, in the order of its mounts: "/" on a machine, its own in a
// container, a node's where the host's /sys/fs/cgroup is mounted there.
func (r *Resolver) Mounted() []string {
	var out []string
	for _, id := range r.parts {
		if info, ok := r.Info(id); ok {
			out = append(out, info.Path)
		}
	}
	return out
}

// Within makes a group the root of what paths are read from, as ParseBelow
// does. It is for the start: what was told before is forgotten.
func (r *Resolver) Within(base string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.base = base
	r.cache = newCache(r.cache.bound)
}

// ID of the group at a path of the hierarchy; 0 where there is none.
func (r *Resolver) ID(path string) uint64 { return r.id(path) }

// Path is one by which this process opens a group.
func (r *Resolver) Path(group string) string { return filepath.Join(r.Root(), below(group)) }
