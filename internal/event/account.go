// SPDX-License-Identifier: Apache-2.0

package event

import "time"

// Iface names a network interface: an index is unique only in its namespace.
type Iface struct{ Netns, Index uint32 }

// Iface is the interface that saw the connection.
func (c *Conn) Iface() Iface { return Iface{c.Netns, c.Ifindex} }

// Counter counts bytes and packets, on the wire unless it says otherwise.
type Counter struct{ Bytes, Packets uint64 }

// Add adds o to c.
func (c *Counter) Add(o Counter) {
	c.Bytes += o.Bytes
	c.Packets += o.Packets
}

// Tx and Rx give one direction of t.
func (t *Traffic) Tx() Counter { return Counter{t.TxBytes, t.TxPackets} }

// Rx gives what was received.
func (t *Traffic) Rx() Counter { return Counter{t.RxBytes, t.RxPackets} }

// Account is what the tap on one interface counted in one direction without a
// connection, and what the interface itself counted, since attaching.
type Account struct {
	// The table of connections was full.
	Overflow Counter
	// Packets between others that passed through: their local address is not of
	// this namespace.
	Forwarded Counter
	// Frames that are not IP.
	NotIP Counter
	// IP that could not be parsed.
	Malformed Counter
	// Part of the above: what segmentation offload adds over what the device saw.
	Segmentation Counter
	// The interface's own counters, read just before and just after the rest:
	// the truth at the moment of the reading lies between them.
	DeviceLow, DeviceHigh Counter
	// Packets that the interface says it dropped behind the tap, and did not
	// count: at most so many.
	Dropped uint64
}

// Interface is a place where the tap is, or could not be, attached.
type Interface struct {
	Iface Iface
	Name  string
	// The namespace as people know it; "" for the agent's own.
	Namespace string
	// How the tap is attached: "tcx", "clsact", or "" when it is not.
	How string
	// Why it is not attached, or that it is gone.
	Problem string
	// It was tapped and is not to be any more: gone, or a member of another.
	Left bool
	// It was gone before its last counters could be read: they are a lower bound.
	Unread bool
	// Its own counters are of other packets than those that pass the tap, as
	// WireGuard's: there is nothing to compare.
	OwnMessages bool
	// What else there is to say: another program runs before the tap, …
	Note            string
	Ingress, Egress Account
}

// Namespace is a network namespace that the tap is in, or is to be in.
type Namespace struct {
	// Inode number.
	Netns uint32
	// As people know it; "" for the agent's own, and where nobody named it.
	Name string
	// The agent's own.
	Own bool
	// Since when it carries packets, and since when it is tapped; the zero time
	// when it is not yet.
	Since, Tapped time.Time
	// The longest that one of its interfaces was there and not tapped.
	Untapped time.Duration
	// Why it is not tapped.
	Problem string
}

// Loss is something that was not delivered, or not told apart.
type Loss struct {
	// Where: "table_full", "flows_evicted", "follower", …
	Stage string
	Count uint64
	// One sentence: what it means and what to try.
	Hint string
}
