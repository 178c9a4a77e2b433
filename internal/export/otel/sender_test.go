// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	collog "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/protobuf/proto"

	"github.com/orb8/orb8/internal/event"
)

// fake is a receiver that does as err says.
type fake struct {
	err   func() error
	tried atomic.Uint64
	took  atomic.Uint64
}

func (f *fake) send(_ context.Context, request []byte) (*collog.ExportLogsPartialSuccess, error) {
	f.tried.Add(1)
	if err := f.err(); err != nil {
		return nil, err
	}
	var req collog.ExportLogsServiceRequest
	if err := proto.Unmarshal(request, &req); err != nil {
		return nil, err
	}
	f.took.Add(uint64(len(req.ResourceLogs[0].ScopeLogs[0].LogRecords)))
	return nil, nil
}

func (f *fake) close() {}

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
				return &passing{error: errors.New("connection refused")}
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

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-1": 0, "99999999999999999999": 0, "soon": 0,
		"Mon, 23 Nov 2026 09:00:30 GMT": 30 * time.Second, "Mon, 23 Nov 2026 08:00:00 GMT": 0,
	} {
		if got := retryAfter(text, now); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// What a receiver asks for is kept to.
func TestTheReceiverAsksToWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		f := &fake{err: func() error {
			if time.Since(start) < 25*time.Second {
				return &passing{errors.New("slower"), 25 * time.Second}
			}
			return nil
		}}
		s, _ := fakeSender(f, batching{queue: 10, batch: 10, delay: time.Second})
		s.put(&record{})
		close(s.queue)
		s.run(t.Context())
		if f.tried.Load() != 2 || s.sent.Load() != 1 {
			t.Errorf("tried %d times, %d sent", f.tried.Load(), s.sent.Load())
		}
	})
}

// One that takes every other batch is not told of at each.
func TestAReceiverThatChangesItsMind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		f := &fake{err: func() error {
			if n++; n%2 == 0 {
				return errors.New("I do not like this one")
			}
			return nil
		}}
		s, said := fakeSender(f, batching{queue: 10, batch: 1, delay: time.Second})
		done := make(chan struct{})
		go func() { defer close(done); s.run(t.Context()) }()
		for range 600 {
			s.put(&record{})
			time.Sleep(time.Second)
		}
		close(s.queue)
		<-done
		if bad, good := said.count("not taken"), said.count("taken again"); bad > 11 || bad < 9 || good != bad || s.failed.Load() != 300 {
			t.Errorf("said %d and %d times in ten minutes, %d failed", bad, good, s.failed.Load())
		}
	})
}

// At the end there is time for more than the queue holds.
func TestTheRestIsSentAtTheEnd(t *testing.T) {
	f := &fake{err: func() error { return nil }}
	s, _ := fakeSender(f, batching{queue: 2, batch: 5, delay: time.Millisecond})
	e := &Exporter{cfg: Config{Linger: 10 * time.Second}, ledger: newLedger(FlowsInterval, time.Minute, 1000), sender: s}
	e.ledger.tell = s.put
	events := make(chan []event.Event, 1)
	var batch []event.Event
	for i := range 500 {
		ev := closed(i)
		ev.Kind, ev.Flow.State = event.KindTraffic, event.StateEstablished
		batch = append(batch, ev)
	}
	events <- batch
	close(events)
	e.Consume(events)
	if s.sent.Load() != 500 || s.dropped() != 0 {
		t.Errorf("%d sent, %v", s.sent.Load(), e.Losses())
	}
}
