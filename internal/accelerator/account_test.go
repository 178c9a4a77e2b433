// SPDX-License-Identifier: Apache-2.0

package accelerator

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/event"
)

// accounted is somebody's account of a device; "" is what is unattributed.
func accounted(view *event.GPUView, name string, gpu int) *event.GPUAccount {
	for i := range view.Accounts {
		if a := &view.Accounts[i]; a.GPU.UUID == view.GPUs[gpu].UUID && a.Who.Pod == name {
			return a
		}
	}
	return nil
}

// sums tells whether accounts have what the devices counted.
func (n *node) sums(t *testing.T, view *event.GPUView, joules float64) {
	t.Helper()
	sum := 0.0
	for i := range view.Accounts {
		sum += view.Accounts[i].Energy
	}
	if math.Abs(sum-joules) > 1e-6 {
		t.Errorf("accounts have %v J, the devices %v", sum, joules)
	}
}

func TestEnergyIsSplitAsPowerIs(t *testing.T) {
	n := newNode()
	s := n.gpu(0.8)
	n.process(s, pod("a"), 0.6, 1e9)
	n.process(s, pod("b"), 0.2, 1e9)
	n.gpu(0.5)
	n.Samples[1].Energy = reading(2e6)
	one := n.instance(1, "1g.10gb", 0.5)
	n.process(one, pod("c"), 0, 1e9).Busy.Known = false
	n.instance(1, "1g.10gb", 0.5)
	tracker := New(Config{})
	view, _ := tracker.Round(&n.Round)
	if a := accounted(view, "a", 0); a == nil || a.Energy != 0 || !a.EnergyKnown {
		t.Fatalf("a series begins with 0: %+v", a)
	}
	n.next()
	n.Samples[0].Energy.Value += 400
	n.Samples[1].Energy.Value += 200
	view, _ = tracker.Round(&n.Round)
	n.sums(t, view, 600)
	for _, c := range []struct {
		name   string
		gpu    int
		joules float64
	}{{"a", 0, 300}, {"b", 0, 100}, {"c", 2, 100}, {"", 3, 100}} {
		if a := accounted(view, c.name, c.gpu); a == nil || math.Abs(a.Energy-c.joules) > 1e-9 || !a.EnergyKnown {
			t.Errorf("%s of %d: %+v, not %v J", c.name, c.gpu, a, c.joules)
		}
	}

	// The driver was loaded again: the counter begins again.
	n.next()
	n.Samples[0].Energy = reading(10)
	view, _ = tracker.Round(&n.Round)
	n.sums(t, view, 600)
	n.next()
	n.Samples[0].Energy = reading(14)
	view, _ = tracker.Round(&n.Round)
	n.sums(t, view, 604)

	// It was closed for a minute: whose that was nobody knows.
	n.At += 60 * tick
	n.next()
	n.Samples[0].Energy = reading(1014)
	view, _ = tracker.Round(&n.Round)
	n.sums(t, view, 1604)
	if a := accounted(view, "", 0); a == nil || a.Energy != 1000 {
		t.Errorf("%+v", a)
	}
}

func TestLinksAndReasonsAreWhoHasTheDeviceAlone(t *testing.T) {
	n := newNode()
	for i := range 2 {
		s := n.gpu(1)
		s.Throttle = event.ThrottleThermal | event.ThrottleIdle
		s.Links = []event.GPULink{{Link: 0, Up: true, Sent: reading(1000), Received: reading(500)}, {Link: 17, Up: true, Sent: reading(0)}}
		for j := range i + 1 {
			n.process(s, pod(fmt.Sprint(i, j)), 0.5, 1e9)
		}
	}
	tracker := New(Config{})
	tracker.Round(&n.Round)
	n.next()
	for i := range n.Samples {
		n.Samples[i].Links = []event.GPULink{{Link: 0, Up: true, Sent: reading(1700), Received: reading(600)}, {Link: 17, Up: true, Sent: reading(50)}}
	}
	view, _ := tracker.Round(&n.Round)
	for gpu, name := range []string{"0 0", ""} {
		a := accounted(view, name, gpu)
		if a == nil || !a.NVLinkKnown || a.NVLinkSent != 750 || a.NVLinkReceived != 100 || a.Throttled[5] != 1 || a.Throttled[0] != 0 {
			t.Errorf("%q of %d: %+v", name, gpu, a)
		}
	}
	if a := accounted(view, "1 0", 1); a == nil || a.NVLinkKnown || a.Throttled[5] != 0 {
		t.Errorf("of what is shared: %+v", a)
	}
}

func TestXidsAreOfWhoHasTheInstance(t *testing.T) {
	n := newNode()
	n.gpu(0)
	n.process(n.instance(0, "1g.10gb", 0.5), pod("a"), 0, 1e9)
	n.process(n.instance(0, "1g.10gb", 0.5), pod("b"), 0, 1e9)
	n.gpu(0)
	n.Xids = []event.GPUXid{
		{UUID: n.GPUs[0].UUID, Code: 31, Instance: 2, ComputeInstance: event.NoInstance},
		{UUID: n.GPUs[0].UUID, Code: 79, Instance: event.NoInstance, ComputeInstance: event.NoInstance},
		{UUID: n.GPUs[3].UUID, Code: 63, Instance: event.NoInstance},
		{UUID: "gone", Code: 79, Instance: event.NoInstance},
	}
	tracker := New(Config{})
	before, events := tracker.Round(&n.Round)
	// The devices say nothing new, and yet an Xid is told.
	view, again := tracker.Round(&n.Round)
	if len(again) != len(n.Xids) || len(view.Holders) != len(before.Holders) {
		t.Errorf("%+v", again)
	}
	var said []string
	for _, e := range events {
		if e.Xid == nil {
			continue
		}
		line := fmt.Sprint(e.Xid.Code, " ", e.GPU.UUID == e.Xid.UUID)
		for _, who := range e.Holders {
			line += " " + who.Pod
		}
		said = append(said, line)
	}
	if want := []string{"31 false b", "79 true a b", "63 true ", "79 true "}; !slices.Equal(said, want) {
		t.Errorf("%q", said)
	}
	for _, v := range []struct {
		view  *event.GPUView
		count uint64
	}{{before, 1}, {view, 2}} {
		if a := accounted(v.view, "b", 2); a == nil || a.Xids[31] != v.count {
			t.Errorf("%+v, not %d", a, v.count)
		}
		if a := accounted(v.view, "", 0); a == nil || a.Xids[79] != v.count {
			t.Errorf("%+v, not %d", a, v.count)
		}
	}
}

