// SPDX-License-Identifier: Apache-2.0

package accelerator

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/event"
)

func TestTheNetworkStandsInTheSameRow(t *testing.T) {
	n := newNode()
	s := n.gpu(0.5)
	a, container := pod("a"), pod("a")
	container.Container = "train"
	n.process(s, container, 0.5, 1e9)
	n.process(s, host("python", 7), 0.5, 1e9)
	tracker := New(Config{})
	if tracker.Watching() {
		t.Error("nobody is known yet")
	}
	view, _ := tracker.Round(&n.Round)
	h, _ := row(t, view, "a", 0)
	if !tracker.Watching() || h.NetworkKnown || h.Who.Container != "" || h.Start != h.End {
		t.Fatalf("%+v", h)
	}
	peer := &event.Identity{Class: event.ClassExternal}
	for _, local := range []*event.Identity{a, container, pod("b"), {Class: event.ClassHost}, nil} {
		tracker.Flow(&event.Flow{Local: local, Remote: peer, Health: event.Health{Resent: 2}}, &event.Traffic{TxBytes: 5, RxBytes: 7}, false, false)
		tracker.Lookup(local, &event.Lookup{})
	}
	n.next()
	view, _ = tracker.Round(&n.Round)
	h, _ = row(t, view, "a", 0)
	if want := (event.Traffic{TxBytes: 10, RxBytes: 14}); h.Network != want || !h.NetworkKnown || h.Resent != 4 || h.End-h.Start != tick {
		t.Errorf("%+v", h)
	}
	if other, _ := row(t, view, "host", 0); other.NetworkKnown || other.Network != (event.Traffic{}) {
		t.Errorf("%+v", other)
	}
	n.next()
	view, _ = tracker.Round(&n.Round)
	if h, _ = row(t, view, "a", 0); h.Network != (event.Traffic{}) || h.Resent != 0 {
		t.Errorf("it was told before: %+v", h)
	}

	// It is gone, and another has its place.
	n.next()
	s.Processes = nil
	n.process(s, pod("b"), 0.5, 1e9)
	view, _ = tracker.Round(&n.Round)
	tracker.Flow(&event.Flow{Local: a, Remote: peer}, &event.Traffic{TxBytes: 5}, false, false)
	if h, _ = row(t, view, "a", 0); h != nil || tracker.find(a) != nil || tracker.find(pod("b")) == nil {
		t.Errorf("%+v", h)
	}
	n.next()
	s.Processes = nil
	tracker.Round(&n.Round)
	if tracker.Watching() || len(tracker.holders) != 0 {
		t.Error("nobody holds anything")
	}
}

func TestWhatGoesOnEndsWithItsHolder(t *testing.T) {
	n := newNode()
	n.gpu(0)
	n.held(pod("a"), n.GPUs[0].UUID)
	tracker := New(Config{})
	var began, ended *event.GPUFinding
	for i := range 40 {
		if i == 35 {
			n.Held = nil
		}
		_, events := tracker.Round(&n.Round)
		for _, e := range events {
			if e.Finding != nil && e.Finding.Ended == 0 {
				began = e.Finding
			} else if e.Finding != nil {
				ended = e.Finding
			}
		}
		n.next()
	}
	if began == nil || ended == nil || ended.Since != began.Since {
		t.Errorf("%+v, %+v", began, ended)
	}
}

func TestTheKernelReadsForSomebody(t *testing.T) {
	n := newNode()
	n.gpu(0)
	n.held(pod("a"), n.GPUs[0].UUID)
	tracker := New(Config{Idle: 10 * time.Second})
	kernel := &event.Identity{Class: event.KernelService("nfs")}
	server := &event.Identity{Class: event.ClassExternal}
	f := event.Flow{Local: kernel, Remote: server, State: event.StateEstablished}
	f.Conn.Protocol, f.Conn.RemotePort = event.TCP, 2049
	for range 20 {
		tracker.Flow(&f, &event.Traffic{RxBytes: 100 << 20, RxPackets: 1000}, false, false)
		_, events := tracker.Round(&n.Round)
		for _, e := range events {
			if e.Finding != nil && e.Finding.Cause != event.CauseStorage {
				t.Errorf("%+v", e.Finding)
			}
			if e.Finding != nil {
				return
			}
		}
		n.next()
	}
	t.Error("nothing was found")
}

// crowded is 8 GPUs of which all are divided, and 200 processes.
func crowded() *node {
	n := newNode()
	n.GPUs, n.Samples = make([]event.GPU, 0, 72), make([]event.GPUSample, 0, 72)
	for range 8 {
		of := len(n.GPUs)
		n.gpu(0.5)
		n.Samples[of].Links = make([]event.GPULink, 18)
		for range 8 {
			n.instance(of, "1g.10gb", 0.5)
		}
	}
	for i := range 200 {
		at := i % 72
		n.process(&n.Samples[at], pod(fmt.Sprint(i)), 0.1, 1e8)
		n.held(pod(fmt.Sprint(i)), fmt.Sprintf("%s::%d", n.GPUs[at].UUID, i))
	}
	return n
}

// A second's work, of which 1 % of a core is 10 ms.
func BenchmarkRound(b *testing.B) {
	n := crowded()
	tracker := New(Config{})
	tracker.Round(&n.Round)
	b.ReportAllocs()
	for b.Loop() {
		n.next()
		tracker.Round(&n.Round)
	}
}

func BenchmarkFlow(b *testing.B) {
	n := crowded()
	tracker := New(Config{})
	tracker.Round(&n.Round)
	for _, c := range []struct {
		name       string
		identities int
	}{{"of 300 that hold nothing", 300}, {"of 100000 that hold nothing", 100_000}} {
		b.Run(c.name, func(b *testing.B) {
			flows := make([]event.Flow, 100_000)
			locals := make([]*event.Identity, c.identities)
			for i := range locals {
				locals[i] = pod(fmt.Sprint("other-", i))
			}
			for i := range flows {
				flows[i].Local = locals[i%len(locals)]
			}
			moved := event.Traffic{TxBytes: 1, TxPackets: 1}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				tracker.Flow(&flows[i%len(flows)], &moved, false, false)
				i++
			}
		})
	}
	b.Run("of a holder", func(b *testing.B) {
		f := event.Flow{Local: pod("7"), Remote: pod("8")}
		moved := event.Traffic{TxBytes: 1, TxPackets: 1}
		b.ReportAllocs()
		for b.Loop() {
			tracker.Flow(&f, &moved, false, false)
		}
	})
}

// The tracker and the last view of it, with all that a crowded node can have.
func TestMemoryIsBounded(t *testing.T) {
	n := crowded()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	tracker := New(Config{})
	var view *event.GPUView
	for range 100 {
		view, _ = tracker.Round(&n.Round)
		n.next()
	}
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d KiB", used>>10)
	if used > 4<<20 {
		t.Errorf("%d KiB", used>>10)
	}
	adds(t, view)
	runtime.KeepAlive(tracker)
	runtime.KeepAlive(n)
}

func TestConnectionsOfOthersAllocateNothing(t *testing.T) {
	n := crowded()
	tracker := New(Config{})
	tracker.Round(&n.Round)
	f := event.Flow{Local: pod("none"), Remote: pod("none")}
	holder := event.Flow{Local: pod("7"), Remote: pod("none")}
	moved := event.Traffic{TxBytes: 1}
	tracker.Flow(&holder, &moved, false, false)
	if n := testing.AllocsPerRun(1000, func() {
		tracker.Flow(&f, &moved, false, false)
		tracker.Flow(&holder, &moved, false, false)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
