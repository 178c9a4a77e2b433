// SPDX-License-Identifier: Apache-2.0

package accelerator

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/event"
)

// fail has devices that do not answer in this state.
func (n *node) fail(state event.GPUState) {
	for i := range n.Samples {
		n.Samples[i] = event.GPUSample{UUID: n.Samples[i].UUID, At: n.At, State: state}
	}
}

func TestWhoWasOnADeviceThatFailsStays(t *testing.T) {
	for _, state := range []event.GPUState{event.GPUHung, event.GPULost} {
		n := newNode()
		s := n.gpu(0.5)
		a := n.process(s, pod("a"), 0.2, 10e9).PID
		b := n.process(s, host("python", 7), 0.3, 10e9).PID
		n.process(s, nil, 0, 1e9) // nobody's
		n.in[a] = "x"
		n.held(pod("c"), n.GPUs[0].UUID+"::0")
		is := map[event.GPUState]string{event.GPUHung: "hung", event.GPULost: "lost"}[state]
		tracker := New(Config{})
		tracker.Round(&n.Round)
		look := func(want string) *event.GPUView {
			t.Helper()
			n.next()
			view, _ := tracker.Round(&n.Round)
			adds(t, view)
			if got := strings.ReplaceAll(strings.Join(says(view), "\n"), is, "down"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			return view
		}
		n.fail(state)
		for range 3 {
			view := look("python/@0 time-sliced down\na/x@0 time-sliced down\nc/@0 time-sliced down given")
			if _, share := row(t, view, "a", 0); !slices.Equal(share.PIDs, []uint32{a}) {
				t.Errorf("%v", share.PIDs)
			}
		}
		// One ends, and its number is another's; then the other.
		n.who[b] = host("bash", b)
		look("a/x@0 time-sliced down\nc/@0 time-sliced down given")
		n.At += int64(keep) - 5*tick
		look("a/x@0 time-sliced down\nc/@0 time-sliced down given")
		delete(n.who, a)
		look("c/@0 time-sliced down given")
		n.who[a] = pod("a")
		n.At += int64(10 * time.Second)
		look("c/@0 time-sliced down given")
		if len(tracker.kept) != 0 {
			t.Error("it is remembered for ever")
		}
	}
}

func TestAnXidOfADeviceThatFailsIsOfWhoWasOnIt(t *testing.T) {
	n := newNode()
	n.process(n.gpu(0.5), pod("a"), 0.2, 10e9)
	tracker := New(Config{})
	tracker.Round(&n.Round)
	n.fail(event.GPULost)
	n.next()
	n.Xids = []event.GPUXid{{UUID: n.GPUs[0].UUID, Code: 79, Instance: event.NoInstance}}
	_, events := tracker.Round(&n.Round)
	if len(events) == 0 || events[0].Xid == nil || events[0].Holders[0].Pod != "a" {
		t.Errorf("%+v", events)
	}
}

// One that has just come back may not tell of processes at once.
func TestAllocatedStaysSoWhenItsDeviceComesBack(t *testing.T) {
	n := newNode()
	n.gpu(0)
	n.held(pod("a"), n.GPUs[0].UUID)
	tracker := New(Config{})
	for _, c := range []struct {
		state event.GPUState
		known bool
		want  event.GPUHolderState
	}{
		{event.GPUOK, false, event.HolderActive},
		{event.GPUOK, true, event.HolderAllocated},
		{event.GPULost, false, event.HolderLost},
		{event.GPUOK, false, event.HolderAllocated},
		{event.GPUOK, true, event.HolderAllocated},
	} {
		n.next()
		n.Samples[0] = event.GPUSample{UUID: n.GPUs[0].UUID, At: n.At, State: c.state, ProcessesKnown: c.known}
		view, _ := tracker.Round(&n.Round)
		if h, _ := row(t, view, "a", 0); h.State != c.want {
			t.Errorf("%v, want %v", h.State, c.want)
		}
	}
}

// A driver may tell only of the GPU who is on its instances.
func TestWhoWasOnAnInstanceOfAGPUThatFailsStays(t *testing.T) {
	n := newNode()
	n.process(n.gpu(0), pod("a"), 0, 5e9).Instance = 1
	n.process(n.instance(0, "1g.10gb", 0.5), pod("b"), 0, 1e9)
	tracker := New(Config{})
	tracker.Round(&n.Round)
	n.next()
	n.Samples[0] = event.GPUSample{UUID: n.GPUs[0].UUID, At: n.At, State: event.GPUHung}
	view, _ := tracker.Round(&n.Round)
	adds(t, view)
	for _, name := range []string{"a", "b"} {
		if h, share := row(t, view, name, 1); share == nil || len(share.PIDs) != 1 || h.State != event.HolderHung {
			t.Errorf("%s: %+v", name, share)
		}
	}
}
