// SPDX-License-Identifier: Apache-2.0

// Package flow is the tap: it attaches one kernel program a direction to the
// interfaces of network namespaces, and reads, epoch by epoch, what every
// connection did. It never decides what a packet may do, never sends one to
// user space, and knows nothing of who the ends are. The agent's pipeline
// reads it.
package flow

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
)

// Attach chooses the kernel interface that programs are attached by.
type Attach string

// AttachAuto takes TCX where the kernel has it (6.6), clsact otherwise.
const (
	AttachAuto   Attach = "auto"
	AttachTCX    Attach = "tcx"
	AttachClsact Attach = "clsact"
)

// Config of a tap. The zero value works, for the namespace that Open is called
// in.
type Config struct {
	// Connections that one epoch has room for; 0 means 100,000.
	TableEntries int
	// "" means AttachAuto.
	Attach Attach
	// Where clsact attachments are noted, so that a later start can remove
	// what a killed one left. "" means DefaultStateDir.
	StateDir string
	// Tap loopback, too.
	Loopback bool
	// What is said to and from these ports is copied for Copies, also on loopback;
	// at most MaxDNSPorts. None: only what begins TLS is.
	DNSPorts []uint16
	// Enter runs fn on a thread that is in another namespace, given to Add
	// before. The tap keeps nothing of it open.
	Enter func(netns uint32, fn func() error) error
	// FromOutside, where it is not nil, opens a namespace that was given to Add,
	// for a moment and without entering it: then none is entered, and they are
	// tapped at the own ends of their veths.
	FromOutside func(netns uint32) (*os.File, error)
	// Gone is told when a namespace that was added has died. It must not call
	// the tap.
	Gone func(netns uint32)
	// Stranger is told that there is a namespace that may not be known. It must
	// not call the tap.
	Stranger func()
	// Loaded is told of each program that is attached, where it is not nil: the time
	// of those is with that of what they call.
	Loaded func(name string, p *ebpf.Program)
	Log    *slog.Logger
}

