// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// How long it is believed that there is no group of an id.
	negative = time.Second
	// Bounds of a walk, and of what is read of one group's processes.
	maxWalk, maxDepth, maxProcesses = 65536, 64, 4096
)

// Config of a resolver. The zero value works.
type Config struct {
	// Groups remembered; 0 means 10,000.
	Entries int
	// Where the v2 hierarchy is mounted; "" finds it.
	Mount string
}

// Resolver finds groups by their ids. An id is never used again and a group
// never changes its path, so what was found stays true. All methods are for
// any goroutine; a miss costs three system calls.
type Resolver struct {
	root *os.File
	// Where the root is in the file system; "" of a mount that is in no place.
	point string
	// Why only a part of it is seen; "" where all is. Then paths are of this part,
	// and ids, as ever, those of the whole.
	partial string
	// Where the part is in the whole, once that was told; "" is not known.
	above string
	// The parts of the hierarchy that are mounted, by the ids of their roots.
	parts []uint64

	mu     sync.Mutex // guards the rest
	cache  *cache
	walked time.Time
	// What is above is not read: the path of a node's root.
	base string
	// The root of this process's cgroup namespace; "" is not known.
	visible string
	// Handles are refused: only walks find groups.
	refused bool
	// Groups of the last walk were too many or too deep.
	cut    uint64
	closed bool
}

// Open finds the v2 hierarchy. It does not need to be mounted whole: an agent in
// a cgroup namespace opens the root by its handle and clones the mount from
// there, for itself alone. Where it may not, the part that is mounted is all
// that there is, and its root is the root.
func Open(cfg Config) (*Resolver, error) {
	if cfg.Entries <= 0 {
		cfg.Entries = 10_000
	}
	points := []string{cfg.Mount}
	if cfg.Mount == "" {
		text, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return nil, fmt.Errorf("open cgroups: %w", err)
		}
		points = mounts(text)
	}
	mount, parts, err := openMount(points)
	if err != nil {
		return nil, fmt.Errorf("open cgroups: %w", err)
	}
	r := &Resolver{root: mount, point: mount.Name(), parts: parts, cache: newCache(cfg.Entries)}
	if slices.Contains(parts, rootID) {
		return r, nil
	}
	whole, err := openWhole(mount)
	if err != nil {
		r.partial = err.Error()
		return r, nil
	}
	_ = mount.Close()
	r.root, r.point = whole, ""
	return r, nil
}

// Root is a path by which this process opens the root of the hierarchy, to
// attach something there.
func (r *Resolver) Root() string {
	if r.point != "" {
		return r.point
	}
	return fmt.Sprintf("/proc/self/fd/%d", r.root.Fd())
}

// Info tells who a group belongs to. False: there is no such group any more,
// and nobody told of it by Remember while there was.
func (r *Resolver) Info(id uint64) (*Info, bool) {
	if id == 0 {
		return nil, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.cache.get(id); e != nil {
		if e.info != nil {
			return e.info, true
		}
		if time.Now().Before(e.expires) {
			return nil, false
		}
	}
	if r.closed {
		return nil, false
	}
	return r.find(id)
}

// Remember notes a group of the v2 hierarchy that was just made, so that it can
// be named when it is gone already. The ids of v1 hierarchies are others: do
// not tell of those (in the kernel's tracepoint their hierarchy is not 0). The
// path is the kernel's, of the whole hierarchy; what is returned is as all other
// paths here, "" where the group is not in the part that is seen.
func (r *Resolver) Remember(id uint64, path string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	path, ok := r.within(id, path)
	if !ok {
		return ""
	}
	r.put(id, path)
	return path
}

// within makes a path of the whole hierarchy one of what is seen. A group that
// is found at the end of its path tells where that is. Callers hold mu.
func (r *Resolver) within(id uint64, path string) (string, bool) {
	if r.partial == "" {
		return path, true
	}
	for i := 1; r.above == "" && i < len(path); i++ {
		if path[i] == '/' && r.id(path[i:]) == id {
			r.above = path[:i]
		}
	}
	if r.above == "" || !Below(r.above, path) {
		return "", false
	}
	return path[len(r.above):], len(path) > len(r.above)
}

func (r *Resolver) put(id uint64, path string) *Info {
	info := ParseBelow(r.base, path)
	r.cache.put(id, &info, time.Time{})
	return &info
}

// find asks the kernel. Callers hold mu.
func (r *Resolver) find(id uint64) (*Info, bool) {
	if !r.refused {
		path, err := r.byHandle(id)
		if err == nil {
			return r.put(id, path), true
		}
		r.refused = errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)
	}
	if r.refused {
		if e := r.walk(id); e != nil && e.info != nil {
			return e.info, true
		}
	}
	r.cache.put(id, nil, time.Now().Add(negative))
	return nil, false
}

