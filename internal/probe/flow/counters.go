// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
)

// deviceCounters are an interface's own.
type deviceCounters struct{ rx, tx event.Counter }

const (
	sizeofIfStats  = 12 // struct if_stats_msg
	linkStats64    = 1  // IFLA_STATS_LINK_64
	minLinkStats64 = 32 // the four counters that are read
)

// readDevices asks for the counters of all interfaces of the calling thread's
// namespace, and for nothing else: a full link dump costs ten times as much.
func readDevices() (map[uint32]deviceCounters, error) {
	var replies [][]byte
	var err error
	// A dump is interrupted when an interface comes or goes meanwhile: then one
	// may be missing, and what is there is right. The last try is good enough.
	for range 3 {
		req := nl.NewNetlinkRequest(unix.RTM_GETSTATS, unix.NLM_F_DUMP)
		msg := make([]byte, sizeofIfStats)
		binary.NativeEndian.PutUint32(msg[8:], 1<<(linkStats64-1))
		req.AddRawData(msg)
		if replies, err = req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWSTATS); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("read interface counters: %w", err)
	}
	devices := make(map[uint32]deviceCounters, len(replies))
	for _, b := range replies {
		if index, c, ok := parseStats(b); ok {
			devices[index] = c
		}
	}
	return devices, nil
}

// readDevice is one of them; without it there is nothing to audit against.
func readDevice(index uint32) (deviceCounters, error) {
	devices, err := readDevices()
	if err != nil {
		return deviceCounters{}, err
	}
	c, ok := devices[index]
	if !ok {
		return c, fmt.Errorf("read interface counters: %w", unix.ENODEV)
	}
	return c, nil
}

// parseStats reads one RTM_NEWSTATS body: struct if_stats_msg, then attributes.
func parseStats(b []byte) (index uint32, c deviceCounters, ok bool) {
	if len(b) < sizeofIfStats {
		return 0, c, false
	}
	index = binary.NativeEndian.Uint32(b[4:])
	for b = b[sizeofIfStats:]; len(b) >= unix.SizeofRtAttr; {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			break
		}
		value := b[unix.SizeofRtAttr:size]
		if binary.NativeEndian.Uint16(b[2:]) == linkStats64 && len(value) >= minLinkStats64 {
			u := func(i int) uint64 { return binary.NativeEndian.Uint64(value[8*i:]) }
			c.rx = event.Counter{Packets: u(0), Bytes: u(2)}
			c.tx = event.Counter{Packets: u(1), Bytes: u(3)}
			return index, c, true
		}
		b = b[min(len(b), (size+3)&^3):] // attributes are aligned to four bytes
	}
	return 0, c, false
}

// baseline turns readings of a device's counters into what it counted while
// the tap was on it.
type baseline struct {
	last  deviceCounters // as read
	from  deviceCounters
	prior deviceCounters // earlier times on the same interface
	now   deviceCounters // since attaching, prior included
}

func (b *baseline) start(reading deviceCounters) {
	b.from, b.prior, b.last = reading, b.now, reading
}

func (b *baseline) read(reading deviceCounters) {
	b.last = reading
	b.now.rx = since(reading.rx, b.from.rx)
	b.now.tx = since(reading.tx, b.from.tx)
	b.now.rx.Add(b.prior.rx)
	b.now.tx.Add(b.prior.tx)
}

// add takes over what another interface counted.
func (b *baseline) add(o deviceCounters) {
	b.now.rx.Add(o.rx)
	b.now.tx.Add(o.tx)
}

// since is what was counted between two readings; a device that was reset
// starts again at zero.
func since(now, then event.Counter) event.Counter {
	if now.Bytes < then.Bytes || now.Packets < then.Packets {
		return now
	}
	return event.Counter{Bytes: now.Bytes - then.Bytes, Packets: now.Packets - then.Packets}
}
