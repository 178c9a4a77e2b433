// SPDX-License-Identifier: Apache-2.0

// Package flow is the tap: it attaches one kernel program a direction to the
// interfaces of a network namespace, and reads, epoch by epoch, what every
// connection did. It never decides what a packet may do, never sends one to
// user space, and knows nothing of who the ends are. The agent's pipeline
// reads it.
package flow

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"

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

// Config of a tap. The zero value works.
type Config struct {
	// Connections that one epoch has room for; 0 means 100,000.
	TableEntries int
	// "" means AttachAuto.
	Attach Attach
	// Where clsact attachments are noted, so that a later start can remove
	// what a killed one left. "" means DefaultStateDir.
	StateDir string
	Log      *slog.Logger
}

// batch is how many entries one system call reads and deletes.
const batch = 4096

// Tap holds the kernel's side of the flow table. Epoch and Close are for one
// goroutine, which also asks Interfaces; Sync and Follow are for any.
type Tap struct {
	cfg Config
	log *slog.Logger

	// Two tables, one active. Epoch owns them.
	tables [2]*ebpf.Map
	active int
	outer  *ebpf.Map
	rest   *ebpf.Map
	lost   *ebpf.Map
	clock  clock
	keys   []kernelFlowKey
	values []kernelFlowValue
	delta  event.Delta

	// What was counted without a connection, as of the last epoch.
	totals restTotals
	// The part of it of interfaces that are gone for good.
	folded restTotals

	netns uint32
	// mu guards ports, gone, programs and owner: what is attached where.
	mu       sync.Mutex
	ports    map[uint32]*port
	gone     *port // the sum of those that are gone for good
	programs map[uint32]*instance
	owner    *clsactOwner
	refused  bool // this kernel has no TCX
	closed   bool
}

var errClosed = errors.New("flow tap is closed")

