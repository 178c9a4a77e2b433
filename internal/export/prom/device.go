// SPDX-License-Identifier: Apache-2.0

package prom

import (
	"strconv"

	dto "github.com/prometheus/client_model/go"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/export/meter"
)

var states = [...]struct {
	state event.GPUState
	name  string
}{{event.GPUOK, "ok"}, {event.GPULost, "lost"}, {event.GPUHung, "hung"}}

// states tells what there is, and whether it answers.
func (x *exposition) states(all []device) {
	info := x.gauge("orb8_gpu_info", "1, with what the device is as labels.")
	state := x.gauge("orb8_gpu_state", "1 for the state that the device is in: ok; lost, off the bus or in need of a reset; hung, the driver does not come back with an answer.")
	for i := range all {
		d := &all[i]
		w := ofDevice(d.GPU)
		numa := ""
		if d.NUMA >= 0 {
			numa = strconv.Itoa(d.NUMA)
		}
		info.set(1, w.labels("model", meter.Clean(d.Model), "pci", meter.Clean(d.PCI), "numa", numa, "parent", meter.Clean(d.Parent))...)
		for _, s := range states {
			state.set(bit(d.State == s.state), w.labels("state", s.name)...)
		}
	}
}

// devices tells what is the device's alone, with the pod that has it alone.
func (x *exposition) devices(all []device) {
	type sample = event.GPUSample
	const mega = 1e6
	owners := make([][]*dto.LabelPair, len(all))
	for i := range all {
		owners[i] = all[i].owner.labels()
	}
	for _, m := range [...]struct {
		name, help string
		of         func(*sample) event.Reading
	}{
		{"orb8_gpu_temperature_celsius", "Temperature of the GPU.", func(s *sample) event.Reading { return s.Temperature }},
		{"orb8_gpu_memory_temperature_celsius", "Temperature of the device's memory.", func(s *sample) event.Reading { return s.MemoryTemperature }},
		{"orb8_gpu_memory_total_bytes", "Memory that the device has.", func(s *sample) event.Reading { return s.MemoryTotal }},
		{"orb8_gpu_memory_reserved_bytes", "Memory of the device that the driver keeps for itself.", func(s *sample) event.Reading { return s.MemoryReserved }},
		{"orb8_gpu_power_limit_watts", "Power that the device may draw.", func(s *sample) event.Reading { return s.PowerLimit }},
		{"orb8_gpu_memory_busy_ratio", "Part of the time in which the device's memory was read or written.", func(s *sample) event.Reading { return s.MemoryBusy }},
		{"orb8_gpu_encoder_ratio", "Part of the time in which the video encoder worked.", func(s *sample) event.Reading { return s.Encoder }},
		{"orb8_gpu_decoder_ratio", "Part of the time in which the video decoder worked.", func(s *sample) event.Reading { return s.Decoder }},
	} {
		f := x.gauge(m.name, m.help)
		for i := range all {
			f.reading(m.of(all[i].GPUSample), 1, owners[i]...)
		}
	}
	clock := x.gauge("orb8_gpu_clock_hertz", "Clocks of the device.")
	pcie := x.gauge("orb8_gpu_pcie_bytes_per_second", "Bytes a second that the device sent (egress) and received (ingress) over PCIe, when it was last measured.")
	for i := range all {
		d := &all[i]
		for _, c := range [...]struct {
			name  string
			value event.Reading
		}{{"graphics", d.ClockGraphics}, {"memory", d.ClockMemory}, {"sm", d.ClockSM}, {"video", d.ClockVideo}} {
			clock.reading(c.value, mega, d.owner.labels("clock", c.name)...)
		}
		pcie.reading(d.PCIeSent, 1, d.owner.labels("direction", "egress")...)
		pcie.reading(d.PCIeReceived, 1, d.owner.labels("direction", "ingress")...)
	}
}

// faults tells what breaks. It is the device's, whoever has it: these counters go
// on when it is given to another, and when the agent starts anew.
func (x *exposition) faults(all []device) {
	ecc := x.counter("orb8_gpu_ecc_errors_total", "Errors of the device's memory since its driver was loaded.")
	rows := x.counter("orb8_gpu_remapped_rows_total", "Rows of the device's memory that were replaced, by the kind of error that they had.")
	pending := x.gauge("orb8_gpu_remapped_rows_pending", "1: a row of the device's memory is replaced with its next reset.")
	broken := x.gauge("orb8_gpu_remapped_rows_failed", "1: a row of the device's memory could not be replaced.")
	replays := x.counter("orb8_gpu_pcie_replays_total", "Packets that were sent again over PCIe, since the driver was loaded.")
	links := x.gauge("orb8_gpu_nvlinks", "NVLinks of the device, by whether they are up.")
	errors := x.counter("orb8_gpu_nvlink_errors_total", "Of all NVLinks of the device: packets sent again, links brought up again, packets received damaged.")
	for i := range all {
		d := &all[i]
		w := ofDevice(d.GPU)
		ecc.reading(d.ECCCorrected, 1, w.labels("kind", "corrected")...)
		ecc.reading(d.ECCUncorrected, 1, w.labels("kind", "uncorrected")...)
		rows.reading(d.RowsCorrected, 1, w.labels("kind", "corrected")...)
		rows.reading(d.RowsUncorrected, 1, w.labels("kind", "uncorrected")...)
		pending.reading(d.RowsPending, 1, w.labels()...)
		broken.reading(d.RowsFailed, 1, w.labels()...)
		replays.reading(d.PCIeReplays, 1, w.labels()...)
		if len(d.Links) == 0 {
			continue
		}
		sum := addLinks(d.Links)
		links.set(float64(sum.up), w.labels("state", "up")...)
		links.set(float64(len(d.Links)-sum.up), w.labels("state", "down")...)
		errors.reading(sum.replays, 1, w.labels("kind", "replay")...)
		errors.reading(sum.recoveries, 1, w.labels("kind", "recovery")...)
		errors.reading(sum.damaged, 1, w.labels("kind", "damaged")...)
	}
}

// linkSum is all links of a device together.
type linkSum struct {
	up                                           int
	replays, recoveries, damaged, sent, received event.Reading
}

func addLinks(links []event.GPULink) (sum linkSum) {
	for i := range links {
		l := &links[i]
		if l.Up {
			sum.up++
		}
		for _, a := range [...]struct{ to, from *event.Reading }{
			{&sum.replays, &l.Replays},
			{&sum.recoveries, &l.Recoveries},
			{&sum.damaged, &l.Damaged},
			{&sum.sent, &l.Sent},
			{&sum.received, &l.Received},
		} {
			if a.from.Known {
				a.to.Known = true
				a.to.Value += a.from.Value
			}
		}
	}
	return sum
}
