// SPDX-License-Identifier: Apache-2.0

// Package capture copies packets that a filter lets through out of the kernel,
// for as long as somebody wants them. Nothing of it is loaded otherwise, and what
// it attaches ends with the process, however that ends: a TCX link, or before
// kernel 6.6 a packet socket. It never keeps a packet from anybody, writes no
// file, and knows nothing of pods: it is told interfaces, and which addresses are
// whose. The agent reads it.
package capture

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/filter"
)

// Bounds of one capture.
const (
	// MaxInterfaces is how many interfaces it may be on, one after another
	// included.
	MaxInterfaces = 256
	// MaxSnaplen is how much of a packet it can keep.
	MaxSnaplen = 65536
	// DefaultRing is the room for packets that are not read yet: a third of a
	// second of 100,000 small ones a second.
	DefaultRing = 8 << 20
)

// Config of a capture.
type Config struct {
	// Of its fields, those that a packet tells by itself: protocols, ports,
	// addresses and directions. Src is who sent the packet, and egress what the
	// namespace sends. Ends that are pods are in each Target.
	Filter filter.Filter
	// Bytes kept of each packet.
	Snaplen uint32
	// Bytes, a power of two; 0 means DefaultRing.
	Ring uint32
	// Enter runs fn on a thread that is in a network namespace. Nothing of it is
	// kept open but, before 6.6, the packet socket.
	Enter func(netns uint32, fn func() error) error
	// Sockets takes a packet socket where the kernel has TCX, too.
	Sockets bool
	Log     *slog.Logger
}

// Target is an interface to capture at, and which ends of its packets are pods
// that were asked for.
type Target struct {
	event.Iface
	Include, Exclude Ends
}

// Ends are the senders and the receivers that the filter names by pod.
type Ends struct{ From, To Pods }

// Pods are those at one end.
type Pods struct {
	// Asked for at all.
	Set bool
	// The pod that the interface is of is one of them.
	Local bool
	// Where the others are.
	Remote []event.IP
}

// Link types as pcap numbers them.
const (
	LinkEthernet = 1
	LinkRaw      = 101
)

// Interface is one that packets are captured at.
type Interface struct {
	// In this capture, from 0.
	Number   uint32
	LinkType uint32
}

// Count is what happened at one interface.
type Count struct {
	// By the filter.
	Matched uint64
	// Of those: found no room in the ring.
	Dropped uint64
}

// Capture is one that runs. It is for one goroutine.
type Capture struct {
	cfg      Config
	spec     *ebpf.CollectionSpec
	ring     *ebpf.Map
	counts   *ebpf.Map
	reader   *ringbuf.Reader
	record   ringbuf.Record
	sockets  bool
	next     uint32
	attached map[uint32][]closer
}

type closer interface{ Close() error }

// ErrGone says that there is no such interface any more.
var ErrGone = errors.New("the interface is gone")

// ErrFull says that a capture has been on as many interfaces as it can be.
var ErrFull = fmt.Errorf("a capture can be on %d interfaces, narrow the filter", MaxInterfaces)

// Open makes the room for packets; nothing is attached yet. A filter that asks
// for too much is refused.
func Open(cfg Config) (*Capture, error) {
	if cfg.Snaplen == 0 || cfg.Snaplen > MaxSnaplen {
		return nil, fmt.Errorf("capture: %d bytes of a packet: allowed are 1 to %d", cfg.Snaplen, MaxSnaplen)
	}
	if cfg.Ring == 0 {
		cfg.Ring = DefaultRing
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := check(&cfg.Filter); err != nil {
		return nil, err
	}
	c := &Capture{cfg: cfg, sockets: cfg.Sockets, attached: map[uint32][]closer{}}
	if err := c.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open capture: %w", err), c.Close())
	}
	return c, nil
}

func (c *Capture) open() (err error) {
	// Needed before 5.11 only; where it is refused the load below says so.
	_ = rlimit.RemoveMemlock()
	if c.spec, err = loadKernel(); err != nil {
		return err
	}
	c.spec.Maps[kernelMapCaptureRing].MaxEntries = c.cfg.Ring
	c.spec.Maps[kernelMapCaptureCounts].MaxEntries = MaxInterfaces
	if c.ring, err = ebpf.NewMap(c.spec.Maps[kernelMapCaptureRing]); err != nil {
		return fmt.Errorf("ring of %d bytes: %w", c.cfg.Ring, err)
	}
	if c.counts, err = ebpf.NewMap(c.spec.Maps[kernelMapCaptureCounts]); err != nil {
		return err
	}
	c.reader, err = ringbuf.NewReader(c.ring)
	return err
}

