// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"io"
	"math"
	"testing"

	"google.golang.org/protobuf/proto"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

func FuzzGPU(f *testing.F) {
	holder := &orb8v1.GpuHolder{
		Holder: &orb8v1.End{Class: "unknown"}, StartNs: 5, EndNs: 1 << 62, Network: &orb8v1.Traffic{TxBytes: 1 << 63}, Rdma: &orb8v1.RdmaTraffic{Moved: &orb8v1.Traffic{}, Shared: true},
		Shares: []*orb8v1.GpuShare{
			{Uuid: "a", Index: 1<<32 - 1, Estimated: true, Sm: new(math.NaN()), Busy: new(math.Inf(-1)), PowerWatts: new(-1e300)},
			{Uuid: "a", Profile: "1g.10gb", Pids: []uint32{1, 1}, Busy: new(1e-300), MemoryBytes: new(uint64(1 << 63))},
		},
	}
	device := &orb8v1.GpuDevice{Uuid: "a", Sample: &orb8v1.GpuSample{EnergyJoules: new(1e300), RowsRemapFailed: new(true), Links: []*orb8v1.NvLink{{TxBytes: new(uint64(1 << 63))}, {TxBytes: new(uint64(1 << 63))}}}}
	rdma := &orb8v1.RdmaDevice{Ports: []*orb8v1.RdmaPort{{Rate: 1 << 63, Counters: []*orb8v1.RdmaCounter{{Kind: "error", LastMinute: 1 << 63}}}}}
	seeds(f, &orb8v1.GpuRecord{}, &orb8v1.GpuRecord{Of: &orb8v1.GpuRecord_Holder{Holder: holder}},
		&orb8v1.GpuRecord{Of: &orb8v1.GpuRecord_Device{Device: device}}, &orb8v1.GpuRecord{Of: &orb8v1.GpuRecord_Rdma{Rdma: rdma}})
	f.Fuzz(func(t *testing.T, b []byte, name string, human bool, width int) {
		var r orb8v1.GpuRecord
		if proto.Unmarshal(b, &r) != nil {
			return
		}
		r.Node = name
		spoil(&r, name)
		style := Style{Human: human, Wide: len(name)%2 == 0, Width: width % 500}
		for _, view := range []GPUView{GPUHolders, GPUDevices, GPUPorts} {
			table := NewGPUTable(style, view, GPUs{name: r.GetDevice(), "a": device})
			table.Add(&r)
			var out bytes.Buffer
			if err := table.Flush(&out); err != nil {
				t.Fatal(err)
			}
			lines := 1
			switch {
			case !view.Has(&r):
			case view == GPUPorts:
				lines += max(len(r.GetRdma().GetPorts()), 1)
			default:
				lines++
			}
			checkLines(t, out.String(), lines)
		}
		asJSON(t, func(w io.Writer) error { return GPUJSON(w, &r) })
	})
}

// spoil puts a text wherever a record has one.
func spoil(r *orb8v1.GpuRecord, name string) {
	if h := r.GetHolder(); h != nil {
		h.State = name
		h.Findings = append(h.Findings, &orb8v1.GpuFinding{Kind: name, Text: name, Uuids: []string{name}, Peer: &orb8v1.End{Process: name}})
		for _, s := range h.GetShares() {
			s.Model, s.Profile, s.Mode, s.Container = name, name, name, name
		}
	}
	if d := r.GetDevice(); d != nil {
		d.Model, d.Profile, d.Pci, d.Holders = name, name, name, append(d.GetHolders(), &orb8v1.End{Process: name}, nil)
		if s := d.GetSample(); s != nil {
			s.State, s.Throttle, s.Fabric = name, []string{name, "idle"}, name
		}
	}
	if d := r.GetRdma(); d != nil {
		d.Name, d.Netdevs, d.NearestGpus, d.Distance = name, []string{name}, []string{name}, name
		for _, p := range d.GetPorts() {
			p.State, p.PhysicalState, p.LinkLayer = name, name, name
			p.Counters = append(p.Counters, &orb8v1.RdmaCounter{Name: name, Kind: "congestion", LastMinute: 1})
		}
	}
}

func FuzzGPUEvent(f *testing.F) {
	seeds(f, &orb8v1.Event{},
		&orb8v1.Event{Kind: orb8v1.EventKind_EVENT_KIND_GPU_XID, Gpu: &orb8v1.GpuEvent{Device: &orb8v1.GpuDevice{}, Xid: &orb8v1.GpuXid{Code: 1<<32 - 1}}},
		&orb8v1.Event{Kind: orb8v1.EventKind_EVENT_KIND_GPU_THROTTLE, Gpu: &orb8v1.GpuEvent{Throttle: &orb8v1.GpuThrottle{Ended: true, LastedNs: -1 << 63}}},
		&orb8v1.Event{Kind: orb8v1.EventKind_EVENT_KIND_GPU_FINDING, TimeNs: -1 << 63, Gpu: &orb8v1.GpuEvent{Finding: &orb8v1.GpuFinding{EndedNs: -1 << 63, SinceNs: 1<<63 - 1}}},
		&orb8v1.Event{Kind: 999, Gpu: &orb8v1.GpuEvent{Sample: &orb8v1.GpuHolder{Shares: []*orb8v1.GpuShare{{}, nil}}}})
	f.Fuzz(func(t *testing.T, b []byte, name string, human bool, width int) {
		var e orb8v1.Event
		if proto.Unmarshal(b, &e) != nil {
			return
		}
		if e.GetGpu() == nil {
			e.Gpu = &orb8v1.GpuEvent{}
		}
		g := e.GetGpu()
		g.Node = name
		g.Holders = append(g.Holders, &orb8v1.End{Process: name})
		if g.GetXid() != nil {
			g.Xid.Meaning = name
		}
		if g.GetThrottle() != nil {
			g.Throttle.Reasons = append(g.Throttle.Reasons, name)
		}
		if g.GetFinding() != nil {
			g.Finding.Text, g.Finding.Uuids = name, []string{name}
		}
		table := NewGPUEventTable(Style{Human: human, Wide: len(name)%2 == 0, Width: width % 500})
		table.Add(&e)
		asTable(t, table.Flush)
		asJSON(t, func(w io.Writer) error { return GPUEventJSON(w, &e) })
	})
}

func FuzzGPUStatus(f *testing.F) {
	seeds(f, &orb8v1.GpuStatus{}, &orb8v1.GpuStatus{Open: true, Gpus: 1<<32 - 1, Hung: []string{"a"}}, &orb8v1.GpuStatus{Problem: "x"}, &orb8v1.GpuStatus{Released: "x"})
	f.Fuzz(func(t *testing.T, b []byte, name string, human bool, _ int) {
		var s orb8v1.GpuStatus
		if proto.Unmarshal(b, &s) != nil {
			return
		}
		s.Missing, s.NotGiven, s.PodResourcesProblem = append(s.Missing, name), append(s.NotGiven, name), name
		for _, wide := range []bool{false, true} {
			block := &block{style: Style{Human: human, Wide: wide}}
			block.gpu(&s)
			var out bytes.Buffer
			if err := block.write(&out); err != nil {
				t.Fatal(err)
			}
			lines := 3 + len(s.GetHung())
			if name != "" {
				lines++
			}
			checkLines(t, out.String(), lines)
		}
		asJSON(t, func(w io.Writer) error { return StatusJSON(w, &orb8v1.NodeStatus{Gpu: &s}) })
		asJSON(t, func(w io.Writer) error { return GPUDriverJSON(w, &orb8v1.GpuDriverState{Node: name, Error: name}) })
	})
}
