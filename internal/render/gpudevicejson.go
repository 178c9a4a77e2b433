// SPDX-License-Identifier: Apache-2.0

package render

import orb8v1 "github.com/orb8/orb8/api/orb8/v1"

// gpuDeviceJSON is a GPU or a MIG instance as programs read it. Unknown fields are
// absent.
type gpuDeviceJSON struct {
	Node     string         `json:"node,omitempty"`
	UUID     string         `json:"uuid"`
	Model    string         `json:"model,omitempty"`
	Index    uint32         `json:"index"`
	PCI      string         `json:"pci,omitempty"`
	NUMANode *uint32        `json:"numa_node,omitempty"`
	Divided  bool           `json:"divided"`
	Parent   string         `json:"parent,omitempty"`
	Profile  string         `json:"profile,omitempty"`
	Instance *uint32        `json:"instance,omitempty"`
	Mode     string         `json:"mode,omitempty"`
	Holders  []endJSON      `json:"holders,omitzero"`
	Sample   *gpuSampleJSON `json:"sample,omitempty"`
}

type gpuSampleJSON struct {
	TimeNS                   int64        `json:"time_ns,omitempty"`
	State                    string       `json:"state,omitempty"`
	Busy                     *float64     `json:"busy,omitempty"`
	MemoryBusy               *float64     `json:"memory_busy,omitempty"`
	Encoder                  *float64     `json:"encoder,omitempty"`
	Decoder                  *float64     `json:"decoder,omitempty"`
	SM                       *float64     `json:"sm,omitempty"`
	Occupancy                *float64     `json:"occupancy,omitempty"`
	Tensor                   *float64     `json:"tensor,omitempty"`
	DRAM                     *float64     `json:"dram,omitempty"`
	MemoryUsedBytes          *uint64      `json:"memory_used_bytes,omitempty"`
	MemoryTotalBytes         *uint64      `json:"memory_total_bytes,omitempty"`
	MemoryReservedBytes      *uint64      `json:"memory_reserved_bytes,omitempty"`
	PowerWatts               *float64     `json:"power_watts,omitempty"`
	PowerLimitWatts          *float64     `json:"power_limit_watts,omitempty"`
	EnergyJoules             *float64     `json:"energy_joules,omitempty"`
	TemperatureCelsius       *float64     `json:"temperature_celsius,omitempty"`
	MemoryTemperatureCelsius *float64     `json:"memory_temperature_celsius,omitempty"`
	ClockSMMHz               *float64     `json:"clock_sm_mhz,omitempty"`
	ClockMemoryMHz           *float64     `json:"clock_memory_mhz,omitempty"`
	ClockGraphicsMHz         *float64     `json:"clock_graphics_mhz,omitempty"`
	ClockVideoMHz            *float64     `json:"clock_video_mhz,omitempty"`
	PCIeTxBytesPerSecond     *float64     `json:"pcie_tx_bytes_per_second,omitempty"`
	PCIeRxBytesPerSecond     *float64     `json:"pcie_rx_bytes_per_second,omitempty"`
	PCIeReplays              *uint64      `json:"pcie_replays,omitempty"`
	ECCCorrected             *uint64      `json:"ecc_corrected,omitempty"`
	ECCUncorrected           *uint64      `json:"ecc_uncorrected,omitempty"`
	ECCCorrectedEver         *uint64      `json:"ecc_corrected_ever,omitempty"`
	ECCUncorrectedEver       *uint64      `json:"ecc_uncorrected_ever,omitempty"`
	RowsRemappedCorrected    *uint64      `json:"rows_remapped_corrected,omitempty"`
	RowsRemappedUncorrected  *uint64      `json:"rows_remapped_uncorrected,omitempty"`
	RowsRemapPending         *bool        `json:"rows_remap_pending,omitempty"`
	RowsRemapFailed          *bool        `json:"rows_remap_failed,omitempty"`
	Throttle                 []string     `json:"throttle"`
	ComputeMode              string       `json:"compute_mode,omitempty"`
	Fabric                   string       `json:"fabric,omitempty"`
	Links                    []nvLinkJSON `json:"links"`
}

type nvLinkJSON struct {
	Link       uint32  `json:"link"`
	Up         bool    `json:"up"`
	TxBytes    *uint64 `json:"tx_bytes,omitempty"`
	RxBytes    *uint64 `json:"rx_bytes,omitempty"`
	Replays    *uint64 `json:"replays,omitempty"`
	Recoveries *uint64 `json:"recoveries,omitempty"`
	CRCErrors  *uint64 `json:"crc_errors,omitempty"`
}

func newGPUDeviceJSON(d *orb8v1.GpuDevice) *gpuDeviceJSON {
	j := &gpuDeviceJSON{
		UUID: d.GetUuid(), Model: d.GetModel(), Index: d.GetIndex(), PCI: d.GetPci(), NUMANode: d.NumaNode, Divided: d.GetDivided(),
		Parent: d.GetParent(), Profile: d.GetProfile(), Mode: d.GetMode(), Holders: newEndsJSON(d.GetHolders()), Sample: newGPUSampleJSON(d.GetSample()),
	}
	if d.GetParent() != "" {
		j.Instance = new(d.GetInstance())
	}
	return j
}

func newGPUSampleJSON(s *orb8v1.GpuSample) *gpuSampleJSON {
	if s == nil {
		return nil
	}
	j := &gpuSampleJSON{
		TimeNS: s.GetTimeNs(), State: s.GetState(),
		Busy: number(s.Busy), MemoryBusy: number(s.MemoryBusy), Encoder: number(s.Encoder), Decoder: number(s.Decoder),
		SM: number(s.Sm), Occupancy: number(s.Occupancy), Tensor: number(s.Tensor), DRAM: number(s.Dram),
		MemoryUsedBytes: s.MemoryUsedBytes, MemoryTotalBytes: s.MemoryTotalBytes, MemoryReservedBytes: s.MemoryReservedBytes,
		PowerWatts: number(s.PowerWatts), PowerLimitWatts: number(s.PowerLimitWatts), EnergyJoules: number(s.EnergyJoules),
		TemperatureCelsius: number(s.TemperatureCelsius), MemoryTemperatureCelsius: number(s.MemoryTemperatureCelsius),
		ClockSMMHz: number(s.ClockSmMhz), ClockMemoryMHz: number(s.ClockMemoryMhz), ClockGraphicsMHz: number(s.ClockGraphicsMhz), ClockVideoMHz: number(s.ClockVideoMhz),
		PCIeTxBytesPerSecond: number(s.PcieTxBytesPerSecond), PCIeRxBytesPerSecond: number(s.PcieRxBytesPerSecond), PCIeReplays: s.PcieReplays,
		ECCCorrected: s.EccCorrected, ECCUncorrected: s.EccUncorrected, ECCCorrectedEver: s.EccCorrectedEver, ECCUncorrectedEver: s.EccUncorrectedEver,
		RowsRemappedCorrected: s.RowsRemappedCorrected, RowsRemappedUncorrected: s.RowsRemappedUncorrected,
		RowsRemapPending: s.RowsRemapPending, RowsRemapFailed: s.RowsRemapFailed,
		Throttle: append([]string{}, s.GetThrottle()...), ComputeMode: s.GetComputeMode(), Fabric: s.GetFabric(), Links: []nvLinkJSON{},
	}
	for _, l := range s.GetLinks() {
		j.Links = append(j.Links, nvLinkJSON{l.GetLink(), l.GetUp(), l.TxBytes, l.RxBytes, l.Replays, l.Recoveries, l.CrcErrors})
	}
	return j
}
