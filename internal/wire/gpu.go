// SPDX-License-Identifier: Apache-2.0

package wire

import (
	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/filter"
)

// GPUs reads which devices are wanted.
func GPUs(list []string) (filter.GPUs, error) {
	var r reader
	r.bound("gpus", len(list))
	return filter.GPUs(list), r.err
}

// Holder gives the record of who has GPUs.
func (s *Source) Holder(h *event.GPUHolder) *pb.GpuRecord {
	return &pb.GpuRecord{Node: Text(s.Node), Of: &pb.GpuRecord_Holder{Holder: holder(h)}}
}

// Device gives the record of the device at a place of a view.
func (s *Source) Device(v *event.GPUView, i int) *pb.GpuRecord {
	d := device(&v.GPUs[i])
	d.Sample = sample(&v.Samples[i])
	switch { // an instance is one, whoever has it
	case d.Parent != "":
		d.Mode = event.GPUMIG.String()
	case i < len(v.Modes):
		d.Mode = v.Modes[i].String()
	}
	for j := range v.Holders {
		h := &v.Holders[j]
		for k := range h.Shares {
			if h.Shares[k].GPU.UUID == d.Uuid && h.Who.Class != event.ClassUnknown {
				d.Holders = append(d.Holders, party(h.Who))
				break
			}
		}
	}
	return &pb.GpuRecord{Node: Text(s.Node), Of: &pb.GpuRecord_Device{Device: d}}
}

func holder(h *event.GPUHolder) *pb.GpuHolder {
	out := &pb.GpuHolder{
		Holder: party(h.Who), TimeNs: h.At, StartNs: h.Start, EndNs: h.End,
		Retransmits: h.Resent, Rdma: rdmaUse(&h.RDMA), State: h.State.String(),
	}
	if h.NetworkKnown {
		out.Network = Traffic(h.Network)
	}
	for i := range h.Shares {
		out.Shares = append(out.Shares, share(&h.Shares[i]))
	}
	for _, f := range h.Findings {
		out.Findings = append(out.Findings, finding(f))
	}
	return out
}

func share(s *event.GPUShare) *pb.GpuShare {
	return &pb.GpuShare{
		Uuid: Text(s.GPU.UUID), Index: uint32(s.GPU.Index), Model: Text(s.GPU.Model), Profile: Text(s.GPU.Profile),
		Mode: s.Mode.String(), Container: Text(s.Container), Allocated: s.Allocated, Pids: s.PIDs, Estimated: s.Estimated,
		Busy: value(s.Busy), Sm: value(s.SM), Occupancy: value(s.Occupancy), Tensor: value(s.Tensor), Dram: value(s.DRAM),
		MemoryBytes: whole(s.Memory), PowerWatts: value(s.Power), PowerEstimated: s.PowerEstimated,
	}
}

func finding(f *event.GPUFinding) *pb.GpuFinding {
	out := &pb.GpuFinding{
		Kind: f.Kind.String(), SinceNs: f.Since, EndedNs: f.Ended, Cause: f.Cause.String(),
		TxBytesPerSecond: f.TxRate, RxBytesPerSecond: f.RxRate, SilentNs: f.Silent,
		Retransmits: f.Resent, FailedConnects: f.Failed, Text: Text(f.Text),
	}
	for _, g := range f.GPUs {
		out.Uuids = append(out.Uuids, Text(g.UUID))
		out.Devices = append(out.Devices, device(g))
	}
	if f.Peer != nil {
		out.Peer = party(f.Peer)
	}
	return out
}

func device(g *event.GPU) *pb.GpuDevice {
	d := &pb.GpuDevice{
		Uuid: Text(g.UUID), Model: Text(g.Model), Index: uint32(g.Index), Pci: Text(g.PCI), NumaNode: node(g.NUMA),
		Divided: g.Divided, Parent: Text(g.Parent), Profile: Text(g.Profile),
	}
	if g.Parent != "" {
		d.Instance = g.Instance
	}
	return d
}

var stateNames = [...]string{"", "ok", "lost", "hung"}

var computeNames = [...]string{"", "shared", "exclusive_thread", "prohibited", "exclusive_process"}

