// SPDX-License-Identifier: Apache-2.0

package render

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
)

// NewGPUEventTable makes a table of what happens to GPUs, which may go on for ever.
func NewGPUEventTable(style Style) *GPUEventTable {
	t := &GPUEventTable{newGPUTable(style, gpuEventColumns())}
	t.table.table.reserve()
	return t
}

// GPUEventTable shows samples, Xids, throttling and findings, one a row.
type GPUEventTable struct{ table *GPUTable }

// Add takes an event.
func (t *GPUEventTable) Add(e *orb8v1.Event) {
	g := e.GetGpu()
	t.table.add(gpuRow{style: t.table.style, node: g.GetNode(), holder: g.GetSample(), device: g.GetDevice(), event: e})
}

// Flush writes what was added.
func (t *GPUEventTable) Flush(w io.Writer) error { return t.table.Flush(w) }

// gpuEventColumns are all there are of events, in their order. Only samples have
// numbers.
func gpuEventColumns() []gpuColumn {
	share := func(of func(*orb8v1.GpuShare) *float64) func(gpuRow) cell {
		return func(r gpuRow) cell { return r.style.ratio(meanOf(r.holder.GetShares(), of)) }
	}
	usual := func(c column, width int) column {
		c.usual = width
		return c
	}
	return []gpuColumn{
		{false, column{title: "TIME", usual: 12, usualRaw: 24}, func(r gpuRow) cell { return flowRow{style: r.style, time: r.event.GetTimeNs()}.clock() }},
		{true, column{title: "NODE"}, func(r gpuRow) cell { return cell{text: r.node} }},
		{false, column{title: "EVENT", usual: 8}, gpuRow.happened},
		{false, column{title: "GPUS", fit: true, usual: 4}, func(r gpuRow) cell { return cell{text: r.devices()} }},
		{true, column{title: "UUIDS"}, func(r gpuRow) cell { return cell{text: r.uuids()} }},
		{false, column{title: "HOLDER", fit: true, usual: 20}, func(r gpuRow) cell { return cell{text: r.holders()} }},
		{false, usual(gpuNumber("SM", "", 0), 4), share(smOrBusy)},
		{true, gpuNumber("TENSOR", "", 0), share(func(s *orb8v1.GpuShare) *float64 { return s.Tensor })},
		{false, usual(gpuNumber("MEM", "MEM_BYTES", 2), 6), gpuRow.memory},
		{false, usual(gpuNumber("POWER", "POWER_WATTS", 1), 5), gpuRow.power},
		{false, usual(gpuNumber("TX/S", "TX_BYTES/S", 3), 7), func(r gpuRow) cell { return r.network((*orb8v1.Traffic).GetTxBytes) }},
		{false, usual(gpuNumber("RX/S", "RX_BYTES/S", 0), 7), func(r gpuRow) cell { return r.network((*orb8v1.Traffic).GetRxBytes) }},
		{true, gpuNumber("RDMA_TX/S", "RDMA_TX_BYTES/S", 0), func(r gpuRow) cell { return r.rdmaUse((*orb8v1.Traffic).GetTxBytes) }},
		{true, gpuNumber("RDMA_RX/S", "RDMA_RX_BYTES/S", 0), func(r gpuRow) cell { return r.rdmaUse((*orb8v1.Traffic).GetRxBytes) }},
		{false, column{title: "WHAT", sentence: true, wraps: true, usual: 12}, gpuRow.what},
	}
}

// happened is the word of --kind.
func (r gpuRow) happened() cell {
	switch r.event.GetKind() {
	case orb8v1.EventKind_EVENT_KIND_GPU_SAMPLE:
		return cell{"sample", dim}
	case orb8v1.EventKind_EVENT_KIND_GPU_XID:
		return cell{"xid", red}
	case orb8v1.EventKind_EVENT_KIND_GPU_THROTTLE:
		return cell{"throttle", yellow}
	case orb8v1.EventKind_EVENT_KIND_GPU_FINDING:
		return cell{"finding", yellow}
	}
	return cell{text: "unknown"}
}

// devices are those of the holder, the one, or those of the finding.
func (r gpuRow) devices() string {
	switch {
	case r.holder != nil:
		return gpuList(r.holder.GetShares())
	case r.device != nil:
		return gpuLabel(r.device)
	}
	return findingDevices(r.event.GetGpu().GetFinding())
}

func findingDevices(f *orb8v1.GpuFinding) string {
	var shares []*orb8v1.GpuShare
	for _, d := range f.GetDevices() {
		shares = append(shares, &orb8v1.GpuShare{Uuid: d.GetUuid(), Index: d.GetIndex(), Profile: d.GetProfile()})
	}
	return gpuList(shares)
}

