// SPDX-License-Identifier: Apache-2.0

package gpu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

// sampling starts a sampler of the fake, whose rounds are short; it ends with
// the test.
func (f *fake) sampling(s Settings) *Sampler {
	f.tb.Helper()
	s.Libraries, s.Sysfs, s.Every = []string{f.path}, f.tb.TempDir(), 10*time.Millisecond
	sampler := Start(s)
	f.tb.Cleanup(func() {
		f.play("gpus 1")
		if err := sampler.Close(); err != nil && !strings.Contains(err.Error(), "has not come back") {
			f.tb.Error(err)
		}
	})
	return sampler
}

// eventually waits for a snapshot, and returns it.
func eventually(t *testing.T, s *Sampler, what string, ok func(*Snapshot) bool) *Snapshot {
	t.Helper()
	var found *Snapshot
	bpftest.Eventually(t, what, func() bool {
		found = s.Latest()
		return ok(found)
	})
	return found
}

func states(s *Snapshot, of event.GPUState) (uuids []string) {
	for _, g := range s.Samples {
		if g.State == of {
			uuids = append(uuids, g.UUID)
		}
	}
	return uuids
}

func TestSamplerFollowsTheDriver(t *testing.T) {
	f := newFake(t, node)
	s := f.sampling(Settings{Retry: 20 * time.Millisecond, Deadline: time.Minute})
	first := eventually(t, s, "all devices", func(s *Snapshot) bool { return len(states(s, event.GPUOK)) == 18 })
	if !first.Status.Open || first.Status.Version != "580.95.05" || len(first.GPUs) != 18 || first.At == 0 {
		t.Errorf("%+v", first.Status)
	}
	for i, g := range first.GPUs {
		if first.Samples[i].UUID != g.UUID || first.Samples[i].At == 0 {
			t.Errorf("sample %d is of %s, not %s", i, first.Samples[i].UUID, g.UUID)
		}
	}
	f.play(node, "busy 7 99")
	later := eventually(t, s, "what GPU 7 does", func(s *Snapshot) bool { return s.Samples[17].Busy == known(0.99) })
	if &later.GPUs[0] != &first.GPUs[0] {
		t.Error("devices that are as they were are others: each event that is remembered keeps its own")
	}

	f.play(node, "fail * 15 3")
	lost := eventually(t, s, "a lost GPU", func(s *Snapshot) bool { return len(states(s, event.GPULost)) == 1 })
	since := lost.At
	still := eventually(t, s, "devices to be looked for again", func(s *Snapshot) bool { return s.At > since+int64(200*time.Millisecond) })
	if got := states(still, event.GPULost); len(got) != 1 || got[0] != "GPU-00000003-0000-0000-0000-000000000000" || len(states(still, event.GPUOK)) != 17 {
		t.Errorf("lost: %v, ok: %d", got, len(states(still, event.GPUOK)))
	}
	f.play("gpus 8", "mig 0 1")
	eventually(t, s, "instances to go", func(s *Snapshot) bool { return len(states(s, event.GPUOK)) == 9 && len(s.GPUs) == 9 })
}

func TestEventsAreHeardOf(t *testing.T) {
	f := newFake(t, "gpus 2")
	s := f.sampling(Settings{Retry: time.Hour, Deadline: time.Minute})
	eventually(t, s, "two GPUs", func(s *Snapshot) bool { return len(s.Samples) == 2 })
	f.play("gpus 2", "mig 1 2", "xid 1 1 79 -1", "xid 2 0 13 2", "migchange 3")
	var xids []event.GPUXid
	bpftest.Eventually(t, "two Xids", func() bool { xids = s.Take(xids); return len(xids) == 2 })
	a, b := xids[0], xids[1]
	if a.Code != 79 || a.UUID != "GPU-00000001-0000-0000-0000-000000000000" || a.Instance != event.NoInstance || a.At == 0 || b.Code != 13 || b.Instance != 2 {
		t.Errorf("%+v", xids)
	}
	eventually(t, s, "the new instances", func(s *Snapshot) bool { return len(s.Samples) == 4 })
	s.keep(make([]event.GPUXid, mostXids+7))
	if n := len(s.Take(nil)); n != mostXids || s.Lost() != 7 {
		t.Errorf("%d Xids, %d lost", n, s.Lost())
	}
}

