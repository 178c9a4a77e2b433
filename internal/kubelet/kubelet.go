// SPDX-License-Identifier: Apache-2.0

// Package kubelet asks the node's kubelet which devices it has given to which
// container: by device plugins, and by claims. It knows no GPU and no process,
// is never waited for, and keeps what it was last told for a bounded time only.
// The agent joins its answers with what devices say of themselves.
package kubelet

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"
)

// Socket is where the kubelet answers.
const Socket = "/var/lib/kubelet/pod-resources/kubelet.sock"

// Settings of a watcher; what is zero has its default.
type Settings struct {
	Socket string
	// How often it is asked, how long it may take, and when it is asked again after it
	// could not answer.
	Every, Deadline, Retry time.Duration
	// How long its last answer counts when it does not answer any more.
	Keep time.Duration
	// Hears when it stops to answer, and when it answers again.
	Log *slog.Logger
}

func (s Settings) filled() Settings {
	if s.Socket == "" {
		s.Socket = Socket
	}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		of *time.Duration
		is time.Duration
	}{{&s.Every, time.Second}, {&s.Deadline, 5 * time.Second}, {&s.Retry, 5 * time.Second}, {&s.Keep, time.Minute}} {
		if *d.of <= 0 {
			*d.of = d.is
		}
	}
	return s
}

// Holding is one device that a container was given.
type Holding struct {
	Namespace, Pod, Container string
	// As a device plugin names what it offers, and one of it; of a claim, "" and the
	// device.
	Resource, ID string
	// Of the machine; -1 where it is not told, or is more than one.
	NUMA int
	// nil of a device plugin.
	Claim *Claim
}

// Claim is what a device was claimed by.
type Claim struct {
	Namespace, Name      string
	Driver, Pool, Device string
	// What the container runtime was given for it.
	CDI []string
}

// Snapshot is what the kubelet said last. It does not change.
type Snapshot struct {
	// When; zero before its first answer.
	At time.Time
	// In the order of their fields.
	Holdings []Holding
	// Why it is not known what it has given; "" when it is.
	Problem string
	// Devices that it named, too, and that found no room.
	Lost uint64
}

// Watcher keeps the latest snapshot. Its methods may be called from any
// goroutine.
type Watcher struct {
	settings Settings
	latest   atomic.Pointer[Snapshot]
	stop     context.CancelFunc
	stopped  chan struct{}
}

const notYet = "the kubelet has not answered yet"

// Start begins to ask. A kubelet that is not there is looked for again.
func Start(settings Settings) *Watcher {
	ctx, stop := context.WithCancel(context.Background())
	w := &Watcher{settings: settings.filled(), stop: stop, stopped: make(chan struct{})}
	w.latest.Store(&Snapshot{Problem: notYet})
	go w.run(ctx)
	return w
}

// Latest is what the kubelet said last, or why that is not known any more.
func (w *Watcher) Latest() *Snapshot { return w.latest.Load() }

// Close ends it. It is idempotent.
func (w *Watcher) Close() error {
	w.stop()
	<-w.stopped
	return nil
}

// leisure is how much longer the kubelet rests than it takes to answer: with 60
// pods that is a millisecond or two.
const leisure = 20

func (w *Watcher) run(ctx context.Context) {
	defer close(w.stopped)
	l := line{Settings: w.settings}
	defer l.hangUp()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var failing time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		list, lost, err := l.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		last := w.Latest()
		if err != nil {
			if failing.IsZero() {
				failing = began
				w.settings.Log.Warn("the kubelet does not tell which devices it has given", "error", err)
			}
			w.latest.Store(w.without(last, failing, err))
			timer.Reset(w.settings.Retry)
			continue
		}
		if !failing.IsZero() {
			failing = time.Time{}
			w.settings.Log.Info("the kubelet tells which devices it has given", "devices", len(list))
		}
		if lost > 0 && last.Lost == 0 {
			w.settings.Log.Warn("the kubelet has given more devices than are kept", "kept", len(list), "lost", lost)
		}
		if slices.EqualFunc(list, last.Holdings, Holding.equal) {
			list = last.Holdings
		}
		w.latest.Store(&Snapshot{At: time.Now(), Holdings: list, Lost: lost})
		timer.Reset(max(w.settings.Every, leisure*time.Since(began)))
	}
}

// without is a snapshot when the kubelet has not answered.
func (w *Watcher) without(last *Snapshot, since time.Time, err error) *Snapshot {
	s := &Snapshot{At: last.At, Holdings: last.Holdings, Lost: last.Lost}
	s.Problem = "since " + since.Format(time.TimeOnly) + " " + err.Error()
	switch {
	case s.At.IsZero():
	case time.Since(s.At) > w.settings.Keep:
		s.Holdings, s.Lost = nil, 0
	default:
		s.Problem += "; until " + s.At.Add(w.settings.Keep).Format(time.TimeOnly) + " what it said at " + s.At.Format(time.TimeOnly) + " counts"
	}
	return s
}
