// SPDX-License-Identifier: Apache-2.0

package rdma

import (
	"strconv"
	"time"

	"github.com/orb8/orb8/internal/event"
)

const (
	// minuteSlots stamps lie a slot apart: a minute.
	minuteSlots = 12
	minuteSlot  = 5 * time.Second
	// restRounds is how long a counter that cannot be read is left alone: some devices
	// have no such thing, and say so to everyone who asks.
	restRounds = 30
)

// counter is a file that counts.
type counter struct {
	name  string
	dir   int // the descriptor of its directory
	kind  event.RDMACounterKind
	gauge bool
	// Read in this round; if not, rounds to go until it is tried again.
	known bool
	rest  int
	ever  bool
	count uint64
	// Since it was first read; and that as it was at each slot's beginning.
	seen  uint64
	slots [minuteSlots]uint64
}

// read reads the counter, and tells by how much it has moved; not ok: it was not
// read before, or began anew.
func (c *counter) read(buf []byte) (delta uint64, ok bool) {
	if c.rest > 0 {
		c.rest--
		return 0, false
	}
	b, err := readFile(c.dir, c.name, buf)
	v := uint64(0)
	if err == nil {
		// Without a performance agent the kernel writes a sentence instead.
		v, err = strconv.ParseUint(string(b), 10, 64)
	}
	if err != nil {
		c.known, c.rest = false, restRounds
		return 0, false
	}
	c.known = true
	return c.move(v)
}

// move takes the next value. A counter of 32 bits that was near its end and is
// near its beginning has gone round; any other that is lower than it was is of a
// driver that was loaded anew, and begins from there. Those that stick at their
// end, as InfiniBand's do, do not move any more.
func (c *counter) move(v uint64) (delta uint64, ok bool) {
	before, ever := c.count, c.ever
	c.count, c.ever = v, true
	const round = 1 << 32
	switch {
	case !ever || c.gauge:
		return 0, false
	case v >= before:
		delta = v - before
	case before < round && before >= round/4*3 && v < round/4:
		delta = v + round - before
	default:
		return 0, false
	}
	c.seen += delta
	return delta, true
}

// stuck tells that it may have come to the end of its 32 bits, where it stays.
func (c *counter) stuck() bool { return c.count == 1<<32-1 }

// slot keeps what was seen until now as the beginning of a slot.
func (c *counter) slot(i int) { c.slots[i] = c.seen }

// family is a set of counters that tell what a port moved.
type family struct {
	unit uint64
	// Bytes and packets sent, bytes and packets received: names whose sum it is.
	of [4][]string
}

// families, the best first: what the port counts itself, then what its driver
// does. The InfiniBand ones count 4 bytes.
func families() []family {
	one := func(unit uint64, names ...string) family {
		f := family{unit: unit}
		for i, name := range names {
			f.of[i] = []string{name}
		}
		return f
	}
	return []family{
		one(4, "port_xmit_data", "port_xmit_packets", "port_rcv_data", "port_rcv_packets"),
		one(1, "tx_bytes", "tx_pkts", "rx_bytes", "rx_pkts"),       // efa, bnxt_re
		one(1, "tx_bytes", "tx_packets", "rx_bytes", "rx_packets"), // mana
		{1, [4][]string{ // irdma
			{"ip4OutOctets", "ip6OutOctets"},
			{"ip4OutPkts", "ip6OutPkts"},
			{"ip4InOctets", "ip6InOctets"},
			{"ip4InPkts", "ip6InPkts"},
		}},
		one(1, "hw_tx_bytes_cnt", "hw_tx_packets_cnt", "hw_rx_bytes_cnt", "hw_rx_packets_cnt"),           // erdma
		one(1, "tx_rdma_ucast_bytes", "tx_rdma_ucast_pkts", "rx_rdma_ucast_bytes", "rx_rdma_ucast_pkts"), // ionic
		one(1, "sent_bytes", "sent_pkts", "rcvd_bytes", "rcvd_pkts"),                                     // rxe
	}
}