var fabricNames = [...]string{"", "none", "not_started", "joining", "joined"}

// name is one of a list; "" where there is none.
func name[T ~uint8](list []string, i T) string {
	if int(i) < len(list) {
		return list[i]
	}
	return ""
}

func sample(s *event.GPUSample) *pb.GpuSample {
	out := &pb.GpuSample{
		TimeNs: s.At, State: name(stateNames[:], s.State),
		Busy: value(s.Busy), MemoryBusy: value(s.MemoryBusy), Encoder: value(s.Encoder), Decoder: value(s.Decoder),
		Sm: value(s.SM), Occupancy: value(s.Occupancy), Tensor: value(s.Tensor), Dram: value(s.DRAM),
		MemoryUsedBytes: whole(s.MemoryUsed), MemoryTotalBytes: whole(s.MemoryTotal), MemoryReservedBytes: whole(s.MemoryReserved),
		PowerWatts: value(s.Power), PowerLimitWatts: value(s.PowerLimit), EnergyJoules: value(s.Energy),
		TemperatureCelsius: value(s.Temperature), MemoryTemperatureCelsius: value(s.MemoryTemperature),
		ClockSmMhz: value(s.ClockSM), ClockMemoryMhz: value(s.ClockMemory),
		ClockGraphicsMhz: value(s.ClockGraphics), ClockVideoMhz: value(s.ClockVideo),
		PcieTxBytesPerSecond: value(s.PCIeSent), PcieRxBytesPerSecond: value(s.PCIeReceived), PcieReplays: whole(s.PCIeReplays),
		EccCorrected: whole(s.ECCCorrected), EccUncorrected: whole(s.ECCUncorrected),
		EccCorrectedEver: whole(s.ECCCorrectedEver), EccUncorrectedEver: whole(s.ECCUncorrectedEver),
		RowsRemappedCorrected: whole(s.RowsCorrected), RowsRemappedUncorrected: whole(s.RowsUncorrected),
		RowsRemapPending: yes(s.RowsPending), RowsRemapFailed: yes(s.RowsFailed),
		ComputeMode: name(computeNames[:], s.Compute), Fabric: name(fabricNames[:], s.Fabric),
	}
	if s.ThrottleKnown {
		out.Throttle = s.Throttle.Names()
	}
	for _, l := range s.Links {
		out.Links = append(out.Links, &pb.NvLink{
			Link: uint32(l.Link), Up: l.Up, TxBytes: whole(l.Sent), RxBytes: whole(l.Received),
			Replays: whole(l.Replays), Recoveries: whole(l.Recoveries), CrcErrors: whole(l.Damaged),
		})
	}
	return out
}

// GPUStatus is absent where there is nothing to tell of.
func GPUStatus(v *event.GPUView) *pb.GpuStatus {
	if v == nil {
		return nil
	}
	st := &v.Status
	if !st.Open && st.Problem == "" && st.Released == "" && len(v.RDMA) == 0 {
		return nil
	}
	out := &pb.GpuStatus{
		Open: st.Open, Problem: Text(st.Problem), DriverVersion: Text(st.Driver), RdmaDevices: uint32(len(v.RDMA)),
		Missing: Texts(st.Missing), NotGiven: Texts(st.NotGiven), Hung: Texts(st.Hung),
		Released: Text(st.Released), PodResourcesProblem: Text(st.PodResources),
	}
	for i := range v.GPUs {
		if i < len(v.Samples) && v.Samples[i].State == event.GPULost {
			out.Lost = append(out.Lost, Text(v.GPUs[i].UUID))
		}
		if v.GPUs[i].Parent != "" {
			out.Instances++
		} else {
			out.Gpus++
		}
	}
	return out
}

func value(r event.Reading) *float64 {
	if !r.Known {
		return nil
	}
	return &r.Value
}

func whole(r event.Reading) *uint64 {
	if !r.Known || r.Value < 0 {
		return nil
	}
	return new(uint64(r.Value + 0.5))
}

func yes(r event.Reading) *bool {
	if !r.Known {
		return nil
	}
	return new(r.Value != 0)
}

// node is a NUMA node.
func node(n int) *uint32 {
	if n < 0 {
		return nil
	}
	return new(uint32(n))
}
