// SPDX-License-Identifier: Apache-2.0

package drop

import (
	"errors"
	"fmt"
	"math/bits"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
)

// batch is how many entries one system call reads and deletes.
const batch = 1024

// reader turns a table into drops: each CPU has records of its own.
type reader struct {
	keys   []kernelDropKey
	values []kernelDropValue
	// By key without the CPU, where in drops.
	index map[kernelDropKey]int
	drops []event.Drop
}

// Quiet tells that nothing has been dropped since the last epoch, so that there
// is nothing to read.
func (p *Probe) Quiet() bool {
	if p.closed {
		return true
	}
	var marked uint64
	return p.marked.Get(&marked) == nil && marked == 0
}

// Take makes the other table active, waits until the program is not on the old
// one any more, and gives what is in it; then the old one is empty. The drops are
// valid until the next call.
func (p *Probe) Take() ([]event.Drop, error) {
	if p.closed {
		return nil, errClosed
	}
	// Before the swap: what is dropped on the way is read now or marked again.
	if err := errors.Join(p.marked.Set(uint64(0)), p.details.Set(uint32(0)), p.pairs.Set(uint32(0))); err != nil {
		return nil, fmt.Errorf("start an epoch of drops: %w", err)
	}
	old := p.tables[p.active]
	// This returns only after an RCU grace period: programs run inside one.
	if err := p.maps.Active.Put(uint32(0), p.tables[1-p.active]); err != nil {
		return nil, fmt.Errorf("swap drop tables: %w", err)
	}
	p.active = 1 - p.active
	if err := p.clock.anchor(); err != nil {
		return nil, err
	}
	err := p.empty(old)
	return p.reader.drops, err
}

func (p *Probe) empty(old *ebpf.Map) error {
	r := &p.reader
	if r.keys == nil {
		r.keys, r.values, r.index = make([]kernelDropKey, batch), make([]kernelDropValue, batch), map[kernelDropKey]int{}
	}
	clear(r.index)
	r.drops = r.drops[:0]
	var cursor ebpf.MapBatchCursor
	for {
		n, err := old.BatchLookupAndDelete(&cursor, r.keys, r.values, nil)
		for i := range n {
			p.add(&r.keys[i], &r.values[i])
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read drop table: %w", err)
		}
	}
}

func (p *Probe) add(k *kernelDropKey, v *kernelDropValue) {
	r := &p.reader
	k.Cpu = 0
	amount := event.Counter{Packets: v.Packets, Bytes: v.Bytes}
	first, last := p.clock.unix(v.First), p.clock.unix(v.Last)
	if i, ok := r.index[*k]; ok {
		d := &r.drops[i]
		d.Amount.Add(amount)
		d.First, d.Last = min(d.First, first), max(d.Last, last)
		return
	}
	r.index[*k] = len(r.drops)
	name, hint := p.names.of(k.Reason)
	r.drops = append(r.drops, event.Drop{
		Conn:   conn(k),
		Folded: k.Conn.Zero != 0,
		Reason: name, Hint: hint, Location: p.places.name(k.Location),
		Amount: amount, First: first, Last: last,
	})
}

func conn(key *kernelDropKey) event.Conn {
	k := &key.Conn
	return event.Conn{
		Local:      *(*event.IP)(unsafe.Pointer(&k.Local)),
		Remote:     *(*event.IP)(unsafe.Pointer(&k.Remote)),
		LocalPort:  bits.ReverseBytes16(k.LocalPortBe),
		RemotePort: bits.ReverseBytes16(k.RemotePortBe),
		Ifindex:    k.Ifindex,
		Netns:      k.Netns,
		Protocol:   event.Protocol(k.Protocol),
		Kind:       event.ConnKind(k.Kind),
	}
}

// clock turns the kernel's ticks into wall-clock time, to one tick: the stamp of
// the table is a load, where any other clock is a call.
type clock struct {
	prog  *ebpf.Program
	tick  int64 // nanoseconds
	jiffy uint32
	wall  int64
}

// anchor notes which tick it is now.
func (c *clock) anchor() error {
	if c.tick == 0 {
		var res unix.Timespec
		// The coarse clocks advance once a tick.
		if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &res); err != nil || res.Nano() <= 0 {
			return fmt.Errorf("length of a clock tick: %w", err)
		}
		c.tick = res.Nano()
	}
	now := time.Now().UnixNano()
	jiffy, err := c.prog.Run(&ebpf.RunOptions{})
	if err != nil {
		return fmt.Errorf("read the kernel's clock: %w", err)
	}
	c.jiffy, c.wall = jiffy, now
	return nil
}

// unix gives the wall-clock time of a stamp, never in the future of the anchor.
func (c *clock) unix(stamp uint32) int64 {
	return c.wall + min(0, int64(int32(stamp-c.jiffy)))*c.tick
}
