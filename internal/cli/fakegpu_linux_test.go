// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"context"
	"slices"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

const gigabyte = 1_000_000_000

// uuidOf is the UUID of the GPU with an index.
func uuidOf(index uint32) string {
	return "GPU-8c4f2d1" + strconv.Itoa(int(index)) + "-93ab-11ee-b9d1-0242ac120002"
}

func migOf(instance string) string { return "MIG-" + instance + "4f2d1c-93ab-11ee-b9d1-0242ac120002" }

func gpuShare(index uint32, s *orb8v1.GpuShare) *orb8v1.GpuShare {
	s.Index, s.Model = index, "NVIDIA H100 80GB HBM3"
	if s.Uuid == "" {
		s.Uuid = uuidOf(index)
	}
	return s
}

// gpuHolders are a pod with GPUs of its own, one that waits, one with MIG instances
// of an old GPU, a process with a name of its own making, and nobody.
func gpuHolders() []*orb8v1.GpuHolder {
	pod := func(namespace, name string) *orb8v1.End {
		return &orb8v1.End{Namespace: namespace, Pod: name, PodUid: "u-" + name, Node: "gpu-1", Class: "pod", Workload: &orb8v1.Workload{Kind: "Job", Name: "llama"}}
	}
	own := func(index uint32, busy float64, pids ...uint32) *orb8v1.GpuShare {
		return gpuShare(index, &orb8v1.GpuShare{
			Mode: "exclusive", Container: "main", Allocated: true, Pids: pids, Busy: new(1.0), Sm: new(busy), Occupancy: new(0.5), Tensor: new(busy / 2), Dram: new(0.375),
			MemoryBytes: new(uint64(70 * gigabyte)), PowerWatts: new(650.25),
		})
	}
	part := func(s *orb8v1.GpuShare) *orb8v1.GpuShare {
		s.Mode, s.Estimated = "time-sliced", true
		return gpuShare(2, s)
	}
	mig := func(n string) *orb8v1.GpuShare {
		return gpuShare(3, &orb8v1.GpuShare{Uuid: migOf(n), Profile: "1g.10gb", Mode: "mig", Container: "server-" + n, Allocated: true, MemoryBytes: new(uint64(0)), Busy: new(0.0)})
	}
	old := mig("b")
	old.MemoryBytes, old.Busy = nil, nil
	waits := &orb8v1.GpuFinding{
		Kind: "idle", SinceNs: noon - 42*second, Uuids: []string{uuidOf(2)}, Devices: []*orb8v1.GpuDevice{{Uuid: uuidOf(2), Index: 2}}, Cause: "storage", Peer: &orb8v1.End{Ip: "203.0.113.9", Port: 443, Class: "external", Fqdn: "s3.example.com", FqdnSource: "dns"},
		RxBytesPerSecond: 118_000_000, Retransmits: 7, Text: "GPU 2 idle for 42s: it reads 118.0MB/s from s3.example.com",
	}
	evil := &orb8v1.GpuFinding{Kind: hostile, SinceNs: noon, Cause: hostile, Text: hostile}
	return []*orb8v1.GpuHolder{
		{
			Holder: pod("inference", "triton-6c5d7f9b8-abcde"), TimeNs: noon, State: "allocated", Shares: []*orb8v1.GpuShare{mig("a"), old},
			Network: &orb8v1.Traffic{}, StartNs: noon - second, EndNs: noon,
		},
		{
			Holder: pod("training", "llama-worker-0"), TimeNs: noon, State: "active", Shares: []*orb8v1.GpuShare{own(0, 0.95, 4001, 4002), own(1, 0.85, 4003)},
			Network: &orb8v1.Traffic{TxBytes: 3_000_000, TxPackets: 2000, RxBytes: 500_000_000, RxPackets: 40_000}, StartNs: noon - 2*second, EndNs: noon, Retransmits: 3,
			Rdma: &orb8v1.RdmaTraffic{Devices: []string{"mlx5_0", "mlx5_1"}, Moved: &orb8v1.Traffic{TxBytes: 40 * gigabyte, RxBytes: 39 * gigabyte}},
		},
		{
			Holder: pod("training", "loader-0"), TimeNs: noon, State: "idle", Findings: []*orb8v1.GpuFinding{waits, evil},
			Shares:  []*orb8v1.GpuShare{part(&orb8v1.GpuShare{Container: "main", Allocated: true, Pids: []uint32{5001}, Busy: new(0.0), Sm: new(0.0), MemoryBytes: new(uint64(12 * gigabyte)), PowerWatts: new(35.5)})},
			Network: &orb8v1.Traffic{TxBytes: 1000, RxBytes: 118_000_000}, StartNs: noon - second, EndNs: noon, Rdma: &orb8v1.RdmaTraffic{Devices: []string{"mlx5_2"}, Shared: true},
		},
		{
			Holder: &orb8v1.End{Class: "host", Process: hostile, Pid: 666, Node: "gpu-1"}, TimeNs: noon, State: "busy-waiting",
			Shares: []*orb8v1.GpuShare{part(&orb8v1.GpuShare{Pids: []uint32{666}, Busy: new(0.0004), MemoryBytes: new(uint64(500_000_000))})},
		},
		{Holder: &orb8v1.End{Class: "unknown", Node: "gpu-1"}, TimeNs: noon, Shares: []*orb8v1.GpuShare{part(&orb8v1.GpuShare{MemoryBytes: new(uint64(1_000_000))})}},
	}
}