func TestHungCallIsSkipped(t *testing.T) {
	ctx := context.Background()
	f := newFake(t, "gpus 3\nhang nvmlDeviceGetPowerUsage 1")
	s := f.sampling(Settings{Retry: 20 * time.Millisecond, Deadline: 300 * time.Millisecond})
	const uuid = "GPU-00000001-0000-0000-0000-000000000000"
	hung := eventually(t, s, "a hung GPU", func(s *Snapshot) bool { return len(states(s, event.GPUHung)) == 1 && len(states(s, event.GPUOK)) == 2 })
	if h := hung.Status.Hung; len(h) != 1 || h[0].What != uuid || !hung.Status.Open {
		t.Errorf("%+v", hung.Status)
	}
	eventually(t, s, "others to go on", func(s *Snapshot) bool {
		return len(states(s, event.GPUOK)) == 2 && s.Samples[2].At > hung.Samples[2].At && len(s.Status.Hung) == 1
	})
	if err := s.Release(ctx); err == nil || !strings.Contains(err.Error(), uuid) {
		t.Errorf("released while a call hangs: %v", err)
	}
	f.play("gpus 3")
	eventually(t, s, "it to come back", func(s *Snapshot) bool { return len(s.Status.Hung) == 0 && !s.Status.Open })
	bpftest.Eventually(t, "it to be closed", func() bool { return s.Release(ctx) == nil })
	if maps, _ := os.ReadFile("/proc/self/maps"); strings.Contains(string(maps), f.path) {
		t.Error("the library is still loaded")
	}
	bpftest.Eventually(t, "it to be open again", func() bool { return s.Open(ctx) == nil })
	eventually(t, s, "all to be sampled", func(s *Snapshot) bool { return len(states(s, event.GPUOK)) == 3 })
}

func TestHungOpen(t *testing.T) {
	f := newFake(t, "gpus 1\nhang nvmlInit_v2 -1")
	s := f.sampling(Settings{Retry: time.Millisecond, Deadline: 20 * time.Millisecond})
	eventually(t, s, "a hung driver", func(s *Snapshot) bool { return len(s.Status.Hung) == 1 && s.Status.Err != nil })
	f.play("gpus 1")
	eventually(t, s, "it to be used", func(s *Snapshot) bool {
		return s.Status.Open && s.Status.Err == nil && len(states(s, event.GPUOK)) == 1
	})
}

// Whichever function hangs, a snapshot is to be had and says so, and all goes on
// when it has come back.
func TestHangOfAnyKind(t *testing.T) {
	for _, function := range []string{"nvmlDeviceGetCount_v2", "nvmlDeviceGetUUID", "nvmlEventSetWait_v2", "nvmlDeviceGetFieldValues", "nvmlGpmMetricsGet"} {
		t.Run(function, func(t *testing.T) {
			f := newFake(t, "gpus 3")
			s := f.sampling(Settings{Retry: time.Millisecond, Deadline: 100 * time.Millisecond})
			eventually(t, s, "three GPUs", func(s *Snapshot) bool { return len(states(s, event.GPUOK)) == 3 })
			f.play("gpus 3", "hang "+function+" -1")
			eventually(t, s, "a hang", func(s *Snapshot) bool { return len(s.Status.Hung) > 0 && s.Status.Hangs > 0 })
			f.play("gpus 3")
			eventually(t, s, "three GPUs", func(s *Snapshot) bool { return len(s.Status.Hung) == 0 && len(states(s, event.GPUOK)) == 3 })
		})
	}
}

func TestReleaseThatHangs(t *testing.T) {
	ctx := context.Background()
	f := newFake(t, "gpus 1\nhang nvmlShutdown -1")
	s := f.sampling(Settings{Retry: time.Millisecond, Deadline: 100 * time.Millisecond})
	eventually(t, s, "a GPU", func(s *Snapshot) bool { return len(states(s, event.GPUOK)) == 1 })
	if err := s.Release(ctx); err == nil {
		t.Error("released while closing hangs")
	}
	if err := s.Open(ctx); err == nil || strings.Contains(err.Error(), "nil") {
		t.Errorf("opened while closing hangs: %v", err)
	}
	f.play("gpus 1")
	bpftest.Eventually(t, "it to be open", func() bool { return s.Open(ctx) == nil })
	bpftest.Eventually(t, "it to be released", func() bool { return s.Release(ctx) == nil })
}

// Who has not the time to wait for a release until devices that hang have had theirs
// has it nevertheless.
func TestReleaseThatIsNotWaitedFor(t *testing.T) {
	f := newFake(t, "gpus 8")
	s := f.sampling(Settings{Deadline: 300 * time.Millisecond})
	eventually(t, s, "devices", func(s *Snapshot) bool { return len(states(s, event.GPUOK)) == 8 })
	f.play("gpus 8", "hang nvmlDeviceGetUtilizationRates -1")
	time.Sleep(100 * time.Millisecond) // in the midst of it, where the machine is not busy
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Release(over); err == nil {
		t.Error("released at once")
	}
	f.play("gpus 8")
	eventually(t, s, "it to be released", func(s *Snapshot) bool { return !s.Status.Open && len(s.Status.Hung) == 0 && s.Status.Version == "" })
}

