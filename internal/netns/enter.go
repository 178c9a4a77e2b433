// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

var errNotReturned = errors.New("what was to be done inside ended its goroutine")

// Enter runs fn in a namespace, on a thread of its own: sockets that fn opens
// stay there, goroutines that it starts do not. It returns fn's error, ErrGone
// when nothing refers to the namespace any more, or why it cannot be entered.
// Only while fn runs does this keep the namespace alive.
func (w *Watcher) Enter(inode uint32, fn func() error) error {
	done := make(chan error, 1)
	// A goroutine of its own: where its thread cannot go back, both end, and
	// the caller's thread was never away.
	go func() {
		err := errNotReturned
		defer func() { done <- err }()
		err = w.enter(inode, fn)
	}()
	return <-done
}

func (w *Watcher) enter(inode uint32, fn func() error) error {
	runtime.LockOSThread()
	home, err := w.visit(inode)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace %d: %w", inode, err)
	}
	defer func() {
		// Still locked, the thread ends with the goroutine.
		if unix.Setns(home, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		_ = unix.Close(home)
	}()
	return fn()
}

// visit takes the thread into a namespace, and returns the one it came from.
func (w *Watcher) visit(inode uint32) (home int, err error) {
	home, err = unix.Open(ownPath, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, w.refused(&os.PathError{Op: "open", Path: ownPath, Err: err})
	}
	if err = w.move(home, inode); err != nil {
		_ = unix.Close(home)
		return -1, err
	}
	return home, nil
}

// move takes the thread from home into a namespace, which may be the same.
func (w *Watcher) move(home int, inode uint32) error {
	if here, err := inodeOfFD(home); err != nil || here == inode {
		return err
	}
	there, err := w.open(inode)
	switch {
	case errors.Is(err, ErrGone):
		return err
	case err != nil:
		return w.refused(err)
	}
	defer unix.Close(there)
	if err := unix.Setns(there, unix.CLONE_NEWNET); err != nil {
		return w.refused(os.NewSyscallError("setns", err))
	}
	w.solved("enter")
	return nil
}

// refused notes why namespaces cannot be entered.
func (w *Watcher) refused(err error) error {
	w.problem("enter", "network namespaces cannot be entered: "+why(err))
	return err
}

// open opens a namespace by what it is known by, and by what a look all over
// the machine finds. The inode is compared after opening: a process may have
// moved or its number be another's, and a file be mounted on anew.
func (w *Watcher) open(inode uint32) (int, error) {
	found := -1
	var refusal error
	try := func(path string) bool {
		fd, ok, err := openIf(path, inode)
		if err != nil {
			refusal = err
		}
		if ok {
			found = fd
		}
		return ok
	}
	if slices.ContainsFunc(w.paths(inode), try) {
		return found, nil
	}
	err := w.search(inode, try)
	switch {
	case found >= 0:
		return found, nil
	case err != nil:
		return -1, err
	case refusal != nil:
		return -1, refusal
	}
	return -1, ErrGone
}

// Open opens a namespace, for what can be asked without entering it: that takes
// no capability where it is mounted on a file. While the file is open it keeps
// the namespace alive. Errors are those of Enter.
func (w *Watcher) Open(inode uint32) (*os.File, error) {
	fd, err := w.open(inode)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %d: %w", inode, err)
	}
	return os.NewFile(uintptr(fd), "network namespace"), nil
}

// paths are what a namespace is known by.
func (w *Watcher) paths(inode uint32) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.known[inode]
	if e == nil {
		return nil
	}
	paths := slices.Clone(e.files)
	if e.pid != 0 {
		paths = append(paths, w.ofProcess(e.pid))
	}
	return paths
}

func (w *Watcher) ofProcess(pid uint32) string {
	return filepath.Join(w.cfg.Proc, strconv.FormatUint(uint64(pid), 10), "ns/net")
}

// search offers each file and process that looks like the namespace, until one
// is taken.
func (w *Watcher) search(inode uint32, try func(path string) bool) error {
	for _, dir := range w.cfg.Dirs {
		names, err := list(dir)
		if err != nil {
			return err
		}
		for _, name := range names {
			path := filepath.Join(dir, name)
			if got, err := inodeOf(path); err == nil && got == inode && try(path) {
				return nil
			}
		}
	}
	if w.cfg.FilesOnly {
		return nil
	}
	procs, err := openProcs(w.cfg.Proc)
	if err != nil {
		return err
	}
	defer procs.close()
	for {
		pid, err := procs.next()
		if err != nil || pid == 0 {
			return err
		}
		if got, err := procs.netns(pid); err == nil && got == inode && try(w.ofProcess(pid)) {
			return nil
		}
	}
}

// openIf opens a path if it is the namespace; an error only where it exists and
// cannot be opened.
func openIf(path string, inode uint32) (fd int, ok bool, err error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return -1, false, unlessGone(path, err)
	}
	if fs.Type != unix.NSFS_MAGIC { // and maybe something that one better not opens
		return -1, false, nil
	}
	fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, false, unlessGone(path, err)
	}
	if got, err := inodeOfFD(fd); err != nil || got != inode {
		_ = unix.Close(fd)
		return -1, false, nil
	}
	return fd, true, nil
}

func unlessGone(path string, err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	return fmt.Errorf("open %s: %w", path, err)
}

func inodeOfFD(fd int) (uint32, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, os.NewSyscallError("fstat", err)
	}
	return uint32(st.Ino), nil
}
