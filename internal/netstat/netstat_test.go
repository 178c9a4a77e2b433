// SPDX-License-Identifier: Apache-2.0

package netstat

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fake is a kernel of two counters.
type fake struct {
	s                *Sampler
	mu               sync.Mutex
	overflows, drops string
	gone             bool
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{}
	proc := t.TempDir()
	if err := os.MkdirAll(filepath.Join(proc, "thread-self/net"), 0o755); err != nil {
		t.Fatal(err)
	}
	f.s = New(Config{Proc: proc, Enter: func(_ uint32, fn func() error) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.gone {
			return errors.New("gone")
		}
		text := "TcpExt: ListenOverflows ListenDrops\nTcpExt: " + f.overflows + " " + f.drops + "\n"
		if err := os.WriteFile(filepath.Join(proc, "thread-self/net/netstat"), []byte(text), 0o600); err != nil {
			return err
		}
		return fn()
	}})
	return f
}

func (f *fake) counts(overflows, drops string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.overflows, f.drops = overflows, drops
}

func (f *fake) read(t *testing.T) Report {
	t.Helper()
	r, err := f.s.Read(7)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What was, what grew since, and what grows now are told apart.
func TestGrowth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.counts("5", "6")
		if r := f.read(t); len(r.Findings) != 2 || r.Findings[0].Growth != (Growth{5, 0, 0}) || r.Illness() != 0 {
			t.Errorf("not known yet: %+v", r)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- f.s.Run(ctx) }()
		f.s.Add(7)
		synctest.Wait()
		f.counts("8", "9")
		r := f.read(t)
		if len(r.Findings) != 2 || r.Findings[0].Growth != (Growth{8, 3, 3}) || r.Illness() != 2 {
			t.Errorf("at once: %+v", r)
		}
		if m := r.Findings[0].Meaning; !strings.HasPrefix(m, "accept queue full 8 times: the process does not accept fast enough") {
			t.Error(m)
		}
		// That it was dropped as the queue was full is told once.
		if r.Findings[1].Growth != (Growth{1, 0, 0}) || !strings.HasPrefix(r.Findings[1].Meaning, "1 connection attempt dropped") {
			t.Errorf("%+v", r.Findings[1])
		}
		time.Sleep(65 * time.Second)
		f.counts("8", "10")
		time.Sleep(20 * time.Second)
		if r = f.read(t); r.Findings[0].Growth != (Growth{2, 1, 1}) || r.Findings[1].Growth != (Growth{8, 3, 0}) || r.Illness() != 2 {
			t.Errorf("later: %+v", r)
		}
		time.Sleep(10 * time.Minute)
		if r = f.read(t); r.Illness() != 1 || r.Findings[0].Growth != (Growth{8, 3, 0}) {
			t.Errorf("much later: %+v", r)
		}
		if n := len(f.s.space(7).samples); n > 8 {
			t.Errorf("%d samples kept", n)
		}
		// A number that is another's: nothing of its past holds.
		f.counts("2", "2")
		if r = f.read(t); len(r.Findings) != 1 || r.Findings[0].Growth != (Growth{2, 0, 0}) {
			t.Errorf("another's: %+v", r)
		}
		f.mu.Lock()
		f.gone = true
		f.mu.Unlock()
		if _, err := f.s.Read(7); err == nil {
			t.Error("read what is gone")
		}
		time.Sleep(time.Minute)
		if st := f.s.Stats(); st.Known != 1 || st.Failed != 1 || st.Passes < 60 {
			t.Errorf("%+v", st)
		}
		f.s.Forget(7)
		if st := f.s.Stats(); st.Known != 0 {
			t.Errorf("%+v", st)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestBound(t *testing.T) {
	s := New(Config{})
	for i := range uint32(maxSpaces + 5) {
		s.Add(i)
		s.Add(i)
	}
	if l := s.Losses(); len(l) != 1 || l[0].Count != 10 {
		t.Error(l)
	}
}

func TestTimeWaitPressure(t *testing.T) {
	for _, c := range []struct {
		u    inUse
		want int
	}{{inUse{}, 0}, {inUse{TimeWait: 8999, maxTimeWait: 10000}, 0}, {inUse{TimeWait: 9000, maxTimeWait: 10000}, 1}} {
		if f := c.u.findings(); len(f) != c.want || c.want > 0 && !strings.HasPrefix(f[0].Meaning, "9000 connections in TIME_WAIT of at most 10000") {
			t.Errorf("%+v: %v", c.u, f)
		}
	}
}
