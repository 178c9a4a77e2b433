// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Processes tells which network namespace a process is in: by the process
// table, else by the name (nsid) that the own namespace has for it. The kernel
// tells that of any process, also to those who may not look at it
// (SYS_PTRACE), but only of namespaces that are mounted on a file it is known
// which they are. The zero value works.
type Processes struct {
	Proc string   // "" means /proc
	Dirs []string // nil means /run/netns

	mu     sync.Mutex // guards the rest
	files  map[int]string
	listed time.Time
}

// relist is how often the files are listed at most.
const relist = 100 * time.Millisecond

// Netns gives the namespace, and when the process started, in ticks since boot.
func (p *Processes) Netns(pid uint32) (inode uint32, start uint64, err error) {
	proc := p.Proc
	if proc == "" {
		proc = "/proc"
	}
	inode, start, err = OfProcess(proc, pid)
	if !errors.Is(err, unix.EACCES) {
		return inode, start, err
	}
	if inode, err = p.named(func() (int, error) { return netlink.GetNetNsIdByPid(int(pid)) }); err != nil {
		return 0, 0, fmt.Errorf("network namespace of process %d: %w", pid, err)
	}
	start, err = started(proc, pid)
	return inode, start, err
}

var errNoFile = errors.New("it is mounted on no file, and the process may not be looked at without the capability SYS_PTRACE")

// named gives the namespace whose name is told.
func (p *Processes) named(name func() (nsid int, err error)) (inode uint32, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	nsid, err := name()
	if err != nil {
		return 0, err
	}
	if inode, ok := p.check(nsid); ok {
		return inode, nil
	}
	if time.Since(p.listed) < relist {
		return 0, errNoFile
	}
	if err := p.list(); err != nil {
		return 0, err
	}
	// It may have had no name before it was listed.
	if nsid, err = name(); err != nil {
		return 0, err
	}
	if inode, ok := p.check(nsid); ok {
		return inode, nil
	}
	return 0, errNoFile
}

// check opens the file of a name: that may be another's by now, and what is
// mounted on the file, too.
func (p *Processes) check(nsid int) (inode uint32, ok bool) {
	path := p.files[nsid]
	if path == "" {
		return 0, false
	}
	inode, is, err := nameOf(path)
	return inode, err == nil && is == nsid
}

// list names what is mounted on files.
func (p *Processes) list() error {
	dirs := p.Dirs
	if dirs == nil {
		dirs = []string{"/run/netns"}
	}
	p.files, p.listed = map[int]string{}, time.Now()
	for _, dir := range dirs {
		names, err := list(dir)
		if err != nil {
			return fmt.Errorf("list %s: %w", dir, err)
		}
		for _, name := range names[:min(len(names), maxKnown)] {
			path := filepath.Join(dir, name)
			if _, nsid, err := nameOf(path); err == nil && nsid >= 0 {
				p.files[nsid] = path
			}
		}
	}
	return nil
}

// nameOf gives what is mounted on a file, and how the own namespace calls it:
// it is given a name where it has none.
func nameOf(path string) (inode uint32, nsid int, err error) {
	inode, _, err = identify(path)
	if err != nil {
		return 0, -1, err
	}
	fd, is, err := openIf(path, inode)
	if err != nil || !is {
		return 0, -1, errors.Join(err, ErrGone)
	}
	defer unix.Close(fd)
	nsid, err = netlink.GetNetNsIdByFd(fd)
	if err != nil || nsid >= 0 {
		return inode, nsid, err
	}
	if err = netlink.SetNetNsIdByFd(fd, -1); err != nil && !errors.Is(err, unix.EEXIST) { // the kernel chooses
		return 0, -1, err
	}
	nsid, err = netlink.GetNetNsIdByFd(fd)
	return inode, nsid, err
}

// started is when a process started, in ticks since boot.
func started(proc string, pid uint32) (uint64, error) {
	stat, err := os.ReadFile(filepath.Join(proc, strconv.FormatUint(uint64(pid), 10), "stat"))
	if err != nil {
		return 0, fmt.Errorf("start of process %d: %w", pid, err)
	}
	start, ok := parseStart(stat)
	if !ok {
		return 0, fmt.Errorf("process %d: %s does not read like a process table", pid, proc)
	}
	return start, nil
}
