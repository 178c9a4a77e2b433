// SPDX-License-Identifier: Apache-2.0

package event

// GPUMode tells how a device is given to who holds it.
type GPUMode uint8

// GPUNone: nobody holds it. GPUTimeSliced: several do, in turns. GPUMPS: by an MPS
// server. GPUMIG: it is an instance of a GPU, however many hold it.
const (
	GPUNone GPUMode = iota
	GPUExclusive
	GPUTimeSliced
	GPUMPS
	GPUMIG
)

var gpuModeNames = [...]string{"", "exclusive", "time-sliced", "mps", "mig"}

func (m GPUMode) String() string {
	if int(m) < len(gpuModeNames) {
		return gpuModeNames[m]
	}
	return ""
}

// GPUHolderState is what a holder does with its devices.
type GPUHolderState uint8

// HolderAllocated: the kubelet has given it a device, on which it has no process.
// HolderIdle: it has, and the device does nothing. The worst of its devices is told.
const (
	HolderActive GPUHolderState = iota + 1
	HolderAllocated
	HolderIdle
	HolderBusyWaiting
	HolderHung
	HolderLost
)

var holderStateNames = [...]string{"", "active", "allocated", "idle", "busy-waiting", "hung", "lost"}

func (s GPUHolderState) String() string {
	if int(s) < len(holderStateNames) {
		return holderStateNames[s]
	}
	return ""
}

// GPUHolder is who has devices: a pod, or of what is no pod a container, a unit or
// a process. What nobody that is known has is of class unknown.
type GPUHolder struct {
	// Never nil.
	Who *Identity
	// When the devices were sampled, Unix nanoseconds.
	At int64
	// One for each device and container.
	Shares []GPUShare
	// What it moved in [Start, End), and the segments that it sent again. Known of pods.
	Network      Traffic
	NetworkKnown bool
	Resent       uint64
	Start, End   int64
	RDMA         RDMAUse
	State        GPUHolderState
	// Those that go on.
	Findings []*GPUFinding
}

// GPUShare is what a holder has of one device. Over all holders, shares add up to
// the device.
type GPUShare struct {
	// A GPU, or a MIG instance.
	GPU       *GPU
	Mode      GPUMode
	Container string
	// The kubelet has given it.
	Allocated bool
	PIDs      []uint32
	// Ratios and watts are a part of the device's, by what the driver says of each
	// process. Memory is what the processes have, where it is not an estimate, too.
	Estimated bool
	// Of an instance: watts are a part of its GPU's, by how many of its SMs worked. Its
	// ratios are the driver's, and not estimated.
	PowerEstimated bool
	// As in GPUSample; bytes and watts.
	Busy, SM, Occupancy, Tensor, DRAM, Memory, Power Reading
}

// GPUFindingKind is what was found.
type GPUFindingKind uint8

// GPUIdle: a holder has a GPU that does nothing. GPUBusyWaiting: it is busy, and
// does no work: it spins.
const (
	GPUIdle GPUFindingKind = iota + 1
	GPUBusyWaiting
)

var findingNames = [...]string{"", "idle", "busy-waiting"}

func (k GPUFindingKind) String() string {
	if int(k) < len(findingNames) {
		return findingNames[k]
	}
	return ""
}

// GPUCause is what the network of a holder does while its GPU does no work.
type GPUCause uint8

// CauseStorage: it moves data with storage. CausePeer: it waits for one. CauseDNS:
// it is not answered. CauseRDMA: data moves by RDMA, of which the ends are not known.
const (
	CauseNothing GPUCause = iota + 1
	CauseStorage
	CausePeer
	CauseDNS
	CauseRDMA
)

var causeNames = [...]string{"", "nothing", "storage", "peer", "dns", "rdma"}

func (c GPUCause) String() string {
	if int(c) < len(causeNames) {
		return causeNames[c]
	}
	return ""
}

// GPUFinding is why a GPU does no work. It does not change once it is told.
type GPUFinding struct {
	Kind GPUFindingKind
	// Unix nanoseconds; Ended is 0 while it goes on.
	Since, Ended int64
	// It is about these.
	GPUs []*GPU
	// 0 where nothing is known of the network.
	Cause GPUCause
	// Of storage and peer: whom; else nil.
	Peer *Identity
	// Bytes a second that moved with the peer, or by RDMA.
	TxRate, RxRate uint64
	// Nanoseconds for which the peer has sent nothing.
	Silent int64
	// Segments sent to it again, and connects to it that failed, of late.
	Resent, Failed uint64
	// In one sentence.
	Text string
}

// GPUAccount is what has been counted of one holder's part of a device since the
// agent began. Over all holders, accounts add up to the device.
type GPUAccount struct {
	GPU  *GPU
	Who  *Identity
	Mode GPUMode
	// In a pod.
	Container string
	// Joules, and bytes of all NVLinks.
	Energy                     float64
	EnergyKnown                bool
	NVLinkSent, NVLinkReceived uint64
	NVLinkKnown                bool
	// Seconds by reason: the place of the reason's bit.
	Throttled [GPUThrottleReasons]float64
	// By code.
	Xids map[uint32]uint64
}

// GPUStatus is what can be known of GPUs here.
type GPUStatus struct {
	Open bool
	// Why it is not open; "" where there is no driver, or it was released.
	Problem string
	Driver  string
	// Functions that the library lacks, what no device gives, and calls that have not
	// come back.
	Missing, NotGiven, Hung []string
	// Why it was released.
	Released string
	// The kubelet is asked what it has given; why that is not known.
	Asked        bool
	PodResources string
}

// GPUView is all that is known of a node's GPUs and RDMA devices at one time. It
// does not change.
type GPUView struct {
	At     int64
	Status GPUStatus
	GPUs   []GPU
	// Of the GPUs at the same places.
	Samples  []GPUSample
	Modes    []GPUMode
	Holders  []GPUHolder
	Accounts []GPUAccount
	RDMA     []RDMADevice
	// What was not told apart, or not told.
	Losses []Loss
}

// GPUEvent is what happened to a device, or what a holder does: one of what
// follows.
type GPUEvent struct {
	// nil of a finding, and of a sample.
	GPU *GPU
	// Who it concerns, never nil and never empty.
	Holders []*Identity
	Sample  *GPUHolder
	Xid     *GPUXid
	Finding *GPUFinding
	// Of KindGPUThrottle: the reasons, and whether they have ended, after how long.
	Throttle GPUThrottle
	Ended    bool
	Lasted   int64
}
