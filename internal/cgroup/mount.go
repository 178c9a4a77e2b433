// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// rootID is the id of the root of the hierarchy: the root's inode.
const rootID = 1

// fileHandle is FILEID_KERNFS: the node's 64-bit id, which a cgroup's id is.
const fileHandle = 0xfe

// mounts gives the places where the v2 hierarchy is mounted, of the text of
// /proc/self/mountinfo: /sys/fs/cgroup, or with v1 beside it …/unified. The one
// of which most is mounted goes first.
func mounts(mountinfo []byte) []string {
	type place struct {
		point string
		depth int // of its root, from the root of this process's cgroup namespace
	}
	var found []place
	for line := range bytes.Lines(mountinfo) {
		before, after, ok := bytes.Cut(line, []byte(" - "))
		if !ok || !bytes.HasPrefix(after, []byte("cgroup2 ")) {
			continue
		}
		// id, parent, device, root, mount point, …
		if fields := bytes.Fields(before); len(fields) >= 5 {
			root := fields[3]
			up := bytes.Count(root, []byte("/.."))
			down := bytes.Count(bytes.TrimSuffix(root, []byte("/")), []byte("/")) - up
			found = append(found, place{unescape(fields[4]), down - up})
		}
	}
	slices.SortStableFunc(found, func(a, b place) int { return a.depth - b.depth })
	points := make([]string, len(found))
	for i, p := range found {
		points[i] = p.point
	}
	return points
}

// unescape: the kernel writes blanks, newlines and backslashes as \040.
func unescape(b []byte) string {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+3 < len(b) {
			if n, err := strconv.ParseUint(string(b[i+1:i+4]), 8, 8); err == nil {
				out = append(out, byte(n))
				i += 3
				continue
			}
		}
		out = append(out, b[i])
	}
	return string(out)
}

// openMount opens the hierarchy where it is mounted whole, else where a part
// of it is: a container sees its own group as the root. It gives the ids of the
// roots of all that is mounted.
func openMount(points []string) (mount *os.File, parts []uint64, err error) {
	err = errors.New("no cgroup2 is mounted: mount one at /sys/fs/cgroup, or in a container mount the host's there")
	for _, point := range points {
		f, openErr := os.OpenFile(point, os.O_RDONLY|unix.O_DIRECTORY, 0)
		if openErr != nil {
			err = fmt.Errorf("%w; needs root", openErr)
			continue
		}
		id, statErr := rootOf(f)
		if statErr != nil { // another mount is on top
			_ = f.Close()
			continue
		}
		whole := id == rootID && !slices.Contains(parts, rootID)
		parts = append(parts, id)
		if mount != nil && !whole {
			_ = f.Close()
			continue
		}
		if mount != nil {
			_ = mount.Close()
		}
		mount = f
	}
	if mount == nil {
		return nil, nil, err
	}
	return mount, parts, nil
}

// rootOf is the id of the group that a mount shows as its root.
func rootOf(f *os.File) (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return 0, err
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return 0, errors.New("no cgroup2")
	}
	return inode(int(f.Fd()))
}

// openWhole makes of a mount of a part one of the whole, which is in no place
// and goes with the file.
func openWhole(part *os.File) (*os.File, error) {
	root, err := openID(int(part.Fd()), rootID)
	if err != nil {
		return nil, fmt.Errorf("open its root by handle: %w", err)
	}
	defer unix.Close(root)
	// Seen through the mount of a part, a group outside of it has no path.
	tree, err := unix.OpenTree(root, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, fmt.Errorf("clone its mount: %w", err)
	}
	defer unix.Close(tree)
	// A tree is opened as a path alone: a descriptor to read by is another.
	fd, err := unix.Openat(tree, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "/"), nil
}

func inode(fd int) (uint64, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return st.Ino, err
}

// openID opens a group by its id, whether its path is below the mount or not.
func openID(mount int, id uint64) (int, error) {
	var raw [8]byte
	for i := range raw {
		raw[i] = byte(id >> (8 * i)) // the machines that orb8 runs on are little-endian
	}
	return unix.OpenByHandleAt(mount, unix.NewFileHandle(fileHandle, raw[:]), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
}
