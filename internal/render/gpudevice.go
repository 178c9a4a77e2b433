// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// gpuLabel is a device on its node: 1, or of an instance 1/1g.10gb. One that the
// driver does not count any more has its UUID alone.
func gpuLabel(d *orb8v1.GpuDevice) string {
	if d.GetIndex() == math.MaxUint32 {
		return d.GetUuid()
	}
	index := strconv.FormatUint(uint64(d.GetIndex()), 10)
	if d.GetProfile() != "" {
		return index + "/" + d.GetProfile()
	}
	return index
}

// ofSample draws from what a device says of itself, where it does.
func ofSample(show func(Style, *orb8v1.GpuSample) cell) func(gpuRow) cell {
	return func(r gpuRow) cell {
		if r.device.GetSample() == nil {
			return cell{}
		}
		return show(r.style, r.device.GetSample())
	}
}

func sampleRatio(of func(*orb8v1.GpuSample) *float64) func(gpuRow) cell {
	return ofSample(func(s Style, m *orb8v1.GpuSample) cell { return s.ratio(measured(of(m))) })
}

func sampleQuantity(unit string, of func(*orb8v1.GpuSample) *float64) func(gpuRow) cell {
	return ofSample(func(s Style, m *orb8v1.GpuSample) cell { return s.quantity(measured(of(m)), unit) })
}

func sampleBytes(of func(*orb8v1.GpuSample) *uint64) func(gpuRow) cell {
	return ofSample(func(s Style, m *orb8v1.GpuSample) cell { return s.amount(counted(of(m))) })
}

func samplePerSecond(of func(*orb8v1.GpuSample) *float64) func(gpuRow) cell {
	return ofSample(func(s Style, m *orb8v1.GpuSample) cell { return s.amount(measured(of(m))) })
}

func sampleErrors(of func(*orb8v1.GpuSample) *uint64) func(gpuRow) cell {
	return ofSample(func(s Style, m *orb8v1.GpuSample) cell { return s.errors(of(m)) })
}

// gpuDeviceColumns are all there are of devices, in their order.
func gpuDeviceColumns() []gpuColumn {
	text := func(of func(*orb8v1.GpuDevice) string) func(gpuRow) cell {
		return func(r gpuRow) cell { return cell{text: of(r.device)} }
	}
	return append([]gpuColumn{
		{false, column{title: "NODE", drop: 8}, func(r gpuRow) cell { return cell{text: r.node} }},
		{false, column{title: "GPU"}, text(gpuLabel)},
		{true, column{title: "UUID"}, text((*orb8v1.GpuDevice).GetUuid)},
		{true, column{title: "PARENT"}, text((*orb8v1.GpuDevice).GetParent)},
		{true, gpuNumber("INSTANCE", "", 0), instanceNumber},
		{true, column{title: "PCI"}, text((*orb8v1.GpuDevice).GetPci)},
		{true, gpuNumber("NUMA", "", 0), func(r gpuRow) cell { return optional(r.device.NumaNode) }},
		{false, column{title: "MODEL", fit: true, drop: 7}, text((*orb8v1.GpuDevice).GetModel)},
		{false, column{title: "MODE", drop: 10}, text(deviceMode)},
		{false, gpuNumber("BUSY", "", 0), sampleRatio(func(m *orb8v1.GpuSample) *float64 { return m.Busy })},
		{true, gpuNumber("MEM_BUSY", "", 0), sampleRatio(func(m *orb8v1.GpuSample) *float64 { return m.MemoryBusy })},
		{false, gpuNumber("SM", "", 13), sampleRatio(func(m *orb8v1.GpuSample) *float64 { return m.Sm })},
		{true, gpuNumber("OCCUPANCY", "", 0), sampleRatio(func(m *orb8v1.GpuSample) *float64 { return m.Occupancy })},
		{true, gpuNumber("TENSOR", "", 0), sampleRatio(func(m *orb8v1.GpuSample) *float64 { return m.Tensor })},
		{true, gpuNumber("DRAM", "", 0), sampleRatio(func(m *orb8v1.GpuSample) *float64 { return m.Dram })},
		{true, gpuNumber("ENCODER", "", 0), sampleRatio(func(m *orb8v1.GpuSample) *float64 { return m.Encoder })},
		{true, gpuNumber("DECODER", "", 0), sampleRatio(func(m *orb8v1.GpuSample) *float64 { return m.Decoder })},
		{false, gpuNumber("MEM", "MEM_BYTES", 0), sampleBytes(func(m *orb8v1.GpuSample) *uint64 { return m.MemoryUsedBytes })},
		{false, gpuNumber("OF", "MEM_TOTAL_BYTES", 9), sampleBytes(func(m *orb8v1.GpuSample) *uint64 { return m.MemoryTotalBytes })},
		{true, gpuNumber("RESERVED", "MEM_RESERVED_BYTES", 0), sampleBytes(func(m *orb8v1.GpuSample) *uint64 { return m.MemoryReservedBytes })},
		{false, gpuNumber("POWER", "POWER_WATTS", 0), sampleQuantity("W", func(m *orb8v1.GpuSample) *float64 { return m.PowerWatts })},
		{false, gpuNumber("LIMIT", "POWER_LIMIT_WATTS", 6), sampleQuantity("W", func(m *orb8v1.GpuSample) *float64 { return m.PowerLimitWatts })},
		{true, gpuNumber("ENERGY", "ENERGY_JOULES", 0), sampleQuantity("J", func(m *orb8v1.GpuSample) *float64 { return m.EnergyJoules })},
		{false, gpuNumber("TEMP", "TEMP_CELSIUS", 14), sampleQuantity("C", func(m *orb8v1.GpuSample) *float64 { return m.TemperatureCelsius })},
		{true, gpuNumber("MEM_TEMP", "MEM_TEMP_CELSIUS", 0), sampleQuantity("C", func(m *orb8v1.GpuSample) *float64 { return m.MemoryTemperatureCelsius })},
		{false, gpuNumber("CLOCK", "SM_CLOCK_MHZ", 5), sampleQuantity("MHz", func(m *orb8v1.GpuSample) *float64 { return m.ClockSmMhz })},
		{true, gpuNumber("MEM_CLOCK", "MEM_CLOCK_MHZ", 0), sampleQuantity("MHz", func(m *orb8v1.GpuSample) *float64 { return m.ClockMemoryMhz })},
		{true, gpuNumber("GRAPHICS_CLOCK", "GRAPHICS_CLOCK_MHZ", 0), sampleQuantity("MHz", func(m *orb8v1.GpuSample) *float64 { return m.ClockGraphicsMhz })},
		{true, gpuNumber("VIDEO_CLOCK", "VIDEO_CLOCK_MHZ", 0), sampleQuantity("MHz", func(m *orb8v1.GpuSample) *float64 { return m.ClockVideoMhz })},
	}, gpuConditionColumns()...)
}