// byHandle opens the group by its id and reads where it is.
func (r *Resolver) byHandle(id uint64) (string, error) {
	fd, err := openID(int(r.root.Fd()), id)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var buf [4096]byte
	n, err := unix.Readlink("/proc/self/fd/"+strconv.Itoa(fd), buf[:])
	if err != nil {
		return "", err
	}
	found := r.relative(string(buf[:n]))
	if r.partial != "" && r.id(found) != id { // outside, or dying: which is not told
		return "", unix.ENOENT
	}
	// A group that dies while it is looked at. One may also be named so.
	if alive, ok := strings.CutSuffix(found, " (deleted)"); ok && r.id(found) != id {
		found = alive
	}
	return found, nil
}

// relative makes a path of this file system one of the hierarchy.
func (r *Resolver) relative(p string) string {
	if below := strings.TrimPrefix(p, r.point); below != "" {
		return below
	}
	return "/"
}

// id of the group at a path of the hierarchy, 0 where there is none.
func (r *Resolver) id(p string) uint64 {
	var st unix.Stat_t
	if unix.Fstatat(int(r.root.Fd()), below(p), &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return 0
	}
	return st.Ino
}

// below makes a path of the hierarchy one that starts from its root, and that
// does not leave it.
func below(p string) string { return "." + path.Clean("/"+p) }

// walk notes all groups, at most once a second, and gives the wanted one.
func (r *Resolver) walk(want uint64) *entry {
	if time.Since(r.walked) < negative {
		return nil
	}
	r.walked = time.Now()
	wanted := ""
	r.walkAll(func(id uint64, path string) bool {
		if id == want {
			wanted = path
		}
		if e := r.cache.entries[id]; e == nil || e.info == nil {
			r.put(id, path)
		}
		return true
	})
	if wanted == "" {
		return nil
	}
	r.put(want, wanted) // last, so that the others did not drive it out
	return r.cache.get(want)
}

// walkAll visits all groups, until visit says no, in bounds.
func (r *Resolver) walkAll(visit func(id uint64, path string) bool) { r.walkFrom("/", visit) }

func (r *Resolver) walkFrom(top string, visit func(id uint64, path string) bool) {
	n := 0
	var enter func(dir string, depth int) bool
	enter = func(dir string, depth int) bool {
		for _, p := range r.Children(dir) {
			if n++; n > maxWalk || depth > maxDepth {
				r.cut++
				return n <= maxWalk
			}
			if id := r.id(p); id != 0 && !visit(id, p) || !enter(p, depth+1) {
				return false
			}
		}
		return true
	}
	if id := r.id(top); visit(id, top) {
		enter(top, 0)
	}
}

// Children gives the paths of the groups in a group, in bounds.
func (r *Resolver) Children(dir string) []string {
	fd, err := unix.Openat(int(r.root.Fd()), below(dir), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	f := os.NewFile(uintptr(fd), dir)
	defer f.Close()
	entries, _ := f.ReadDir(maxWalk)
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, path.Join("/", dir, e.Name()))
		}
	}
	return out
}

// Processes gives the processes that are in the group itself, not those of its
// children; at most 4,096, of which the error then tells.
func (r *Resolver) Processes(group string) ([]uint32, error) {
	fd, err := unix.Openat(int(r.root.Fd()), below(group)+"/cgroup.procs", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("processes of %s: %w", group, err)
	}
	f := os.NewFile(uintptr(fd), group)
	defer f.Close()
	pids, err := readProcesses(f)
	if err != nil {
		return pids, fmt.Errorf("processes of %s: %w", group, err)
	}
	return pids, nil
}

// readProcesses: one number a line; 0 is a process of another pid namespace.
func readProcesses(from io.Reader) ([]uint32, error) {
	var pids []uint32
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		pid, err := strconv.ParseUint(lines.Text(), 10, 32)
		if err != nil {
			return pids, fmt.Errorf("%q is no process", lines.Text())
		}
		if len(pids) == maxProcesses {
			return pids, fmt.Errorf("more than %d; the rest is left out", maxProcesses)
		}
		if pid != 0 {
			pids = append(pids, uint32(pid))
		}
	}
	return pids, lines.Err()
}

// Problems tells what is worse than it could be; nil on a good machine.
func (r *Resolver) Problems() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	switch {
	case r.partial != "":
		out = append(out, fmt.Sprintf("only the part of the cgroups at %s is seen, and processes outside of it have no names: %s "+
			"(mount the host's /sys/fs/cgroup, or give the agent CAP_DAC_READ_SEARCH and CAP_SYS_ADMIN)", r.point, r.partial))
	case r.refused:
		out = append(out, "cgroups are found by walking: opening them by id is refused (give the agent CAP_DAC_READ_SEARCH)")
	}
	if r.cut > 0 {
		out = append(out, fmt.Sprintf("more than %d cgroups, or deeper than %d: some have no name", maxWalk, maxDepth))
	}
	return out
}

// Close frees the files; what is remembered still answers. It is idempotent.
func (r *Resolver) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	return r.root.Close()
}
