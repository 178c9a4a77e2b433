// SPDX-License-Identifier: Apache-2.0

package prom

import (
	"strconv"

	dto "github.com/prometheus/client_model/go"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/export/meter"
)

// whose tells what is held, and by whom. Who is no pod has no name here: all of
// them are one.
type whose struct{ gpu, uuid, mig, namespace, pod, container, mode string }

func ofDevice(g *event.GPU) whose {
	return whose{gpu: strconv.Itoa(g.Index), uuid: meter.Clean(g.UUID), mig: meter.Clean(g.Profile)}
}

func ofHolder(g *event.GPU, who *event.Identity, container string, mode event.GPUMode) whose {
	w := ofDevice(g)
	w.mode = mode.String()
	if who.Class == event.ClassPod {
		w.namespace, w.pod, w.container = meter.Clean(who.Namespace), meter.Clean(who.Pod), meter.Clean(container)
	}
	return w
}

func (w *whose) labels(more ...string) []*dto.LabelPair {
	return labels(append(more, "gpu", w.gpu, "uuid", w.uuid, "mig", w.mig,
		"namespace", w.namespace, "pod", w.pod, "container", w.container, "mode", w.mode)...)
}

// Readings of a part.
const (
	utilized = iota
	sm
	occupancy
	tensor
	dram
	memory
	power
	readings
)

// part is what one holder has of a device. All parts add up to it.
type part struct {
	whose
	device    *event.GPU
	values    [readings]event.Reading
	allocated bool
}

// device is one with its sample, and the pod that has it alone.
type device struct {
	*event.GPU
	*event.GPUSample
	owner whose
}

// gpus is what a view tells, put together for labels.
type gpus struct {
	parts   []part
	devices []device
}

func newGPUs(v *event.GPUView) *gpus {
	all := &gpus{}
	at, held := map[whose]int{}, map[string][]int{}
	for i := range v.Holders {
		h := &v.Holders[i]
		for j := range h.Shares {
			s := &h.Shares[j]
			w := ofHolder(s.GPU, h.Who, s.Container, s.Mode)
			k, known := at[w]
			if !known {
				k = len(all.parts)
				all.parts = append(all.parts, part{whose: w, device: s.GPU})
				at[w], held[s.GPU.UUID] = k, append(held[s.GPU.UUID], k)
			}
			all.parts[k].add(s)
		}
	}
	for i := range v.GPUs {
		d := device{GPU: &v.GPUs[i], GPUSample: &v.Samples[i], owner: ofDevice(&v.GPUs[i])}
		if m := v.Modes[i]; m == event.GPUExclusive || m == event.GPUMIG {
			d.owner = all.owner(held[d.GPU.UUID], d.owner)
		}
		all.devices = append(all.devices, d)
	}
	return all
}

func (p *part) add(s *event.GPUShare) {
	p.allocated = p.allocated || s.Allocated
	for i, r := range [readings]event.Reading{s.Busy, s.SM, s.Occupancy, s.Tensor, s.DRAM, s.Memory, s.Power} {
		if r.Known {
			p.values[i].Known = true
			p.values[i].Value += r.Value
		}
	}
}

// owner is the only pod among the holders of a device, or nobody.
func (all *gpus) owner(held []int, nobody whose) whose {
	found := nobody
	for _, i := range held {
		switch p := &all.parts[i]; {
		case p.pod == "":
		case found != nobody:
			return nobody
		default:
			found = p.whose
		}
	}
	return found
}

// gpu tells of GPUs and RDMA devices.
func (x *exposition) gpu() {
	v := x.GPU
	if v == nil {
		return
	}
	all := newGPUs(v)
	x.driver(v)
	x.parts(all.parts)
	x.states(all.devices)
	x.devices(all.devices)
	x.faults(all.devices)
	x.findings(v)
	x.accounts(v)
	x.rdma(v)
	if x.DCGMNames {
		x.dcgm(all)
	}
}

// driver is nothing where there is none.
func (x *exposition) driver(v *event.GPUView) {
	s := &v.Status
	if s.Open || s.Problem != "" || s.Released != "" {
		x.gauge("orb8_gpu_driver_open", "1: the agent has the GPUs' driver open.").set(bit(s.Open))
		x.gauge("orb8_gpu_driver_released", "1: the agent has closed the GPUs' driver because it was asked to.").set(bit(s.Released != ""))
		x.gauge("orb8_gpu_driver_hung_calls", "Calls of the GPUs' driver that have not come back.").set(float64(len(s.Hung)))
		if s.Asked {
			x.gauge("orb8_gpu_pod_resources_up", "1: the kubelet tells which pods it has given devices.").set(bit(s.PodResources == ""))
		}
	}
	if s.Driver != "" {
		x.gauge("orb8_gpu_driver_info", "1, with the version of the GPUs' driver as a label.").set(1, labels("version", meter.Clean(s.Driver))...)
	}
}

func bit(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

func (x *exposition) parts(all []part) {
	families := [readings]*family{
		utilized:  x.gauge("orb8_gpu_utilization_ratio", "Part of the time in which a kernel ran on the device, as it falls to the holder."),
		sm:        x.gauge("orb8_gpu_sm_ratio", "Part of the device's SMs that had work, as it falls to the holder."),
		occupancy: x.gauge("orb8_gpu_occupancy_ratio", "Warps that were resident, of those that there could be, as it falls to the holder."),
		tensor:    x.gauge("orb8_gpu_tensor_ratio", "Part of the time in which tensor cores worked, as it falls to the holder."),
		dram:      x.gauge("orb8_gpu_dram_ratio", "Part of the memory's bandwidth that was used, as it falls to the holder."),
		memory:    x.gauge("orb8_gpu_memory_used_bytes", "Memory of the device that the holder uses."),
		power:     x.gauge("orb8_gpu_power_watts", "Power that the device draws, as it falls to the holder."),
	}
	given := x.gauge("orb8_gpu_allocated", "1: the kubelet has given the device to the container.")
	for i := range all {
		p := &all[i]
		l := p.labels()
		for i, f := range families {
			f.reading(p.values[i], 1, l...)
		}
		if p.allocated {
			given.set(1, l...)
		}
	}
}

// reading adds a series if there is a value.
func (f *family) reading(r event.Reading, scale float64, labels ...*dto.LabelPair) {
	if r.Known {
		f.set(r.Value*scale, labels...)
	}
}

func (x *exposition) findings(v *event.GPUView) {
	f := x.gauge("orb8_gpu_finding", "1 while a GPU does no work for who holds it: idle, or busy-waiting. Cause is what the holder's network does meanwhile.")
	seen := map[finding]bool{}
	for i := range v.Holders {
		h := &v.Holders[i]
		for _, found := range h.Findings {
			for _, g := range found.GPUs {
				one := finding{whose: ofHolder(g, h.Who, "", event.GPUNone), kind: found.Kind.String(), cause: found.Cause.String()}
				if p := found.Peer; p != nil {
					one.peerNamespace, one.peerWorkload = meter.Clean(p.Namespace), meter.Clean(p.Workload.Name)
				}
				if !seen[one] {
					seen[one] = true
					f.set(1, one.labels("kind", one.kind, "cause", one.cause, "peer_namespace", one.peerNamespace, "peer_workload", one.peerWorkload)...)
				}
			}
		}
	}
}

type finding struct {
	whose
	kind, cause, peerNamespace, peerWorkload string
}