// gpuConditionColumns are those about how well it is, its links, and who has it.
func gpuConditionColumns() []gpuColumn {
	links := func(of func(*orb8v1.NvLink) *uint64) func(*orb8v1.GpuSample) *uint64 {
		return func(m *orb8v1.GpuSample) *uint64 { return linkSum(m.GetLinks(), of) }
	}
	sent := links(func(l *orb8v1.NvLink) *uint64 { return l.TxBytes })
	received := links(func(l *orb8v1.NvLink) *uint64 { return l.RxBytes })
	damaged := links(func(l *orb8v1.NvLink) *uint64 { return l.CrcErrors })
	replayed := links(func(l *orb8v1.NvLink) *uint64 { return l.Replays })
	recovered := links(func(l *orb8v1.NvLink) *uint64 { return l.Recoveries })
	return []gpuColumn{
		{false, column{title: "THROTTLE", fit: true, drop: 12}, ofSample(throttledBy)},
		{false, gpuNumber("ECC", "ECC_UNCORRECTED", 11), sampleErrors(func(m *orb8v1.GpuSample) *uint64 { return m.EccUncorrected })},
		{true, gpuNumber("ECC_CORRECTED", "", 0), sampleErrors(func(m *orb8v1.GpuSample) *uint64 { return m.EccCorrected })},
		{true, gpuNumber("ECC_UNCORRECTED_EVER", "", 0), sampleErrors(func(m *orb8v1.GpuSample) *uint64 { return m.EccUncorrectedEver })},
		{true, gpuNumber("ECC_CORRECTED_EVER", "", 0), sampleErrors(func(m *orb8v1.GpuSample) *uint64 { return m.EccCorrectedEver })},
		{false, column{title: "ROWS", right: true, drop: 4}, ofSample(rows)},
		{false, gpuNumber("PCIE_TX/S", "PCIE_TX_BYTES/S", 2), samplePerSecond(func(m *orb8v1.GpuSample) *float64 { return m.PcieTxBytesPerSecond })},
		{false, gpuNumber("PCIE_RX/S", "PCIE_RX_BYTES/S", 3), samplePerSecond(func(m *orb8v1.GpuSample) *float64 { return m.PcieRxBytesPerSecond })},
		{true, gpuNumber("PCIE_REPLAYS", "", 0), sampleErrors(func(m *orb8v1.GpuSample) *uint64 { return m.PcieReplays })},
		{false, column{title: "NVLINK", right: true, drop: 1}, ofSample(linksUp)},
		{true, gpuNumber("NVLINK_TX", "NVLINK_TX_BYTES", 0), sampleBytes(sent)},
		{true, gpuNumber("NVLINK_RX", "NVLINK_RX_BYTES", 0), sampleBytes(received)},
		{true, gpuNumber("NVLINK_CRC", "", 0), sampleErrors(damaged)},
		{true, gpuNumber("NVLINK_REPLAYS", "", 0), sampleErrors(replayed)},
		{true, gpuNumber("NVLINK_RECOVERIES", "", 0), sampleErrors(recovered)},
		{true, column{title: "COMPUTE"}, ofSample(func(_ Style, m *orb8v1.GpuSample) cell { return cell{text: m.GetComputeMode()} })},
		{true, column{title: "FABRIC"}, ofSample(func(_ Style, m *orb8v1.GpuSample) cell { return cell{text: m.GetFabric()} })},
		{false, column{title: "STATE"}, ofSample(func(_ Style, m *orb8v1.GpuSample) cell { return deviceState(m.GetState()) })},
		{false, column{title: "HOLDERS", fit: true}, func(r gpuRow) cell { return cell{text: r.style.holderNames(r.device.GetHolders())} }},
	}
}