func TestReleaseAndOpen(t *testing.T) {
	ctx := context.Background()
	f := newFake(t, node)
	s := f.sampling(Settings{Deadline: time.Minute})
	for range 3 {
		eventually(t, s, "devices", func(s *Snapshot) bool { return len(s.Samples) == 18 })
		if err := s.Release(ctx); err != nil {
			t.Fatal(err)
		}
		if l := s.Latest(); l.Status.Open || l.Status.Err != nil || len(l.Samples) != 0 {
			t.Errorf("released: %+v", l.Status)
		}
		if maps, _ := os.ReadFile("/proc/self/maps"); strings.Contains(string(maps), f.path) {
			t.Fatal("the library is still loaded")
		}
		if err := s.Open(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Open(ctx); err == nil {
		t.Error("opened when closed")
	}
}

func TestDriverThatComesLater(t *testing.T) {
	f := newFake(t, "gpus 1")
	away := filepath.Join(filepath.Dir(f.path), "away")
	if err := os.Rename(f.path, away); err != nil {
		t.Fatal(err)
	}
	s := f.sampling(Settings{Retry: time.Millisecond, Deadline: time.Minute})
	eventually(t, s, "no library", func(s *Snapshot) bool { return errors.Is(s.Status.Err, ErrNoLibrary) })
	if err := s.Open(context.Background()); !errors.Is(err, ErrNoLibrary) {
		t.Error(err)
	}
	if err := os.Rename(away, f.path); err != nil {
		t.Fatal(err)
	}
	eventually(t, s, "the GPU", func(s *Snapshot) bool { return len(states(s, event.GPUOK)) == 1 })
}

// stub is a driver of one device, whose first call hangs.
type stub struct {
	asked atomic.Int32
	end   chan struct{}
}

func (d *stub) find([]device) ([]device, error)                                  { return []device{d}, nil }
func (d *stub) events(l []event.GPUXid, _ []device) (_ []event.GPUXid, new bool) { return l, false }
func (d *stub) about() (string, []string)                                        { return "stub", nil }
func (d *stub) close() error                                                     { return nil }
func (d *stub) gpu() *event.GPU                                                  { return &event.GPU{UUID: "stub"} }
func (d *stub) renew()                                                           {}
func (d *stub) free()                                                            {}

func (d *stub) sample(*event.GPUSample) error {
	d.asked.Add(1)
	<-d.end
	return nil
}

func TestHungDeviceIsNotAskedAgain(t *testing.T) {
	d := &stub{end: make(chan struct{})}
	s := start(Settings{Every: time.Millisecond, Deadline: 5 * time.Millisecond}.filled(), func() (driver, error) { return d, nil })
	at := eventually(t, s, "a hang", func(s *Snapshot) bool { return len(states(s, event.GPUHung)) == 1 }).At
	eventually(t, s, "more rounds", func(s *Snapshot) bool { return s.At > at+int64(50*time.Millisecond) })
	if n := d.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	close(d.end)
	eventually(t, s, "it to come back", func(s *Snapshot) bool { return len(states(s, event.GPUOK)) == 1 && len(s.Status.Hung) == 0 })
	bpftest.Eventually(t, "the end", func() bool { return s.Close() == nil })
}

// crowded is eight divided GPUs with 200 processes.
func crowded() string {
	var s strings.Builder
	s.WriteString("gpus 8\nlinks 18\n")
	for gpu := range 8 {
		fmt.Fprintf(&s, "mig %d 7\n", gpu)
		for i := range 25 {
			fmt.Fprintf(&s, "process %d c %d 100 %d\n", gpu, 1000*gpu+i, 1+i%7)
		}
	}
	return s.String()
}

func TestMemoryIsBounded(t *testing.T) {
	bpftest.RequireProgram(t, "gcc")
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	s := newFake(t, crowded()).sampling(Settings{Deadline: time.Minute})
	full := eventually(t, s, "all devices", func(s *Snapshot) bool { return len(states(s, event.GPUOK)) == 64 })
	eventually(t, s, "more rounds", func(s *Snapshot) bool { return s.At > full.At+int64(300*time.Millisecond) })
	after := heap()
	if after > before+8<<20 {
		t.Errorf("%d KiB of heap", (after-before)>>10)
	}
	t.Logf("%d KiB of heap", (int64(after)-int64(before))>>10)
}

// BenchmarkRound is everything that the binding asks for, once. The fake's own
// time is in it, and a real driver's is not.
func BenchmarkRound(b *testing.B) {
	for name, scenario := range map[string]string{
		"8 GPUs":                            "gpus 8\nlinks 18",
		"8 GPUs 56 instances 200 processes": crowded(),
	} {
		b.Run(name, func(b *testing.B) {
			_, devices := newFake(b, scenario).open()
			b.ReportAllocs()
			for b.Loop() {
				for _, d := range devices {
					var s event.GPUSample
					if err := d.sample(&s); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// Who asks for rounds has them when it wants, and no others in between.
func TestNext(t *testing.T) {
	f := newFake(t, "gpus 1")
	s := Start(Settings{Libraries: []string{f.path}, Sysfs: t.TempDir(), Every: 2 * time.Second})
	defer s.Close()
	before := s.Next(t.Context())
	for range 5 {
		time.Sleep(300 * time.Millisecond)
		now := s.Next(t.Context())
		if now.At <= before.At {
			t.Fatal("no new round")
		}
		if len(now.Samples) == 1 && !now.Samples[0].SM.Known {
			t.Error("two rounds were so near to each other that there is no activity")
		}
		before = now
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if s.Next(over) == nil {
		t.Error("who does not wait is told nothing")
	}
}

// A driver that is released from the beginning is opened when that is asked.
func TestReleasedFromTheStart(t *testing.T) {
	f := newFake(t, "gpus 1")
	s := Start(Settings{Libraries: []string{f.path}, Sysfs: t.TempDir(), Released: true})
	defer s.Close()
	if now := s.Next(t.Context()); now.Status.Open || now.Status.Err != nil || len(now.GPUs) != 0 {
		t.Errorf("before: %+v", now.Status)
	}
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := s.Next(t.Context()); !now.Status.Open || len(now.GPUs) != 1 {
		t.Errorf("after: %+v", now.Status)
	}
}

// Whoever has no driver can let go of it, and ends without an error.
func TestReleaseWithoutADriver(t *testing.T) {
	broken := t.TempDir() + "/libnvidia-ml.so.1"
	if err := os.WriteFile(broken, []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/no/such/library", broken} {
		for range 50 { // the loader keeps what it says by thread
			s := Start(Settings{Libraries: []string{path}, Sysfs: t.TempDir()})
			if err := s.Open(t.Context()); (path != broken) != errors.Is(err, ErrNoLibrary) {
				t.Fatalf("open %s: %v", path, err)
			}
			if err := s.Release(t.Context()); err != nil {
				t.Fatalf("release %s: %v", path, err)
			}
			if now := s.Next(t.Context()); now.Status.Err != nil || now.Status.Open {
				t.Fatalf("released: %+v", now.Status)
			}
			if err := s.Close(); err != nil {
				t.Fatalf("close %s: %v", path, err)
			}
		}
	}
}

// A driver that hangs for all devices is known after one deadline, and the end does
// not wait for more.
func TestAllDevicesHang(t *testing.T) {
	f := newFake(t, "gpus 8")
	s := Start(Settings{Libraries: []string{f.path}, Sysfs: t.TempDir(), Every: time.Hour, Deadline: time.Second})
	if now := s.Next(t.Context()); len(now.GPUs) != 8 {
		t.Fatalf("%d GPUs", len(now.GPUs))
	}
	f.play("gpus 8", "hang nvmlDeviceGetPowerUsage -1")
	start := time.Now()
	now := s.Next(t.Context())
	for i := range now.Samples {
		if now.Samples[i].State != event.GPUHung {
			t.Errorf("GPU %d: %+v", i, now.Samples[i].State)
		}
	}
	if took := time.Since(start); len(now.Status.Hung) < 8 || took > 6*time.Second {
		t.Errorf("after %v: %v", took, now.Status.Hung)
	}
	if err := s.Release(t.Context()); err == nil {
		t.Error("it is released while calls have not come back")
	}
	start = time.Now()
	if err := s.Close(); err == nil || time.Since(start) > 6*time.Second {
		t.Errorf("the end took %v: %v", time.Since(start), err)
	}
	f.play("gpus 8") // which is gone when the test is
	bpftest.Eventually(t, "all calls to come back", func() bool {
		stacks := make([]byte, 1<<20)
		return !bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("gpu.begin.func"))
	})
}
