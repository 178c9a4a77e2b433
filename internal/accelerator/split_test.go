// SPDX-License-Identifier: Apache-2.0

package accelerator

import (
	"fmt"
	"math"
	"testing"

	"github.com/orb8/orb8/internal/event"
)

const tick = int64(1e9)

// node is a machine whose rounds a test makes.
type node struct {
	Round
	who map[uint32]*event.Identity
	in  map[uint32]string
}

func newNode() *node {
	n := &node{who: map[uint32]*event.Identity{}, in: map[uint32]string{}}
	n.At = 1000 * tick
	n.Process = func(pid uint32) (*event.Identity, string) { return n.who[pid], n.in[pid] }
	return n
}

func pod(name string) *event.Identity {
	return &event.Identity{Class: event.ClassPod, Namespace: "ml", Pod: name, PodUID: "uid-" + name}
}

// gpu adds a device that is busy with some values.
func (n *node) gpu(busy float64) *event.GPUSample {
	i := len(n.GPUs)
	uuid := fmt.Sprintf("GPU-%08d-0000-0000-0000-000000000000", i)
	n.GPUs = append(n.GPUs, event.GPU{UUID: uuid, Index: i, Instance: event.NoInstance, ComputeInstance: event.NoInstance})
	n.Samples = append(n.Samples, event.GPUSample{
		UUID: uuid, At: n.At, State: event.GPUOK, ProcessesKnown: true, ThrottleKnown: true,
		Busy: reading(busy), SM: reading(busy * 0.9), Occupancy: reading(busy / 3), Tensor: reading(busy / 2), DRAM: reading(busy / 4),
		Power: reading(70 + 630*busy), Energy: reading(1e6), MemoryUsed: reading(40e9), MemoryTotal: reading(80e9),
	})
	return &n.Samples[i]
}

// process has a process of somebody on a device.
func (n *node) process(s *event.GPUSample, who *event.Identity, busy, memory float64) *event.GPUProcess {
	pid := uint32(100 + len(n.who))
	n.who[pid] = who
	s.Processes = append(s.Processes, event.GPUProcess{
		PID: pid, Kind: event.GPUCompute, Instance: event.NoInstance, ComputeInstance: event.NoInstance,
		Busy: reading(busy), Memory: reading(memory),
	})
	return &s.Processes[len(s.Processes)-1]
}

// next is a second later.
func (n *node) next() {
	n.At += tick
	for i := range n.Samples {
		n.Samples[i].At = n.At
	}
}

func (n *node) held(who *event.Identity, id string) {
	n.Held = append(n.Held, Held{Who: who, Resource: "nvidia.com/gpu", ID: id})
}

// adds tells whether rows add up to the devices.
func adds(t testing.TB, view *event.GPUView) {
	t.Helper()
	names := [readings]string{"busy", "sm", "occupancy", "tensor", "dram", "power", "memory"}
	for i := range view.GPUs {
		gpu := &view.GPUs[i]
		device := readingsOf(&view.Samples[i])
		var sum [readings]float64
		var divided, told [readings]bool
		var instances map[uint32]float64
		rows := map[string]bool{}
		for j := range view.Holders {
			h := &view.Holders[j]
			for k := range h.Shares {
				s := &h.Shares[k]
				if s.GPU == gpu {
					id := fmt.Sprint(j, s.Container)
					if rows[id] {
						t.Errorf("%s: two rows of %+v, %q", gpu.UUID, h.Who, s.Container)
					}
					rows[id] = true
				}
				for r, v := range rowOf(s) {
					if v.Value < 0 || math.IsNaN(v.Value) || !v.Known && v.Value != 0 {
						t.Errorf("%s: %s of %s is %+v", gpu.UUID, names[r], h.Who.Pod, *v)
					}
					switch {
					case s.GPU == gpu:
						sum[r] += v.Value
					case s.GPU.Parent == gpu.UUID && r == ofPower:
						sum[r] += v.Value
					case s.GPU.Parent == gpu.UUID:
						divided[r], told[r] = true, told[r] || v.Known
					}
				}
			}
		}
		for j := range view.GPUs {
			if o := &view.GPUs[j]; o.Parent == gpu.UUID {
				if instances == nil {
					instances = map[uint32]float64{}
				}
				// Those of one GPU instance have its memory together.
				instances[o.Instance] = max(instances[o.Instance], view.Samples[j].MemoryUsed.Value)
			}
		}
		for r := range device {
			want := device[r]
			switch {
			case gpu.Parent != "" && r == ofPower || !want.Known:
				continue
			case divided[r] && r == ofMemory:
				for _, v := range instances {
					want.Value -= v
				}
				want.Value = max(want.Value, 0)
			case divided[r] && told[r] && r != ofPower:
				want.Value = 0
			}
			if math.Abs(sum[r]-want.Value) > 1e-9*max(1, want.Value) {
				t.Errorf("%s: rows have %v of %s, the device %v", gpu.UUID, sum[r], names[r], want.Value)
			}
		}
	}
}

// row is the only share that somebody has of a device.
func row(t *testing.T, view *event.GPUView, name string, gpu int) (*event.GPUHolder, *event.GPUShare) {
	t.Helper()
	for i := range view.Holders {
		h := &view.Holders[i]
		is := h.Who.Pod
		if h.Who.Class != event.ClassPod {
			is = string(h.Who.Class)
		}
		if is != name {
			continue
		}
		for j := range h.Shares {
			if h.Shares[j].GPU == &view.GPUs[gpu] {
				return h, &h.Shares[j]
			}
		}
		return h, nil
	}
	return nil, nil
}

func TestOneHolderHasTheDevice(t *testing.T) {
	n := newNode()
	s := n.gpu(0.8)
	n.process(s, pod("train"), 0.5, 39e9)
	n.held(pod("train"), n.GPUs[0].UUID)
	view, events := New(Config{}).Round(&n.Round)
	adds(t, view)
	h, share := row(t, view, "train", 0)
	if share == nil || share.Busy != s.Busy || share.Power != s.Power || share.Estimated || share.Mode != event.GPUExclusive || !share.Allocated {
		t.Fatalf("%+v", share)
	}
	if h.State != event.HolderActive || len(view.Holders) != 2 || view.Modes[0] != event.GPUExclusive {
		t.Errorf("%+v", view)
	}
	if _, rest := row(t, view, "unknown", 0); rest == nil || rest.Memory != reading(1e9) || rest.Busy != reading(0) || rest.Power != reading(0) {
		t.Errorf("rest %+v", rest)
	}
	if len(events) != 2 || events[0].Sample == nil || events[0].Holders[0] != h.Who {
		t.Errorf("%+v", events)
	}
}
