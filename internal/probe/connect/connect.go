// SPDX-License-Identifier: Apache-2.0

// Package connect hears from the kernel of each connect that fails, and why: a
// packet that does not come tells nothing. It sees no packet, knows no
// connection that succeeds, and refuses nothing. The agent's pipeline reads it,
// epoch by epoch.
package connect

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
)

// Probe holds the program and its maps. All of it is for one goroutine.
type Probe struct {
	coll   *ebpf.Collection
	link   link.Link
	reader *ringbuf.Reader
	record ringbuf.Record
	lost   uint64 // as last read
}

// Open loads and attaches.
func Open() (*Probe, error) {
	p := &Probe{}
	if err := p.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open connect probe: %w", explain(err)), p.Close())
	}
	return p, nil
}

func (p *Probe) open() error {
	spec, err := loadKernel()
	if err != nil {
		return err
	}
	// They are there for the Go type only.
	delete(spec.Maps, ".bss")
	delete(spec.Variables, kernelVarConnectEventType)
	// Needed before 5.11 only; where it is refused the load below says so.
	_ = rlimit.RemoveMemlock()
	if p.coll, err = ebpf.NewCollection(spec); err != nil {
		return err
	}
	if p.reader, err = ringbuf.NewReader(p.coll.Maps[kernelMapConnectRing]); err != nil {
		return fmt.Errorf("map %s: %w", kernelMapConnectRing, err)
	}
	// What is there is read, and nothing is waited for.
	p.reader.SetDeadline(time.Unix(1, 0))
	// Nothing is pinned: the link ends with this process at the latest.
	p.link, err = link.AttachTracing(link.TracingOptions{Program: p.coll.Programs[kernelProgConnectFailed], AttachType: ebpf.AttachTraceRawTp})
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return nil
}

// explain adds what a user can do about a refused load.
func explain(err error) error {
	var refused *ebpf.VerifierError
	switch _, missing := os.Stat("/sys/kernel/btf/vmlinux"); {
	case errors.As(err, &refused):
		return err // has its own story, and its EACCES is not a missing right
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: needs root, or the capabilities BPF and PERFMON (before kernel 5.11 also SYS_RESOURCE)", unix.EPERM)
	case errors.Is(missing, fs.ErrNotExist):
		return fmt.Errorf("%w (this kernel has no BTF: use one with CONFIG_DEBUG_INFO_BTF)", err)
	}
	return err
}

// Pending tells that there is something to take. It costs no system call.
func (p *Probe) Pending() bool { return p.reader != nil && p.reader.AvailableBytes() > 0 }

// Take adds to list the connects that have failed since it was last asked, in
// any namespace, and returns it. Its memory is used again.
func (p *Probe) Take(list []event.FailedConnect) ([]event.FailedConnect, error) {
	if !p.Pending() {
		return list, nil
	}
	ago, err := clocks()
	if err != nil {
		return list, fmt.Errorf("read failed connects: %w", err)
	}
	for {
		err := p.reader.ReadInto(&p.record)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return list, nil
		}
		if err != nil {
			return list, fmt.Errorf("read failed connects: %w", err)
		}
		if f, ok := decode(p.record.RawSample, ago); ok {
			list = append(list, f)
		}
	}
}

// clocks is what to add to a time of the kernel's programs to have Unix
// nanoseconds.
func clocks() (int64, error) {
	var mono unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono); err != nil {
		return 0, err
	}
	return time.Now().UnixNano() - mono.Nano(), nil
}

// Lost is how many failed connects found no room in the ring since Open.
func (p *Probe) Lost() uint64 {
	if p.coll != nil {
		// It is an array: a look-up of its only key cannot fail for want of it.
		_ = p.coll.Maps[kernelMapConnectLost].Lookup(uint32(0), &p.lost)
	}
	return p.lost
}

// Programs calls yield for each of its kernel programs.
func (p *Probe) Programs(yield func(name string, p *ebpf.Program)) {
	for name, prog := range p.coll.Programs {
		yield(name, prog)
	}
}

// KernelMemory is what the kernel charges for the maps, in bytes.
func (p *Probe) KernelMemory() (sum uint64) {
	if p.coll == nil {
		return 0
	}
	for _, m := range p.coll.Maps {
		if info, err := m.Info(); err == nil {
			n, _ := info.Memlock()
			sum += n
		}
	}
	return sum
}

// Close detaches and frees the maps. It is idempotent.
func (p *Probe) Close() (err error) {
	if p.link != nil {
		err = p.link.Close()
		p.link = nil
	}
	if p.reader != nil {
		err = errors.Join(err, p.reader.Close())
		p.reader = nil
	}
	if p.coll != nil {
		p.Lost()
		p.coll.Close()
		p.coll = nil
	}
	return err
}
