// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// One set for all: a directory that is watched for two reasons has one watch.
const (
	cameMask  = unix.IN_CREATE | unix.IN_MOVED_TO
	wentMask  = unix.IN_DELETE | unix.IN_MOVED_FROM
	selfMask  = unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	endedMask = selfMask | unix.IN_UNMOUNT | unix.IN_IGNORED
	watchMask = cameMask | wentMask | selfMask | unix.IN_ONLYDIR
)

// change is something that happened in a directory.
type change struct {
	watch int32
	mask  uint32
	name  string
}

// watch is an inotify instance. A goroutine of its own reads it and waits until
// what it read has been taken: beyond that the kernel's queue is the bound.
type watch struct {
	fd      int
	file    *os.File
	paths   map[int32]string
	changes chan []change // closed when it cannot be read any more
	quit    chan struct{}
}

func openWatch() (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	w := &watch{
		fd:      fd,
		file:    os.NewFile(uintptr(fd), "inotify"),
		paths:   map[int32]string{},
		changes: make(chan []change),
		quit:    make(chan struct{}),
	}
	go w.read()
	return w, nil
}

func (w *watch) read() {
	defer close(w.changes)
	buf := make([]byte, 64<<10)
	for {
		n, err := w.file.Read(buf)
		if err != nil {
			return
		}
		select {
		case w.changes <- parseChanges(buf[:n]):
		case <-w.quit:
			return
		}
	}
}

// close ends the reader and waits for it.
func (w *watch) close() {
	if w == nil {
		return
	}
	close(w.quit)
	_ = w.file.Close()
	for range w.changes { // until the reader closes it
	}
}

// parseChanges takes inotify's records apart.
func parseChanges(b []byte) []change {
	var out []change
	for len(b) >= unix.SizeofInotifyEvent {
		order := binary.NativeEndian
		c := change{watch: int32(order.Uint32(b)), mask: order.Uint32(b[4:])}
		length := int(order.Uint32(b[12:]))
		b = b[unix.SizeofInotifyEvent:]
		if length > len(b) {
			break
		}
		name := b[:length]
		if end := bytes.IndexByte(name, 0); end >= 0 {
			name = name[:end]
		}
		c.name = string(name)
		out = append(out, c)
		b = b[length:]
	}
	return out
}

// rewatch makes the watches match the directories that exist. A directory that
// does not is awaited in the nearest one above it that does.
func (r *run) rewatch() {
	r.unwatched = false
	if r.watch == nil {
		var err error
		if r.watch, err = openWatch(); err != nil {
			r.unwatched = true
			r.problem("inotify", fmt.Sprintf("inotify is not available: %s; namespaces that have a name are looked for each %v", whyNoInotify(err), pollTime))
			return
		}
		r.solved("inotify")
	}
	want := map[int32]string{}
	for _, dir := range r.cfg.Dirs {
		if err := r.watch.await(dir, want); err != nil {
			r.unwatched = true
			r.problem("watch "+dir, fmt.Sprintf("directory %s cannot be watched: %s; it is read each %v", dir, whyNoWatch(err), pollTime))
			continue
		}
		r.solved("watch " + dir)
	}
	for wd := range r.watch.paths {
		if _, ok := want[wd]; !ok {
			// Fails where the directory is gone, and the watch with it.
			_, _ = unix.InotifyRmWatch(r.watch.fd, uint32(wd))
		}
	}
	r.watch.paths = want
}

// await watches a directory, or what its way there lacks.
func (w *watch) await(dir string, want map[int32]string) error {
	const tries = 8 // each time something appeared in between
	for range tries {
		path, missing := dir, ""
		for {
			// On one that is watched already it returns the same number.
			wd, err := unix.InotifyAddWatch(w.fd, path, watchMask)
			if err == nil {
				want[int32(wd)] = path
				break
			}
			up := filepath.Dir(path)
			if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) || up == path {
				return err
			}
			path, missing = up, path
		}
		if missing == "" {
			return nil
		}
		if _, err := os.Stat(missing); errors.Is(err, os.ErrNotExist) {
			return nil
		}
	}
	return unix.ENOTDIR
}

// whyNoInotify: one number for two limits.
func whyNoInotify(err error) string {
	if errors.Is(err, unix.EMFILE) {
		fd, other := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
		if other == nil {
			_ = unix.Close(fd)
			return "the user has too many instances (raise fs.inotify.max_user_instances)"
		}
	}
	return why(err)
}

func whyNoWatch(err error) string {
	if errors.Is(err, unix.ENOSPC) {
		return "the user has too many watches (raise fs.inotify.max_user_watches)"
	}
	return why(err)
}

// changed takes in what the kernel told; not ok when it tells no more.
func (r *run) changed(changes []change, ok bool) {
	if !ok {
		r.watch.close()
		r.watch, r.unwatched = nil, true
		return // the next poll opens another
	}
	again := false
	for _, c := range changes {
		if c.mask&unix.IN_Q_OVERFLOW != 0 {
			r.count(func(s *Stats) { s.Overflows++ })
			again = true
			continue
		}
		dir, known := r.watch.paths[c.watch]
		if !known {
			continue
		}
		if c.mask&endedMask != 0 {
			again = true
			continue
		}
		path := filepath.Join(dir, c.name)
		if slices.Contains(r.cfg.Dirs, dir) {
			r.changedFile(path, c.mask)
		}
		if c.mask&cameMask != 0 && r.leadsToDir(path) {
			again = true
		}
	}
	if again {
		r.refresh()
	}
}

func (r *run) changedFile(path string, mask uint32) {
	if mask&wentMask != 0 {
		r.files.settled(path)
		r.dropFile(path)
		r.tellStale()
		return
	}
	if mask&cameMask != 0 && !r.files.renewed(path) {
		r.count(func(s *Stats) { s.Dropped++ })
	}
}

// leadsToDir: a directory, or one above it, has come.
func (r *run) leadsToDir(path string) bool {
	return slices.ContainsFunc(r.cfg.Dirs, func(dir string) bool {
		return dir == path || strings.HasPrefix(dir, path+"/")
	})
}
