// SPDX-License-Identifier: Apache-2.0

package render

import (
	"io"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// gpuHolderJSON is a holder as programs read it. What is not known is absent, and
// never 0.
type gpuHolderJSON struct {
	Node        string           `json:"node,omitempty"`
	Holder      endJSON          `json:"holder"`
	SampledNS   int64            `json:"sampled_ns,omitempty"`
	State       string           `json:"state,omitempty"`
	Shares      []gpuShareJSON   `json:"shares"`
	StartNS     int64            `json:"start_ns,omitempty"`
	EndNS       int64            `json:"end_ns,omitempty"`
	Network     *trafficJSON     `json:"network,omitempty"`
	Retransmits *uint64          `json:"retransmits,omitempty"`
	RDMA        *rdmaUseJSON     `json:"rdma,omitempty"`
	Findings    []gpuFindingJSON `json:"findings"`
}

type gpuShareJSON struct {
	UUID        string   `json:"uuid"`
	Index       uint32   `json:"index"`
	Model       string   `json:"model,omitempty"`
	Profile     string   `json:"profile,omitempty"`
	Mode        string   `json:"mode,omitempty"`
	Container   string   `json:"container,omitempty"`
	Allocated   bool     `json:"allocated"`
	PIDs        []uint32 `json:"pids"`
	Estimated   bool     `json:"estimated"`
	Busy        *float64 `json:"busy,omitempty"`
	SM          *float64 `json:"sm,omitempty"`
	Occupancy   *float64 `json:"occupancy,omitempty"`
	Tensor      *float64 `json:"tensor,omitempty"`
	DRAM        *float64 `json:"dram,omitempty"`
	MemoryBytes *uint64  `json:"memory_bytes,omitempty"`
	PowerWatts  *float64 `json:"power_watts,omitempty"`
	// Left out where it is false.
	PowerEstimated bool `json:"power_estimated,omitempty"`
}

type trafficJSON struct {
	TxBytes   uint64 `json:"tx_bytes"`
	TxPackets uint64 `json:"tx_packets"`
	RxBytes   uint64 `json:"rx_bytes"`
	RxPackets uint64 `json:"rx_packets"`
}

type rdmaUseJSON struct {
	Devices []string     `json:"devices"`
	Shared  bool         `json:"shared"`
	Moved   *trafficJSON `json:"moved,omitempty"`
}

type gpuFindingJSON struct {
	Kind             string   `json:"kind,omitempty"`
	Text             string   `json:"text,omitempty"`
	SinceNS          int64    `json:"since_ns,omitempty"`
	EndedNS          int64    `json:"ended_ns,omitempty"`
	UUIDs            []string `json:"uuids"`
	Cause            string   `json:"cause,omitempty"`
	Peer             *endJSON `json:"peer,omitempty"`
	TxBytesPerSecond uint64   `json:"tx_bytes_per_second"`
	RxBytesPerSecond uint64   `json:"rx_bytes_per_second"`
	SilentNS         int64    `json:"silent_ns,omitempty"`
	Retransmits      uint64   `json:"retransmits"`
	FailedConnects   uint64   `json:"failed_connects"`
}

// GPUJSON writes a holder, a device or an RDMA device as one line.
func GPUJSON(w io.Writer, r *orb8v1.GpuRecord) error {
	switch {
	case r.GetDevice() != nil:
		j := newGPUDeviceJSON(r.GetDevice())
		j.Node = r.GetNode()
		return JSON(w, j)
	case r.GetRdma() != nil:
		return JSON(w, newRDMAJSON(r))
	}
	return JSON(w, newGPUHolderJSON(r.GetNode(), r.GetHolder()))
}

func newGPUHolderJSON(node string, h *orb8v1.GpuHolder) *gpuHolderJSON {
	j := &gpuHolderJSON{
		Node: node, Holder: newEndJSON(h.GetHolder(), false), SampledNS: h.GetTimeNs(), State: h.GetState(),
		Shares: []gpuShareJSON{}, StartNS: h.GetStartNs(), EndNS: h.GetEndNs(), Network: newTrafficJSON(h.GetNetwork()), Findings: []gpuFindingJSON{},
	}
	for _, s := range h.GetShares() {
		j.Shares = append(j.Shares, gpuShareJSON{
			UUID: s.GetUuid(), Index: s.GetIndex(), Model: s.GetModel(), Profile: s.GetProfile(), Mode: s.GetMode(), Container: s.GetContainer(),
			Allocated: s.GetAllocated(), PIDs: append([]uint32{}, s.GetPids()...), Estimated: s.GetEstimated(),
			Busy: number(s.Busy), SM: number(s.Sm), Occupancy: number(s.Occupancy), Tensor: number(s.Tensor), DRAM: number(s.Dram),
			MemoryBytes: s.MemoryBytes, PowerWatts: number(s.PowerWatts), PowerEstimated: s.GetPowerEstimated(),
		})
	}
	if h.GetNetwork() != nil {
		j.Retransmits = new(h.GetRetransmits())
	}
	if u := h.GetRdma(); u != nil {
		j.RDMA = &rdmaUseJSON{append([]string{}, u.GetDevices()...), u.GetShared(), newTrafficJSON(u.GetMoved())}
	}
	for _, f := range h.GetFindings() {
		j.Findings = append(j.Findings, newGPUFindingJSON(f))
	}
	return j
}

func newTrafficJSON(t *orb8v1.Traffic) *trafficJSON {
	if t == nil {
		return nil
	}
	return &trafficJSON{t.GetTxBytes(), t.GetTxPackets(), t.GetRxBytes(), t.GetRxPackets()}
}

func newGPUFindingJSON(f *orb8v1.GpuFinding) gpuFindingJSON {
	j := gpuFindingJSON{
		Kind: f.GetKind(), Text: f.GetText(), SinceNS: f.GetSinceNs(), EndedNS: f.GetEndedNs(), UUIDs: append([]string{}, f.GetUuids()...),
		Cause: f.GetCause(), TxBytesPerSecond: f.GetTxBytesPerSecond(), RxBytesPerSecond: f.GetRxBytesPerSecond(), SilentNS: f.GetSilentNs(),
		Retransmits: f.GetRetransmits(), FailedConnects: f.GetFailedConnects(),
	}
	if f.GetPeer() != nil {
		j.Peer = new(newEndJSON(f.GetPeer(), f.GetPeer().GetPort() != 0))
	}
	return j
}

func newEndsJSON(list []*orb8v1.End) []endJSON {
	ends := []endJSON{}
	for _, e := range list {
		ends = append(ends, newEndJSON(e, false))
	}
	return ends
}

// rdmaJSON is an RDMA device as programs read it. Unknown fields are absent.
type rdmaJSON struct {
	Node        string         `json:"node,omitempty"`
	Name        string         `json:"name"`
	PCI         string         `json:"pci,omitempty"`
	NUMANode    *uint32        `json:"numa_node,omitempty"`
	Netdevs     []string       `json:"netdevs"`
	Netns       uint64         `json:"netns,omitempty"`
	Shared      bool           `json:"shared"`
	Holders     []endJSON      `json:"holders"`
	NearestGPUs []string       `json:"nearest_gpus"`
	Distance    string         `json:"distance,omitempty"`
	Ports       []rdmaPortJSON `json:"ports"`
}

type rdmaPortJSON struct {
	Port          uint32            `json:"port"`
	LinkLayer     string            `json:"link_layer,omitempty"`
	State         string            `json:"state,omitempty"`
	PhysicalState string            `json:"physical_state,omitempty"`
	BitsPerSecond uint64            `json:"rate_bits_per_second,omitempty"`
	Moved         *trafficJSON      `json:"moved,omitempty"`
	Total         *trafficJSON      `json:"total,omitempty"`
	Counters      []rdmaCounterJSON `json:"counters"`
}

type rdmaCounterJSON struct {
	Name       string `json:"name"`
	Count      uint64 `json:"count"`
	LastMinute uint64 `json:"last_minute"`
	Kind       string `json:"kind,omitempty"`
}

func newRDMAJSON(r *orb8v1.GpuRecord) *rdmaJSON {
	d := r.GetRdma()
	j := &rdmaJSON{
		Node: r.GetNode(), Name: d.GetName(), PCI: d.GetPci(), NUMANode: d.NumaNode, Netdevs: append([]string{}, d.GetNetdevs()...), Netns: d.GetNetns(),
		Shared: d.GetShared(), Holders: newEndsJSON(d.GetHolders()), NearestGPUs: append([]string{}, d.GetNearestGpus()...), Distance: d.GetDistance(),
		Ports: []rdmaPortJSON{},
	}
	for _, p := range d.GetPorts() {
		port := rdmaPortJSON{
			Port: p.GetPort(), LinkLayer: p.GetLinkLayer(), State: p.GetState(), PhysicalState: p.GetPhysicalState(), BitsPerSecond: p.GetRate(),
			Moved: newTrafficJSON(p.GetMoved()), Total: newTrafficJSON(p.GetTotal()), Counters: []rdmaCounterJSON{},
		}
		for _, c := range p.GetCounters() {
			port.Counters = append(port.Counters, rdmaCounterJSON{c.GetName(), c.GetCount(), c.GetLastMinute(), c.GetKind()})
		}
		j.Ports = append(j.Ports, port)
	}
	return j
}