// gpuDevices are GPUs that work, one that throttles and is damaged, one divided, and
// one that hangs.
func gpuDevices() []*orb8v1.GpuDevice {
	holders := gpuHolders()
	gpu := func(index uint32, s *orb8v1.GpuSample) *orb8v1.GpuDevice {
		s.TimeNs, s.MemoryTotalBytes = noon, new(uint64(80*gigabyte))
		return &orb8v1.GpuDevice{Uuid: uuidOf(index), Model: "NVIDIA H100 80GB HBM3", Index: index, Pci: "0000:1" + strconv.Itoa(int(index)) + ":00.0", NumaNode: new(index / 2), Sample: s}
	}
	busy := gpu(0, &orb8v1.GpuSample{
		State: "ok", Busy: new(1.0), MemoryBusy: new(0.5), Encoder: new(0.0), Decoder: new(0.0), Sm: new(0.95), Occupancy: new(0.5), Tensor: new(0.475), Dram: new(0.375),
		MemoryUsedBytes: new(uint64(70 * gigabyte)), MemoryReservedBytes: new(uint64(600_000_000)), PowerWatts: new(650.25), PowerLimitWatts: new(700.0), EnergyJoules: new(1.5e9),
		TemperatureCelsius: new(61.0), MemoryTemperatureCelsius: new(70.0), ClockSmMhz: new(1980.0), ClockMemoryMhz: new(2619.0), ClockGraphicsMhz: new(1980.0), ClockVideoMhz: new(1545.0),
		PcieTxBytesPerSecond: new(1.5e9), PcieRxBytesPerSecond: new(2.5e9), PcieReplays: new(uint64(0)), EccCorrected: new(uint64(0)), EccUncorrected: new(uint64(0)), EccCorrectedEver: new(uint64(0)), EccUncorrectedEver: new(uint64(0)),
		RowsRemappedCorrected: new(uint64(0)), RowsRemappedUncorrected: new(uint64(0)), RowsRemapPending: new(false), RowsRemapFailed: new(false),
		ComputeMode: "shared", Fabric: "joined", Links: []*orb8v1.NvLink{
			{Link: 0, Up: true, TxBytes: new(uint64(5e12)), RxBytes: new(uint64(4e12)), Replays: new(uint64(0)), Recoveries: new(uint64(0)), CrcErrors: new(uint64(0))},
			{Link: 1, Up: true, TxBytes: new(uint64(5e12)), RxBytes: new(uint64(4e12)), CrcErrors: new(uint64(2))},
		},
	})
	busy.Mode, busy.Holders = "exclusive", []*orb8v1.End{holders[1].GetHolder()}
	worn := gpu(2, &orb8v1.GpuSample{
		State: "ok", Busy: new(0.0), MemoryUsedBytes: new(uint64(12_501_000_000)), PowerWatts: new(71.0), PowerLimitWatts: new(700.0), TemperatureCelsius: new(90.0), ClockSmMhz: new(345.0),
		Throttle: []string{"idle", "thermal", "hardware_thermal"}, EccUncorrected: new(uint64(4)), RowsRemappedUncorrected: new(uint64(1)), RowsRemapPending: new(true), Links: []*orb8v1.NvLink{{Up: true}, {Link: 1}},
	})
	worn.Mode, worn.Holders = "time-sliced", []*orb8v1.End{holders[2].GetHolder(), holders[3].GetHolder()}
	divided := gpu(3, &orb8v1.GpuSample{State: "ok", MemoryUsedBytes: new(uint64(5 * gigabyte)), PowerWatts: new(80.0), Throttle: []string{"idle"}})
	divided.Divided = true
	list := []*orb8v1.GpuDevice{busy, worn, divided}
	for i, n := range []string{"a", "b"} {
		list = append(list, &orb8v1.GpuDevice{
			Uuid: migOf(n), Model: divided.Model, Index: 3, Pci: divided.Pci, Parent: divided.Uuid, Profile: "1g.10gb", Instance: uint32(7 + i), Mode: "mig",
			Sample: &orb8v1.GpuSample{TimeNs: noon, State: "ok", MemoryTotalBytes: new(uint64(10 * gigabyte))}, Holders: []*orb8v1.End{holders[0].GetHolder()},
		})
	}
	lost := gpu(4, &orb8v1.GpuSample{State: "hung"})
	lost.Model, lost.Sample.MemoryTotalBytes = hostile, nil
	return append(list, lost)
}

