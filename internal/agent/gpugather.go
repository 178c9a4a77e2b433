// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/kubelet"
	"github.com/orb8/orb8/internal/probe/gpu"
	"github.com/orb8/orb8/internal/probe/rdma"
)

// near is what was found of an RDMA device's place.
type near struct {
	uuids []string
	how   event.PCIDistance
}

// gather takes what there is of this second. It waits for a driver, but not long.
func (g *gpus) gather(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, gatherAhead/2)
	defer cancel()
	now := &gathered{gpus: g.sampler.Next(ctx), xids: g.sampler.Take(nil)}
	devices := g.rdma.Next(ctx)
	if k := g.asked(len(now.gpus.GPUs) + len(devices.Devices)); k != nil {
		now.held = k.Latest()
	}
	if !now.gpus.Status.Open {
		g.notGiven, g.opened = nil, time.Now()
	}
	if time.Since(g.looked) >= lookEvery && time.Since(g.opened) >= lookAfter {
		g.looked = time.Now()
		clear(g.nearest) // what was is looked at anew, and what is gone forgotten
		g.notGiven = notGiven(now.gpus)
	}
	now.rdma = g.placed(devices.Devices, now.gpus.GPUs)
	now.processes = g.processes(now)
	now.status = g.status(now)
	now.losses = g.lost(now, devices)

	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting != nil { // the pipeline is late: nothing that happened is left out
		now.xids = append(g.waiting.xids, now.xids...)
	}
	g.waiting = now
}

// lookEvery is how often it is looked what devices do not give, and where they are;
// lookAfter how long after the driver was opened: some is told between two samples.
const (
	lookEvery = 10 * time.Second
	lookAfter = 3 * time.Second
)

// asked is the kubelet, from the first device on: where there is none it is left
// alone.
func (g *gpus) asked(devices int) *kubelet.Watcher {
	k := g.kubelet.Load()
	if k == nil && g.inPods && devices > 0 {
		k = kubelet.Start(kubelet.Settings{Socket: g.cfg.PodResources, Log: g.log})
		g.kubelet.Store(k)
	}
	return k
}

// placed is where RDMA devices are, seen from GPUs.
func (g *gpus) placed(devices []event.RDMADevice, gpus []event.GPU) []event.RDMADevice {
	list := make([]event.RDMADevice, len(devices))
	for i := range devices {
		list[i] = devices[i]
		d := &list[i]
		key := fmt.Sprint(d.Netns, " ", d.Name, " ", d.PCI)
		at, ok := g.nearest[key]
		if !ok {
			at.uuids, at.how = rdma.Nearest(g.cfg.Sysfs, d, gpus)
			g.nearest[key] = at
		}
		d.Nearest, d.Distance = at.uuids, at.how
	}
	return list
}

// processes are those that devices tell of, by their groups as of now: a number
// is soon another's. One that has ended since the device was asked is who it was.
func (g *gpus) processes(now *gathered) map[uint32]gpuProcess {
	all := make(map[uint32]gpuProcess, len(g.seen))
	unseen := 0
	defer func() {
		g.seen = all
		g.blind.Store(unseen > 0 && len(all) == 0)
	}()
	see := func(pid uint32) {
		if _, known := all[pid]; known {
			return
		}
		name := processName(pid)
		one, was := g.seen[pid]
		switch {
		case name != "":
			one = gpuProcess{name: name}
		case was && !one.ended:
			one.ended = true
			all[pid] = one
			return
		default:
			unseen++
			return
		}
		if g.groups != nil {
			if path, err := g.groups.Of(procDir, pid); err == nil {
				one.group = g.groups.ID(path)
			}
		}
		all[pid] = one
	}
	for i := range now.gpus.Samples {
		for _, p := range now.gpus.Samples[i].Processes {
			see(p.PID)
		}
	}
	g.failed(now, func(pid uint32) {
		if one, was := g.seen[pid]; was && !one.ended {
			see(pid)
		}
	})
	for i := range now.rdma {
		for _, pid := range now.rdma[i].PIDs {
			see(pid)
		}
	}
	return all
}

// failed are the processes that were on devices which do not answer now.
func (g *gpus) failed(now *gathered, see func(pid uint32)) {
	down := map[string]bool{}
	for i := range now.gpus.Samples {
		if s := &now.gpus.Samples[i]; s.State == event.GPUHung || s.State == event.GPULost {
			down[s.UUID] = true
		}
	}
	view := g.view.Load()
	if len(down) == 0 || view == nil {
		return
	}
	for i := range view.Holders {
		for j := range view.Holders[i].Shares {
			if s := &view.Holders[i].Shares[j]; down[s.GPU.UUID] {
				for _, pid := range s.PIDs {
					see(pid)
				}
			}
		}
	}
}

