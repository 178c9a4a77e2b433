// SPDX-License-Identifier: Apache-2.0

// Package conntrack says how the host translates a connection: it asks the
// kernel's connection tracking for one connection by its tuple, and keeps
// nothing. It never lists the table, changes nothing in it, and sees only the
// network namespace that it was opened in, and of that the default zone: what
// a pod translates inside of itself stays unknown. The enricher reads it.
package conntrack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/orb8/orb8/internal/event"
)

// Config of a Table. The zero value works.
type Config struct {
	// Look-ups a second, at most; 0 means 2,000.
	Rate int
	// Connections asked for whose answers have not been taken; 0 means 8,192.
	Pending int
	Log     *slog.Logger
}

const (
	// burst is how long look-ups may be saved up for: the connections of an
	// epoch come together.
	burst = 20 * time.Millisecond
	// again is when a connection without an entry is looked up once more.
	again = 200 * time.Millisecond
)

// Table is the kernel's connection tracking. Run is for one goroutine at a
// time and so is Answers; the rest is for any.
type Table struct {
	cfg    Config
	log    *slog.Logger
	lookUp func(tuple) (entry, error)
	close  func() error

	wanted  chan question // has room for all of pending
	pending atomic.Int64  // wanted, and not taken yet
	dropped atomic.Uint64
	failed  atomic.Uint64

	// mu guards what follows; it is held for moments.
	mu       sync.Mutex
	answered []answer
	problem  string

	taken []answer // Answers owns it
	now   pace     // Now owns it
}

type question struct {
	conn event.Conn
	host bool
	// When it is looked up for the second time; the zero time before the first.
	due time.Time
}

type answer struct {
	conn  event.Conn
	other *event.Translation
}

// Open opens the table of the calling thread's network namespace. An error is
// a sentence that says what is missing; without a table no translation is
// known, and nothing else depends on it.
func Open(cfg Config) (*Table, error) {
	s, err := openSocket()
	if err != nil {
		return nil, fmt.Errorf("open conntrack: %w", err)
	}
	t := newTable(cfg, s.lookUp)
	t.close = s.Close
	return t, nil
}

func newTable(cfg Config, lookUp func(tuple) (entry, error)) *Table {
	if cfg.Rate <= 0 {
		cfg.Rate = 2000
	}
	if cfg.Pending <= 0 {
		cfg.Pending = 8192
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Table{
		cfg:    cfg,
		log:    cfg.Log,
		lookUp: lookUp,
		close:  func() error { return nil },
		wanted: make(chan question, cfg.Pending),
		now:    pace{interval: time.Second / time.Duration(cfg.Rate)},
	}
}

// Now is Want with its answer, in the 2 µs that a look-up takes. Not ok: the
// second's look-ups are used up, or the kernel does not know the connection yet;
// then Want it. It is for one goroutine.
func (t *Table) Now(c event.Conn, host bool) (other *event.Translation, ok bool) {
	asked, can := tupleOf(&c, host)
	if !can || !t.now.take() {
		return nil, !can
	}
	e, err := t.lookUp(asked)
	if err != nil {
		return nil, false
	}
	return translation(&e, &asked, host), true
}

// Want asks how a connection is translated. In the host's namespace it is the
// wire's tuple, in a pod's the socket's. It never blocks: one too many is not
// answered, and counted.
func (t *Table) Want(c event.Conn, host bool) {
	if t.pending.Add(1) > int64(t.cfg.Pending) {
		t.pending.Add(-1)
		t.dropped.Add(1)
		return
	}
	t.wanted <- question{conn: c, host: host}
}

// Answers hands over what was found out since the last time: the other tuple,
// nil where the connection is not translated or not known.
func (t *Table) Answers(take func(c event.Conn, other *event.Translation)) {
	t.mu.Lock()
	t.answered, t.taken = t.taken[:0], t.answered
	t.mu.Unlock()
	t.pending.Add(-int64(len(t.taken)))
	for i := range t.taken {
		take(t.taken[i].conn, t.taken[i].other)
	}
	clear(t.taken)
}

// Losses tells of connections whose translation is not known for want of room
// or because the kernel did not say.
func (t *Table) Losses() []event.Loss {
	count := t.dropped.Load() + t.failed.Load()
	if count == 0 {
		return nil
	}
	return []event.Loss{{
		Stage: "conntrack", Count: count,
		Hint: "connections came faster than their address translation could be looked up: some name a Service or a node, and not the pod behind it",
	}}
}

// Problems says what does not work now, each as a sentence.
func (t *Table) Problems() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.problem == "" {
		return nil
	}
	return []string{t.problem}
}

// Run looks up what is wanted until ctx ends.
func (t *Table) Run(ctx context.Context) error {
	p := pace{interval: time.Second / time.Duration(t.cfg.Rate)}
	var second []question // all wait equally long: the first is due first
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		var due <-chan time.Time
		if len(second) > 0 {
			timer.Reset(time.Until(second[0].due))
			due = timer.C
		}
		var q question
		select {
		case <-ctx.Done():
			return nil
		case <-due:
			q, second = second[0], second[1:]
		case q = <-t.wanted:
		}
		if !p.wait(ctx) {
			return nil
		}
		if !t.ask(&q) {
			q.due = time.Now().Add(again)
			second = append(second, q)
		}
	}
}

// ask looks a connection up; not done: it is to be looked up once more.
func (t *Table) ask(q *question) (done bool) {
	a := answer{conn: q.conn}
	asked, ok := tupleOf(&q.conn, q.host)
	if ok {
		e, err := t.lookUp(asked)
		switch {
		case err == nil:
			a.other = translation(&e, &asked, q.host)
			t.note("")
		case errors.Is(err, errNoEntry):
			// Its first packet may have been seen before its entry was made.
			if q.due.IsZero() {
				return false
			}
			t.note("")
		default:
			t.failed.Add(1)
			t.note("address translation cannot be looked up: " + err.Error())
		}
	}
	t.mu.Lock()
	t.answered = append(t.answered, a)
	t.mu.Unlock()
	return true
}

// note keeps what does not work, "" when it does.
func (t *Table) note(problem string) {
	t.mu.Lock()
	old := t.problem
	t.problem = problem
	t.mu.Unlock()
	switch {
	case old == "" && problem != "":
		t.log.Warn("Connection tracking: problem", "problem", problem)
	case old != "" && problem == "":
		t.log.Info("Connection tracking: problem solved", "problem", old)
	}
}

// Close is idempotent. Run ends by its context, not by this.
func (t *Table) Close() error { return t.close() }

// pace keeps look-ups to a rate.
type pace struct {
	interval time.Duration
	next     time.Time
}

// take tells whether there is one left of the last second's.
func (p *pace) take() bool {
	now := time.Now()
	if saved := now.Add(-time.Second); p.next.Before(saved) {
		p.next = saved
	}
	if p.next.After(now) {
		return false
	}
	p.next = p.next.Add(p.interval)
	return true
}

// wait waits for the time of the next look-up, unless ctx ends.
func (p *pace) wait(ctx context.Context) bool {
	now := time.Now()
	if saved := now.Add(-burst); p.next.Before(saved) {
		p.next = saved
	}
	p.next = p.next.Add(p.interval)
	// Not for each one: a sleep costs more than a look-up.
	if ahead := p.next.Sub(now); ahead > 0 {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(ahead + burst/2):
		}
	}
	return true
}
