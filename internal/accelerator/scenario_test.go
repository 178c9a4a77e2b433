// SPDX-License-Identifier: Apache-2.0

package accelerator

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/orb8/orb8/internal/event"
)

// instance adds a MIG instance of the GPU that was added last but for instances;
// GPM says how many of its SMs worked.
func (n *node) instance(of int, profile string, sm float64) *event.GPUSample {
	i := len(n.GPUs)
	number := uint32(1)
	for _, g := range n.GPUs {
		if g.Parent == n.GPUs[of].UUID {
			number++
		}
	}
	n.GPUs[of].Divided = true
	uuid := fmt.Sprintf("MIG-%08d-0000-0000-0000-000000000000", i)
	n.GPUs = append(n.GPUs, event.GPU{UUID: uuid, Index: n.GPUs[of].Index, Parent: n.GPUs[of].UUID, Profile: profile, Instance: number})
	n.Samples = append(n.Samples, event.GPUSample{
		UUID: uuid, At: n.At, State: event.GPUOK, ProcessesKnown: true,
		SM: reading(sm), Tensor: reading(sm / 2), DRAM: reading(sm / 3), MemoryUsed: reading(5e9), MemoryTotal: reading(10e9),
	})
	return &n.Samples[i]
}

// says is one line for each row: holder/container@device mode, what is known, and
// ~ where it is an estimate.
func says(view *event.GPUView) (list []string) {
	at := map[*event.GPU]int{}
	for i := range view.GPUs {
		at[&view.GPUs[i]] = i
	}
	for i := range view.Holders {
		h := &view.Holders[i]
		name := h.Who.Pod + h.Who.Process + h.Who.Unit
		if h.Who.Class == event.ClassUnknown {
			name = "-"
		}
		for j := range h.Shares {
			s := &h.Shares[j]
			line := fmt.Sprintf("%s/%s@%d %s %s", name, s.Container, at[s.GPU], s.Mode, h.State)
			if s.Estimated {
				line += " ~"
			}
			if s.PowerEstimated {
				line += " ~w"
			}
			if s.Allocated {
				line += " given"
			}
			for _, v := range []struct {
				name  string
				value event.Reading
				unit  float64
			}{{"busy", s.Busy, 1}, {"sm", s.SM, 1}, {"watts", s.Power, 1}, {"gb", s.Memory, 1e9}} {
				if v.value.Known {
					line += fmt.Sprintf(" %s=%g", v.name, math.Round(v.value.Value/v.unit*1000)/1000)
				}
			}
			list = append(list, line)
		}
	}
	return list
}

func host(process string, pid uint32) *event.Identity {
	return &event.Identity{Class: event.ClassHost, Node: "n1", Process: process, PID: pid}
}

