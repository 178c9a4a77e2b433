// SPDX-License-Identifier: Apache-2.0

package prom

import (
	"fmt"

	"github.com/orb8/orb8/internal/event"
)

func known(v float64) event.Reading { return event.Reading{Value: v, Known: true} }

const gib = 1 << 30

// gpuOf is a GPU that gives everything.
func gpuOf(index int, uuid string) (event.GPU, event.GPUSample) {
	n := float64(index)
	gpu := event.GPU{
		UUID: uuid, Model: "NVIDIA H100 80GB HBM3", Index: index, PCI: "0000:1b:00.0", NUMA: index / 4,
		Instance: event.NoInstance, ComputeInstance: event.NoInstance,
	}
	return gpu, event.GPUSample{
		UUID: uuid, At: 10e9, State: event.GPUOK,
		Busy: known(0.9), MemoryBusy: known(0.4), Encoder: known(0.1), Decoder: known(0.2),
		SM: known(0.8), Occupancy: known(0.5), Tensor: known(0.25), DRAM: known(0.5),
		MemoryUsed: known(40 * gib), MemoryTotal: known(80 * gib), MemoryReserved: known(gib / 2),
		Power: known(600), PowerLimit: known(700), Energy: known(123456), Temperature: known(60 + n), MemoryTemperature: known(70 + n),
		ClockSM: known(1980), ClockMemory: known(2619), ClockGraphics: known(1980), ClockVideo: known(1545),
		PCIeSent: known(1e9), PCIeReceived: known(2e9), PCIeReplays: known(3),
		ECCCorrected: known(1), ECCUncorrected: known(2), ECCCorrectedEver: known(3), ECCUncorrectedEver: known(4),
		RowsCorrected: known(5), RowsUncorrected: known(6), RowsPending: known(1), RowsFailed: known(0),
		Throttle: event.ThrottleThermal, ThrottleKnown: true,
		Links: []event.GPULink{
			{Link: 0, Up: true, Sent: known(1e9), Received: known(2e9), Replays: known(1), Recoveries: known(2), Damaged: known(3)},
			{Link: 1, Sent: known(0), Received: known(0), Replays: known(0), Recoveries: known(0), Damaged: known(0)},
		},
	}
}

func shareOf(g *event.GPU, mode event.GPUMode, container string, part float64) event.GPUShare {
	return event.GPUShare{
		GPU: g, Mode: mode, Container: container, Allocated: container != "", Estimated: part < 1,
		Busy: known(0.9 * part), SM: known(0.8 * part), Occupancy: known(0.5 * part), Tensor: known(0.25 * part), DRAM: known(0.5 * part),
		Memory: known(40 * gib * part), Power: known(600 * part),
	}
}

func accountFor(g *event.GPU, who *event.Identity, mode event.GPUMode, container string) event.GPUAccount {
	a := event.GPUAccount{
		GPU: g, Who: who, Mode: mode, Container: container, Energy: 1000.5, EnergyKnown: true,
		NVLinkSent: 100, NVLinkReceived: 200, NVLinkKnown: true, Xids: map[uint32]uint64{},
	}
	a.Throttled[0], a.Throttled[5] = 100, 2.5 // idle, thermal
	return a
}

var (
	train   = podOf("ml", "train", "train-0")
	serving = podOf("ml", "serve", "serve-1")
	batch   = podOf("lab", "batch", "batch-2")
	nobody  = &event.Identity{Class: event.ClassUnknown}
	daemon  = &event.Identity{Class: event.ClassHost, Unit: "miner.service"}
)

