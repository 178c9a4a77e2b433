// SPDX-License-Identifier: Apache-2.0

package prom

import (
	"strconv"
	"strings"

	dto "github.com/prometheus/client_model/go"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/export/meter"
)

// Under dcgm-exporter's names, with its labels and in its units, so that what asks
// for them goes on. It repeats a device's value for each pod that has it; here
// each has its part, and the parts add up.

// dcgmLabels are dcgm-exporter's. Of an instance the UUID and the model are its
// GPU's.
func (x *exposition) dcgmLabels(g *event.GPU, w whose) []*dto.LabelPair {
	uuid, model, instance := g.UUID, g.Model, ""
	if g.Parent != "" {
		uuid, instance = g.Parent, strconv.FormatUint(uint64(g.Instance), 10)
		model = strings.TrimSuffix(model, " MIG "+g.Profile)
		if strings.Contains(g.Profile, "c.") { // one of several of that instance
			instance += "/" + strconv.FormatUint(uint64(g.ComputeInstance), 10)
		}
	}
	return labels("gpu", w.gpu, "UUID", meter.Clean(uuid), "pci_bus_id", dcgmAddress(g.PCI), "device", "nvidia"+w.gpu,
		"modelName", meter.Clean(model), "Hostname", meter.Clean(x.Node), "GPU_I_PROFILE", w.mig, "GPU_I_ID", instance,
		"namespace", w.namespace, "pod", w.pod, "container", w.container,
		"DCGM_FI_DRIVER_VERSION", meter.Clean(x.GPU.Status.Driver))
}

// dcgmAddress writes a PCI address as NVIDIA does: in capitals, with a domain of
// eight digits.
func dcgmAddress(pci string) string {
	domain, rest, ok := strings.Cut(meter.Clean(pci), ":")
	if !ok {
		return ""
	}
	return strings.ToUpper(strings.Repeat("0", max(0, 8-len(domain))) + domain + ":" + rest)
}

