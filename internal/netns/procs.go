// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// procs reads a process table without allocating for each process. Its
// descriptor is of /proc, which keeps no namespace of a process alive.
type procs struct {
	root  string
	fd    int
	own   uint32 // this process, whose first thread may be inside Enter
	dents [32 << 10]byte
	rest  []byte // of dents, not yet read
	path  [32]byte
	text  [64]byte
}

func openProcs(root string) (*procs, error) {
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: root, Err: err}
	}
	p := &procs{root: root, fd: fd}
	if self, err := os.Readlink(filepath.Join(root, "self")); err == nil {
		p.own, _ = parsePID([]byte(self))
	}
	return p, nil
}

func (p *procs) close() { _ = unix.Close(p.fd) }

// rewind begins with the first process again.
func (p *procs) rewind() error {
	p.rest = nil
	if _, err := unix.Seek(p.fd, 0, 0); err != nil {
		return &os.PathError{Op: "seek", Path: p.root, Err: err}
	}
	return nil
}

// next is the next process, but for this one; 0 at the end.
func (p *procs) next() (uint32, error) {
	for {
		if len(p.rest) == 0 {
			n, err := unix.Getdents(p.fd, p.dents[:])
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return 0, &os.PathError{Op: "read", Path: p.root, Err: err}
			}
			if n <= 0 {
				return 0, nil
			}
			p.rest = p.dents[:n]
		}
		var pid uint32
		pid, p.rest = nextPID(p.rest)
		if pid != 0 && pid != p.own {
			return pid, nil
		}
	}
}

// nextPID takes one entry off what getdents64 wrote; 0 where it is no process.
func nextPID(b []byte) (pid uint32, rest []byte) {
	const header = 8 + 8 + 2 + 1 // inode, offset, length, type
	if len(b) < header {
		return 0, nil
	}
	length := int(binary.NativeEndian.Uint16(b[16:]))
	if length < header || length > len(b) {
		return 0, nil
	}
	name := b[header:length]
	if end := bytes.IndexByte(name, 0); end >= 0 {
		name = name[:end]
	}
	pid, _ = parsePID(name)
	return pid, b[length:]
}

// parsePID reads a positive number that fits; false for all else.
func parsePID(b []byte) (uint32, bool) {
	if len(b) == 0 || len(b) > 10 {
		return 0, false
	}
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return uint32(n), n > 0 && n <= 1<<32-1
}

// netns is the namespace that a process is in. The error is a plain errno.
func (p *procs) netns(pid uint32) (uint32, error) {
	path := append(strconv.AppendUint(p.path[:0], uint64(pid), 10), "/ns/net\x00"...)
	n, _, errno := unix.Syscall6(unix.SYS_READLINKAT, uintptr(p.fd), uintptr(unsafe.Pointer(&path[0])),
		uintptr(unsafe.Pointer(&p.text[0])), uintptr(len(p.text)), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	inode, ok := parseLink(p.text[:n])
	if !ok {
		return 0, unix.EINVAL
	}
	return inode, nil
}

// OfProcess tells which namespace a process of a process table is in, and when
// it started, in ticks since boot.
func OfProcess(proc string, pid uint32) (inode uint32, start uint64, err error) {
	link, err := os.Readlink(filepath.Join(proc, strconv.FormatUint(uint64(pid), 10), "ns/net"))
	if err != nil {
		return 0, 0, fmt.Errorf("network namespace of process %d: %w", pid, err)
	}
	inode, ok := parseLink([]byte(link))
	if !ok {
		return 0, 0, fmt.Errorf("process %d: %s does not read like a process table", pid, proc)
	}
	start, err = started(proc, pid)
	return inode, start, err
}

// parseLink reads net:[4026531840].
func parseLink(b []byte) (uint32, bool) {
	b, ok := bytes.CutPrefix(b, []byte("net:["))
	if !ok {
		return 0, false
	}
	b, ok = bytes.CutSuffix(b, []byte("]"))
	if !ok {
		return 0, false
	}
	return parsePID(b)
}

// born is when a process started; now where that cannot be told.
func (p *procs) born(pid uint32) time.Time {
	now := time.Now()
	b, err := os.ReadFile(filepath.Join(p.root, strconv.FormatUint(uint64(pid), 10), "stat"))
	if err != nil {
		return now
	}
	ticks, ok := parseStart(b)
	var up unix.Timespec
	if !ok || unix.ClockGettime(unix.CLOCK_BOOTTIME, &up) != nil {
		return now
	}
	const tick = 10 * time.Millisecond // what /proc counts in, whatever the kernel does
	age := time.Duration(up.Nano()) - time.Duration(ticks)*tick
	return now.Add(-max(0, age))
}

// parseStart reads the start of a process from its stat, in ticks since boot:
// the 20th field after the name, which may hold anything, parentheses too.
func parseStart(b []byte) (uint64, bool) {
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return 0, false
	}
	fields := bytes.Fields(b[end+1:])
	if len(fields) < 20 {
		return 0, false
	}
	// 39 bits are 174 years; time.Duration does not hold many more.
	n, err := strconv.ParseUint(string(fields[19]), 10, 39)
	return n, err == nil
}

