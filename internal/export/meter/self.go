// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"time"

	"github.com/orb8/orb8/internal/event"
)

// Self is how the agent does and what it costs. What only ever grows is since its
// start.
type Self struct {
	Version   string
	Uptime    time.Duration
	Processed uint64
	// What was not delivered or not told apart, by stage.
	Dropped []event.Loss
	Pods    int
	// Of this node's interfaces all together.
	Ingress, Egress Tap
	// CPU time, and memory in bytes.
	User, System     time.Duration
	Resident, Kernel uint64
	Tables           []Table
	// None unless the kernel is asked to count.
	Programs []Program
}

// Tap is what the tap counted in one direction, by what became of it, and what
// the interfaces did.
type Tap struct {
	// What the series of connections hold.
	Flows event.Counter
	// Connections that are not of this place, and those that had no room.
	Carried, Unplaced event.Counter
	// Without a connection.
	Overflow, Forwarded, NotIP, Malformed event.Counter
	// The interfaces' own counters, and what they have and the tap has not, or the
	// other way round, as of the last audit.
	Device, Unaccounted event.Counter
}

// Table is how full a table is.
type Table struct {
	Name          string
	Entries, Room int
}

// Program is what a kernel program has cost.
type Program struct {
	Name string
	Runs uint64
	Time time.Duration
}
