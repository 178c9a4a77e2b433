// SPDX-License-Identifier: Apache-2.0

package render

import (
	"io"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
)

// GPUView is what a row of a table of GPUs is.
type GPUView uint8

// A holder, a device, or a port of an RDMA device.
const (
	GPUHolders GPUView = iota
	GPUDevices
	GPUPorts
)

// GPUs are devices that are known, by UUID.
type GPUs map[string]*orb8v1.GpuDevice

// GPUTable shows who holds GPUs, the devices themselves, RDMA devices, or what
// happens to them.
type GPUTable struct {
	table   *Table
	columns []gpuColumn
	style   Style
	view    GPUView
	known   GPUs
}

// gpuRow is what the columns draw from. What is not of a table is nil.
type gpuRow struct {
	style  Style
	known  GPUs
	node   string
	holder *orb8v1.GpuHolder
	device *orb8v1.GpuDevice
	rdma   *orb8v1.RdmaDevice
	port   *orb8v1.RdmaPort
	event  *orb8v1.Event
}

type gpuColumn struct {
	wide bool
	column
	cell func(gpuRow) cell
}

// Has tells whether a record is of a view.
func (v GPUView) Has(r *orb8v1.GpuRecord) bool {
	switch v {
	case GPUDevices:
		return r.GetDevice() != nil
	case GPUPorts:
		return r.GetRdma() != nil
	}
	return r.GetHolder() != nil
}

func (v GPUView) columns() []gpuColumn {
	switch v {
	case GPUDevices:
		return gpuDeviceColumns()
	case GPUPorts:
		return rdmaColumns()
	}
	return gpuHolderColumns()
}

// NewGPUTable makes a table. Of devices that are known it tells more; they may
// come while rows are added.
func NewGPUTable(style Style, view GPUView, known GPUs) *GPUTable {
	t := newGPUTable(style, view.columns())
	t.view, t.known = view, known
	return t
}

func newGPUTable(style Style, all []gpuColumn) *GPUTable {
	t := &GPUTable{style: style}
	var columns []column
	for _, c := range all {
		if !c.wide || style.Wide {
			t.columns = append(t.columns, c)
			columns = append(columns, c.column)
		}
	}
	t.table = newTable(style, columns)
	return t
}

// Add takes a record, and leaves out one that is not of the table's kind. Of an RDMA
// device it makes a row for each port.
func (t *GPUTable) Add(r *orb8v1.GpuRecord) {
	if !t.view.Has(r) {
		return
	}
	row := gpuRow{style: t.style, known: t.known, node: r.GetNode(), holder: r.GetHolder(), device: r.GetDevice(), rdma: r.GetRdma()}
	if t.view != GPUPorts || len(row.rdma.GetPorts()) == 0 {
		t.add(row)
		return
	}
	for _, row.port = range row.rdma.GetPorts() {
		t.add(row)
	}
}

func (t *GPUTable) add(r gpuRow) {
	cells := make([]cell, len(t.columns))
	for i, c := range t.columns {
		cells[i] = c.cell(r)
	}
	t.table.add(cells)
}

// Flush writes what was added.
func (t *GPUTable) Flush(w io.Writer) error { return t.table.Flush(w) }

// GPUHolder is who has a device: a pod, a container, a unit or a process of the
// node. What nobody that is known has is in parentheses, which no name begins with.
func GPUHolder(e *orb8v1.End) string {
	name := dnsClient(e)
	switch {
	case name != "":
		return name
	case e.GetClass() == string(event.ClassUnknown), e.GetClass() == "":
		return "(unattributed)"
	}
	return e.GetClass()
}

func gpuNumber(title, raw string, drop int) column {
	return column{title: title, raw: raw, right: true, drop: drop}
}