func TestAccountsAreBoundedAndEnd(t *testing.T) {
	n := newNode()
	s := n.gpu(1)
	n.held(pod("stays"), n.GPUs[0].UUID+"::0")
	tracker := New(Config{Grace: 10 * time.Second})
	for i := range mostAccounts + 300 {
		if i%150 == 0 {
			view, _ := tracker.Round(&n.Round)
			adds(t, view)
			n.next()
			s.Processes = nil
		}
		n.process(s, pod(fmt.Sprint(i)), 0.1, 1e6)
	}
	view, _ := tracker.Round(&n.Round)
	if len(view.Accounts) != mostAccounts || !slices.ContainsFunc(view.Losses, func(l event.Loss) bool { return l.Stage == "gpu_accounts" && l.Count > 0 }) {
		t.Errorf("%d accounts, %+v", len(view.Accounts), view.Losses)
	}
	s.Processes = nil
	for range 20 {
		n.next()
		view, _ = tracker.Round(&n.Round)
	}
	if len(view.Accounts) != 2 || accounted(view, "stays", 0) == nil || accounted(view, "", 0) == nil {
		t.Errorf("%d accounts", len(view.Accounts))
	}
}

func TestHoldersAreBounded(t *testing.T) {
	n := newNode()
	s := n.gpu(1)
	for i := range mostHolders + 10 {
		n.process(s, pod(fmt.Sprint(i)), 0.1, 1e6)
	}
	view, _ := New(Config{}).Round(&n.Round)
	adds(t, view)
	if len(view.Holders) != mostHolders+1 || !slices.ContainsFunc(view.Losses, func(l event.Loss) bool { return l.Stage == "gpu_holders" && l.Count == 10 }) {
		t.Errorf("%d holders, %+v", len(view.Holders), view.Losses)
	}
}

func TestThrottlingBeginsAndEnds(t *testing.T) {
	n := newNode()
	s := n.gpu(1)
	n.process(s, pod("a"), 0.5, 1e9)
	n.process(s, pod("b"), 0.5, 1e9)
	tracker := New(Config{})
	var said []string
	for _, reasons := range []event.GPUThrottle{
		event.ThrottleIdle | event.ThrottleApplicationClocks,
		event.ThrottlePowerCap | event.ThrottleIdle,
		event.ThrottlePowerCap | event.ThrottleThermal,
		event.ThrottlePowerCap | event.ThrottleThermal,
		event.ThrottleApplicationClocks,
	} {
		n.next()
		s.Throttle = reasons
		_, events := tracker.Round(&n.Round)
		for _, e := range events {
			if e.Throttle != 0 {
				said = append(said, fmt.Sprint(n.At/tick-1000, e.Throttle.Names(), e.Ended, e.Lasted/tick, len(e.Holders), e.GPU.UUID == s.UUID))
			}
		}
	}
	want := []string{"2 [power_cap] false 0 2 true", "3 [thermal] false 0 2 true", "5 [power_cap] true 3 2 true", "5 [thermal] true 2 2 true"}
	if !slices.Equal(said, want) {
		t.Errorf("%q", said)
	}

	// A GPU that is not there does not throttle.
	n.next()
	s.Throttle = event.ThrottlePowerCap
	tracker.Round(&n.Round)
	n.next()
	n.GPUs, n.Samples = nil, nil
	view, events := tracker.Round(&n.Round)
	i := slices.IndexFunc(events, func(e event.GPUEvent) bool { return e.Throttle != 0 })
	if i < 0 || !events[i].Ended || events[i].Lasted != tick || events[i].GPU == nil || len(events[i].Holders) != 1 || len(view.Holders) != 0 {
		t.Errorf("%+v", events)
	}
}

// That a GPU has fallen off the bus is told of that GPU, and counted, though the
// driver does not list it any more.
func TestXidOfAGPUThatWent(t *testing.T) {
	n := newNode()
	n.process(n.gpu(0.5), pod("a"), 0.5, 1e9)
	tracker := New(Config{})
	tracker.Round(&n.Round)
	gone := n.GPUs[0]
	n.next()
	n.GPUs, n.Samples, n.Xids = nil, nil, []event.GPUXid{{UUID: gone.UUID, Code: 79, Instance: event.NoInstance}}
	view, events := tracker.Round(&n.Round)
	i := slices.IndexFunc(events, func(e event.GPUEvent) bool { return e.Xid != nil })
	if i < 0 || *events[i].GPU != gone || events[i].Holders[0].Class != event.ClassUnknown {
		t.Errorf("%+v", events)
	}
	counted := slices.ContainsFunc(view.Accounts, func(a event.GPUAccount) bool { return a.GPU.UUID == gone.UUID && a.Xids[79] == 1 })
	if !counted {
		t.Errorf("not counted: %+v", view.Accounts)
	}
}
