// SPDX-License-Identifier: Apache-2.0

package wire

import (
	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
)

// gpu gives what happened to a device, or what a holder does.
func (s *Source) gpu(e *event.Event) *pb.Event {
	g := e.GPU
	out := &pb.GpuEvent{Node: Text(s.Node)}
	if g.GPU != nil {
		out.Device = device(g.GPU)
	}
	switch {
	case g.Sample != nil:
		out.Sample = holder(g.Sample)
	case g.Xid != nil:
		out.Xid = &pb.GpuXid{Code: g.Xid.Code, Meaning: xidMeanings[g.Xid.Code]}
	case g.Finding != nil:
		out.Finding = finding(g.Finding)
	default:
		out.Throttle = &pb.GpuThrottle{Reasons: (g.Throttle &^ event.ThrottleIdle).Names(), Ended: g.Ended, LastedNs: g.Lasted}
	}
	if g.Sample == nil {
		for _, h := range g.Holders {
			out.Holders = append(out.Holders, party(h))
		}
	}
	return &pb.Event{Kind: pb.EventKind(e.Kind), TimeNs: e.Time, Gpu: out}
}

// xidMeanings are from NVIDIA's catalogue of Xids: those that operators meet.
var xidMeanings = map[uint32]string{
	8:   "the GPU stopped processing",
	13:  "graphics engine exception: mostly an error of the application",
	31:  "memory page fault: mostly an illegal access of the application",
	32:  "invalid or corrupted push buffer stream",
	38:  "driver firmware error",
	43:  "the GPU stopped processing: an error of the application ended it",
	44:  "context switch fault",
	45:  "preemptive cleanup: the application was ended, or an earlier error ended it",
	48:  "double bit ECC error",
	61:  "internal microcontroller breakpoint",
	62:  "internal microcontroller halt",
	63:  "a page or row of memory is to be retired or remapped",
	64:  "a page or row of memory could not be retired or remapped",
	68:  "video processor exception",
	69:  "graphics engine class error",
	74:  "NVLink error",
	79:  "the GPU has fallen off the bus",
	92:  "many single bit ECC errors",
	94:  "contained memory error: the application that met it ends",
	95:  "uncontained memory error: the GPU needs a reset",
	109: "context switch timeout",
	110: "security fault",
	119: "the GPU's system processor does not answer",
	120: "error of the GPU's system processor",
	121: "chip-to-chip NVLink error",
	140: "unrecovered ECC error",
	143: "GPU initialization error",
	149: "NVLink error",
	154: "the GPU needs a recovery action",
}

// RDMA gives the record of an RDMA device.
func (s *Source) RDMA(d *event.RDMADevice) *pb.GpuRecord {
	out := &pb.RdmaDevice{
		Name: Text(d.Name), Pci: Text(d.PCI), NumaNode: node(d.NUMA), Netdevs: Texts(d.Netdevs), Netns: uint64(d.Netns),
		Shared: d.Shared, NearestGpus: Texts(d.Nearest), Distance: d.Distance.String(),
	}
	for _, h := range d.Holders {
		out.Holders = append(out.Holders, party(h))
	}
	for i := range d.Ports {
		out.Ports = append(out.Ports, rdmaPort(&d.Ports[i]))
	}
	return &pb.GpuRecord{Node: Text(s.Node), Of: &pb.GpuRecord_Rdma{Rdma: out}}
}

var counterKinds = [...]string{"", "congestion", "error"}

func rdmaPort(p *event.RDMAPort) *pb.RdmaPort {
	out := &pb.RdmaPort{
		Port: p.Number, LinkLayer: Text(p.LinkLayer), State: Text(p.State), PhysicalState: Text(p.Physical), Rate: p.Rate,
	}
	if p.MovedKnown {
		out.Moved = Traffic(p.Moved)
	}
	if p.TotalKnown {
		out.Total = Traffic(p.Total)
	}
	for _, c := range p.Counters {
		out.Counters = append(out.Counters, &pb.RdmaCounter{
			Name: Text(c.Name), Count: c.Count, LastMinute: c.Minute, Kind: name(counterKinds[:], c.Kind),
		})
	}
	return out
}

// rdmaUse is absent where a holder has no RDMA device.
func rdmaUse(u *event.RDMAUse) *pb.RdmaTraffic {
	if len(u.Devices) == 0 {
		return nil
	}
	out := &pb.RdmaTraffic{Shared: u.Shared, Devices: Texts(u.Devices)}
	if u.Known {
		out.Moved = Traffic(u.Moved)
	}
	return out
}