func (x *exposition) dcgm(all *gpus) {
	ofParts := make([][]*dto.LabelPair, len(all.parts))
	for i := range all.parts {
		ofParts[i] = x.dcgmLabels(all.parts[i].device, all.parts[i].whose)
	}
	owned, plain := make([][]*dto.LabelPair, len(all.devices)), make([][]*dto.LabelPair, len(all.devices))
	for i := range all.devices {
		d := &all.devices[i]
		owned[i], plain[i] = x.dcgmLabels(d.GPU, d.owner), x.dcgmLabels(d.GPU, ofDevice(d.GPU))
	}
	for _, m := range [...]struct {
		name, help string
		of         int
		scale      float64
	}{
		{"DCGM_FI_DEV_GPU_UTIL", "GPU utilization (in %), the holder's part.", utilized, 100},
		{"DCGM_FI_DEV_FB_USED", "Framebuffer memory used (in MiB), the holder's part.", memory, 1.0 / mib},
		{"DCGM_FI_DEV_POWER_USAGE", "Power draw (in W), the holder's part.", power, 1},
		{"DCGM_FI_PROF_GR_ENGINE_ACTIVE", "Ratio of time in which the graphics engine is active, the holder's part.", utilized, 1},
		{"DCGM_FI_PROF_SM_ACTIVE", "Ratio of SMs that have work, the holder's part.", sm, 1},
		{"DCGM_FI_PROF_SM_OCCUPANCY", "Ratio of warps that are resident, the holder's part.", occupancy, 1},
		{"DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "Ratio of time in which the tensor cores are active, the holder's part.", tensor, 1},
		{"DCGM_FI_PROF_DRAM_ACTIVE", "Ratio of the memory's bandwidth that is used, the holder's part.", dram, 1},
	} {
		f := x.gauge(m.name, m.help)
		for i := range all.parts {
			p := &all.parts[i]
			value := p.values[m.of]
			// Of an instance the driver tells how many SMs had work, and not whether any had.
			if m.name == "DCGM_FI_PROF_GR_ENGINE_ACTIVE" && p.mig != "" && !value.Known {
				value = p.values[sm]
			}
			f.reading(value, m.scale, ofParts[i]...)
		}
	}
	for _, m := range dcgmFields {
		t := dto.MetricType_GAUGE
		if m.counts {
			t = dto.MetricType_COUNTER
		}
		f := x.family(t, m.name, m.help)
		for i := range all.devices {
			d := &all.devices[i]
			if d.Divided && strings.HasPrefix(m.name, "DCGM_FI_DEV_FB_") {
				continue // its instances have it
			}
			l := owned[i]
			if m.counts { // it is the device's, whoever has it
				l = plain[i]
			}
			f.reading(m.of(d.GPUSample), m.scale, l...)
		}
	}
	x.dcgmLast(all, owned)
	if x.joules != nil {
		x.joules.done()
	}
}

const mib = 1 << 20

// dcgmFields are those of a device.
var dcgmFields = [...]struct {
	name, help string
	counts     bool
	of         func(*event.GPUSample) event.Reading
	scale      float64
}{
	{"DCGM_FI_DEV_SM_CLOCK", "SM clock frequency (in MHz).", false, func(s *event.GPUSample) event.Reading { return s.ClockSM }, 1},
	{"DCGM_FI_DEV_MEM_CLOCK", "Memory clock frequency (in MHz).", false, func(s *event.GPUSample) event.Reading { return s.ClockMemory }, 1},
	{"DCGM_FI_DEV_VIDEO_CLOCK", "Video clock frequency (in MHz).", false, func(s *event.GPUSample) event.Reading { return s.ClockVideo }, 1},
	{"DCGM_FI_DEV_GPU_TEMP", "GPU temperature (in C).", false, func(s *event.GPUSample) event.Reading { return s.Temperature }, 1},
	{"DCGM_FI_DEV_MEMORY_TEMP", "Memory temperature (in C).", false, func(s *event.GPUSample) event.Reading { return s.MemoryTemperature }, 1},
	{"DCGM_FI_DEV_ENFORCED_POWER_LIMIT", "Power limit (in W).", false, func(s *event.GPUSample) event.Reading { return s.PowerLimit }, 1},
	{"DCGM_FI_DEV_MEM_COPY_UTIL", "Memory utilization (in %).", false, func(s *event.GPUSample) event.Reading { return s.MemoryBusy }, 100},
	{"DCGM_FI_DEV_ENC_UTIL", "Encoder utilization (in %).", false, func(s *event.GPUSample) event.Reading { return s.Encoder }, 100},
	{"DCGM_FI_DEV_DEC_UTIL", "Decoder utilization (in %).", false, func(s *event.GPUSample) event.Reading { return s.Decoder }, 100},
	{"DCGM_FI_DEV_FB_TOTAL", "Framebuffer memory (in MiB).", false, func(s *event.GPUSample) event.Reading { return s.MemoryTotal }, 1.0 / mib},
	{"DCGM_FI_DEV_FB_FREE", "Framebuffer memory free (in MiB).", false, free, 1.0 / mib},
	{"DCGM_FI_DEV_FB_RESERVED", "Framebuffer memory reserved (in MiB).", false, func(s *event.GPUSample) event.Reading { return s.MemoryReserved }, 1.0 / mib},
	{"DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", "Reasons for which clocks are held down, a bit each.", false, func(s *event.GPUSample) event.Reading {
		return event.Reading{Value: float64(s.Throttle), Known: s.ThrottleKnown}
	}, 1},
	{"DCGM_FI_PROF_PCIE_TX_BYTES", "Bytes a second sent over PCIe.", false, func(s *event.GPUSample) event.Reading { return s.PCIeSent }, 1},
	{"DCGM_FI_PROF_PCIE_RX_BYTES", "Bytes a second received over PCIe.", false, func(s *event.GPUSample) event.Reading { return s.PCIeReceived }, 1},
	{"DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "PCIe retries.", true, func(s *event.GPUSample) event.Reading { return s.PCIeReplays }, 1},
	{"DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", "Corrected ECC errors since the driver was loaded.", true, func(s *event.GPUSample) event.Reading { return s.ECCCorrected }, 1},
	{"DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "Uncorrected ECC errors since the driver was loaded.", true, func(s *event.GPUSample) event.Reading { return s.ECCUncorrected }, 1},
	{"DCGM_FI_DEV_ECC_SBE_AGG_TOTAL", "Corrected ECC errors in the device's life.", true, func(s *event.GPUSample) event.Reading { return s.ECCCorrectedEver }, 1},
	{"DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", "Uncorrected ECC errors in the device's life.", true, func(s *event.GPUSample) event.Reading { return s.ECCUncorrectedEver }, 1},
	{"DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "Rows remapped for corrected errors.", true, func(s *event.GPUSample) event.Reading { return s.RowsCorrected }, 1},
	{"DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "Rows remapped for uncorrected errors.", true, func(s *event.GPUSample) event.Reading { return s.RowsUncorrected }, 1},
	{"DCGM_FI_DEV_ROW_REMAP_PENDING", "Whether remapping of rows is pending.", false, func(s *event.GPUSample) event.Reading { return s.RowsPending }, 1},
	{"DCGM_FI_DEV_ROW_REMAP_FAILURE", "Whether remapping of rows has failed.", false, func(s *event.GPUSample) event.Reading { return s.RowsFailed }, 1},
	{"DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL", "NVLink retries.", true, func(s *event.GPUSample) event.Reading { return addLinks(s.Links).replays }, 1},
	{"DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL", "NVLink recoveries.", true, func(s *event.GPUSample) event.Reading { return addLinks(s.Links).recoveries }, 1},
	{"DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL", "NVLink data CRC errors.", true, func(s *event.GPUSample) event.Reading { return addLinks(s.Links).damaged }, 1},
}

func free(s *event.GPUSample) event.Reading {
	return event.Reading{
		Value: s.MemoryTotal.Value - s.MemoryUsed.Value - s.MemoryReserved.Value,
		Known: s.MemoryTotal.Known && s.MemoryUsed.Known,
	}
}

// dcgmEnergy is a counter by accounts, so that parts add up.
func (x *exposition) dcgmEnergy(g *event.GPU, w whose, joules float64) {
	if !x.DCGMNames {
		return
	}
	if x.joules == nil {
		x.joules = &rising{family: x.counter("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "Energy consumption (in mJ), the holder's part.")}
	}
	x.rise(x.joules, key{w, dcgmJoule, ""}, joules*1000, func() []*dto.LabelPair { return x.dcgmLabels(g, w) })
}

// heard keeps in mind the last Xid of a GPU; of several that are heard of at one
// time the highest.
type heard struct {
	code  uint32
	round uint64
}

func (g *Gatherer) hear(d *event.GPU, code uint32, n float64) {
	uuid := d.UUID
	if d.Parent != "" {
		uuid = d.Parent
	}
	if last := g.xids[uuid]; n > 0 && (last.round != g.round || last.code < code) {
		g.xids[uuid] = heard{code, g.round}
	}
}

// speed is how fast all NVLinks of a device were between two samples.
type speed struct {
	at           int64
	total, value float64
	known        bool
}

// dcgmLast tells what needs what was told before.
func (x *exposition) dcgmLast(all *gpus, owned [][]*dto.LabelPair) {
	last := x.gauge("DCGM_FI_DEV_XID_ERRORS", "Value of the last XID error encountered.")
	// Dcgm-exporter calls it a counter, and tells the rate.
	rate := x.gauge("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", "Bandwidth of all NVLinks together (in MB/s).")
	speeds := map[string]speed{}
	for i := range all.devices {
		d := &all.devices[i]
		if d.Parent == "" {
			last.set(float64(x.xids[d.GPU.UUID].code), owned[i]...)
		}
		sum := addLinks(d.Links)
		if !sum.sent.Known || !sum.received.Known {
			continue
		}
		s, known := x.speeds[d.GPU.UUID]
		if total := sum.sent.Value + sum.received.Value; d.At != s.at {
			if known && d.At > s.at {
				s.value, s.known = since(s.total, total)/1e6/(float64(d.At-s.at)/1e9), true
			}
			s.at, s.total = d.At, total
		}
		speeds[d.GPU.UUID] = s
		rate.reading(event.Reading{Value: s.value, Known: s.known}, 1, owned[i]...)
	}
	x.speeds = speeds
}
