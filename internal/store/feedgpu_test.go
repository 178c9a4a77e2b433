// SPDX-License-Identifier: Apache-2.0

package store

import (
	"runtime"
	"testing"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/filter"
)

// What happens to a device is told to who follows one of its holders.
func TestFeedOfGPUs(t *testing.T) {
	f := NewFeed(FeedConfig{})
	gpu := &event.GPU{UUID: "GPU-a"}
	a := &event.Identity{Class: event.ClassPod, Namespace: "ml", Pod: "a"}
	b := &event.Identity{Class: event.ClassPod, Namespace: "web", Pod: "b"}
	pod := func(name string) (w Wish) {
		w.Filter.Include.Pods = []string{name}
		return w
	}
	inWeb, device, otherDevice := pod("b"), Wish{GPUs: filter.GPUs{"GPU-a"}}, Wish{GPUs: filter.GPUs{"GPU-b"}}
	none := pod("c")
	none.Since = 1
	followers := map[string]*Follower{}
	for name, w := range map[string]Wish{"pod": inWeb, "device": device, "other device": otherDevice, "other pod": none, "all": {}} {
		fo, err := f.Follow(w)
		if err != nil {
			t.Fatal(err)
		}
		followers[name] = fo
	}
	f.PublishGPU(event.KindGPUXid, 7, &event.GPUEvent{GPU: gpu, Holders: []*event.Identity{a, b}, Xid: &event.GPUXid{Code: 79}})
	f.Flush()
	for name, want := range map[string]int{"pod": 1, "device": 1, "other device": 0, "other pod": 0, "all": 1} {
		if got := len(followers[name].Events()); got != want {
			t.Errorf("%s: %d batches", name, got)
		}
	}
	late, err := f.Follow(Wish{Since: 1, Kinds: []event.Kind{event.KindGPUXid}})
	if err != nil {
		t.Fatal(err)
	}
	batch := <-late.Events()
	if len(batch) != 1 || batch[0].Kind != event.KindGPUXid || batch[0].Time != 7 || batch[0].GPU.Xid.Code != 79 {
		t.Errorf("remembered: %+v", batch)
	}
	f.PublishGPU(event.KindGPUSample, 8, &event.GPUEvent{Holders: []*event.Identity{a}, Sample: &event.GPUHolder{Who: a}})
	if after, _ := f.Follow(Wish{Since: 8}); len(after.Events()) != 0 {
		t.Error("a sample is remembered")
	}
}

// What is remembered of a second does not keep the rest of it.
func TestFeedRemembersNoNeighbours(t *testing.T) {
	f := NewFeed(FeedConfig{})
	gone := make(chan struct{})
	func() {
		row := &event.GPUHolder{Who: &event.Identity{}, Shares: make([]event.GPUShare, 100)}
		runtime.AddCleanup(row, func(gone chan struct{}) { close(gone) }, gone)
		events := []event.GPUEvent{{Sample: row}, {Xid: &event.GPUXid{Code: 79}}}
		f.PublishGPU(event.KindGPUSample, 1, &events[0])
		f.PublishGPU(event.KindGPUXid, 1, &events[1])
	}()
	bpftest.Eventually(t, "the second's samples to be gone", func() bool {
		runtime.GC()
		select {
		case <-gone:
			return true
		default:
			return false
		}
	})
	runtime.KeepAlive(f)
}

// A GPU at its power cap does not push out what is remembered.
func TestFeedRemembersHarm(t *testing.T) {
	f := NewFeed(FeedConfig{})
	g := func(why event.GPUThrottle) *event.GPUEvent {
		return &event.GPUEvent{Holders: []*event.Identity{{Class: event.ClassUnknown}}, Throttle: why}
	}
	f.PublishGPU(event.KindGPUThrottle, 1, g(event.ThrottlePowerCap))
	f.PublishGPU(event.KindGPUThrottle, 2, g(event.ThrottlePowerCap|event.ThrottleThermal))
	fo, err := f.Follow(Wish{Since: 1})
	if err != nil {
		t.Fatal(err)
	}
	if batch := <-fo.Events(); len(batch) != 1 || batch[0].Time != 2 {
		t.Errorf("%+v", batch)
	}
}
