// SPDX-License-Identifier: Apache-2.0

// Package process tells at once what the tap and the names cannot wait for: a
// process that execs in a network namespace that is not known yet, and each
// cgroup as it is made. It never looks at what a process does, keeps no list of
// processes, and enters no namespace. The agent's pipeline reads it, and feeds
// what it hears to the rooms netns and cgroup.
package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Config of a probe. The functions are called from Run, one at a time; either
// may be nil.
type Config struct {
	Log *slog.Logger
	// NewNetns: a process execs in a network namespace that Know was not told
	// of. Until Know is called, each exec in it is told.
	NewNetns func(Exec)
	// NewCgroup: a cgroup of the default hierarchy (v2) is being made, and
	// nothing is in it yet. Id is the inode of its directory, path is from the
	// hierarchy's root and begins with a slash; one of more than 512 bytes is
	// cut there and ends with Cut.
	NewCgroup func(id uint64, path string)
	// Only what processes of this group do is told, and its descendants'; the
	// zero value is all. Where several nodes share a kernel, it is the node's.
	Node Group
}

// Exec is a process that execs.
type Exec struct {
	Netns uint32 // inode of its network namespace
	// As the agent's pid namespace counts; 0: it is not in it.
	PID    uint32
	Cgroup uint64 // of the default hierarchy
}

// Group is a cgroup of the default hierarchy: its id, and how many groups are
// above it.
type Group struct {
	ID    uint64
	Level uint32
}

// Cut ends a path that was too long.
const Cut = "…"

// Probe holds the programs and their maps. Run is for one goroutine; the rest
// is for any.
type Probe struct {
	cfg      Config
	reader   *ringbuf.Reader
	programs map[string]*ebpf.Program
	links    []link.Link
	problems []string

	// mu guards the maps against Close.
	mu          sync.RWMutex
	known, lost *ebpf.Map
	ring        *ebpf.Map
	lastLost    uint64 // when closed
}

var errClosed = errors.New("process probe is closed")

// program is one of the two, and what is missing without it.
type program struct{ name, without string }

// Open loads and attaches. When one of the programs is refused, the other works
// and Problems tells; when both are, that is the error.
func Open(cfg Config) (*Probe, error) {
	spec, err := loadKernel()
	if err != nil {
		return nil, fmt.Errorf("open process probe: %w", err)
	}
	return open(cfg, spec)
}

func open(cfg Config, spec *ebpf.CollectionSpec) (*Probe, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	p := &Probe{cfg: cfg, programs: make(map[string]*ebpf.Program, 2)}
	if err := p.load(spec); err != nil {
		_ = p.Close()
		return nil, fmt.Errorf("open process probe: %w", explain(err))
	}
	return p, nil
}

func (p *Probe) load(spec *ebpf.CollectionSpec) error {
	if err := p.set(spec); err != nil {
		return err
	}
	// Needed before 5.11 only; where it is refused the load below says so.
	_ = rlimit.RemoveMemlock()
	var err error
	for name, dst := range map[string]**ebpf.Map{"process_netns": &p.known, "process_ring": &p.ring, "process_lost": &p.lost} {
		if *dst, err = ebpf.NewMap(spec.Maps[name]); err != nil {
			return fmt.Errorf("map %s: %w", name, err)
		}
	}
	if p.reader, err = ringbuf.NewReader(p.ring); err != nil {
		return fmt.Errorf("map process_ring: %w", err)
	}
	var refused []error
	for _, prog := range []program{
		{"process_exec", "new network namespaces without a name are found late, by the sweep of the process table"},
		{"process_cgroup", "containers that live shortly may stay without a name"},
	} {
		if err := p.attach(spec, prog.name); err != nil {
			refused = append(refused, err)
			p.problems = append(p.problems, fmt.Sprintf("%v: %s", explain(err), prog.without))
			continue
		}
		p.cfg.Log.Info("Attached process probe", "program", prog.name)
	}
	if len(p.links) == 0 {
		return errors.Join(refused...)
	}
	for _, problem := range p.problems {
		p.cfg.Log.Warn("Not attached: process probe", "problem", problem)
	}
	return nil
}