// deviceMode: what is divided has no holders of its own.
func deviceMode(d *orb8v1.GpuDevice) string {
	if d.GetDivided() {
		return "divided"
	}
	return d.GetMode()
}

func instanceNumber(r gpuRow) cell {
	if r.device.GetParent() == "" {
		return cell{}
	}
	return cell{text: strconv.FormatUint(uint64(r.device.GetInstance()), 10)}
}

func optional(n *uint32) cell {
	if n == nil {
		return cell{}
	}
	return cell{text: strconv.FormatUint(uint64(*n), 10)}
}

func deviceState(state string) cell {
	switch state {
	case "ok":
		return cell{state, green}
	case "lost", "hung":
		return cell{state, red}
	}
	return cell{text: state}
}

// errors is a number that is better 0.
func (s Style) errors(n *uint64) cell {
	if n == nil {
		return cell{}
	}
	c := s.count(*n)
	if *n > 0 {
		c.tone = red
	}
	return c
}

// throttledBy leaves out idle: it is no throttling.
func throttledBy(_ Style, m *orb8v1.GpuSample) cell {
	reasons := slices.DeleteFunc(slices.Clone(m.GetThrottle()), func(r string) bool { return r == "idle" })
	return cell{words(reasons), yellow}
}

// rows is how many were remapped, and whether one waits or could not be.
func rows(s Style, m *orb8v1.GpuSample) cell {
	if m.RowsRemappedCorrected == nil && m.RowsRemappedUncorrected == nil && m.RowsRemapPending == nil && m.RowsRemapFailed == nil {
		return cell{}
	}
	n := m.GetRowsRemappedCorrected() + m.GetRowsRemappedUncorrected()
	c := s.count(n)
	switch {
	case m.GetRowsRemapFailed():
		return cell{c.text + ",failed", red}
	case m.GetRowsRemapPending():
		return cell{c.text + ",pending", yellow}
	case n > 0:
		c.tone = yellow
	}
	return c
}

// linksUp is how many NVLinks of how many are up.
func linksUp(_ Style, m *orb8v1.GpuSample) cell {
	if len(m.GetLinks()) == 0 {
		return cell{}
	}
	up := 0
	for _, l := range m.GetLinks() {
		if l.GetUp() {
			up++
		}
	}
	c := cell{text: fmt.Sprintf("%d/%d", up, len(m.GetLinks()))}
	if up < len(m.GetLinks()) {
		c.tone = yellow
	}
	return c
}

// linkSum is nil where no link tells.
func linkSum(links []*orb8v1.NvLink, of func(*orb8v1.NvLink) *uint64) (sum *uint64) {
	for _, l := range links {
		if n := of(l); n != nil {
			if sum == nil {
				sum = new(uint64)
			}
			*sum += *n
		}
	}
	return sum
}

// holderNames counts processes that are called the same, or tells them apart where
// there is room.
func (s Style) holderNames(list []*orb8v1.End) string {
	type one struct {
		name, pod string
		pid       uint32
	}
	seen, counts := map[one]bool{}, map[string]int{}
	var names []string
	for _, e := range list {
		name := GPUHolder(e)
		of := one{name: name, pod: e.GetPodUid()}
		if isProcess(e) {
			of.pid = e.GetPid()
			if s.Wide {
				name += fmt.Sprintf("(%d)", of.pid)
			}
		}
		if seen[of] {
			continue
		}
		seen[of] = true
		if counts[name]++; counts[name] == 1 {
			names = append(names, name)
		}
	}
	for i, name := range names {
		if n := counts[name]; n > 1 {
			names[i] = fmt.Sprintf("%s×%d", name, n)
		}
	}
	return words(names)
}

// isProcess: it is known by its own name alone, which others may have, too.
func isProcess(e *orb8v1.End) bool {
	return e.GetPid() != 0 && e.GetProcess() != "" && GPUHolder(e) == "-/"+e.GetProcess()
}
