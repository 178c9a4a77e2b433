// SPDX-License-Identifier: Apache-2.0

// Package netns finds the network namespaces of this machine as they appear,
// and enters them. It never keeps one alive: no descriptor, socket or mount of
// it stays here, only the names by which it can be opened again. It does not
// know what is in a namespace, nor when one is gone for good: who has a socket
// that listens to all namespaces tells it (Forget). The agent's pipeline reads
// it.
//
// Namespaces are found by the files that ip, CNI plug-ins and Docker mount
// them on (inotify), by processes that are hinted at, and by a sweep of the
// process table as backstop. Of a process only its first thread is looked at:
// a namespace that only another thread is in stays unseen.
package netns

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace of this machine, found by Watcher.
type Namespace struct {
	Inode uint32
	// File name under one of the directories, and the directory; "" where a
	// process was all there was of it.
	Name, Dir string
	// A process in it at the time it was found; 0 when found by name.
	PID uint32
	// Best known birth: that of the file, or the start of the process.
	Since time.Time
}

// Config of a watcher. The zero value works.
type Config struct {
	Dirs []string // nil means /run/netns and /run/docker/netns
	Proc string   // "" means /proc
	// Found is called from Run, one at a time, for each namespace that is newly
	// found, the process's own included. It may call Enter and Forget.
	Found func(Namespace)
	// Wanted is asked before, also from Run; nil wants all. What is not wanted
	// stays unknown: it is asked about again at each file, hint and sweep that
	// meets it. Of a process that may not be looked at it is asked without an
	// inode: whether that is to be told.
	Wanted func(Namespace) bool
	// Files alone tell of namespaces, for who may not look at processes: no sweep,
	// no hints.
	FilesOnly bool
	Log       *slog.Logger
	// Between two sweeps of the process table, at least; 0 means 10 s. It grows
	// with the table, so that sweeping stays below 0.2 % of a core.
	Sweep time.Duration
}

// Bounds. A sweep finds again what found no room, when there is some.
const (
	maxKnown   = 65536 // namespaces
	maxNames   = 8     // files that one namespace is remembered by
	hintBuffer = 1024
)

// ErrGone is what Enter returns when nothing refers to the namespace any more.
var ErrGone = errors.New("network namespace is gone")

// Watcher knows the namespaces. Run is for one goroutine at a time, the rest is
// for any.
type Watcher struct {
	cfg   Config
	log   *slog.Logger
	hints chan uint32
	wake  chan struct{} // look or again has something

	// mu guards what follows. It is never held across a system call.
	mu       sync.Mutex
	known    map[uint32]*entry
	files    map[string]uint32 // path: the namespace mounted on it
	look     urgency           // of a sweep that was asked for
	again    []reference       // of forgotten namespaces, to be looked at anew
	problems map[string]string
	stats    Stats
}

// entry is a known namespace and how it can be opened.
type entry struct {
	files []string
	pid   uint32 // 0: none known
	sweep uint64 // in which a process of it was last seen
}

// reference is a file or a process.
type reference struct {
	file string
	pid  uint32
}

// urgency of a sweep: how long sweeps rest, in units of their own length.
type urgency int

const (
	someTime urgency = 0   // when the next one is due
	soon     urgency = 100 // 1 % of a core
	atOnce   urgency = 20  // 5 % of a core
)

// Stats of a watcher.
type Stats struct {
	Known        int           // namespaces
	Unreferenced int           // of them, as of the last sweep, without a file or process that is known
	Found        uint64        // since the start
	Sweeps       uint64        // completed
	SweepTime    time.Duration // spent in the last one
	Interval     time.Duration // until the next one
	Processes    int           // looked at in the last one
	HintsDropped uint64        // more at once than there was room for
	HintsGone    uint64        // the process was gone before it was looked at
	Overflows    uint64        // of inotify's queue; the directories were read again
	Dropped      uint64        // namespaces and files beyond the bounds
}

