// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// keepBatch is how long a batch is tried again before it makes room for younger
// ones.
const keepBatch = time.Minute

// sender gathers records and hands them over. Its queue is the only place where
// records wait: whoever puts one there is never held up. Each record that was put
// ends as sent or as dropped.
type sender struct {
	out      transport
	scribe   scribe
	envelope envelope
	batching batching
	timeout  time.Duration
	state    *state

	queue chan record
	batch uint64 // records that the scribe has written

	sent atomic.Uint64
	// No room in the queue; given up, or refused as a batch; refused by themselves.
	full, failed, rejected atomic.Uint64
}

func newSender(out transport, b batching, timeout time.Duration, st *state) *sender {
	return &sender{out: out, batching: b, timeout: timeout, state: st, queue: make(chan record, b.queue)}
}

// put takes a record, or counts it.
func (s *sender) put(r *record) {
	select {
	case s.queue <- *r:
	default:
		s.full.Add(1)
	}
}

// wait takes a record as soon as there is room, as long as ctx lets it.
func (s *sender) wait(ctx context.Context, r *record) {
	select {
	case s.queue <- *r:
	case <-ctx.Done():
		s.full.Add(1)
	}
}

func (s *sender) dropped() uint64 {
	return s.full.Load() + s.failed.Load() + s.rejected.Load()
}

// run sends until the queue is closed and empty. When ctx ends, what is left is
// tried once more, as long as that lets it.
func (s *sender) run(ctx context.Context) {
	for r := range s.queue {
		s.gather(r)
		s.hand(ctx)
	}
}

// mostBytes bounds a request: receivers refuse those above 4 MiB.
const mostBytes = 2 << 20

// gather fills a batch; a part of one waits no longer than the delay.
func (s *sender) gather(r record) {
	s.scribe.all, s.batch = s.scribe.all[:0], 0
	s.add(&r)
	wait := time.NewTimer(s.batching.delay)
	defer wait.Stop()
	for s.batch < uint64(s.batching.batch) && len(s.scribe.all) < mostBytes {
		select {
		case r, more := <-s.queue:
			if !more {
				return
			}
			s.add(&r)
		case <-wait.C:
			return
		}
	}
}

func (s *sender) add(r *record) {
	s.scribe.write(r)
	s.batch++
}

// hand gives a batch to the receiver, again and again for a while where nobody
// takes it.
func (s *sender) hand(ctx context.Context) {
	// Of its own: a request may be read for a while after it was given up.
	request := s.envelope.request(make(buffer, 0, len(s.scribe.all)+4096), s.scribe.all)
	ctx, cancel := context.WithTimeout(ctx, keepBatch)
	defer cancel()
	for pause := retryFirst; ; pause = min(2*pause, retryMost) {
		err := s.send(ctx, request)
		if err == nil {
			return
		}
		s.state.bad(err)
		var p *passing
		if !errors.As(err, &p) || !sleep(ctx, max(pause, p.wait)) {
			s.failed.Add(s.batch)
			return
		}
	}
}

// send counts what of a batch was taken; an error is of the batch as a whole.
func (s *sender) send(ctx context.Context, request []byte) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	answer, err := s.out.send(ctx, request)
	if err != nil {
		return err
	}
	refused := min(uint64(max(answer.GetRejectedLogRecords(), 0)), s.batch)
	s.rejected.Add(refused)
	s.sent.Add(s.batch - refused)
	if refused > 0 { // without, what it says is a warning
		s.state.bad(fmt.Errorf("%d of %d records refused: %s", refused, s.batch, answer.GetErrorMessage()))
		return nil
	}
	s.state.good()
	return nil
}

// sleep tells whether there is time left afterwards.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// state says once that a receiver takes nothing, and once that it does again; of
// one that changes its mind all the time, once a minute.
type state struct {
	log  *slog.Logger
	what string
	host string
	lost func() uint64
	// nil while all is well. Others only read it.
	failing atomic.Pointer[failing]
	last    time.Time // that it was said
}

type failing struct {
	err   error
	since time.Time
	lost  uint64
	said  bool
}

// sayEvery bounds how often the log tells of a state.
const sayEvery = time.Minute

func (s *state) bad(err error) {
	now := &failing{err: brief(err), since: time.Now(), lost: s.lost()}
	if was := s.failing.Load(); was != nil {
		now.since, now.lost, now.said = was.since, was.lost, was.said
	}
	if !now.said && (s.last.IsZero() || time.Since(s.last) >= sayEvery) {
		now.said, s.last = true, time.Now()
		s.log.Warn("OTLP: "+s.what+" not taken, will go on trying", "receiver", s.host, "error", now.err)
	}
	s.failing.Store(now)
}

func (s *state) good() {
	if was := s.failing.Swap(nil); was != nil && was.said {
		s.log.Info("OTLP: "+s.what+" taken again", "receiver", s.host, "after", time.Since(was.since).Round(time.Second).String(), "dropped", s.lost()-was.lost)
	}
}

// note is what the status says; "" while all is well.
func (s *state) note() string {
	f := s.failing.Load()
	if f == nil {
		return ""
	}
	return "OTLP: " + s.what + " not taken by " + s.host + " since " + f.since.UTC().Format(time.RFC3339) + ": " + f.err.Error()
}