// A slice of a sweep is short, so that files and hints need not wait for long.
const (
	sliceProcesses = 500
	sliceTime      = time.Millisecond
)

// sweep is one walk through the process table, in slices.
type sweep struct {
	number    uint64
	running   bool
	processes int
	denied    int
	spent     time.Duration
	last      uint32 // namespace of the process before: mostly the same
	// Namespaces that are not wanted, by a process of theirs that was asked about.
	refused map[uint32]int
}

// maxAsked is how many processes of one namespace are asked about in a sweep:
// the first may be a guest in it.
const maxAsked = 16

func (s *sweep) isRefused(inode uint32) bool { return s.refused[inode] >= maxAsked }

// slice looks at some processes; false once the sweep has ended.
func (r *run) slice() bool {
	s := &r.sweep
	begin := time.Now()
	defer func() { s.spent += time.Since(begin) }()
	for i := range sliceProcesses {
		pid, err := r.procs.next()
		if err != nil {
			r.problem("proc", "the process table cannot be read: "+why(err))
			return false
		}
		if pid == 0 {
			r.solved("proc")
			return false
		}
		s.processes++
		inode, err := r.procs.netns(pid)
		switch {
		case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
			if r.cfg.Wanted == nil || r.cfg.Wanted(Namespace{PID: pid}) {
				s.denied++
			}
		case err == nil && inode != s.last:
			s.last = inode
			if !r.isSeen(inode, s.number) && !s.isRefused(inode) {
				r.seeProcess(inode, pid)
			}
		}
		if i%32 == 31 && time.Since(begin) > sliceTime {
			return true
		}
	}
	return true
}

// seeProcess notes that a process is in a namespace.
func (r *run) seeProcess(inode, pid uint32) {
	ns := Namespace{Inode: inode, PID: pid}
	if !r.knows(inode) {
		ns.Since = r.procs.born(pid)
	}
	r.see(ns, "", r.sweep.number)
	if r.cfg.Wanted != nil && len(r.sweep.refused) < maxKnown && !r.knows(inode) {
		if r.sweep.refused == nil {
			r.sweep.refused = make(map[uint32]int)
		}
		r.sweep.refused[inode]++
	}
}

func (w *Watcher) knows(inode uint32) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known[inode] != nil
}

// hint looks at one process.
func (r *run) hint(pid uint32) {
	inode, err := r.procs.netns(pid)
	switch {
	case err != nil:
		r.count(func(s *Stats) { s.HintsGone++ })
	case pid != r.procs.own:
		r.seeProcess(inode, pid)
	}
}

// finish closes the books of a sweep and plans the next.
func (r *run) finish() {
	s := &r.sweep
	s.running = false
	r.swept = time.Now()
	// 0.2 % of a core.
	interval := max(r.cfg.Sweep, s.spent*500)
	r.nextSweep = r.swept.Add(interval)
	if s.denied > 0 {
		r.problem("denied", fmt.Sprintf("the network namespaces of %d processes cannot be read: %s", s.denied, why(unix.EACCES)))
	} else {
		r.solved("denied")
	}
	if r.Stats().Known < maxKnown {
		r.solved("bound")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	alone := 0
	for inode, e := range r.known {
		if e.sweep != s.number {
			e.pid = 0
		}
		if e.pid == 0 && len(e.files) == 0 && inode != r.own {
			alone++
		}
	}
	r.stats.Sweeps++
	r.stats.Processes, r.stats.SweepTime, r.stats.Interval = s.processes, s.spent, interval
	r.stats.Unreferenced = alone
}