var scenarios = []struct {
	name string
	set  func(*node)
	want string
}{
	{"nobody", func(n *node) { n.gpu(0) }, "-/@0   busy=0 sm=0 watts=70 gb=40"},
	{"given and idle", func(n *node) {
		n.gpu(0)
		n.held(pod("a"), n.GPUs[0].UUID)
	}, "a/@0 exclusive allocated given busy=0 sm=0 watts=70 gb=0\n-/@0 exclusive  busy=0 sm=0 watts=0 gb=40"},
	{"three in turns", func(n *node) {
		s := n.gpu(0.9)
		for i, name := range []string{"a", "b", "c"} {
			n.process(s, pod(name), 0.3*float64(2-i), 10e9)
			n.held(pod(name), fmt.Sprintf("%s::%d", n.GPUs[0].UUID, i))
		}
	}, `a/@0 time-sliced active ~ given busy=0.6 sm=0.54 watts=424.667 gb=10
b/@0 time-sliced active ~ given busy=0.3 sm=0.27 watts=212.333 gb=10
c/@0 time-sliced active ~ given busy=0 sm=0 watts=0 gb=10
-/@0 time-sliced  busy=0 sm=0 watts=0 gb=10`},
	{"in turns, one has no process", func(n *node) {
		s := n.gpu(0.5)
		n.process(s, pod("a"), 0.2, 10e9)
		n.held(pod("a"), n.GPUs[0].UUID+"::0")
		n.held(pod("b"), n.GPUs[0].UUID+"::1")
	}, `a/@0 time-sliced active given busy=0.5 sm=0.45 watts=385 gb=10
b/@0 time-sliced allocated given busy=0 sm=0 watts=0 gb=0
-/@0 time-sliced  busy=0 sm=0 watts=0 gb=30`},
	{"processes sum to more than the device", func(n *node) {
		s := n.gpu(1)
		n.process(s, pod("a"), 0.9, 30e9)
		n.process(s, pod("b"), 0.9, 50e9)
	}, `a/@0 time-sliced active ~ busy=0.5 sm=0.45 watts=350 gb=15
b/@0 time-sliced active ~ busy=0.5 sm=0.45 watts=350 gb=25`},
	{"nobody is told apart", func(n *node) {
		s := n.gpu(0.5)
		n.process(s, pod("a"), 0, 1e9).Busy.Known = false
		n.process(s, pod("b"), 0, 1e9).Busy.Known = false
	}, `a/@0 time-sliced active gb=1
b/@0 time-sliced active gb=1
-/@0 time-sliced  busy=0.5 sm=0.45 watts=385 gb=38`},
	{"all say nothing, the device works", func(n *node) {
		s := n.gpu(0.5)
		n.process(s, pod("a"), 0, 1e9)
		n.process(s, pod("b"), 0, 1e9)
	}, `a/@0 time-sliced active gb=1
b/@0 time-sliced active gb=1
-/@0 time-sliced  busy=0.5 sm=0.45 watts=385 gb=38`},
	{"all do nothing", func(n *node) {
		s := n.gpu(0)
		n.process(s, pod("a"), 0, 1e9).Busy.Known = false
		n.process(s, pod("b"), 0, 1e9)
	}, `a/@0 time-sliced active busy=0 sm=0 gb=1
b/@0 time-sliced active busy=0 sm=0 gb=1
-/@0 time-sliced  busy=0 sm=0 watts=70 gb=38`},
	{"an MPS server", func(n *node) {
		s := n.gpu(0.6)
		for _, name := range []string{"a", "b"} {
			n.process(s, pod(name), 0.3, 4e9).Kind |= event.GPUShared
		}
		n.process(s, host("nvidia-cuda-mps-server", 9), 0, 30e6)
	}, `nvidia-cuda-mps-server/@0 mps active ~ busy=0 sm=0 watts=0 gb=0.03
a/@0 mps active ~ busy=0.3 sm=0.27 watts=224 gb=4
b/@0 mps active ~ busy=0.3 sm=0.27 watts=224 gb=4
-/@0 mps  busy=0 sm=0 watts=0 gb=31.97`},
	{"a process of the host beside a pod", func(n *node) {
		s := n.gpu(0.4)
		n.process(s, pod("a"), 0.3, 4e9)
		n.process(s, host("python", 7), 0.1, 4e9)
		n.held(pod("a"), n.GPUs[0].UUID)
	}, `python/@0 time-sliced active ~ busy=0.1 sm=0.09 watts=80.5 gb=4
a/@0 time-sliced active ~ given busy=0.3 sm=0.27 watts=241.5 gb=4
-/@0 time-sliced  busy=0 sm=0 watts=0 gb=32`},
	{"a process that nobody knows", func(n *node) {
		s := n.gpu(0.4)
		n.process(s, pod("a"), 0.3, 4e9)
		n.process(s, nil, 0.1, 4e9)
	}, `a/@0 time-sliced active ~ busy=0.3 sm=0.27 watts=241.5 gb=4
-/@0 time-sliced active ~ busy=0.1 sm=0.09 watts=80.5 gb=36`},
	{"two containers of a pod", func(n *node) {
		s := n.gpu(0.4)
		n.in[n.process(s, pod("a"), 0.1, 4e9).PID] = "x"
		n.in[n.process(s, pod("a"), 0.3, 4e9).PID] = "y"
	}, `a/x@0 exclusive active ~ busy=0.1 sm=0.09 watts=80.5 gb=4
a/y@0 exclusive active ~ busy=0.3 sm=0.27 watts=241.5 gb=4
-/@0 exclusive  busy=0 sm=0 watts=0 gb=32`},
	{"it does not answer", func(n *node) {
		*n.gpu(1) = event.GPUSample{UUID: n.GPUs[0].UUID, State: event.GPUHung}
		*n.gpu(1) = event.GPUSample{UUID: n.GPUs[1].UUID, State: event.GPULost}
		n.held(pod("a"), n.GPUs[0].UUID)
		n.held(pod("b"), n.GPUs[1].UUID)
	}, "a/@0 exclusive hung given\nb/@1 exclusive lost given"},
	{"lost, and nobody's", func(n *node) {
		*n.gpu(1) = event.GPUSample{UUID: n.GPUs[0].UUID, State: event.GPULost}
	}, "-/@0  lost"},
	{"the driver tells nothing", func(n *node) {
		*n.gpu(1) = event.GPUSample{UUID: n.GPUs[0].UUID, State: event.GPUOK}
		n.held(pod("a"), n.GPUs[0].UUID)
	}, "a/@0 exclusive active given"},
	{"no processes are told", func(n *node) {
		n.gpu(0.5).ProcessesKnown = false
		n.held(pod("a"), n.GPUs[0].UUID)
		n.gpu(0.5).ProcessesKnown = false
		n.held(pod("b"), n.GPUs[1].UUID+"::0")
		n.held(pod("c"), n.GPUs[1].UUID+"::1")
	}, `a/@0 exclusive active ~ given busy=0.5 sm=0.45 watts=385 gb=40
b/@1 time-sliced active given
c/@1 time-sliced active given
-/@1 time-sliced  busy=0.5 sm=0.45 watts=385 gb=40`},
	{"memory of processes is not told", func(n *node) {
		s := n.gpu(0.5)
		n.process(s, pod("a"), 0.5, 0).Memory.Known = false
		s = n.gpu(0.5)
		n.process(s, pod("b"), 0.25, 0).Memory.Known = false
		n.process(s, pod("c"), 0.25, 3e9)
	}, `a/@0 exclusive active ~ busy=0.5 sm=0.45 watts=385 gb=40
b/@1 time-sliced active ~ busy=0.25 sm=0.225 watts=192.5
c/@1 time-sliced active ~ busy=0.25 sm=0.225 watts=192.5 gb=3
-/@1 time-sliced  busy=0 sm=0 watts=0 gb=37`},
	{"instances", func(n *node) {
		n.gpu(0.5)
		n.Samples[0].Busy, n.Samples[0].SM = event.Reading{}, event.Reading{}
		n.process(n.instance(0, "1g.10gb", 0.6), pod("a"), 0, 4e9).Busy.Known = false
		s := n.instance(0, "3g.40gb", 0.6)
		n.process(s, pod("b"), 0, 2e9).Busy.Known = false
		n.process(s, pod("c"), 0, 2e9).Busy.Known = false
		n.instance(0, "1g.10gb", 0)
		n.held(pod("a"), n.GPUs[1].UUID)
	}, `a/@1 mig active ~w given sm=0.6 watts=96.25 gb=4
b/@2 mig active gb=2
c/@2 mig active gb=2
-/@0   watts=0 gb=25
-/@1 mig  sm=0 watts=0 gb=1
-/@2 mig  ~w sm=0.6 watts=288.75 gb=1
-/@3   ~w sm=0 watts=0 gb=5`},
	{"instances without GPM", func(n *node) {
		n.gpu(0.5)
		n.Samples[0].SM = event.Reading{}
		s := n.instance(0, "1g.10gb", 0)
		s.SM, s.Tensor, s.DRAM = event.Reading{}, event.Reading{}, event.Reading{}
		n.process(s, pod("a"), 0, 5e9).Busy.Known = false
	}, "a/@1 mig active gb=5\n-/@0   busy=0.5 watts=385 gb=35"},
	{"two compute instances of one", func(n *node) {
		n.gpu(0.5)
		for i, name := range []string{"a", "b"} {
			n.process(n.instance(0, "1c.2g.20gb", 0.5), pod(name), 0, 2e9).Busy.Known = false
			n.GPUs[i+1].Instance, n.GPUs[i+1].ComputeInstance = 1, uint32(i)
		}
		n.process(&n.Samples[0], pod("c"), 0, 1e9).Instance = 1
		n.Samples[0].Processes[0].ComputeInstance = 1
	}, `a/@1 mig active ~w sm=0.5 watts=192.5 gb=2
b/@2 mig active gb=2
c/@2 mig active gb=1
-/@0   busy=0.5 watts=0 gb=35
-/@1 mig  sm=0 watts=0 gb=3
-/@2 mig  ~w sm=0.5 watts=192.5 gb=2`},
	{"an instance of a GPU that is lost", func(n *node) {
		n.gpu(0.5)
		n.held(pod("a"), n.instance(0, "1g.10gb", 0.5).UUID)
		n.Samples[0] = event.GPUSample{UUID: n.GPUs[0].UUID, At: n.At, State: event.GPULost}
	}, "a/@1 mig lost given sm=0.5 gb=0\n-/@1 mig lost sm=0 gb=5"},
	{"an instance's processes are told of the GPU", func(n *node) {
		s := n.gpu(0)
		n.process(s, pod("a"), 0, 5e9).Instance = 1
		n.instance(0, "1g.10gb", 0.5).ProcessesKnown = true
	}, "a/@1 mig active ~w sm=0.5 watts=70 gb=5\n-/@0   busy=0 watts=0 gb=35"},
}

