// SPDX-License-Identifier: Apache-2.0

// Package accelerator tells who has which GPU, and what part of what the GPU does
// is whose. It puts together what the driver says of devices and of processes, whose
// the processes are, what the kubelet has given, which RDMA devices there are and
// what the network of each holder did in the same second. A device's value is split
// and never copied: rows of holders, and one of what is nobody's that is known, add
// up to the device. It reads no file and asks nobody; the agent's pipeline hands it
// one batch a second, and publishes what it makes of it.
package accelerator

import (
	"hash/maphash"
	"time"

	"github.com/orb8/orb8/internal/event"
)

// Config of a tracker; what is zero has its default.
type Config struct {
	// Name of this node.
	Node string
	// How long a device does nothing before that is a finding: 30 s.
	Idle time.Duration
	// What such findings go by.
	Thresholds Thresholds
	// How long what was counted of a holder stays when the holder is gone: 5 min.
	Grace time.Duration
}

func (c Config) filled() Config {
	if c.Idle <= 0 {
		c.Idle = 30 * time.Second
	}
	if c.Grace <= 0 {
		c.Grace = 5 * time.Minute
	}
	return c
}

// Held is a device that the kubelet has given to a container.
type Held struct {
	Who *event.Identity
	// The resource, as nvidia.com/gpu, and the device as its plugin calls it.
	Container, Resource, ID string
	// Of a device that was claimed; else "".
	DRADriver, DRADevice string
}

// Round is what is known of one second. The tracker keeps and changes nothing of
// it, but what the view points to: GPUs, samples, Xids and identities.
type Round struct {
	// Unix nanoseconds.
	At   int64
	GPUs []event.GPU
	// Of the GPUs at the same places.
	Samples []event.GPUSample
	// Since the round before.
	Xids []event.GPUXid
	Held []Held
	// Whose a process is, nil where that is not known. The function may be nil.
	Process func(pid uint32) (who *event.Identity, container string)
	RDMA    []event.RDMADevice
	// The pod whose network namespace it is, else nil. The function may be nil.
	Netns  func(inode uint32) *event.Identity
	Status event.GPUStatus
	Losses []event.Loss
}

// Tracker knows holders from round to round. It is for one goroutine.
type Tracker struct {
	config  Config
	holders map[holderKey]*holder
	// Of them, those that have a UID.
	byUID map[string]*holder
	// Whose devices are nobody's that is known.
	unknown *holder
	// Has nothing: the kernel, whose connections to storage are somebody's.
	kernel *holder
	// Of the round that is made, and of the one before.
	at, before int64
	// Holders have come or gone since connections were last looked up.
	changed bool
	pods    int
	cache   []cached
	seed    maphash.Seed
	lost    lost
	devices []device
	byUUID  map[string]*device
	samples map[string]*event.GPUSample
	// Of GPUs by UUID.
	counters map[string]*counter
	// Of devices by UUID.
	kept     map[string]*kept
	accounts accounts
	// The last.
	view *event.GPUView
}

// New makes a tracker that knows of nobody yet.
func New(c Config) *Tracker {
	c = c.filled()
	return &Tracker{
		config:  c,
		holders: map[holderKey]*holder{},
		byUID:   map[string]*holder{},
		unknown: &holder{
			key: holderKey{class: event.ClassUnknown},
			who: &event.Identity{Class: event.ClassUnknown, Node: c.Node},
		},
		kernel:  &holder{network: newNetwork(&c)},
		cache:   make([]cached, cachedIdentities),
		seed:    maphash.MakeSeed(),
		byUUID:  map[string]*device{},
		samples: map[string]*event.GPUSample{},

		counters: map[string]*counter{},
		kept:     map[string]*kept{},
		accounts: accounts{by: map[accountKey]*account{}},
	}
}

// Watching tells whether a pod holds a device: otherwise nobody's connections
// need to be told.
func (t *Tracker) Watching() bool { return t.pods > 0 }

// Flow tells what a connection moved since it was last told of, and whether it has
// ended, or was never open. Those of who holds nothing cost next to nothing.
func (t *Tracker) Flow(f *event.Flow, moved *event.Traffic, ended, failed bool) {
	if h := t.find(f.Local); h != nil {
		h.network.flow(f, moved, ended, failed)
	}
}

// Lookup tells of a look-up that a client has made.
func (t *Tracker) Lookup(local *event.Identity, l *event.Lookup) {
	if h := t.find(local); h != nil {
		h.network.lookup(l)
	}
}