// New makes a watcher; nothing is opened before Run.
func New(cfg Config) *Watcher {
	if cfg.Dirs == nil {
		cfg.Dirs = []string{"/run/netns", "/run/docker/netns"}
	}
	dirs := make([]string, 0, len(cfg.Dirs))
	for _, d := range cfg.Dirs {
		if d = filepath.Clean(d); !slices.Contains(dirs, d) {
			dirs = append(dirs, d)
		}
	}
	cfg.Dirs = dirs
	if cfg.Proc == "" {
		cfg.Proc = "/proc"
	}
	if cfg.Sweep <= 0 {
		cfg.Sweep = 10 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Watcher{
		cfg:      cfg,
		log:      cfg.Log,
		hints:    make(chan uint32, hintBuffer),
		wake:     make(chan struct{}, 1),
		known:    make(map[uint32]*entry),
		files:    make(map[string]uint32),
		problems: make(map[string]string),
	}
}

// Hint tells that a process was seen whose namespace may be unknown; 0 is one
// that this process table does not show. It never blocks; one too many is
// counted, and the sweep finds it.
func (w *Watcher) Hint(pid uint32) {
	if pid == 0 || w.cfg.FilesOnly {
		return
	}
	select {
	case w.hints <- pid:
	default:
		w.count(func(s *Stats) { s.HintsDropped++ })
	}
}

// Look asks for a sweep now. It never blocks; several at once are one, and
// sweeps asked for take at most 5 % of a core.
func (w *Watcher) Look() {
	w.mu.Lock()
	w.look = atOnce
	w.mu.Unlock()
	w.rouse()
}

func (w *Watcher) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Forget tells that a namespace is gone. Its number may be another's already:
// what it was known by is looked at anew, and a sweep follows, within 1 % of a
// core.
func (w *Watcher) Forget(inode uint32) {
	w.mu.Lock()
	if e := w.known[inode]; e != nil {
		if w.look == someTime {
			w.look = soon
		}
		delete(w.known, inode)
		for _, f := range e.files {
			delete(w.files, f)
			w.again = append(w.again, reference{file: f})
		}
		if e.pid != 0 {
			w.again = append(w.again, reference{pid: e.pid})
		}
	}
	w.mu.Unlock()
	w.rouse()
}

// see notes that a namespace is there, by a file or by a process. Only Run
// calls it: so Found is called one at a time.
func (w *Watcher) see(ns Namespace, file string, sweep uint64) {
	if w.cfg.Wanted != nil && !w.knows(ns.Inode) && !w.cfg.Wanted(ns) {
		return
	}
	w.mu.Lock()
	e, ok := w.known[ns.Inode]
	if !ok && len(w.known) >= maxKnown {
		w.stats.Dropped++
		w.mu.Unlock()
		w.problem("bound", fmt.Sprintf("more than %d network namespaces: the rest is not watched; remove some that nobody uses", maxKnown))
		return
	}
	if !ok {
		e = &entry{}
		w.known[ns.Inode] = e
		w.stats.Found++
	}
	if file == "" {
		e.pid, e.sweep = ns.PID, sweep
	} else if w.files[file] != ns.Inode {
		w.unlink(file)
		if len(e.files) < maxNames {
			e.files = append(e.files, file)
			w.files[file] = ns.Inode
		}
	}
	w.mu.Unlock()
	if !ok && w.cfg.Found != nil {
		w.cfg.Found(ns)
	}
}

// dropFile forgets what was mounted on a path.
func (w *Watcher) dropFile(path string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unlink(path)
}

// unlink is dropFile for who holds mu.
func (w *Watcher) unlink(path string) {
	inode, ok := w.files[path]
	if !ok {
		return
	}
	delete(w.files, path)
	if e := w.known[inode]; e != nil {
		e.files = slices.DeleteFunc(e.files, func(f string) bool { return f == path })
	}
}

// isSeen tells whether a process of the namespace has been seen in this sweep.
func (w *Watcher) isSeen(inode uint32, sweep uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.known[inode]
	return e != nil && e.sweep == sweep
}

// filesIn lists the paths in a directory that namespaces are mounted on.
func (w *Watcher) filesIn(dir string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for f := range w.files {
		if filepath.Dir(f) == dir {
			out = append(out, f)
		}
	}
	return out
}

func (w *Watcher) count(change func(*Stats)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.stats)
}

// Processes gives for each namespace a process that was in it when it was last
// looked at; none where it has no other trace than files.
func (w *Watcher) Processes(yield func(inode, pid uint32)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for inode, e := range w.known {
		if e.pid != 0 {
			yield(inode, e.pid)
		}
	}
}

// Stats tells what the watcher did so far.
func (w *Watcher) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.stats
	s.Known = len(w.known)
	return s
}

// Problems says what does not work now, each as a sentence with what to try.
func (w *Watcher) Problems() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Values(w.problems))
}

// problem notes what does not work, by what it is about.
func (w *Watcher) problem(about, sentence string) {
	w.mu.Lock()
	old := w.problems[about]
	w.problems[about] = sentence
	w.mu.Unlock()
	if old == "" { // its details may change with every sweep
		w.log.Warn("Network namespaces: problem", "problem", sentence)
	}
}

// solved takes a problem back.
func (w *Watcher) solved(about string) {
	w.mu.Lock()
	old := w.problems[about]
	delete(w.problems, about)
	w.mu.Unlock()
	if old != "" {
		w.log.Info("Network namespaces: problem solved", "problem", old)
	}
}

// why explains an error of the system; what it means where it is a bound or a
// right that is missing.
func why(err error) string {
	switch {
	case errors.Is(err, unix.EMFILE):
		return "this process is out of file descriptors (raise its limit, LimitNOFILE)"
	case errors.Is(err, unix.ENFILE):
		return "the machine is out of file descriptors (raise fs.file-max)"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return "permission denied (run as root, or with the capabilities SYS_ADMIN and SYS_PTRACE, in the host's PID namespace)"
	}
	return strings.TrimSpace(err.Error())
}

// Own is the inode of the network namespace of the calling thread, which is the
// process's own everywhere but inside Enter.
func Own() (uint32, error) {
	inode, err := inodeOf(ownPath)
	if err != nil {
		return 0, fmt.Errorf("own network namespace: %w", err)
	}
	return inode, nil
}
