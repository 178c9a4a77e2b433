// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"context"
	"fmt"
	"time"
)

// pollTime is between two looks at the directories while they cannot be watched.
const pollTime = time.Second

// run is what only the goroutine of Run touches.
type run struct {
	*Watcher
	procs *procs
	own   uint32
	watch *watch // nil while the kernel gives none
	files *pending
	sweep sweep

	unwatched bool // a directory; or there is no watch at all
	unread    bool // a directory
	failing   bool // some file cannot be opened
	failed    bool // the same, since the last rescan
	staleTold int

	wanted    urgency // of the next sweep
	swept     time.Time
	nextSweep time.Time
	nextPoll  time.Time
	timer     *time.Timer
}

// Run finds what is there, and then what comes, until the context ends, which
// is no error. It fails only when there is no process table.
func (w *Watcher) Run(ctx context.Context) error {
	r := &run{Watcher: w, files: newPending(), timer: time.NewTimer(time.Hour)}
	defer r.timer.Stop()
	var err error
	if r.procs, err = openProcs(w.cfg.Proc); err != nil {
		return fmt.Errorf("watch network namespaces: %w (mount it, or name another)", err)
	}
	defer r.procs.close()
	defer func() { r.watch.close() }()
	// This process is left out of the table, since its first thread may be on a
	// visit.
	if r.procs.own != 0 {
		if r.own, err = Own(); err != nil {
			return fmt.Errorf("watch network namespaces: %w", err)
		}
		oldest := r.procs.own
		if init, err := r.procs.netns(1); err == nil && init == r.own {
			oldest = 1
		}
		r.seeProcess(r.own, oldest)
	}
	r.refresh()
	r.begin()
	for ctx.Err() == nil {
		r.check()
		r.advance()
		r.wait(ctx)
	}
	return nil
}

// refresh makes the watches match the directories that exist, and reads them.
func (r *run) refresh() {
	r.rewatch()
	r.rescan()
	r.nextPoll = time.Now().Add(pollTime)
}

// begin starts a sweep.
func (r *run) begin() {
	r.wanted = someTime
	if r.cfg.FilesOnly { // the directories have just been read, and that is all
		r.swept = time.Now()
		r.nextSweep, r.sweep.spent = r.swept.Add(r.cfg.Sweep), time.Millisecond
		r.count(func(s *Stats) { s.Sweeps++ })
		return
	}
	if err := r.procs.rewind(); err != nil {
		r.problem("proc", "the process table cannot be read: "+why(err))
		r.nextSweep = time.Now().Add(r.cfg.Sweep)
		return
	}
	r.sweep = sweep{number: r.sweep.number + 1, running: true}
}

// advance does what is due: a slice of the sweep, a new sweep, a poll.
func (r *run) advance() {
	now := time.Now()
	switch {
	case r.sweep.running:
		if !r.slice() {
			r.finish()
		}
	case !now.Before(r.sweepAt()):
		r.refresh()
		r.begin()
	case r.polls() && !now.Before(r.nextPoll):
		r.refresh()
	}
}

// polls: directories are not, or not all, told of by the kernel.
func (r *run) polls() bool { return r.unwatched || r.unread || r.failing }

// sweepAt is when the next sweep is due.
func (r *run) sweepAt() time.Time {
	at := r.nextSweep
	if asked := r.swept.Add(r.sweep.spent * time.Duration(r.wanted)); r.wanted != someTime && asked.Before(at) {
		at = asked
	}
	return at
}

// wait waits until something is due or comes, and takes in all that has come.
// In the midst of a sweep it does not wait.
func (r *run) wait(ctx context.Context) {
	var changes <-chan []change
	if r.watch != nil {
		changes = r.watch.changes
	}
	if delay := r.delay(); delay > 0 {
		r.timer.Reset(delay)
		select {
		case <-ctx.Done():
			return
		case <-r.timer.C:
		case c, ok := <-changes:
			r.changed(c, ok)
		case pid := <-r.hints:
			r.hint(pid)
		case <-r.wake:
			r.woken()
		}
	}
	// As many as fit into the channels: not without end.
	for range hintBuffer {
		if r.watch != nil {
			changes = r.watch.changes
		}
		select {
		case <-ctx.Done():
			return
		case c, ok := <-changes:
			r.changed(c, ok)
		case pid := <-r.hints:
			r.hint(pid)
		case <-r.wake:
			r.woken()
		default:
			return
		}
	}
}

// delay is how long nothing is due.
func (r *run) delay() time.Duration {
	if r.sweep.running || len(r.files.now) > 0 {
		return 0
	}
	at := r.sweepAt()
	if r.polls() && r.nextPoll.Before(at) {
		at = r.nextPoll
	}
	if next := r.files.next(); !next.IsZero() && next.Before(at) {
		at = next
	}
	return time.Until(at)
}

// woken takes over what Look and Forget left.
func (r *run) woken() {
	r.mu.Lock()
	again := r.again
	r.again = nil
	if r.look == atOnce || r.wanted == someTime {
		r.wanted = r.look
	}
	r.look = someTime
	r.mu.Unlock()
	for _, ref := range again {
		if ref.file == "" {
			r.hint(ref.pid)
		} else if !r.files.renewed(ref.file) {
			r.count(func(s *Stats) { s.Dropped++ })
		}
	}
}
