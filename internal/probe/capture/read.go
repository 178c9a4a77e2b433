// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Packet is one that was captured.
type Packet struct {
	Interface uint32
	// Unix nanoseconds.
	Time int64
	// Sent by the namespace, not received.
	Egress bool
	// As it was.
	Length uint32
	// Of it, what was kept; good until the next Packet.
	Data []byte
}

// headLength is that of a record before the packet.
const headLength = 32

var errRecord = errors.New("a record of a capture that is not one")

// past is when to return at the latest: at once, with all that is there.
var past = time.Unix(1, 0)

// Read hands on all packets that are there, until take says false. It does not
// wait: who reads every few milliseconds is not woken for each packet.
func (c *Capture) Read(take func(*Packet) bool) error {
	clock, err := wallClock()
	if err != nil {
		return fmt.Errorf("read capture: %w", err)
	}
	var p Packet
	c.reader.SetDeadline(past)
	for {
		err := c.reader.ReadInto(&c.record)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err == nil {
			err = p.decode(c.record.RawSample, c.cfg.Snaplen)
		}
		if err != nil {
			return fmt.Errorf("read capture: %w", err)
		}
		p.Time += clock
		if !take(&p) {
			return nil
		}
	}
}

// decode reads a record; the packet's bytes stay where they are, but for a tag
// that is put back in its place.
func (p *Packet) decode(record []byte, snaplen uint32) error {
	if len(record) < headLength {
		return errRecord
	}
	captured := binary.NativeEndian.Uint32(record[16:])
	if uint64(captured) > uint64(len(record)-headLength) {
		return errRecord
	}
	p.Time = int64(binary.NativeEndian.Uint64(record))
	p.Interface = binary.NativeEndian.Uint32(record[8:])
	p.Length = binary.NativeEndian.Uint32(record[12:])
	p.Egress = record[24] != 0
	p.Data = record[headLength:][:captured:captured]
	tci, proto := binary.NativeEndian.Uint16(record[20:]), record[22:24]
	if proto[0]|proto[1] == 0 || captured < 12 {
		return nil
	}
	// The head has room for what moves to the front: it has been read.
	tag := [4]byte{proto[0], proto[1], byte(tci >> 8), byte(tci)}
	p.Data = record[headLength-4:][:captured+4]
	copy(p.Data, p.Data[4:16])
	copy(p.Data[12:], tag[:])
	p.Data = p.Data[:min(captured+4, snaplen)]
	p.Length += 4
	return nil
}

// wallClock is what to add to the kernel's stamps.
func wallClock() (int64, error) {
	var mono unix.Timespec
	before := time.Now()
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono); err != nil {
		return 0, os.NewSyscallError("clock_gettime", err)
	}
	half := time.Since(before) / 2
	return before.Add(half).UnixNano() - mono.Nano(), nil
}