// Open loads the maps and programs; nothing is attached yet. Missing rights
// and features come back as errors that say what is missing.
func Open(cfg Config) (*Tap, error) {
	if cfg.TableEntries <= 0 {
		cfg.TableEntries = 100_000
	}
	if cfg.Attach == "" {
		cfg.Attach = AttachAuto
	}
	if cfg.StateDir == "" {
		cfg.StateDir = DefaultStateDir
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	t := &Tap{
		cfg:      cfg,
		log:      cfg.Log,
		keys:     make([]kernelFlowKey, batch),
		values:   make([]kernelFlowValue, batch),
		ports:    make(map[uint32]*port),
		programs: make(map[uint32]*instance),
		folded:   restTotals{},
	}
	var err error
	if t.netns, err = ownNetns(); err != nil {
		return nil, fmt.Errorf("open flow tap: %w", err)
	}
	if err := t.load(); err != nil {
		t.Close()
		return nil, fmt.Errorf("open flow tap: %w", explain(err))
	}
	return t, nil
}

func (t *Tap) load() error {
	// Needed before 5.11 only; where it is refused the load below says so.
	_ = rlimit.RemoveMemlock()
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
	for name, dst := range map[string]**ebpf.Map{"flow_active": &t.outer, "flow_rest": &t.rest, "flow_rest_lost": &t.lost} {
		if *dst, err = ebpf.NewMap(spec.Maps[name]); err != nil {
			return fmt.Errorf("map %s: %w", name, err)
		}
	}
	if err := t.outer.Put(uint32(0), t.tables[0]); err != nil {
		return fmt.Errorf("activate table: %w", err)
	}
	ether, err := t.program(etherHeader)
	if err != nil {
		return err
	}
	t.clock.prog = ether.objs.FlowClock
	return t.clock.anchor()
}

// explain adds what a user can do about a refused load.
func explain(err error) error {
	switch {
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

// Epoch makes the other table active, waits until no program is left on the
// old one, and calls apply for each connection in it; then the old one is
// empty. The delta is valid during the call only.
//
// The interfaces' counters are read on both sides of the swap, so that what
// the tap counted up to the swap lies between the two readings.
func (t *Tap) Epoch(apply func(*event.Delta)) error {
	if t.outer == nil {
		return errClosed
	}
	if err := t.readPorts(func(p *port) *baseline { return &p.low }); err != nil {
		return err
	}
	old, next := t.tables[t.active], t.tables[1-t.active]
	// This returns only after an RCU grace period: programs run inside one.
	if err := t.outer.Put(uint32(0), next); err != nil {
		return fmt.Errorf("swap flow tables: %w", err)
	}
	t.active = 1 - t.active
	if err := t.clock.anchor(); err != nil {
		return err
	}
	overflow := t.totals.overflow()
	var err error
	if t.totals, err = t.readRest(); err != nil {
		return err
	}
	t.delta.Overflow = t.totals.overflow() - overflow
	if err := t.readPorts(func(p *port) *baseline { return &p.high }); err != nil {
		return err
	}
	return t.empty(old, apply)
}

func (t *Tap) empty(old *ebpf.Map, apply func(*event.Delta)) error {
	var cursor ebpf.MapBatchCursor
	for {
		n, err := old.BatchLookupAndDelete(&cursor, t.keys, t.values, nil)
		for i := range n {
			t.decode(&t.keys[i], &t.values[i])
			apply(&t.delta)
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read flow table: %w", err)
		}
	}
}

func (t *Tap) readPorts(which func(*port) *baseline) error {
	devices, err := readDevices()
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for index, p := range t.ports {
		if c, ok := devices[index]; ok && p.How != "" {
			which(p).read(c)
		}
	}
	return nil
}

// Quiet tells that no interface has counted anything since the last epoch, so
// that there is nothing to read but what was dropped behind the tap. Asking
// costs a fraction of an epoch.
func (t *Tap) Quiet() bool {
	devices, err := readDevices()
	if err != nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for index, p := range t.ports {
		if p.How != "" && devices[index] != p.low.last {
			return false
		}
	}
	return true
}

// Interfaces tells where the tap is and is not, and what each interface
// counted up to the last epoch, by name.
func (t *Tap) Interfaces() []event.Interface {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]event.Interface, 0, len(t.ports)+1)
	for _, p := range t.ports {
		out = append(out, t.account(p.Interface, p.low.now, p.high.now))
	}
	if t.gone != nil {
		out = append(out, t.account(t.gone.Interface, t.gone.low.now, t.gone.high.now))
	}
	if t.totals[restPlace{egress: false}] != nil || t.totals[restPlace{egress: true}] != nil {
		out = append(out, t.account(event.Interface{Problem: "more interfaces than the overflow table has room for"}, deviceCounters{}, deviceCounters{}))
	}
	slices.SortFunc(out, func(a, b event.Interface) int {
		if a.Left != b.Left {
			if a.Left {
				return 1
			}
			return -1
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out
}

func (t *Tap) account(i event.Interface, low, high deviceCounters) event.Interface {
	if a := t.totals[restPlace{i.Iface, false}]; a != nil {
		i.Ingress = *a
	}
	if a := t.totals[restPlace{i.Iface, true}]; a != nil {
		i.Egress = *a
	}
	i.Ingress.DeviceLow, i.Ingress.DeviceHigh = low.rx, high.rx
	i.Egress.DeviceLow, i.Egress.DeviceHigh = low.tx, high.tx
	return i
}

// KernelMemory is what the kernel charges for the maps, in bytes.
func (t *Tap) KernelMemory() uint64 {
	var sum uint64
	for _, m := range []*ebpf.Map{t.tables[0], t.tables[1], t.outer, t.rest, t.lost} {
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

// Close detaches everything and frees the maps. It is idempotent.
func (t *Tap) Close() error {
	err := t.detachAll()
	for _, p := range t.programs {
		err = errors.Join(err, p.objs.Close())
	}
	t.programs = map[uint32]*instance{}
	for _, m := range []*ebpf.Map{t.tables[0], t.tables[1], t.outer, t.rest, t.lost} {
		if m != nil {
			err = errors.Join(err, m.Close())
		}
	}
	t.tables, t.outer, t.rest, t.lost = [2]*ebpf.Map{}, nil, nil, nil
	return err
}

func ownNetns() (uint32, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return 0, fmt.Errorf("own network namespace: %w", &os.PathError{Op: "stat", Path: "/proc/thread-self/ns/net", Err: err})
	}
	return uint32(st.Ino), nil
}