// GPUFindings says of a holder what was found, a line each. The sentences tell how many
// GPUs it is, these lines which.
func GPUFindings(r *orb8v1.GpuRecord) (lines []string) {
	who := GPUHolder(r.GetHolder().GetHolder())
	if isProcess(r.GetHolder().GetHolder()) {
		who += fmt.Sprintf(" (%d)", r.GetHolder().GetHolder().GetPid())
	}
	for _, f := range r.GetHolder().GetFindings() {
		word, n := "GPU", len(f.GetDevices())
		if n > 1 {
			word = "GPUs"
		}
		text := findingText(f)
		if rest, ok := strings.CutPrefix(text, fmt.Sprintf("%d %s ", n, word)); ok {
			text = word + " " + findingDevices(f) + " " + rest
		}
		lines = append(lines, who+": "+text)
	}
	return lines
}

func (r gpuRow) uuids() string {
	switch {
	case r.holder != nil:
		return distinct(r.holder.GetShares(), (*orb8v1.GpuShare).GetUuid)
	case r.device != nil:
		return r.device.GetUuid()
	}
	return words(r.event.GetGpu().GetFinding().GetUuids())
}

func (r gpuRow) holders() string {
	if r.holder != nil {
		return GPUHolder(r.holder.GetHolder())
	}
	return r.style.holderNames(r.event.GetGpu().GetHolders())
}

// what says the rest in words.
func (r gpuRow) what() cell {
	switch g := r.event.GetGpu(); {
	case r.holder != nil:
		return holderState(r.holder.GetState())
	case g.GetXid() != nil:
		text := "Xid " + strconv.FormatUint(uint64(g.GetXid().GetCode()), 10)
		if g.GetXid().GetMeaning() != "" {
			text += ": " + g.GetXid().GetMeaning()
		}
		return cell{text, red}
	case g.GetThrottle() != nil:
		return throttled(g.GetThrottle())
	case g.GetFinding() != nil:
		return found(g.GetFinding())
	}
	return cell{}
}

func throttled(t *orb8v1.GpuThrottle) cell {
	reasons := cmp.Or(strings.Join(t.GetReasons(), ", "), "for no reason that is known")
	if t.GetEnded() {
		return cell{"ended after " + Span(t.GetLastedNs()) + ": " + reasons, green}
	}
	return cell{"clocks are lowered: " + reasons, yellow}
}

// found: the text of what has ended tells how long it went on.
func found(f *orb8v1.GpuFinding) cell {
	if f.GetEndedNs() != 0 {
		return cell{"ended: " + findingText(f), green}
	}
	return cell{findingText(f), yellow}
}

// gpuEventJSON is an event as programs read it: a sample is the holder's line of
// orb8 gpu, all others have a device and who has it.
type gpuEventJSON struct {
	Event  string `json:"event"`
	TimeNS int64  `json:"time_ns"`
	Node   string `json:"node,omitempty"`
	*gpuHolderJSON
	*gpuIncidentJSON
}

type gpuIncidentJSON struct {
	Device   *gpuDeviceJSON   `json:"device,omitempty"`
	Holders  []endJSON        `json:"holders"`
	Xid      *gpuXidJSON      `json:"xid,omitempty"`
	Throttle *gpuThrottleJSON `json:"throttle,omitempty"`
	Finding  *gpuFindingJSON  `json:"finding,omitempty"`
}

type gpuXidJSON struct {
	Code    uint32 `json:"code"`
	Meaning string `json:"meaning,omitempty"`
}

type gpuThrottleJSON struct {
	Reasons  []string `json:"reasons"`
	Ended    bool     `json:"ended"`
	LastedNS *int64   `json:"lasted_ns,omitempty"`
}

// GPUEventJSON writes an event as one line.
func GPUEventJSON(w io.Writer, e *orb8v1.Event) error {
	g := e.GetGpu()
	j := gpuEventJSON{Event: event.Kind(e.GetKind()).String(), TimeNS: e.GetTimeNs(), Node: g.GetNode()}
	if g.GetSample() != nil {
		j.gpuHolderJSON = newGPUHolderJSON("", g.GetSample())
		return JSON(w, j)
	}
	j.gpuIncidentJSON = newGPUIncidentJSON(g)
	return JSON(w, j)
}

func newGPUIncidentJSON(g *orb8v1.GpuEvent) *gpuIncidentJSON {
	j := &gpuIncidentJSON{Holders: newEndsJSON(g.GetHolders())}
	if g.GetDevice() != nil {
		j.Device = newGPUDeviceJSON(g.GetDevice())
		j.Device.Holders = nil // they are the event's
	}
	if x := g.GetXid(); x != nil {
		j.Xid = &gpuXidJSON{x.GetCode(), x.GetMeaning()}
	}
	if t := g.GetThrottle(); t != nil {
		j.Throttle = &gpuThrottleJSON{Reasons: append([]string{}, t.GetReasons()...), Ended: t.GetEnded()}
		if t.GetEnded() {
			j.Throttle.LastedNS = new(t.GetLastedNs())
		}
	}
	if g.GetFinding() != nil {
		j.Finding = new(newGPUFindingJSON(g.GetFinding()))
	}
	return j
}
