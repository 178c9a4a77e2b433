// SPDX-License-Identifier: Apache-2.0

// Package drop tells what the kernel throws away: how many packets of which
// connection, for which reason, at which place in its code. It never changes or
// copies a packet, tells nothing of packets that ended as they were to, and does
// not know who the ends are. The agent's pipeline reads it.
package drop

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
)

// Config of a probe. The zero value works.
type Config struct {
	// Connections that one epoch has room for; 0 means 2,048. What is beyond is
	// counted by addresses, reason and place, and beyond some of those by
	// namespace, reason and place.
	Connections int
	// Only what is dropped in this namespace is told, by its inode; 0 is all.
	Netns uint32
	Log   *slog.Logger
}

// pairs of addresses are told of beyond the connections, and spare is the room of
// a table for what is counted without either.
const (
	pairs = 256
	spare = 1024
)

// Probe holds the program and its tables. It is for one goroutine.
type Probe struct {
	programs struct {
		Packet *ebpf.Program `ebpf:"drop_packet"`
		Symbol *ebpf.Program `ebpf:"drop_symbol"`
		Clock  *ebpf.Program `ebpf:"drop_clock"`
	}
	maps struct {
		Active *ebpf.Map `ebpf:"drop_active"`
		Name   *ebpf.Map `ebpf:"drop_name"`
		Rest   *ebpf.Map `ebpf:"drop_rest"`
	}
	marked, details, pairs *ebpf.Variable
	link                   link.Link

	// Two tables, one active.
	tables [2]*ebpf.Map
	active int
	bound  int
	reader reader
	names  names
	places places
	clock  clock
	closed bool
}

var errClosed = errors.New("drop probe is closed")

// Open loads and attaches.
func Open(cfg Config) (*Probe, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Connections <= 0 {
		cfg.Connections = 2048
	}
	p := &Probe{bound: cfg.Connections}
	if err := p.load(cfg.Netns); err != nil {
		_ = p.Close()
		return nil, fmt.Errorf("open drop probe: %w", explain(err))
	}
	cfg.Log.Info("Attached drop probe", "reasons", len(p.names.core))
	return p, nil
}

func (p *Probe) load(netns uint32) error {
	kernel, err := readKernel()
	if err != nil {
		return err
	}
	p.names = kernel.names
	spec, err := loadKernel()
	if err != nil {
		return err
	}
	for name, value := range map[string]any{
		kernelVarHasReceiver: kernel.hasReceiver, kernelVarHarmless: kernel.harmless(),
		kernelVarDetailBound: uint32(p.bound), kernelVarPairBound: uint32(pairs), kernelVarOnlyNetns: netns,
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	// Needed before 5.11 only; where it is refused the load below says so.
	_ = rlimit.RemoveMemlock()
	inner := spec.Maps["drop_active"].InnerMap
	inner.MaxEntries = uint32(p.bound + pairs + spare)
	for i := range p.tables {
		table := inner.Copy()
		table.Name = fmt.Sprintf("drop_table_%d", i)
		if p.tables[i], err = ebpf.NewMap(table); err != nil {
			return fmt.Errorf("table for %d connections: %w", p.bound, err)
		}
	}
	if err := p.assign(spec); err != nil {
		return err
	}
	if err := p.maps.Active.Put(uint32(0), p.tables[0]); err != nil {
		return fmt.Errorf("activate table: %w", err)
	}
	p.places = newPlaces(p.programs.Symbol, p.maps.Name)
	p.clock.prog = p.programs.Clock
	if err := p.clock.anchor(); err != nil {
		return err
	}
	// Nothing is pinned: the link ends with this process at the latest.
	p.link, err = link.AttachTracing(link.TracingOptions{Program: p.programs.Packet, AttachType: ebpf.AttachTraceRawTp})
	if err != nil {
		return fmt.Errorf("attach drop_packet: %w", err)
	}
	return nil
}

func (p *Probe) assign(spec *ebpf.CollectionSpec) error {
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return err // names the program
	}
	defer coll.Close()
	if err := coll.Assign(&p.programs); err != nil {
		return err
	}
	if err := coll.Assign(&p.maps); err != nil {
		return err
	}
	p.marked, p.details, p.pairs = coll.Variables[kernelVarDropMarked], coll.Variables[kernelVarDropDetails], coll.Variables[kernelVarDropPairs]
	return nil
}

// explain adds what a user can do about a refused load.
func explain(err error) error {
	var verifier *ebpf.VerifierError
	switch {
	case errors.As(err, &verifier) && len(verifier.Log) > 1:
		return err // has its own story
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: needs root, or the capabilities BPF and PERFMON", unix.EPERM)
	case missing("/sys/kernel/btf/vmlinux"):
		return fmt.Errorf("%w (this kernel has no BTF: use one with CONFIG_DEBUG_INFO_BTF)", err)
	}
	return err
}

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, os.ErrNotExist)
}

// Lost is what has a number and no more, since Open: packets that found no room
// even without their connection, and those that went by unseen because they
// were dropped while the same CPU was counting another. The latter may not be
// lost at all.
func (p *Probe) Lost() (rest event.Counter, unseen uint64) {
	if p.closed {
		return rest, 0
	}
	var perCPU []kernelDropValue
	// It is an array: a look-up of its only key cannot fail for want of it.
	if p.maps.Rest.Lookup(uint32(0), &perCPU) == nil {
		for i := range perCPU {
			rest.Add(event.Counter{Packets: perCPU[i].Packets, Bytes: perCPU[i].Bytes})
		}
	}
	if st, err := p.programs.Packet.Stats(); err == nil {
		unseen = st.RecursionMisses
	}
	return rest, unseen
}

// Programs calls yield for each program that runs by itself.
func (p *Probe) Programs(yield func(name string, p *ebpf.Program)) {
	yield("drop_packet", p.programs.Packet)
}

// KernelMemory is what the kernel charges for the maps, in bytes.
func (p *Probe) KernelMemory() (sum uint64) {
	for _, m := range []*ebpf.Map{p.tables[0], p.tables[1], p.maps.Active, p.maps.Name, p.maps.Rest} {
		if m == nil {
			continue
		}
		if info, err := m.Info(); err == nil {
			if n, ok := info.Memlock(); ok {
				sum += n
			}
		}
	}
	return sum
}

// Close detaches and frees. It is idempotent.
func (p *Probe) Close() error {
	p.closed = true
	var err error
	if p.link != nil {
		err = p.link.Close()
		p.link = nil
	}
	for _, prog := range []**ebpf.Program{&p.programs.Packet, &p.programs.Symbol, &p.programs.Clock} {
		err = errors.Join(err, (*prog).Close())
		*prog = nil
	}
	for _, m := range []**ebpf.Map{&p.tables[0], &p.tables[1], &p.maps.Active, &p.maps.Name, &p.maps.Rest} {
		err = errors.Join(err, (*m).Close())
		*m = nil
	}
	return err
}