// gpuHolderColumns are all there are of holders, in their order. A finding is a
// sentence of any length: in a narrow table it is told below.
func gpuHolderColumns() []gpuColumn {
	holder := func(of func(*orb8v1.End) string) func(gpuRow) cell {
		return func(r gpuRow) cell { return cell{text: of(r.holder.GetHolder())} }
	}
	share := func(of func(*orb8v1.GpuShare) *float64) func(gpuRow) cell {
		return func(r gpuRow) cell { return r.style.ratio(meanOf(r.holder.GetShares(), of)) }
	}
	return []gpuColumn{
		{false, column{title: "HOLDER", fit: true}, holder(GPUHolder)},
		{false, column{title: "NODE", drop: 6}, func(r gpuRow) cell { return cell{text: r.node} }},
		{true, column{title: "WORKLOAD"}, holder(func(e *orb8v1.End) string { return workloadName(e.GetWorkload()) })},
		{true, column{title: "CONTAINERS"}, func(r gpuRow) cell { return cell{text: r.containers()} }},
		{true, column{title: "PIDS"}, func(r gpuRow) cell { return cell{text: r.pids()} }},
		{false, column{title: "GPUS", fit: true}, func(r gpuRow) cell { return cell{text: gpuList(r.holder.GetShares())} }},
		{true, column{title: "MODELS"}, func(r gpuRow) cell { return cell{text: distinct(r.holder.GetShares(), (*orb8v1.GpuShare).GetModel)} }},
		{true, column{title: "UUIDS"}, func(r gpuRow) cell { return cell{text: distinct(r.holder.GetShares(), (*orb8v1.GpuShare).GetUuid)} }},
		{false, column{title: "MODE", drop: 4}, func(r gpuRow) cell { return cell{text: distinct(r.holder.GetShares(), (*orb8v1.GpuShare).GetMode)} }},
		{true, gpuNumber("BUSY", "", 0), share(func(s *orb8v1.GpuShare) *float64 { return s.Busy })},
		{false, gpuNumber("SM", "", 0), share(smOrBusy)},
		{true, gpuNumber("OCCUPANCY", "", 0), share(func(s *orb8v1.GpuShare) *float64 { return s.Occupancy })},
		{false, gpuNumber("TENSOR", "", 3), share(func(s *orb8v1.GpuShare) *float64 { return s.Tensor })},
		{false, gpuNumber("DRAM", "", 2), share(func(s *orb8v1.GpuShare) *float64 { return s.Dram })},
		{false, gpuNumber("MEM", "MEM_BYTES", 10), gpuRow.memory},
		{false, gpuNumber("OF", "MEM_TOTAL_BYTES", 1), gpuRow.memoryTotal},
		{false, gpuNumber("POWER", "POWER_WATTS", 7), gpuRow.power},
		{false, gpuNumber("TX/S", "TX_BYTES/S", 0), func(r gpuRow) cell { return r.network((*orb8v1.Traffic).GetTxBytes) }},
		{false, gpuNumber("RX/S", "RX_BYTES/S", 0), func(r gpuRow) cell { return r.network((*orb8v1.Traffic).GetRxBytes) }},
		{false, gpuNumber("RDMA_TX/S", "RDMA_TX_BYTES/S", 9), func(r gpuRow) cell { return r.rdmaUse((*orb8v1.Traffic).GetTxBytes) }},
		{false, gpuNumber("RDMA_RX/S", "RDMA_RX_BYTES/S", 8), func(r gpuRow) cell { return r.rdmaUse((*orb8v1.Traffic).GetRxBytes) }},
		{true, column{title: "RDMA_DEVICES"}, func(r gpuRow) cell { return cell{text: words(r.holder.GetRdma().GetDevices())} }},
		{false, gpuNumber("RETR", "RETRANSMITS", 5), gpuRow.retransmits},
		{false, column{title: "STATE"}, func(r gpuRow) cell { return holderState(r.holder.GetState()) }},
		{true, column{title: "FINDING", sentence: true, wraps: true}, func(r gpuRow) cell { return cell{findingTexts(r.holder.GetFindings()), yellow} }},
	}
}