func processName(pid uint32) string {
	text, err := os.ReadFile(filepath.Join(procDir, strconv.FormatUint(uint64(pid), 10), "comm"))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(text), "\n")
}

// status is what can be known here.
func (g *gpus) status(now *gathered) event.GPUStatus {
	from := &now.gpus.Status
	st := event.GPUStatus{
		Open: from.Open, Driver: from.Version, Missing: from.Missing, NotGiven: g.notGiven, Released: g.letGo.why(),
	}
	switch {
	case from.Err == nil:
	case !errors.Is(from.Err, gpu.ErrNoLibrary):
		st.Problem = from.Err.Error()
	case g.cfg.NVML != "":
		st.Problem = g.cfg.NVML + " is not there (ORB8_NVML)"
	}
	for _, h := range from.Hung {
		st.Hung = append(st.Hung, fmt.Sprintf("%s, since %s", h.What, h.Since.UTC().Format(time.RFC3339)))
	}
	if now.held != nil {
		st.Asked, st.PodResources = true, now.held.Problem
	}
	return st
}

// lost is what was not told, or not told apart.
func (g *gpus) lost(now *gathered, devices *rdma.Snapshot) []event.Loss {
	all := []event.Loss{
		{Stage: "gpu_xids", Count: g.sampler.Lost(), Hint: "Xids that came faster than they were told"},
		{Stage: "rdma", Count: devices.Lost, Hint: "RDMA devices, ports or counters beyond what there is room for"},
	}
	if now.held != nil {
		all = append(all, event.Loss{Stage: "pod_resources", Count: now.held.Lost, Hint: "devices that the kubelet has given, beyond what there is room for"})
	}
	return some(all...)
}

// readings are what a device may give, by name.
var readings = [...]struct {
	name string
	of   func(*event.GPUSample) event.Reading
}{
	{"utilisation", func(s *event.GPUSample) event.Reading { return s.Busy }},
	{"memory utilisation", func(s *event.GPUSample) event.Reading { return s.MemoryBusy }},
	{"encoder", func(s *event.GPUSample) event.Reading { return s.Encoder }},
	{"decoder", func(s *event.GPUSample) event.Reading { return s.Decoder }},
	{"SM activity", func(s *event.GPUSample) event.Reading { return s.SM }},
	{"SM occupancy", func(s *event.GPUSample) event.Reading { return s.Occupancy }},
	{"tensor activity", func(s *event.GPUSample) event.Reading { return s.Tensor }},
	{"DRAM activity", func(s *event.GPUSample) event.Reading { return s.DRAM }},
	{"memory", func(s *event.GPUSample) event.Reading { return s.MemoryUsed }},
	{"power", func(s *event.GPUSample) event.Reading { return s.Power }},
	{"power limit", func(s *event.GPUSample) event.Reading { return s.PowerLimit }},
	{"energy", func(s *event.GPUSample) event.Reading { return s.Energy }},
	{"temperature", func(s *event.GPUSample) event.Reading { return s.Temperature }},
	{"memory temperature", func(s *event.GPUSample) event.Reading { return s.MemoryTemperature }},
	{"clocks", func(s *event.GPUSample) event.Reading { return s.ClockSM }},
	{"PCIe throughput", func(s *event.GPUSample) event.Reading { return s.PCIeSent }},
	{"PCIe replays", func(s *event.GPUSample) event.Reading { return s.PCIeReplays }},
	{"ECC", func(s *event.GPUSample) event.Reading { return s.ECCCorrected }},
	{"remapped rows", func(s *event.GPUSample) event.Reading { return s.RowsCorrected }},
	{"throttle reasons", func(s *event.GPUSample) event.Reading { return event.Reading{Known: s.ThrottleKnown} }},
	{"NVLink", func(s *event.GPUSample) event.Reading { return event.Reading{Known: len(s.Links) > 0} }},
	{"processes", func(s *event.GPUSample) event.Reading { return event.Reading{Known: s.ProcessesKnown} }},
	{"utilisation by process", func(s *event.GPUSample) event.Reading {
		for i := range s.Processes {
			if s.Processes[i].Busy.Known {
				return event.Reading{Known: true}
			}
		}
		return event.Reading{Known: len(s.Processes) == 0} // there was nothing to tell
	}},
}

// notGiven is what no device that answers gives.
func notGiven(s *gpu.Snapshot) (names []string) {
	answers := false
	for _, r := range readings {
		given := false
		for i := range s.Samples {
			if s.Samples[i].State == event.GPUOK {
				answers = true
				given = given || r.of(&s.Samples[i]).Known
			}
		}
		if !given {
			names = append(names, r.name)
		}
	}
	if !answers {
		return nil
	}
	return names
}
