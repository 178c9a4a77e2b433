// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	sdklog "go.opentelemetry.io/otel/sdk/log"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// fake is a receiver that does as err says.
type fake struct {
	err   func() error
	tried atomic.Uint64
	took  atomic.Uint64
}

func (f *fake) Export(ctx context.Context, records []sdklog.Record) error {
	f.tried.Add(1)
	if err := f.err(); err != nil {
		return err
	}
	f.took.Add(uint64(len(records)))
	return nil
}
func (f *fake) Shutdown(context.Context) error   { return nil }
func (f *fake) ForceFlush(context.Context) error { return nil }

func fakeSender(f *fake, b batching) (*sender, *line) {
	said := &line{}
	st := &state{log: slog.New(slog.NewTextHandler(said, nil)), what: "log records are", host: "receiver:4317"}
	s := newSender(f, b, 10*time.Second, st)
	st.lost = s.dropped
	return s, said
}

// Away for ten minutes: a batch is kept for one, then the next has its turn; what
// comes meanwhile waits as far as there is room. It is said twice.
func TestTenMinutesWithoutAReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := atomic.Bool{}
		away.Store(true)
		f := &fake{err: func() error {
			if away.Load() {
				return &url.Error{Op: "Post", URL: "http://receiver:4318/v1/logs", Err: errors.New("connection refused")}
			}
			return nil
		}}
		s, said := fakeSender(f, batching{queue: 50, batch: 10, delay: time.Second})
		done := make(chan struct{})
		go func() { defer close(done); s.run(t.Context()) }()
		const made = 600
		for range made { // one a second
			s.put(&record{})
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if failed := s.failed.Load(); failed < 60 || failed > 110 {
			t.Errorf("%d given up in ten minutes, ten a minute are", failed)
		}
		// Never more often than is polite: 1, 2, 4, 8, 10, 10, … s
		if tried := f.tried.Load(); tried > 120 {
			t.Errorf("tried %d times", tried)
		}
		away.Store(false)
		close(s.queue)
		<-done
		if f.took.Load() != s.sent.Load() || s.sent.Load()+s.dropped() != made || s.sent.Load() < 50 {
			t.Errorf("of %d: %d taken, %d sent, %d dropped", made, f.took.Load(), s.sent.Load(), s.dropped())
		}
		if said.count("not taken") != 1 || said.count("taken again") != 1 || said.count(fmt.Sprint("dropped=", s.dropped())) != 1 {
			t.Errorf("%s", said.buf.String())
		}
	})
}

// A part of a batch goes after the delay, a full one at once.
func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{err: func() error { return nil }}
		s, _ := fakeSender(f, batching{queue: 100, batch: 10, delay: time.Second})
		done := make(chan struct{})
		go func() { defer close(done); s.run(t.Context()) }()
		for range 13 {
			s.put(&record{})
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if f.took.Load() != 10 {
			t.Errorf("%d at once", f.took.Load())
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if f.took.Load() != 13 {
			t.Errorf("%d after the delay", f.took.Load())
		}
		close(s.queue)
		<-done
	})
}

func TestWhatPasses(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{status.Error(codes.Unavailable, ""), true},
		{fmt.Errorf("late: %w", status.Error(codes.DeadlineExceeded, "")), true},
		{errors.Join(nil, fmt.Errorf("%w: %w", errors.New("exporter export timeout"), status.Error(codes.Unavailable, ""))), true},
		{fmt.Errorf("%w: %w", context.DeadlineExceeded, errors.New("503")), true},
		{&url.Error{Op: "Post", Err: errors.New("refused")}, true},
		{status.Error(codes.PermissionDenied, ""), false},
		{status.Error(codes.ResourceExhausted, ""), false},
		{errors.New("failed to send logs to http://a/v1/logs: 400 Bad Request"), false},
	} {
		if got := passes(c.err); got != c.want {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}

func FuzzRejected(f *testing.F) {
	f.Add("OTLP partial success: x (3 logs rejected)")
	f.Add("OTLP partial success: (9 logs rejected) \n (99999999999999999999999 logs rejected)")
	f.Fuzz(func(t *testing.T, text string) {
		if n, ok := rejected(errors.New(text)); n < 0 || !ok && n != 0 {
			t.Errorf("%d, %v", n, ok)
		}
	})
}
