// SPDX-License-Identifier: Apache-2.0

package event

// GPU is a device that work is given to: a whole GPU, or a MIG instance of one.
// It does not change; a device that is set up otherwise is another.
type GPU struct {
	UUID, Model string
	// As the driver counts GPUs; of an instance, its GPU's.
	Index int
	// One more than the number of the GPU's device node, /dev/nvidiaN; 0 where it is
	// not known.
	Minor int
	// Of the GPU, as sysfs writes it: 0000:1b:00.0. "" where it is not known.
	PCI string
	// Of the GPU; -1 where the machine does not say.
	NUMA int
	// It is divided: its work is that of its instances.
	Divided bool
	// Of an instance, the UUID of its GPU and its size, as 1g.10gb; else "".
	Parent, Profile string
	// Of an instance, its place in the GPU, as processes and Xids tell it.
	Instance, ComputeInstance uint32
}

// NoInstance is where a GPU instance's number is told, and there is none.
const NoInstance = 0xffffffff

// Reading is a value that a device may not give: one that is not known is
// absent, and not zero.
type Reading struct {
	Value float64
	Known bool
}

// GPUState tells whether a device answers.
type GPUState uint8

// GPULost has fallen off the bus, or needs a reset. GPUHung: the driver has not
// come back with an answer, and the device is not asked until it does.
const (
	GPUOK GPUState = iota + 1
	GPULost
	GPUHung
)

// GPUSample is what a device says of itself at one time. Ratios are from 0 to 1,
// and over the last second or less, as the driver has it; totals are since the
// driver was loaded, unless they say otherwise.
type GPUSample struct {
	// Of the device; and Unix nanoseconds.
	UUID  string
	At    int64
	State GPUState

	// Of the time: a kernel ran on it, its memory was read or written, its video
	// engines worked.
	Busy, MemoryBusy, Encoder, Decoder Reading
	// Hopper and later: SMs that had work, warps of those that there could be, tensor
	// cores at work, the bandwidth of the memory that is used.
	SM, Occupancy, Tensor, DRAM Reading

	// Bytes. What the driver keeps for itself is reserved, and not used.
	MemoryUsed, MemoryTotal, MemoryReserved Reading
	// Watts, and joules in total.
	Power, PowerLimit, Energy Reading
	// Degrees Celsius.
	Temperature, MemoryTemperature Reading
	// Megahertz.
	ClockSM, ClockMemory, ClockGraphics, ClockVideo Reading
	// Bytes a second; replays in total.
	PCIeSent, PCIeReceived, PCIeReplays Reading
	// Errors of memory since the driver was loaded, and in the device's life.
	ECCCorrected, ECCUncorrected, ECCCorrectedEver, ECCUncorrectedEver Reading
	// Rows of memory that were replaced, because of either kind of error; 1 when one
	// waits for a reset, and when one could not be replaced.
	RowsCorrected, RowsUncorrected, RowsPending, RowsFailed Reading

	// Why clocks are lower than they could be, where that is known.
	Throttle      GPUThrottle
	ThrottleKnown bool
	Compute       GPUComputeMode
	Fabric        GPUFabric
	Links         []GPULink
	// In no order. ProcessesKnown: the driver told who computes on it, and it may be
	// nobody.
	Processes      []GPUProcess
	ProcessesKnown bool
}

// GPUThrottle is a set of reasons, as the driver numbers them.
type GPUThrottle uint32

// The reasons that are known. ThrottleIdle is no throttling: there is no work.
const (
	ThrottleIdle GPUThrottle = 1 << iota
	ThrottleApplicationClocks
	ThrottlePowerCap
	ThrottleHardware
	ThrottleSyncBoost
	ThrottleThermal
	ThrottleHardwareThermal
	ThrottlePowerBrake
	ThrottleDisplay
	ThrottleBoardLimit
	ThrottleReliability

	GPUThrottleReasons = iota
)

var throttleNames = [GPUThrottleReasons]string{
	"idle", "application_clocks", "power_cap", "hardware", "sync_boost", "thermal",
	"hardware_thermal", "power_brake", "display", "board_limit", "reliability",
}

// ThrottleName is the name of the reason at a bit's place.
func ThrottleName(bit int) string { return throttleNames[bit] }

// Names of the reasons.
func (t GPUThrottle) Names() (list []string) {
	for bit, name := range throttleNames {
		if t&(1<<bit) != 0 {
			list = append(list, name)
		}
	}
	return list
}

// GPUComputeMode tells who may work on a device; 0 is not known.
type GPUComputeMode uint8

// As the driver has them, one up.
const (
	ComputeShared GPUComputeMode = iota + 1
	ComputeExclusiveThread
	ComputeProhibited
	ComputeExclusiveProcess
)

// GPUFabric tells how far a GPU is with joining the fabric of NVLink switches; 0
// is not known.
type GPUFabric uint8

// As the driver has them, one up.
const (
	FabricNone GPUFabric = iota + 1
	FabricNotStarted
	FabricJoining
	FabricJoined
)

// GPULink is one NVLink of a device: bytes and errors in total.
type GPULink struct {
	Link           uint8
	Up             bool
	Sent, Received Reading
	// Sent again, brought up again, and received damaged.
	Replays, Recoveries, Damaged Reading
}

// GPUProcessKind is a set: what a process has on a device.
type GPUProcessKind uint8

// GPUCompute is a context for computing; GPUShared: it is, or is also, a client
// of an MPS server.
const (
	GPUCompute GPUProcessKind = 1 << iota
	GPUGraphics
	GPUShared
)

// GPUProcess is a process that has a context on a device.
type GPUProcess struct {
	PID  uint32
	Kind GPUProcessKind
	// Of the GPU instance that it runs on, or NoInstance.
	Instance, ComputeInstance uint32
	// Bytes.
	Memory Reading
	// Its own ratios over the last second, where the driver has measured since it was
	// last asked.
	Busy, MemoryBusy, Encoder, Decoder Reading
}

// GPUXid is an error that the driver told of a device.
type GPUXid struct {
	UUID string
	// Unix nanoseconds: when it was heard of, up to a second late.
	At   int64
	Code uint32
	// Of the GPU instance that it came from, or NoInstance.
	Instance, ComputeInstance uint32
}
