// SPDX-License-Identifier: Apache-2.0

// Package socket tells who holds a socket: the process, or the kernel itself.
// Two sources say so. Iterators in the kernel list every socket when asked,
// which is done rarely and off everybody's way; and a program at the creation
// of a socket notes who made it, for processes that are gone by then. It never
// refuses or changes a socket, sees no packet, and knows nothing of containers.
// Enrichment asks it.
package socket

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Config of a probe. The zero value works, for the agent's own namespace and
// without notes.
type Config struct {
	// The root of the v2 hierarchy of cgroups, where the creation of sockets is
	// noted; "" notes nothing.
	Cgroup string
	// Enter runs fn on a thread that is in a network namespace; the kernel's own
	// sockets are listed there. Of one that is gone it says os.ErrNotExist. nil:
	// only the agent's own namespace.
	Enter func(netns uint32, fn func() error) error
	// The agent's pid namespace shows all that is to be seen, although it is not
	// the machine's first: that of a node which shares its kernel with others.
	AllProcesses bool
	// Sockets that one listing keeps; 0 means 200,000.
	Sockets int
	Log     *slog.Logger
}

const (
	// A listing at most so often, and for at most one part in share of a core.
	minInterval = time.Second
	share       = 100
	// Namespaces whose kernel sockets one listing looks for.
	maxNamespaces = 256
)

// Probe holds the kernel's side. Owner is for one goroutine; the others are
// for any.
type Probe struct {
	cfg   Config
	log   *slog.Logger
	netns uint32 // the agent's own

	held, tcp, udp *link.Iter
	programs       map[string]*ebpf.Program
	created        link.Link
	notes          *ebpf.Map
	// Of Owner, so that it allocates nothing.
	note   kernelSocketNote
	cookie uint64

	now        atomic.Pointer[directory]
	generation atomic.Uint64
	wanted     chan struct{}

	mu       sync.Mutex // guards the rest
	asked    map[uint32]bool
	problems []string
	failing  string // why the last listing failed
	unlisted string // where the kernel's sockets could not be listed, and why
	cut      uint64
	cost     time.Duration
	closed   bool
}

// Open loads the programs and attaches the one that notes. What this kernel
// lacks is told by Problems and the rest works; an error is a fault of the
// settings or of orb8 itself.
func Open(cfg Config) (*Probe, error) {
	if cfg.Sockets <= 0 {
		cfg.Sockets = 200_000
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	p := &Probe{cfg: cfg, log: cfg.Log, wanted: make(chan struct{}, 1), asked: map[uint32]bool{}, programs: map[string]*ebpf.Program{}}
	p.now.Store(&directory{})
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return nil, fmt.Errorf("open socket probe: own network namespace: %w", err)
	}
	p.netns = uint32(st.Ino)
	// Needed before 5.11 only; where it is refused the load below says so.
	_ = rlimit.RemoveMemlock()
	spec, err := loadKernel()
	if err != nil {
		return nil, fmt.Errorf("open socket probe: %w", err)
	}
	pids, err := setPIDNamespace(spec)
	if err != nil {
		return nil, fmt.Errorf("open socket probe: %w", err)
	}
	p.openIterators(spec)
	if cfg.Cgroup != "" {
		p.openNotes(spec)
	}
	for _, text := range p.problems {
		p.log.Warn("socket probe", "problem", text)
	}
	p.tellSight(pids)
	return p, nil
}

// initialPIDNamespace is where all processes have numbers.
const initialPIDNamespace = 0xeffffffc

// setPIDNamespace makes the programs count processes as this one's /proc does.
func setPIDNamespace(spec *ebpf.CollectionSpec) (inode uint64, err error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return 0, fmt.Errorf("own pid namespace: %w (mount /proc)", err)
	}
	return st.Ino, spec.Variables[kernelVarPidNamespace].Set(uint32(st.Ino))
}

// tellSight says where not all processes can be seen. That is how the agent was
// started and no fault: nothing to warn of.
func (p *Probe) tellSight(pids uint64) {
	if p.held == nil || pids == initialPIDNamespace || p.cfg.AllProcesses {
		return
	}
	const limit = "only processes of the agent's own pid namespace have names (give it the host's: hostPID, --pid=host)"
	p.problem("%s", limit)
	p.log.Info("socket probe", "limit", limit)
}