// rdmaDevices are one of a pod's own, one that is shared and down, and one that tells
// nothing.
func rdmaDevices() []*orb8v1.RdmaDevice {
	holders := gpuHolders()
	return []*orb8v1.RdmaDevice{
		{
			Name: "mlx5_0", Pci: "0000:19:00.0", NumaNode: new(uint32(0)), Netdevs: []string{"ib0"}, Netns: 4026532777, NearestGpus: []string{uuidOf(0), uuidOf(9)}, Distance: "switch",
			Holders: []*orb8v1.End{holders[1].GetHolder()}, Ports: []*orb8v1.RdmaPort{{
				Port: 1, LinkLayer: "InfiniBand", State: "ACTIVE", PhysicalState: "LinkUp", Rate: 400 * gigabyte,
				Moved: &orb8v1.Traffic{TxBytes: 40 * gigabyte, TxPackets: 10_000_000, RxBytes: 39 * gigabyte, RxPackets: 9_900_000}, Total: &orb8v1.Traffic{TxBytes: 9e15, RxBytes: 8e15},
				Counters: []*orb8v1.RdmaCounter{
					{Name: "port_xmit_wait", Count: 9000, LastMinute: 1200, Kind: "congestion"},
					{Name: "np_cnp_sent", Count: 5, LastMinute: 3, Kind: "congestion"},
					{Name: "symbol_error", Count: 7, Kind: "error"},
					{Name: "rx_write_requests", Count: 99, LastMinute: 9},
				},
			}},
		},
		{
			Name: "mlx5_2", Pci: "0000:5e:00.0", Netdevs: []string{"eth2", "eth3"}, Shared: true, Holders: []*orb8v1.End{holders[2].GetHolder(), holders[3].GetHolder()}, Distance: "far",
			Ports: []*orb8v1.RdmaPort{
				{Port: 1, LinkLayer: "Ethernet", State: "DOWN", PhysicalState: "Disabled", Rate: 12_500_000_000, Counters: []*orb8v1.RdmaCounter{{Name: "local_ack_timeout_err", Count: 4, LastMinute: 4, Kind: "error"}}},
				{Port: 2, LinkLayer: "Ethernet", State: "ACTIVE", Rate: 100 * gigabyte, Moved: &orb8v1.Traffic{}},
			},
		},
		{Name: hostile, Netdevs: []string{hostile}, NearestGpus: []string{hostile}, Distance: hostile},
	}
}