func TestScenariosAddUp(t *testing.T) {
	for _, c := range scenarios {
		t.Run(c.name, func(t *testing.T) {
			n := newNode()
			c.set(n)
			tracker := New(Config{})
			view, _ := tracker.Round(&n.Round)
			adds(t, view)
			if got := strings.Join(says(view), "\n"); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			n.next()
			want := 0.0
			for i := range n.Samples {
				if s := &n.Samples[i]; s.Energy.Known {
					s.Energy.Value += 500
					want += 500
				}
			}
			view, _ = tracker.Round(&n.Round)
			adds(t, view)
			sum := 0.0
			for i := range view.Accounts {
				sum += view.Accounts[i].Energy
			}
			if math.Abs(sum-want) > 1e-6 {
				t.Errorf("accounts have %v J, the devices %v", sum, want)
			}
		})
	}
}

func TestOneRowForAllOfAHolder(t *testing.T) {
	n := newNode()
	for i := range 6 {
		n.gpu(0.5)
		n.process(&n.Samples[i], pod(fmt.Sprint(i/2)), 0.5, 30e9)
		n.held(pod(fmt.Sprint(i/2)), n.GPUs[i].UUID)
	}
	for range 2 {
		of := len(n.GPUs)
		n.gpu(0.5)
		for j := range 7 {
			s := n.instance(of, "1g.10gb", 0.1*float64(j))
			n.held(pod(fmt.Sprint(j)), s.UUID)
		}
	}
	tracker := New(Config{})
	view, _ := tracker.Round(&n.Round)
	adds(t, view)
	if len(view.Holders) != 8 || view.Holders[7].Who.Class != event.ClassUnknown {
		t.Fatalf("%d holders", len(view.Holders))
	}
	for i := range view.Holders[:7] {
		h := &view.Holders[i]
		if want := [7]int{4, 4, 4, 2, 2, 2, 2}[i]; h.Who.Pod != fmt.Sprint(i) || len(h.Shares) != want {
			t.Errorf("%s has %d", h.Who.Pod, len(h.Shares))
		}
	}

	// What was published stays as it is.
	said := fmt.Sprint(says(view), view.Modes, view.Losses)
	accounts := fmt.Sprint(view.Accounts)
	for range 3 {
		n.next()
		for i := range n.Samples {
			n.Samples[i].Energy.Value += 100
		}
		n.Xids = []event.GPUXid{{UUID: n.GPUs[0].UUID, Code: 13, Instance: event.NoInstance}}
		n.Held = n.Held[1:]
		tracker.Round(&n.Round)
	}
	if now := fmt.Sprint(says(view), view.Modes, view.Losses); now != said {
		t.Errorf("was\n%s\nis\n%s", said, now)
	}
	if now := fmt.Sprint(view.Accounts); now != accounts {
		t.Errorf("was\n%s\nis\n%s", accounts, now)
	}
}
