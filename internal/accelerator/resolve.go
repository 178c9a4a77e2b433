// SPDX-License-Identifier: Apache-2.0

package accelerator

import (
	"strconv"
	"strings"

	"github.com/orb8/orb8/internal/event"
)

// resolve finds the device that the kubelet has given by the name that its plugin
// has for it, and tells whether that is one of several replicas of it. ours is false
// of what is no GPU.
//
// NVIDIA's device plugin calls them by UUID, with ::N behind those that several may
// have. GKE's calls them by their device nodes: nvidia0, nvidia0/gi1 of an instance,
// /vgpu2 behind what is shared. NVIDIA's DRA driver: gpu-0, gpu-0-mig-1g10gb-19-2.
// The number of a node need not be the driver's index.
func (t *Tracker) resolve(h *Held) (d *device, replica, ours bool) {
	if h.DRADriver != "" {
		if h.DRADriver != "gpu.nvidia.com" {
			return nil, false, false
		}
		return t.claimed(h.DRADevice), false, true
	}
	if isPCI(h.ID) {
		return nil, false, false
	}
	id, _, replica := strings.Cut(h.ID, "::")
	if strings.HasPrefix(id, "GPU-") || strings.HasPrefix(id, "MIG-") {
		return t.byID(id), replica, true
	}
	if !strings.HasPrefix(h.Resource, "nvidia.com/gpu") && !strings.HasPrefix(h.Resource, "nvidia.com/mig") {
		return nil, false, false
	}
	if node, ok := strings.CutPrefix(id, "nvidia"); ok {
		node, _, shared := strings.Cut(node, "/vgpu")
		node, instance, divided := strings.Cut(node, "/gi")
		if !divided {
			return t.byNode(node), shared, true
		}
		return t.instance(t.byNode(node), instance, ""), shared, true
	}
	return t.byIndex(id), replica, true
}

// byID finds a device by its UUID. Drivers before 470 had no UUIDs of instances:
// MIG-GPU-uuid/1/0 names the GPU and two numbers.
func (t *Tracker) byID(id string) *device {
	if d := t.byUUID[id]; d != nil {
		return d
	}
	old, ok := strings.CutPrefix(id, "MIG-GPU-")
	if !ok {
		return nil
	}
	uuid, place, _ := strings.Cut(old, "/")
	instance, compute, _ := strings.Cut(place, "/")
	return t.instance(t.byUUID["GPU-"+uuid], instance, compute)
}

func (t *Tracker) byIndex(text string) *device {
	return t.numbered(text, func(g *event.GPU) int { return g.Index })
}

// byNode: the driver may not tell the number of the node; mostly it is the index.
func (t *Tracker) byNode(text string) *device {
	return t.numbered(text, func(g *event.GPU) int {
		if g.Minor > 0 {
			return g.Minor - 1
		}
		return g.Index
	})
}

func (t *Tracker) numbered(text string, number func(*event.GPU) int) *device {
	n, err := strconv.Atoi(text)
	if err != nil {
		return nil
	}
	for i := range t.devices {
		if d := &t.devices[i]; d.gpu.Parent == "" && number(d.gpu) == n {
			return d
		}
	}
	return nil
}

// instance is the one of a GPU that has these numbers; compute is "" where it is
// not told. Where several have them it is not known which.
func (t *Tracker) instance(of *device, instance, compute string) *device {
	return t.only(of, func(d *device) bool {
		return strconv.FormatUint(uint64(d.gpu.Instance), 10) == instance &&
			(compute == "" || strconv.FormatUint(uint64(d.gpu.ComputeInstance), 10) == compute)
	})
}

// only is the instance of a GPU of which is is true, if there is one alone.
func (t *Tracker) only(of *device, is func(*device) bool) (found *device) {
	if of == nil {
		return nil
	}
	for i := range t.devices {
		d := &t.devices[i]
		if d.parent != of || !is(d) {
			continue
		}
		if found != nil {
			return nil
		}
		found = d
	}
	return found
}

// claimed finds a device of NVIDIA's DRA driver. The place of an instance in its
// GPU is not among what is known of it, so that it is told by its size, where no
// other has that.
func (t *Tracker) claimed(name string) *device {
	index, ok := strings.CutPrefix(name, "gpu-")
	if !ok {
		return nil
	}
	index, rest, divided := strings.Cut(index, "-mig-")
	of := t.byNode(index)
	if !divided {
		return of
	}
	// Behind the size stand the numbers of the profile and of the place.
	size := rest
	for range 2 {
		size = size[:max(strings.LastIndexByte(size, '-'), 0)]
	}
	plain := strings.NewReplacer(".", "", "+", "-")
	return t.only(of, func(d *device) bool { return size != "" && plain.Replace(d.gpu.Profile) == plain.Replace(size) })
}

// isPCI tells whether it is an address as SR-IOV plugins name devices by.
func isPCI(id string) bool {
	return len(id) == len("0000:1b:00.0") && id[4] == ':' && id[7] == ':' && id[10] == '.'
}