// gpuEvents are one of each sort, and hostile ones.
func gpuEvents() []*orb8v1.EventsResponse {
	holders, devices := gpuHolders(), gpuDevices()
	at := func(kind orb8v1.EventKind, seconds int64, g *orb8v1.GpuEvent) *orb8v1.EventsResponse {
		g.Node = "gpu-1"
		if g.Device != nil {
			g.Device = proto.Clone(g.Device).(*orb8v1.GpuDevice)
			g.Device.Sample, g.Device.Holders = nil, nil
		}
		return &orb8v1.EventsResponse{Message: &orb8v1.EventsResponse_Event{Event: &orb8v1.Event{Kind: kind, TimeNs: noon + seconds*second, Gpu: g}}}
	}
	const sample, xid, throttle, finding = orb8v1.EventKind_EVENT_KIND_GPU_SAMPLE, orb8v1.EventKind_EVENT_KIND_GPU_XID, orb8v1.EventKind_EVENT_KIND_GPU_THROTTLE, orb8v1.EventKind_EVENT_KIND_GPU_FINDING
	waits := holders[2].GetFindings()[0]
	over := proto.Clone(waits).(*orb8v1.GpuFinding)
	over.EndedNs, over.Text = noon+9*second, "1 GPU idle for 51s: it read from s3.example.com"
	loader, nobody := []*orb8v1.End{holders[2].GetHolder()}, []*orb8v1.End{{Class: "unknown"}}
	return []*orb8v1.EventsResponse{
		at(sample, 0, &orb8v1.GpuEvent{Sample: holders[1]}),
		at(sample, 0, &orb8v1.GpuEvent{Sample: holders[3]}),
		at(finding, 1, &orb8v1.GpuEvent{Holders: loader, Finding: waits}),
		at(sample, 1, &orb8v1.GpuEvent{Sample: holders[2]}),
		at(throttle, 2, &orb8v1.GpuEvent{Device: devices[1], Holders: []*orb8v1.End{holders[2].GetHolder(), holders[3].GetHolder()}, Throttle: &orb8v1.GpuThrottle{Reasons: []string{"thermal", "hardware_thermal"}}}),
		at(throttle, 5, &orb8v1.GpuEvent{Device: devices[1], Holders: loader, Throttle: &orb8v1.GpuThrottle{Reasons: []string{"thermal"}, Ended: true, LastedNs: 3 * second}}),
		at(xid, 6, &orb8v1.GpuEvent{Device: devices[5], Holders: nobody, Xid: &orb8v1.GpuXid{Code: 79, Meaning: "the GPU has fallen off the bus"}}),
		at(xid, 7, &orb8v1.GpuEvent{Device: devices[3], Holders: nobody, Xid: &orb8v1.GpuXid{Code: 999}}),
		at(xid, 8, &orb8v1.GpuEvent{Device: devices[5], Holders: []*orb8v1.End{holders[3].GetHolder()}, Xid: &orb8v1.GpuXid{Code: 1, Meaning: hostile}}),
		at(finding, 9, &orb8v1.GpuEvent{Holders: loader, Finding: over}),
	}
}

// accelerated is an agent of a node with GPUs.
func accelerated() *fake {
	f := healthy()
	add := func(r *orb8v1.GpuRecord) {
		r.Node = "gpu-1"
		f.gpus = append(f.gpus, r)
	}
	for _, h := range gpuHolders() {
		add(&orb8v1.GpuRecord{Of: &orb8v1.GpuRecord_Holder{Holder: h}})
	}
	for _, d := range gpuDevices() {
		add(&orb8v1.GpuRecord{Of: &orb8v1.GpuRecord_Device{Device: d}})
	}
	for _, d := range rdmaDevices() {
		add(&orb8v1.GpuRecord{Of: &orb8v1.GpuRecord_Rdma{Rdma: d}})
	}
	f.events = append(f.events, gpuEvents()...)
	f.status.Nodes[0].Gpu = &orb8v1.GpuStatus{
		Open: true, DriverVersion: "550.54.15", Gpus: 4, Instances: 2, RdmaDevices: 3, Missing: []string{"nvmlGpmSampleGet", hostile}, NotGiven: []string{"tensor"},
		Hung: []string{"nvmlDeviceGetPowerUsage of GPU 4 since 12:00:01", hostile}, PodResourcesProblem: "dial /var/lib/kubelet/pod-resources/kubelet.sock: no such file",
	}
	return f
}