func (p *Probe) openIterators(spec *ebpf.CollectionSpec) {
	var err error
	if p.held, err = p.iterator(spec, kernelProgSocketHeld); err != nil {
		p.problem("process names are off: %v", explain(err))
		return
	}
	if p.tcp, err = p.iterator(spec, kernelProgSocketKernelTcp); err == nil {
		p.udp, err = p.iterator(spec, kernelProgSocketKernelUdp)
	}
	if err != nil {
		p.problem("the kernel's own sockets (NFS, tunnels) are not told apart: %v", explain(err))
	}
}

func (p *Probe) iterator(spec *ebpf.CollectionSpec, name string) (*link.Iter, error) {
	prog, err := p.load(spec, name)
	if err != nil {
		return nil, err
	}
	return link.AttachIter(link.IterOptions{Program: prog})
}

// load loads one program, so that one that is refused does not take others
// along.
func (p *Probe) load(spec *ebpf.CollectionSpec, name string) (*ebpf.Program, error) {
	one := spec.Copy()
	for other := range one.Programs {
		if other != name {
			delete(one.Programs, other)
		}
	}
	// It is there for the Go type only.
	delete(one.Maps, ".bss")
	delete(one.Variables, kernelVarSocketRecordType)
	replace := map[string]*ebpf.Map{}
	if p.notes != nil {
		replace[kernelMapSocketNotes] = p.notes
	} else {
		delete(one.Maps, kernelMapSocketNotes)
	}
	c, err := ebpf.NewCollectionWithOptions(one, ebpf.CollectionOptions{MapReplacements: replace})
	if err != nil {
		return nil, err
	}
	prog := c.DetachProgram(name)
	c.Close()
	p.programs[name] = prog
	return prog, nil
}

// openNotes attaches at the root of the cgroups. The link allows others beside
// it, and ends with this process.
func (p *Probe) openNotes(spec *ebpf.CollectionSpec) {
	var err error
	if p.notes, err = ebpf.NewMap(spec.Maps[kernelMapSocketNotes]); err == nil {
		var prog *ebpf.Program
		if prog, err = p.load(spec, kernelProgSocketCreated); err != nil {
			prog, err = p.load(spec, kernelProgSocketCreatedPlain)
		}
		if err == nil {
			p.created, err = link.AttachCgroup(link.CgroupOptions{
				Path: p.cfg.Cgroup, Attach: ebpf.AttachCGroupInetSockCreate, Program: prog,
			})
		}
	}
	if err != nil {
		p.problem("processes that live for less than a second have no name: note sockets at %s: %v", p.cfg.Cgroup, explain(err))
	}
}

// explain adds what a user can do about what was refused.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: needs root, or the capabilities BPF, NET_ADMIN and PERFMON", unix.EPERM)
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, os.ErrNotExist), errors.Is(err, unix.EINVAL):
		var uts unix.Utsname
		_ = unix.Uname(&uts)
		return fmt.Errorf("%w (kernel %s; it takes 5.11 or newer with CONFIG_DEBUG_INFO_BTF and CONFIG_CGROUP_BPF)", err, unix.ByteSliceToString(uts.Release[:]))
	}
	return err
}

func (p *Probe) problem(format string, args ...any) {
	p.problems = append(p.problems, fmt.Sprintf(format, args...))
}

// Problems tells what does not work, and why; nil on a good machine.
func (p *Probe) Problems() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := append([]string(nil), p.problems...)
	if p.failing != "" {
		out = append(out, "sockets were not listed: "+p.failing)
	}
	if p.unlisted != "" {
		out = append(out, p.unlisted)
	}
	if p.cut > 0 {
		out = append(out, fmt.Sprintf("more than %d sockets, %d of the last listing have no owner", p.cfg.Sockets, p.cut))
	}
	return out
}

// Cost is the CPU time that the last listing took.
func (p *Probe) Cost() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cost
}

// Programs calls yield for each of its kernel programs.
func (p *Probe) Programs(yield func(name string, p *ebpf.Program)) {
	for name, prog := range p.programs {
		yield(name, prog)
	}
}

// Close detaches everything and frees it; what was listed still answers. It is
// idempotent, and for after Run has returned.
func (p *Probe) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	var err error
	if p.created != nil {
		err = errors.Join(err, p.created.Close())
	}
	for _, it := range []*link.Iter{p.held, p.tcp, p.udp} {
		if it != nil {
			err = errors.Join(err, it.Close())
		}
	}
	for _, prog := range p.programs {
		err = errors.Join(err, prog.Close())
	}
	if p.notes != nil {
		err = errors.Join(err, p.notes.Close())
	}
	return err
}