// set tells the programs whose process table this is, and which node.
func (p *Probe) set(spec *ebpf.CollectionSpec) error {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return fmt.Errorf("own pid namespace: %w (mount /proc)", err)
	}
	for name, value := range map[string]any{
		kernelVarPidNamespace: uint32(st.Ino), kernelVarNodeGroup: p.cfg.Node.ID, kernelVarNodeLevel: p.cfg.Node.Level,
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

// attach loads one program with the maps that are there, so that the other does
// not depend on it.
func (p *Probe) attach(spec *ebpf.CollectionSpec, name string) error {
	one := spec.Copy()
	for other := range one.Programs {
		if other != name {
			delete(one.Programs, other)
		}
	}
	coll, err := ebpf.NewCollectionWithOptions(one, ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{
		"process_netns": p.known, "process_ring": p.ring, "process_lost": p.lost,
	}})
	if err != nil {
		return err // names the program
	}
	defer coll.Close()
	prog := coll.DetachProgram(name)
	p.programs[name] = prog
	// Nothing is pinned: the link ends with this process at the latest.
	l, err := link.AttachTracing(link.TracingOptions{Program: prog, AttachType: ebpf.AttachTraceRawTp})
	if err != nil {
		return fmt.Errorf("attach %s: %w", name, err)
	}
	p.links = append(p.links, l)
	return nil
}

// explain adds what a user can do about a refused load.
func explain(err error) error {
	var verifier *ebpf.VerifierError
	switch {
	case errors.As(err, &verifier):
		return err // has its own story, and its EACCES is not a missing right
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: needs root, or the capabilities BPF and PERFMON (before kernel 5.11 also SYS_RESOURCE)", unix.EPERM)
	case missing("/sys/kernel/btf/vmlinux"):
		return fmt.Errorf("%w (this kernel has no BTF: use one with CONFIG_DEBUG_INFO_BTF)", err)
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		var uts unix.Utsname
		_ = unix.Uname(&uts)
		return fmt.Errorf("%w (kernel %s; orb8 needs 5.10 or newer with CONFIG_BPF_SYSCALL and CONFIG_DEBUG_INFO_BTF)", err, unix.ByteSliceToString(uts.Release[:]))
	}
	return err
}

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, os.ErrNotExist)
}

// Problems says what is not attached, why, and what is missing without it.
func (p *Probe) Problems() []string { return p.problems }

// Know silences execs in a namespace. The kernel has room for 65,536.
func (p *Probe) Know(inode uint32) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.known == nil {
		return errClosed
	}
	if err := p.known.Put(inode, uint8(1)); err != nil {
		return fmt.Errorf("know network namespace %d: %w", inode, err)
	}
	return nil
}

// Forget undoes Know; a namespace that is not known is no error.
func (p *Probe) Forget(inode uint32) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.known == nil {
		return errClosed
	}
	if err := p.known.Delete(inode); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("forget network namespace %d: %w", inode, err)
	}
	return nil
}

// Lost is how many events found no room in the ring since Open.
func (p *Probe) Lost() uint64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.readLost()
}

func (p *Probe) readLost() uint64 {
	if p.lost == nil {
		return p.lastLost
	}
	var perCPU []uint64
	// It is an array: a look-up of its only key cannot fail for want of it.
	if err := p.lost.Lookup(uint32(0), &perCPU); err != nil {
		return p.lastLost
	}
	var sum uint64
	for _, n := range perCPU {
		sum += n
	}
	return sum
}

// Run reads the ring until the context ends, which is no error, or the probe is
// closed. An event costs no allocation beyond the path of a cgroup.
func (p *Probe) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = p.reader.Flush() })
	defer stop()
	var record ringbuf.Record
	for ctx.Err() == nil {
		err := p.reader.ReadInto(&record)
		switch {
		case errors.Is(err, ringbuf.ErrFlushed):
		case errors.Is(err, ringbuf.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("read process events: %w", err)
		default:
			p.dispatch(record.RawSample)
		}
	}
	return nil
}

func (p *Probe) dispatch(sample []byte) {
	e, ok := decode(sample)
	switch {
	case !ok: // of no kind that this version knows
	case e.kind == execEvent && p.cfg.NewNetns != nil:
		p.cfg.NewNetns(Exec{Netns: e.netns, PID: e.pid, Cgroup: e.cgroup})
	case e.kind == cgroupEvent && p.cfg.NewCgroup != nil:
		p.cfg.NewCgroup(e.cgroup, e.name())
	}
}

// Programs calls yield for each of its kernel programs.
func (p *Probe) Programs(yield func(name string, p *ebpf.Program)) {
	for name, prog := range p.programs {
		yield(name, prog)
	}
}

// Close detaches and frees. It ends Run, and is idempotent.
func (p *Probe) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastLost = p.readLost()
	var err error
	for _, l := range p.links {
		err = errors.Join(err, l.Close())
	}
	p.links = nil
	if p.reader != nil {
		err = errors.Join(err, p.reader.Close())
	}
	for name, prog := range p.programs {
		err = errors.Join(err, prog.Close())
		delete(p.programs, name)
	}
	for _, m := range []*ebpf.Map{p.known, p.ring, p.lost} {
		if m != nil {
			err = errors.Join(err, m.Close())
		}
	}
	p.known, p.ring, p.lost = nil, nil, nil
	return err
}
