// SPDX-License-Identifier: Apache-2.0

package accelerator

import (
	"strings"
	"testing"
)

// Another driver's device stands between the nodes of two GPUs.
func TestNodesOfDevices(t *testing.T) {
	n := newNode()
	n.gpu(0)
	n.gpu(0)
	n.GPUs[0].Minor, n.GPUs[1].Minor = 1, 3
	tracker := New(Config{})
	tracker.begin(&n.Round)
	for _, held := range []Held{
		{Resource: "nvidia.com/gpu", ID: "nvidia2"},
		{DRADriver: "gpu.nvidia.com", DRADevice: "gpu-2"},
		{Resource: "nvidia.com/gpu", ID: "1"},
	} {
		if d, _, _ := tracker.resolve(&held); d == nil || d.gpu.UUID != n.GPUs[1].UUID {
			t.Errorf("%+v: %v", held, d)
		}
	}
	if d, _, ours := tracker.resolve(&Held{Resource: "nvidia.com/gpu", ID: "nvidia1"}); d != nil || !ours {
		t.Errorf("a node of another driver: %v", d)
	}
}

func TestNamesOfDevices(t *testing.T) {
	n := newNode()
	n.gpu(0)
	n.gpu(0)
	n.instance(1, "1g.10gb", 0)
	n.instance(1, "3g.40gb", 0)
	n.instance(1, "1g.10gb", 0)
	n.instance(1, "1g.10gb+me", 0)
	gpu, instance := n.GPUs[0].UUID, n.GPUs[3].UUID
	old := "MIG-" + n.GPUs[1].UUID
	for _, c := range []struct {
		held    Held
		want    int // -1: not known; -2: no GPU
		replica bool
	}{
		{Held{Resource: "nvidia.com/gpu", ID: gpu}, 0, false},
		{Held{Resource: "nvidia.com/gpu.shared", ID: gpu + "::3"}, 0, true},
		{Held{Resource: "example.com/renamed", ID: gpu + "::3"}, 0, true},
		{Held{Resource: "nvidia.com/mig-3g.40gb", ID: instance}, 3, false},
		{Held{Resource: "nvidia.com/mig-3g.40gb", ID: instance + "::0"}, 3, true},
		{Held{Resource: "nvidia.com/gpu", ID: old + "/2/0"}, 3, false},
		{Held{Resource: "nvidia.com/gpu", ID: old + "/9/0"}, -1, false},
		{Held{Resource: "nvidia.com/gpu", ID: "0"}, 0, false},
		{Held{Resource: "nvidia.com/gpu", ID: "nvidia0"}, 0, false},
		{Held{Resource: "nvidia.com/gpu", ID: "nvidia0/vgpu2"}, 0, true},
		{Held{Resource: "nvidia.com/gpu", ID: "nvidia1/gi2"}, 3, false},
		{Held{Resource: "nvidia.com/gpu", ID: "nvidia1/gi2/vgpu1"}, 3, true},
		{Held{Resource: "nvidia.com/gpu", ID: "nvidia1/gi7"}, -1, false},
		{Held{Resource: "nvidia.com/gpu", ID: "nvidia7"}, -1, false},
		{Held{Resource: "nvidia.com/gpu", ID: gpu + "-3"}, -1, false},
		{Held{DRADriver: "gpu.nvidia.com", DRADevice: "gpu-0", ID: "gpu-0"}, 0, false},
		{Held{DRADriver: "gpu.nvidia.com", DRADevice: "gpu-1-mig-3g40gb-9-0"}, 3, false},
		{Held{DRADriver: "gpu.nvidia.com", DRADevice: "gpu-1-mig-3g.40gb-0-4"}, 3, false},
		{Held{DRADriver: "gpu.nvidia.com", DRADevice: "gpu-1-mig-1g10gb-me-20-0"}, 5, false},
		{Held{DRADriver: "gpu.nvidia.com", DRADevice: "gpu-1-mig-1g10gb-19-2"}, -1, false},
		{Held{DRADriver: "gpu.nvidia.com", DRADevice: "gpu-1-mig-9-4-4"}, -1, false},
		{Held{DRADriver: "gpu.nvidia.com", DRADevice: "gpu-vfio-0"}, -1, false},
		{Held{DRADriver: "compute-domain.nvidia.com", DRADevice: "channel-0"}, -2, false},
		{Held{Resource: "nvidia.com/hostdev", ID: "0000:1b:00.2"}, -2, false},
		{Held{Resource: "nvidia.com/gpu_ib", ID: "0000:1b:00.2"}, -2, false},
		{Held{Resource: "rdma/hca", ID: "0"}, -2, false},
	} {
		t.Run(c.held.ID+c.held.DRADevice, func(t *testing.T) {
			tracker := New(Config{})
			tracker.begin(&n.Round)
			d, replica, ours := tracker.resolve(&c.held)
			if ours != (c.want != -2) || replica != c.replica || (d != nil) != (c.want >= 0) {
				t.Fatalf("%v, replica %v, ours %v", d, replica, ours)
			}
			if d != nil && d.gpu.UUID != n.GPUs[c.want].UUID {
				t.Errorf("%s", d.gpu.UUID)
			}
		})
	}
}

func TestWhatIsNotResolvedIsTold(t *testing.T) {
	n := newNode()
	n.gpu(0)
	n.held(pod("a"), "GPU-of-somewhere-else")
	tracker := New(Config{})
	for range 3 {
		view, _ := tracker.Round(&n.Round)
		adds(t, view)
		if len(view.Losses) != 1 || view.Losses[0].Stage != "gpu_devices" || view.Losses[0].Count != 1 || view.Losses[0].Hint == "" {
			t.Errorf("%+v", view.Losses)
		}
		if tracker.Watching() {
			t.Error("nobody has a device that is known")
		}
		n.next()
	}
}

func FuzzResolve(f *testing.F) {
	n := newNode()
	n.gpu(0)
	n.instance(0, "1g.10gb", 0)
	tracker := New(Config{})
	tracker.begin(&n.Round)
	for _, s := range []string{n.GPUs[0].UUID, "nvidia0/gi1/vgpu0", "gpu-0-mig-1g10gb-19-2", "MIG-GPU-x/1/0", "0", "::", "gpu--mig--"} {
		f.Add("nvidia.com/gpu", s, false)
		f.Add("gpu.nvidia.com", s, true)
	}
	f.Fuzz(func(t *testing.T, resource, id string, claim bool) {
		h := Held{Resource: resource, ID: id}
		if claim {
			h = Held{DRADriver: resource, DRADevice: id}
		}
		if d, _, ours := tracker.resolve(&h); d != nil && !ours {
			t.Errorf("%q is a device, and no GPU", id)
		}
		if strings.HasPrefix(id, "GPU-") && id != n.GPUs[0].UUID {
			if d, _, _ := tracker.resolve(&Held{ID: id}); d != nil && !strings.HasPrefix(id, n.GPUs[0].UUID+"::") {
				t.Errorf("%q is no device", id)
			}
		}
	})
}