func (c *Config) finish() {
	if c.TableEntries <= 0 {
		c.TableEntries = 100_000
	}
	if c.Attach == "" {
		c.Attach = AttachAuto
	}
	if c.StateDir == "" {
		c.StateDir = DefaultStateDir
	}
	if c.Gone == nil {
		c.Gone = func(uint32) {}
	}
	if c.Stranger == nil {
		c.Stranger = func() {}
	}
	if c.Loaded == nil {
		c.Loaded = func(string, *ebpf.Program) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// batch is how many entries one system call reads and deletes.
const batch = 4096

// Tap holds the kernel's side of the flow table. Epoch, Audit, Table and Close are
// for one goroutine, which also asks Interfaces; the rest is for any.
type Tap struct {
	cfg    Config
	log    *slog.Logger
	kernel kernelSide

	// Two tables, one active. Epoch owns them.
	tables [2]*ebpf.Map
	active int
	shed   bool // no table is active
	read   int  // entries of the last epoch
	clock  clock
	keys   []kernelFlowKey
	values []kernelFlowValue
	delta  event.Delta
	scenes sceneCache
	// When the last epoch that was read began.
	swapped time.Time
	// Of the last audit: the time that the readings took.
	auditCost time.Duration

	// What was counted without a connection, as of the last epoch.
	totals restTotals
	// The part of it of interfaces that are gone for good.
	folded restTotals

	own     ownNetns
	readers *counterReader
	// attaching is held for reading by whoever changes what is attached, then the
	// space's busy, then mu; for writing by Close.
	attaching sync.RWMutex
	// serial is busy of all spaces where changes of one change others.
	serial sync.Mutex
	opened time.Time
	// The own ends of veths that lead to other namespaces: what the own one
	// calls those. Only with FromOutside.
	ends map[uint32]int
	// Of the own namespace: what the kernel's flow_bridged holds.
	members   map[uint32]bool
	owner     clsactOwner
	leftovers *Leftovers
	refused   atomic.Bool // this kernel has no TCX

	// mu guards what is attached where; it is held for moments.
	mu     sync.Mutex
	spaces map[uint32]*space
	left   []*port // their namespace is gone
	ended  []*port // read for the last time since the last epoch
	gone   *port   // the sum of those that are gone for good
	closed bool

	added  chan struct{} // something is in queue
	queue  []addition
	layout atomic.Pointer[map[uint32]*scene]
	deaf   atomic.Bool // nobody tells of changes in other namespaces
	// addressing is held by whoever changes the own addresses. The map is not
	// written to.
	addressing   sync.Mutex
	ownAddresses atomic.Pointer[map[event.IP]bool]
}

var errClosed = errors.New("flow tap is closed")

// Open loads the maps and programs; nothing is attached yet. Missing rights
// and features come back as errors that say what is missing. The calling
// thread's namespace is the tap's own: where packets of others pass through.
func Open(cfg Config) (*Tap, error) {
	if err := mayRead(); err != nil {
		return nil, fmt.Errorf("open flow tap: %w", err)
	}
	cfg.finish()
	t := &Tap{
		cfg:     cfg,
		log:     cfg.Log,
		keys:    make([]kernelFlowKey, batch),
		values:  make([]kernelFlowValue, batch),
		spaces:  make(map[uint32]*space),
		folded:  restTotals{},
		ends:    map[uint32]int{},
		members: map[uint32]bool{},
		added:   make(chan struct{}, 1),
		opened:  time.Now(),
	}
	t.leftovers = FindLeftovers(cfg.StateDir)
	t.owner.dir = cfg.StateDir
	t.layout.Store(&map[uint32]*scene{})
	err := t.own.open()
	if err == nil {
		t.spaces[t.own.inode] = newSpace(t.own.inode, true)
		err = t.load()
	}
	if err != nil {
		t.Close()
		return nil, fmt.Errorf("open flow tap: %w", explain(err))
	}
	return t, nil
}

// mayRead tells the one refusal that does not come at once: without PERFMON the
// verifier looks at so much more that it gives up, after 20 s, and says that the
// program is too large.
func mayRead() error {
	var caps [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return nil // it is tried
	}
	for _, c := range [...]int{unix.CAP_PERFMON, unix.CAP_SYS_ADMIN} {
		if caps[c/32].Effective&(1<<(c%32)) != 0 {
			return nil
		}
	}
	return fmt.Errorf("%w: the capability PERFMON is missing: needs root, or the capabilities BPF, NET_ADMIN and PERFMON", unix.EPERM)
}

func (t *Tap) load() error {
	// Needed before 5.11 only; where it is refused the load below says so.
	_ = rlimit.RemoveMemlock()
	if err := t.kernel.load(&t.cfg); err != nil {
		return err
	}
	spec, err := loadKernel()
	if err != nil {
		return err
	}
	inner := spec.Maps["flow_active"].InnerMap
	inner.MaxEntries = uint32(t.cfg.TableEntries)
	for i := range t.tables {
		table := inner.Copy()
		table.Name = fmt.Sprintf("flow_table_%d", i)
		if t.tables[i], err = ebpf.NewMap(table); err != nil {
			return fmt.Errorf("table for %d connections: %w", t.cfg.TableEntries, err)
		}
	}
	if err := t.kernel.active.Put(uint32(0), t.tables[0]); err != nil {
		return fmt.Errorf("activate table: %w", err)
	}
	if t.readers, err = newCounterReader(); err != nil {
		return err
	}
	t.clock.prog = t.kernel.programs.Clock
	return t.clock.anchor()
}

// explain adds what a user can do about a refused load.
func explain(err error) error {
	var refused *ebpf.VerifierError
	var call *os.SyscallError
	switch {
	case outOfFiles():
		return fmt.Errorf("%w: raise the limit of open files (ulimit -n, LimitNOFILE=); each interface needs two, and a namespace a few for a moment", unix.EMFILE)
	case errors.As(err, &refused) && len(refused.Log) > 1:
		return err // the verifier says why, and that has nothing to do with rights
	case errors.As(err, &call) && call.Syscall == "setns" && errors.Is(err, unix.EPERM):
		return fmt.Errorf("enter the namespace: %w: needs root, or the capability SYS_ADMIN (ORB8_NETNS=ends does without)", unix.EPERM)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		// What a library adds to it is about old kernels, and misleads on others.
		return fmt.Errorf("%w: needs root, or the capabilities BPF, NET_ADMIN and PERFMON (before kernel 5.11 also SYS_RESOURCE)", unix.EPERM)
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		var uts unix.Utsname
		_ = unix.Uname(&uts)
		return fmt.Errorf("%w (kernel %s; orb8 needs 5.10 or newer with CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_BPF)", err, unix.ByteSliceToString(uts.Release[:]))
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("%w (set ORB8_TABLE_ENTRIES lower)", err)
	}
	return err
}

// outOfFiles: a library takes the refusal of a descriptor for a kernel that
// cannot.
func outOfFiles() bool {
	fd, err := unix.Dup(0)
	if err == nil {
		_ = unix.Close(fd)
	}
	return errors.Is(err, unix.EMFILE)
}

// Own is the inode of the tap's own namespace.
func (t *Tap) Own() uint32 { return t.own.inode }

// Taps tells whether the tap is in a namespace.
func (t *Tap) Taps(netns uint32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.spaces[netns]
	return s != nil && !s.Tapped.IsZero()
}

// KernelMemory is what the kernel charges for the maps, in bytes.
func (t *Tap) KernelMemory() uint64 {
	return t.kernel.memory() + memlock(t.tables[0]) + memlock(t.tables[1])
}

// Table is how many entries the last epoch's table had, and has room for.
func (t *Tap) Table() (entries, room int) { return t.read, t.cfg.TableEntries }

// Close detaches everything and frees the maps. It is idempotent.
func (t *Tap) Close() error {
	err := errors.Join(t.detachAll(), t.kernel.Close())
	for i, m := range t.tables {
		if m != nil {
			err = errors.Join(err, m.Close())
		}
		t.tables[i] = nil
	}
	if t.readers != nil {
		t.readers.Close()
		t.readers = nil
	}
	return errors.Join(err, t.own.Close())
}
