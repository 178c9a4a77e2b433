// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const ownPath = "/proc/thread-self/ns/net"

var (
	errPlain     = errors.New("nothing is mounted on it")
	errOtherKind = errors.New("a namespace of another kind")
)

// identify tells which network namespace is mounted on a path, and when it came
// there. It opens the file for a moment, only once it is sure to be a namespace.
func identify(path string) (inode uint32, since time.Time, err error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return 0, time.Time{}, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	if fs.Type != unix.NSFS_MAGIC {
		return 0, time.Time{}, errPlain
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, time.Time{}, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if errors.Is(err, unix.ENOTTY) { // unmounted since
		return 0, time.Time{}, errPlain
	}
	if err != nil {
		return 0, time.Time{}, &os.PathError{Op: "ask the kind of", Path: path, Err: err}
	}
	if kind != unix.CLONE_NEWNET {
		return 0, time.Time{}, errOtherKind
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, time.Time{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return uint32(st.Ino), time.Unix(st.Mtim.Unix()), nil
}

func inodeOf(path string) (uint32, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return uint32(st.Ino), nil
}

// What `ip netns add` and CNI plug-ins do: make a file, then a namespace, then
// mount it on the file. Only the first can be heard, so the file is looked at
// again and again, each time after a sixteenth of its age.
const (
	firstRetry = 200 * time.Microsecond
	lastRetry  = time.Second // of age; after that it is a sweep's
	maxWaiting = 4096        // files; also those that were given up
)

// pending are the files to look at.
type pending struct {
	now     []string             // at once
	waiting map[string]*patience // nothing was mounted on them yet
	stale   map[string]bool      // given up: only a sweep looks again
}

type patience struct{ since, next time.Time }

func newPending() *pending {
	return &pending{waiting: map[string]*patience{}, stale: map[string]bool{}}
}

// postpone plans the next look at a file on which nothing is mounted; false
// when there is no room to remember it.
func (p *pending) postpone(path string, now time.Time) bool {
	if p.stale[path] {
		return true
	}
	w := p.waiting[path]
	if w == nil {
		if len(p.waiting)+len(p.stale) >= maxWaiting {
			return false
		}
		w = &patience{since: now}
		p.waiting[path] = w
	}
	age := now.Sub(w.since)
	if age >= lastRetry {
		delete(p.waiting, path)
		p.stale[path] = true
		return true
	}
	w.next = now.Add(max(firstRetry, age/16))
	return true
}

// settled forgets a file: a namespace is mounted on it, or it is gone.
func (p *pending) settled(path string) {
	delete(p.waiting, path)
	delete(p.stale, path)
}

// renewed gives a file that was made anew all the patience of a new one.
func (p *pending) renewed(path string) bool {
	p.settled(path)
	return p.again(path)
}

// again looks at a file once more; false when there are too many.
func (p *pending) again(path string) bool {
	if len(p.now) >= maxKnown {
		return false
	}
	p.now = append(p.now, path)
	return true
}

// next is when there is something to do; zero when nothing.
func (p *pending) next() time.Time {
	var first time.Time
	for _, w := range p.waiting {
		if first.IsZero() || w.next.Before(first) {
			first = w.next
		}
	}
	return first
}

// due takes up to n files to look at now.
func (p *pending) due(now time.Time, n int) []string {
	n = min(n, len(p.now))
	out := slices.Clone(p.now[:n])
	if p.now = p.now[n:]; len(p.now) == 0 {
		p.now = nil
	}
	for path, w := range p.waiting {
		if !w.next.After(now) {
			out = append(out, path)
		}
	}
	return out
}

// check looks at the files that are due.
func (r *run) check() {
	for _, path := range r.files.due(time.Now(), 200) {
		r.checkFile(path)
	}
}

func (r *run) checkFile(path string) {
	inode, since, err := identify(path)
	switch {
	case err == nil:
		r.files.settled(path)
		r.see(Namespace{Inode: inode, Name: filepath.Base(path), Dir: filepath.Dir(path), Since: since}, path, 0)
	case errors.Is(err, errPlain):
		r.dropFile(path)
		if !r.files.postpone(path, time.Now()) {
			r.count(func(s *Stats) { s.Dropped++ })
		}
	case errors.Is(err, unix.ENOENT), errors.Is(err, errOtherKind):
		r.files.settled(path)
		r.dropFile(path)
	default:
		r.files.settled(path)
		r.failed, r.failing = true, true
		r.problem("file", fmt.Sprintf("the network namespace on %s cannot be opened: %s", path, why(err)))
	}
	r.tellStale()
}

// tellStale says which files have nothing on them after all.
func (r *run) tellStale() {
	if len(r.files.stale) == r.staleTold {
		return
	}
	r.staleTold = len(r.files.stale)
	if r.staleTold == 0 {
		r.solved("stale")
		return
	}
	one := slices.Min(slices.Collect(maps.Keys(r.files.stale)))
	r.problem("stale", fmt.Sprintf("%d files are there for network namespaces, but nothing is mounted on them here, as %s: "+
		"remove them if they were left behind; if others see a namespace there, mount their directory into this container with mountPropagation HostToContainer", r.staleTold, one))
}

// rescan reads the directories, as far as they are there. What could not be
// opened since the rescan before keeps its problem.
func (r *run) rescan() {
	r.unread = false
	if r.failing && !r.failed {
		r.failing = false
		r.solved("file")
	}
	r.failed = false
	for _, dir := range r.cfg.Dirs {
		names, err := list(dir)
		if err != nil {
			r.unread = true
			r.problem("dir "+dir, fmt.Sprintf("directory %s cannot be read: %s", dir, why(err)))
			continue
		}
		r.solved("dir " + dir)
		there := make(map[string]bool, len(names))
		for _, name := range names {
			path := filepath.Join(dir, name)
			there[path] = true
			if r.files.waiting[path] == nil && !r.files.again(path) {
				r.count(func(s *Stats) { s.Dropped++ })
			}
		}
		for _, path := range r.filesIn(dir) {
			if !there[path] {
				r.dropFile(path)
			}
		}
		for path := range r.files.stale {
			if filepath.Dir(path) == dir && !there[path] {
				r.files.settled(path)
			}
		}
	}
	r.tellStale()
}

// list names what is in a directory, up to the bound; one that is not there is
// empty.
func list(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(maxKnown)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, unix.ENOTDIR) {
		return nil, err
	}
	return names, nil
}