// Attach begins to capture at an interface, in both directions or not at all.
func (c *Capture) Attach(t *Target) (Interface, error) {
	if c.next >= MaxInterfaces {
		return Interface{}, ErrFull
	}
	i := Interface{Number: c.next, LinkType: LinkEthernet}
	var held []closer
	err := c.cfg.Enter(t.Netns, func() error {
		l, err := netlink.LinkByIndex(int(t.Index))
		if err != nil {
			return err
		}
		if kind := l.Attrs().EncapType; kind != "ether" && kind != "loopback" {
			i.LinkType = LinkRaw
		}
		held, err = c.attach(t, i)
		return err
	})
	if errors.As(err, &netlink.LinkNotFoundError{}) || errors.Is(err, unix.ENODEV) {
		err = ErrGone
	}
	if err != nil {
		return Interface{}, fmt.Errorf("capture at interface %d of network namespace %d: %w", t.Index, t.Netns, err)
	}
	c.attached[i.Number] = held
	c.next++
	return i, nil
}

func (c *Capture) attach(t *Target, i Interface) ([]closer, error) {
	spec, err := c.instance(t, i)
	if err != nil {
		return nil, err
	}
	if !c.sockets {
		held, err := c.attachTCX(spec.Copy(), t)
		if err == nil || !errors.Is(err, ebpf.ErrNotSupported) {
			return held, err
		}
		c.cfg.Log.Info("this kernel has no TCX (6.6 has), capturing by packet sockets")
		c.sockets = true
	}
	return c.attachSocket(spec, t)
}

// attachTCX goes before all others, as the tap does: a packet is seen as it comes
// in, and as it is sent.
func (c *Capture) attachTCX(spec *ebpf.CollectionSpec, t *Target) (held []closer, err error) {
	var programs struct {
		In  *ebpf.Program `ebpf:"flow_capture_in"`
		Out *ebpf.Program `ebpf:"flow_capture_out"`
	}
	if err := spec.LoadAndAssign(&programs, c.options()); err != nil {
		return nil, fmt.Errorf("load programs: %w", err)
	}
	// The links hold them.
	defer programs.In.Close()
	defer programs.Out.Close()
	hooks := []struct {
		program *ebpf.Program
		at      ebpf.AttachType
	}{{programs.In, ebpf.AttachTCXIngress}, {programs.Out, ebpf.AttachTCXEgress}}
	if t.Index == loopback {
		hooks = hooks[1:] // what leaves by it comes in by it
	}
	for _, h := range hooks {
		l, err := link.AttachTCX(link.TCXOptions{Interface: int(t.Index), Program: h.program, Attach: h.at, Anchor: link.Head()})
		if err != nil {
			return nil, errors.Join(err, closeAll(held))
		}
		held = append(held, l)
	}
	return held, nil
}

// loopback is an index that each namespace has.
const loopback = 1

// socket is a packet socket, which keeps its namespace alive: it is closed as
// soon as the interface is gone.
type socket int

func (s socket) Close() error { return unix.Close(int(s)) }

// attachSocket sees what comes in before the tap does, and what leaves after it.
func (c *Capture) attachSocket(spec *ebpf.CollectionSpec, t *Target) ([]closer, error) {
	var programs struct {
		Socket *ebpf.Program `ebpf:"capture_socket"`
	}
	if err := spec.LoadAndAssign(&programs, c.options()); err != nil {
		return nil, fmt.Errorf("load program: %w", err)
	}
	defer programs.Socket.Close()
	// Without a protocol it hears nothing until its filter is there.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, programs.Socket.FD())
	if err == nil {
		all := uint16(unix.ETH_P_ALL)
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: int(t.Index)})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("packet socket: %w", err), unix.Close(fd))
	}
	return []closer{socket(fd)}, nil
}

// Pins tells whether what is attached keeps namespaces alive.
func (c *Capture) Pins() bool { return c.sockets }

// Detach ends the capture at an interface. What it captured stays to be read.
func (c *Capture) Detach(number uint32) error {
	held := c.attached[number]
	delete(c.attached, number)
	return closeAll(held)
}

// Stop ends the capture everywhere.
func (c *Capture) Stop() (err error) {
	for number := range c.attached {
		err = errors.Join(err, c.Detach(number))
	}
	return err
}

func closeAll(held []closer) (err error) {
	for _, h := range held {
		err = errors.Join(err, h.Close())
	}
	return err
}

// Counts are those of all interfaces so far, by their numbers.
func (c *Capture) Counts() ([]Count, error) {
	counts := make([]Count, c.next)
	var perCPU []kernelCaptureCount
	for i := range counts {
		if err := c.counts.Lookup(uint32(i), &perCPU); err != nil {
			return nil, fmt.Errorf("counts of a capture: %w", err)
		}
		for _, n := range perCPU {
			counts[i].Matched += n.Matched
			counts[i].Dropped += n.Dropped
		}
	}
	return counts, nil
}

// Close ends the capture; what is not read is lost.
func (c *Capture) Close() error {
	err := c.Stop()
	if c.reader != nil {
		err = errors.Join(err, c.reader.Close())
		c.reader = nil
	}
	for _, m := range []**ebpf.Map{&c.ring, &c.counts} {
		if *m != nil {
			err = errors.Join(err, (*m).Close())
			*m = nil
		}
	}
	return err
}
