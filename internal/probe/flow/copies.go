// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
)

// MaxDNSPorts is how many ports may be a DNS server's.
const MaxDNSPorts = 8

const (
	// copyBytes is the room for what was copied and not read yet: at 20,000
	// questions a second a fifth of a second.
	copyBytes = 2 << 20
	// copyPause is between two looks while there is something: a wake-up for each
	// packet would cost more than all the rest.
	copyPause = 5 * time.Millisecond
	// copyPortion is how many are handed on before idle is called, where more come
	// meanwhile than that.
	copyPortion = 4096
	// copyIdle is how often idle is called while nothing comes.
	copyIdle = time.Second
	// copyHead is the size of a record before the payload.
	copyHead = 88
)

// The kernel's COPY_….
const (
	copySent      = 1
	copyHello     = 2
	copyLocalDNS  = 4
	copyRemoteDNS = 8
)

// Copy is what one packet carried.
type Copy struct {
	// Of what is asked over loopback, the local end is the one that asks.
	Conn event.Conn
	// Unix nanoseconds.
	Time int64
	// By the local end.
	Sent bool
	// It may be a part of a ClientHello. Else it is of the DNS, and then whether the
	// ports of the two ends are DNS ports.
	Hello               bool
	LocalDNS, RemoteDNS bool
	// Of the local socket; 0 of what was received.
	Cookie, Cgroup uint64
	// TCP.
	Seq   uint32
	Flags uint8
	// Of the payload; of it Data was copied, which is good until the next Copy.
	Length int
	Data   []byte
}

var errCopy = errors.New("a copied packet that is not one")

// Copies hands on what was copied until ctx ends. idle is called whenever all that
// is there was handed on, or thousands of them, and once a second. For one
// goroutine, which may be another than the one of Epoch.
func (t *Tap) Copies(ctx context.Context, take func(*Copy), idle func(now int64)) error {
	reader, err := ringbuf.NewReader(t.kernel.copies)
	if err != nil {
		return fmt.Errorf("read copied packets: %w", err)
	}
	defer reader.Close()
	r := copyReader{ring: reader, take: take}
	for ctx.Err() == nil {
		n, err := r.drain()
		if err != nil {
			return fmt.Errorf("read copied packets: %w", err)
		}
		idle(time.Now().UnixNano())
		if n > 0 && n < copyPortion {
			time.Sleep(copyPause)
		}
	}
	return nil
}

type copyReader struct {
	ring   *ringbuf.Reader
	record ringbuf.Record
	copy   Copy
	take   func(*Copy)
}

// drain waits a moment for the first record, and hands on all that are there, up to
// a portion.
func (r *copyReader) drain() (n int, err error) {
	_, clock, err := Clock()
	if err != nil {
		return 0, err
	}
	r.ring.SetDeadline(time.Now().Add(copyIdle))
	for n < copyPortion {
		err := r.ring.ReadInto(&r.record)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return n, nil
		}
		if err == nil {
			err = r.copy.decode(r.record.RawSample)
		}
		if err != nil {
			return n, err
		}
		if n++; n == 1 {
			if _, clock, err = Clock(); err != nil {
				return n, err
			}
			r.ring.SetDeadline(time.Unix(1, 0)) // no more waiting
		}
		r.copy.Time += clock
		r.take(&r.copy)
	}
	return n, nil
}

// decode reads a record in place.
func (c *Copy) decode(b []byte) error {
	if len(b) < copyHead {
		return errCopy
	}
	n := int(binary.NativeEndian.Uint16(b[80:]))
	length := binary.NativeEndian.Uint32(b[76:])
	if n > len(b)-copyHead || uint32(n) > length {
		return errCopy
	}
	what := b[83]
	*c = Copy{
		Conn:   connOf(b[8:56]),
		Time:   int64(binary.NativeEndian.Uint64(b)),
		Cookie: binary.NativeEndian.Uint64(b[56:]),
		Cgroup: binary.NativeEndian.Uint64(b[64:]),
		Seq:    binary.NativeEndian.Uint32(b[72:]),
		Length: int(length),
		Flags:  b[82],
		Sent:   what&copySent != 0, Hello: what&copyHello != 0,
		LocalDNS: what&copyLocalDNS != 0, RemoteDNS: what&copyRemoteDNS != 0,
		Data: b[copyHead:][:n:n],
	}
	return nil
}

// connOf reads a flow_key.
func connOf(b []byte) (c event.Conn) {
	copy(c.Local[:], b)
	copy(c.Remote[:], b[16:])
	c.LocalPort, c.RemotePort = binary.BigEndian.Uint16(b[32:]), binary.BigEndian.Uint16(b[34:])
	c.Ifindex, c.Netns = binary.NativeEndian.Uint32(b[36:]), binary.NativeEndian.Uint32(b[40:])
	c.Protocol, c.Kind = event.Protocol(b[44]), event.ConnKind(b[45])
	return c
}

// Uncopied is how many packets found no room to be copied.
func (t *Tap) Uncopied() uint64 {
	var each []uint64
	if t.kernel.uncopied == nil || t.kernel.uncopied.Lookup(uint32(0), &each) != nil {
		return 0
	}
	var sum uint64
	for _, n := range each {
		sum += n
	}
	return sum
}

// Clock is the kernel's time of now, in nanoseconds, and what to add to it for the
// wall's. Of some tries the one counts that was interrupted least.
func Clock() (mono, wall int64, err error) {
	var ts unix.Timespec
	least := time.Duration(1<<63 - 1)
	for range 3 {
		before := time.Now()
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			return 0, 0, os.NewSyscallError("clock_gettime", err)
		}
		if took := time.Since(before); took < least {
			least, mono = took, ts.Nano()
			wall = before.Add(took/2).UnixNano() - mono
		}
	}
	return mono, wall, nil
}

// portsBE is how the programs have ports.
func portsBE(ports []uint16) (be [MaxDNSPorts]uint16) {
	for i, p := range ports[:min(len(ports), len(be))] {
		be[i] = p<<8 | p>>8
	}
	return be
}