// released is a server of whose nodes none tells of GPUs, each for a reason of its
// own.
func released() *fake {
	f := healthy()
	n := f.status.Nodes[0]
	n.Gpu = &orb8v1.GpuStatus{Released: "the node is labelled nvidia.com/mig.config.state=" + hostile, RdmaDevices: 1}
	for _, name := range []string{"cpu-1", "cpu-2"} {
		other := proto.Clone(n).(*orb8v1.NodeStatus)
		other.Node, other.Gpu = name, nil
		f.status.Nodes = append(f.status.Nodes, other)
	}
	broken := proto.Clone(n).(*orb8v1.NodeStatus)
	broken.Node, broken.Gpu = "gpu-2", &orb8v1.GpuStatus{Problem: "nvmlInit: driver/library version mismatch"}
	f.status.Nodes = append(f.status.Nodes, broken)
	return f
}

func (f *fake) Gpus(q *orb8v1.GpusRequest, stream grpc.ServerStreamingServer[orb8v1.GpusResponse]) error {
	s := &orb8v1.GpusSummary{Nodes: f.summary.GetNodes()}
	if len(f.gpus) > 0 {
		s.Losses = []*orb8v1.Loss{{Stage: "gpu_processes", Count: 5, Hint: "no room"}}
	}
	kind := func(r *orb8v1.GpuRecord) orb8v1.GpuRecordKind {
		switch {
		case r.GetDevice() != nil:
			return orb8v1.GpuRecordKind_GPU_RECORD_KIND_DEVICE
		case r.GetRdma() != nil:
			return orb8v1.GpuRecordKind_GPU_RECORD_KIND_RDMA
		}
		return orb8v1.GpuRecordKind_GPU_RECORD_KIND_HOLDER
	}
	for _, r := range f.gpus {
		if !slices.Contains(q.GetKinds(), kind(r)) {
			continue
		}
		s.Known++
		pods, gpus := q.GetInclude().GetPods(), q.GetGpus()
		if r.GetHolder() != nil && len(pods) > 0 && !slices.Contains(pods, r.GetHolder().GetHolder().GetPod()) ||
			r.GetDevice() != nil && len(gpus) > 0 && !slices.Contains(gpus, strconv.Itoa(int(r.GetDevice().GetIndex()))) {
			continue
		}
		if s.Matched++; s.Matched > uint64(q.GetLimit()) {
			continue
		}
		if err := stream.Send(&orb8v1.GpusResponse{Message: &orb8v1.GpusResponse_Record{Record: r}}); err != nil {
			return err
		}
	}
	return stream.Send(&orb8v1.GpusResponse{Message: &orb8v1.GpusResponse_Summary{Summary: s}})
}

// GpuDriver does as it is told on nodes called gpu, where no call hangs.
func (f *fake) GpuDriver(_ context.Context, q *orb8v1.GpuDriverRequest) (*orb8v1.GpuDriverResponse, error) {
	out := &orb8v1.GpuDriverResponse{}
	for _, n := range f.status.GetNodes() {
		if q.GetNode() != "" && q.GetNode() != n.GetNode() {
			continue
		}
		s := &orb8v1.GpuDriverState{Node: n.GetNode(), Open: !q.GetRelease()}
		switch {
		case n.GetGpu() == nil && !q.GetRelease():
			s.Open, s.Error = false, "no driver: \x1b[31mlibnvidia-ml.so.1"
		case len(n.GetGpu().GetHung()) > 0:
			s.Open, s.Error = true, "a call has not come back"
		}
		out.Nodes = append(out.Nodes, s)
	}
	if len(out.GetNodes()) == 0 {
		return nil, status.Error(codes.NotFound, "node: this is gpu-1")
	}
	return out, nil
}