// viewOf is a node with a GPU of one pod's, one that two pods, a process of the
// node and somebody unknown share, a divided one with two instances, and one that
// is lost; and with an RDMA device in a pod, and one of the node's.
func viewOf() *event.GPUView {
	v := &event.GPUView{At: 10e9, Status: event.GPUStatus{Open: true, Asked: true, Driver: "580.95.05", Hung: []string{"nvmlDeviceGetPowerUsage"}}}
	for i, uuid := range []string{"GPU-a", "GPU-b", "GPU-c", "GPU-d"} {
		g, s := gpuOf(i, uuid)
		v.GPUs, v.Samples = append(v.GPUs, g), append(v.Samples, s)
	}
	whole := &v.Samples[2]
	v.GPUs[2].Divided = true
	whole.Busy, whole.SM, whole.Occupancy, whole.Tensor, whole.DRAM = event.Reading{}, event.Reading{}, event.Reading{}, event.Reading{}, event.Reading{}
	v.Samples[3] = event.GPUSample{UUID: "GPU-d", At: 10e9, State: event.GPULost}
	for i, uuid := range []string{"MIG-c1", "MIG-c2"} {
		v.GPUs = append(v.GPUs, event.GPU{
			UUID: uuid, Model: "NVIDIA H100 80GB HBM3 MIG 3g.40gb", Index: 2, PCI: "0000:1b:00.0", NUMA: -1, Parent: "GPU-c", Profile: "3g.40gb", Instance: uint32(i + 1),
		})
		v.Samples = append(v.Samples, event.GPUSample{
			UUID: uuid, At: 10e9, State: event.GPUOK, SM: known(0.8), Occupancy: known(0.5), Tensor: known(0.25), DRAM: known(0.5),
			MemoryUsed: known(20 * gib), MemoryTotal: known(40 * gib), MemoryReserved: known(0),
		})
	}
	v.Modes = []event.GPUMode{event.GPUExclusive, event.GPUTimeSliced, event.GPUNone, event.GPUNone, event.GPUMIG, event.GPUNone}
	a, b, c1, c2 := &v.GPUs[0], &v.GPUs[1], &v.GPUs[4], &v.GPUs[5]
	mig := func(g *event.GPU, mode event.GPUMode, container string) event.GPUShare {
		s := shareOf(g, mode, container, 1)
		s.Busy, s.Memory, s.Power = event.Reading{}, known(20*gib), known(300)
		return s
	}
	v.Holders = []event.GPUHolder{
		{Who: train, Shares: []event.GPUShare{shareOf(a, event.GPUExclusive, "main", 1)}, State: event.HolderBusyWaiting, Findings: []*event.GPUFinding{
			{Kind: event.GPUBusyWaiting, Since: 1e9, GPUs: []*event.GPU{a}, Cause: event.CausePeer, Peer: podOf("ml", "ps", "ps-0")},
		}},
		{Who: serving, Shares: []event.GPUShare{shareOf(b, event.GPUTimeSliced, "main", 0.5), mig(c1, event.GPUMIG, "main")}, Findings: []*event.GPUFinding{
			{Kind: event.GPUIdle, Since: 1e9, GPUs: []*event.GPU{c1}, Cause: event.CauseDNS},
		}},
		{Who: batch, Shares: []event.GPUShare{shareOf(b, event.GPUTimeSliced, "main", 0.25)}, Findings: []*event.GPUFinding{
			{Kind: event.GPUIdle, Since: 1e9, GPUs: []*event.GPU{b}, Cause: event.CauseNothing},
		}},
		{Who: daemon, Shares: []event.GPUShare{shareOf(b, event.GPUTimeSliced, "", 0.125)}},
		{Who: nobody, Shares: []event.GPUShare{shareOf(b, event.GPUTimeSliced, "", 0.125), mig(c2, event.GPUNone, "")}},
	}
	v.Accounts = []event.GPUAccount{
		accountFor(a, train, event.GPUExclusive, "main"),
		accountFor(b, serving, event.GPUTimeSliced, "main"), accountFor(b, batch, event.GPUTimeSliced, "main"),
		accountFor(b, daemon, event.GPUTimeSliced, ""), accountFor(b, nobody, event.GPUTimeSliced, ""),
	}
	v.Accounts[0].Xids[79], v.Accounts[0].Xids[31] = 1, 2
	v.Accounts = append(v.Accounts, event.GPUAccount{GPU: c1, Who: serving, Mode: event.GPUMIG, Container: "main", Energy: 50, EnergyKnown: true, Xids: map[uint32]uint64{94: 1}})
	v.RDMA = rdmaOf()
	return v
}

func rdmaOf() []event.RDMADevice {
	port := event.RDMAPort{
		Number: 1, LinkLayer: "Ethernet", State: "ACTIVE", Physical: "LinkUp", Rate: 400e9,
		Total: event.Traffic{TxBytes: 1e6, TxPackets: 1e3, RxBytes: 2e6, RxPackets: 2e3}, TotalKnown: true,
		Counters: []event.RDMACounter{
			{Name: "np_cnp_sent", Kind: event.RDMACongestion, Count: 100, Seen: 10},
			{Name: "local_ack_timeout_err", Kind: event.RDMAError, Count: 7, Seen: 7},
			{Name: "lifespan", Count: 10},
		},
	}
	down := port
	down.State = "DOWN"
	return []event.RDMADevice{
		{Name: "mlx5_0", Netns: 4026, PCI: "0000:1c:00.0", Netdevs: []string{"eth1"}, Ports: []event.RDMAPort{port}, Holders: []*event.Identity{train}, Nearest: []string{"GPU-a"}, Distance: event.PCISwitch},
		{Name: "mlx5_1", PCI: "0000:1d:00.0", Ports: []event.RDMAPort{down}, Holders: []*event.Identity{serving, batch}, Shared: true},
	}
}

// hostile gives all that has a name of others this one.
func hostile(v *event.GPUView, name string) {
	for i := range v.GPUs {
		g := &v.GPUs[i]
		g.UUID, g.Model, g.PCI, g.Profile = name[i:], name, name+":"+name, name
	}
	v.Status.Driver = name
	for i := range v.Holders {
		v.Holders[i].Who = podOf(name, name, name)
		for j := range v.Holders[i].Shares {
			v.Holders[i].Shares[j].Container = name
		}
	}
	d := &v.RDMA[0]
	d.Name, d.PCI, d.Netdevs, d.Nearest, d.Holders = name, name, []string{name}, []string{name}, []*event.Identity{podOf(name, name, name)}
	d.Ports[0].LinkLayer, d.Ports[0].Counters[0].Name = name, name
}

// crowded are eight GPUs with eight instances each, of which 200 pods have some.
func crowded() *event.GPUView {
	v := &event.GPUView{At: 10e9, Status: event.GPUStatus{Open: true, Asked: true, Driver: "580.95.05"}}
	for i := range 72 {
		g, s := gpuOf(i%8, fmt.Sprint("GPU-", i))
		if i >= 8 {
			g.Parent, g.Profile = fmt.Sprint("GPU-", i%8), "1g.10gb"
		}
		v.GPUs, v.Samples, v.Modes = append(v.GPUs, g), append(v.Samples, s), append(v.Modes, event.GPUMIG)
	}
	for i := range 200 {
		who, g := podOf("ml", "serve", fmt.Sprint("serve-", i)), &v.GPUs[8+i%64]
		v.Holders = append(v.Holders, event.GPUHolder{Who: who, Shares: []event.GPUShare{shareOf(g, event.GPUMIG, "main", 0.3)}})
		v.Accounts = append(v.Accounts, accountFor(g, who, event.GPUMIG, "main"))
	}
	v.RDMA = rdmaOf()
	return v
}
