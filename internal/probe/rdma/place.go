// SPDX-License-Identifier: Apache-2.0

package rdma

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// place is a network namespace in which there may be devices: the host's, or a
// pod's. While it is busy it is its job's, and else the round's.
type place struct {
	root  Root // zero for the host's
	tree  *tree
	found []found
	// The kernel has no RDMA at all, here and anywhere.
	none bool
	// Why it cannot be told what there is; nil where nothing is there.
	err  error
	lost uint64

	// The round's: it is being looked at, it is no more, and when it is looked at next
	// and how long after that again. Listed: in this round's roots.
	busy, gone, listed bool
	since, due         time.Time
	wait               time.Duration
}

func (p *place) host() bool { return p.root.Netns == 0 }

// look finds the place's devices. In the namespaces of most pods there are none.
func (p *place) look(s *Settings, hostDev uint64) {
	p.found, p.err, p.lost = p.found[:0], nil, 0
	if p.tree == nil {
		if p.host() {
			p.tree, p.err = openTree(s.Sysfs, s.Plain)
		} else {
			p.tree, p.err = openRoot(s.Proc, p.root, s.Plain)
			if p.err == nil && !s.Plain && p.tree.dev == hostDev {
				p.close() // a pod that was given the host's
				return
			}
		}
		if p.err != nil {
			p.tree = nil
			p.settle()
			return
		}
	}
	dir, err := p.tree.open("class/infiniband")
	p.none = errors.Is(err, os.ErrNotExist)
	if err != nil {
		p.err = err
		p.settle()
		return
	}
	defer dir.Close()
	list, err := names(dir, 4*mostDevices)
	p.err = err
	for _, name := range list {
		p.take(dir, name)
	}
}

// settle keeps of an error what somebody can do something about: processes end,
// and a container need not have a sysfs.
func (p *place) settle() {
	if p.host() && p.tree == nil {
		return
	}
	if !errors.Is(p.err, os.ErrPermission) && !errors.Is(p.err, unix.ENOSYS) {
		p.err = nil
	}
}

func (p *place) take(dir *os.File, name string) {
	if len(name) > longestName || len(p.found) == mostDevices {
		p.lost++
		return
	}
	var st unix.Stat_t
	if unix.Fstatat(int(dir.Fd()), name, &st, 0) != nil {
		return
	}
	var buf [unix.PathMax]byte
	n, err := unix.Readlinkat(int(dir.Fd()), name, buf[:])
	if err != nil {
		n = 0
	}
	p.found = append(p.found, found{name: name, inode: st.Ino, link: string(buf[:n])})
}

func (p *place) close() {
	if p.tree != nil {
		p.tree.close()
		p.tree = nil
	}
}

// rest closes a place that has no devices of its own, and has it looked at again
// later and later.
func (p *place) rest(now time.Time, longest time.Duration) {
	p.close()
	p.found = p.found[:0]
	p.wait = min(max(2*p.wait, time.Second), longest)
	p.due = now.Add(p.wait)
}
