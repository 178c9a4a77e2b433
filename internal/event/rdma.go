// SPDX-License-Identifier: Apache-2.0

package event

// RDMADevice is an InfiniBand, RoCE or iWARP device at one time. It does not
// change.
type RDMADevice struct {
	// As the kernel calls it: mlx5_0.
	Name string
	// Of the network namespace that it is in; 0 is the host's own.
	Netns uint32
	// As sysfs writes it; "" where it is not on a PCI bus.
	PCI string
	// -1 where the machine does not say.
	NUMA    int
	Netdevs []string
	Ports   []RDMAPort
	// Processes that have queue pairs on it; QueuePairsKnown: the kernel told.
	PIDs            []uint32
	QueuePairsKnown bool
	// Who uses it; of several, nobody knows how much each.
	Holders []*Identity
	// It is in the host's namespace, where anybody may use it.
	Shared bool
	// UUIDs of the GPUs that are the nearest, and how near.
	Nearest  []string
	Distance PCIDistance
}

// PCIDistance is how near two devices are to each other.
type PCIDistance uint8

// Below one switch, below one root port's host bridge, on one NUMA node, else.
const (
	PCISwitch PCIDistance = iota + 1
	PCIRoot
	PCINode
	PCIFar
)

var distanceNames = [...]string{"", "switch", "root", "node", "far"}

func (d PCIDistance) String() string {
	if int(d) < len(distanceNames) {
		return distanceNames[d]
	}
	return ""
}

// RDMAPort is a port of a device.
type RDMAPort struct {
	Number uint32
	// As the kernel has them: InfiniBand or Ethernet; ACTIVE; LinkUp.
	LinkLayer, State, Physical string
	// Bits a second.
	Rate uint64
	// Since the driver was loaded, and since the round before; bytes of what the port
	// counts, without the Ethernet header of RoCE. TotalKnown: the port counts.
	Total, Moved           Traffic
	TotalKnown, MovedKnown bool
	// All others, by name.
	Counters []RDMACounter
}

// RDMACounter is one that the port or its driver keeps, by the kernel's name.
type RDMACounter struct {
	Name string
	Kind RDMACounterKind
	// Since the driver was loaded, since the agent first read it, and in the last minute.
	Count, Seen, Minute uint64
}

// RDMACounterKind is what a counter tells of.
type RDMACounterKind uint8

// RDMACongestion: the net is full, or loses. RDMAError: something is broken.
const (
	RDMAOther RDMACounterKind = iota
	RDMACongestion
	RDMAError
)

// RDMAUse is what a holder moves by RDMA.
type RDMAUse struct {
	Devices []string
	// In the second of the sample; Known: it is all its own, or it is the only one that
	// is known to use what is shared.
	Moved         Traffic
	Known, Shared bool
}
