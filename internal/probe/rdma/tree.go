// SPDX-License-Identifier: Apache-2.0

package rdma

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// tree is a sysfs as one network namespace sees it. What is opened in it lies in
// it: neither a link nor something that a pod has mounted there leads out.
type tree struct {
	root *os.File
	// The file system's device number: each namespace has a sysfs of its own.
	dev uint64
}

var (
	errNoSysfs = errors.New("is not sysfs")
	errLong    = errors.New("is too long")
)

// openTree opens the host's.
func openTree(path string, plain bool) (*tree, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return newTree(f, plain)
}

// openRoot opens that of a process's namespace.
func openRoot(proc string, r Root, plain bool) (*tree, error) {
	dir := filepath.Join(proc, strconv.FormatUint(uint64(r.PID), 10))
	root, err := os.Open(filepath.Join(dir, "root"))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := openAt(root, "sys", unix.O_DIRECTORY, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return nil, err
	}
	// The number may have been given to another process meanwhile.
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "ns/net"), &st); !plain && (err != nil || uint32(st.Ino) != r.Netns) {
		f.Close()
		return nil, fmt.Errorf("process %d: %w", r.PID, os.ErrNotExist)
	}
	return newTree(f, plain)
}

func newTree(f *os.File, plain bool) (*tree, error) {
	var fs unix.Statfs_t
	var st unix.Stat_t
	err := errors.Join(unix.Fstatfs(int(f.Fd()), &fs), unix.Fstat(int(f.Fd()), &st))
	if err == nil && !plain && fs.Type != unix.SYSFS_MAGIC {
		err = fmt.Errorf("%s %w", f.Name(), errNoSysfs)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &tree{root: f, dev: st.Dev}, nil
}

func (t *tree) close() { t.root.Close() }

// again is the tree once more, for another that closes it.
func (t *tree) again() (*tree, error) {
	fd, err := unix.FcntlInt(t.root.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &tree{root: os.NewFile(uintptr(fd), t.root.Name()), dev: t.dev}, nil
}

// open opens a directory of the tree.
func (t *tree) open(path string) (*os.File, error) {
	return openAt(t.root, path, unix.O_DIRECTORY,
		unix.RESOLVE_BENEATH|unix.RESOLVE_NO_XDEV|unix.RESOLVE_NO_MAGICLINKS)
}

// list is at most so many names of what is in a directory of the tree.
func (t *tree) list(path string, most int) ([]string, error) {
	dir, err := t.open(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return names(dir, most)
}

// value reads a file of a directory of the tree.
func (t *tree) value(path, name string, buf []byte) (string, error) {
	dir, err := t.open(path)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	return readWord(int(dir.Fd()), name, buf)
}

func openAt(dir *os.File, path string, flags, resolve uint64) (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | flags, Resolve: resolve}
	for range 8 {
		fd, err := unix.Openat2(int(dir.Fd()), path, &how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path), nil
		case err != unix.EAGAIN && err != unix.EINTR: // something was renamed on the way
			return nil, &os.PathError{Op: "openat2", Path: path, Err: err}
		}
	}
	return nil, &os.PathError{Op: "openat2", Path: path, Err: unix.EAGAIN}
}

// names is what is in a directory, most at most.
func names(dir *os.File, most int) ([]string, error) {
	list, err := dir.Readdirnames(most)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return list, err
}

// readFile reads a file that lies in a directory itself, into buf.
func readFile(dir int, name string, buf []byte) ([]byte, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	n, err := unix.Read(fd, buf)
	unix.Close(fd)
	if err != nil {
		return nil, err
	}
	return bytes.TrimSpace(buf[:n]), nil
}

// readWord reads a short text; what is not UTF-8 is replaced.
func readWord(dir int, name string, buf []byte) (string, error) {
	b, err := readFile(dir, name, buf)
	if err == nil && len(b) > longestName {
		err = errLong
	}
	if err != nil {
		return "", err
	}
	return strings.ToValidUTF8(string(b), "\uFFFD"), nil
}
