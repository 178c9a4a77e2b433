// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
)

// port is one interface that the tap is on, was on, or could not get on.
type port struct {
	event.Interface
	// One for each direction.
	links []io.Closer
	// What the device counted since attaching lies between the two.
	low, high baseline
	gone      time.Time
	unread    bool // gone before its last counters were read
}

// Sync makes what is attached match the interfaces that exist. It returns an
// error only when the interfaces cannot be listed; one that cannot be tapped
// is reported by Interfaces, and the rest goes on.
func (t *Tap) Sync() error {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list interfaces: %w", err)
	}
	masters := make(map[int]netlink.Link, len(links))
	for _, l := range links {
		masters[l.Attrs().Index] = l
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return errClosed
	}
	// Why an interface is not tapped; "" where it is.
	why := make(map[uint32]string, len(links))
	for _, l := range links {
		index := uint32(l.Attrs().Index)
		if why[index] = untapped(l, masters); why[index] != "" {
			continue
		}
		p := t.ports[index]
		if p != nil && p.gone.IsZero() {
			t.renamed(p, l.Attrs().Name)
			if p.How != "" && p.attached() {
				continue
			}
			p.release()
		}
		t.attach(l)
	}
	for index, p := range t.ports {
		reason, exists := why[index]
		if !exists {
			reason = gone
		}
		if reason != "" && p.gone.IsZero() {
			t.detach(p)
		}
		if reason != "" {
			p.Problem, p.Left = reason, true
		}
	}
	return nil
}

// gone is the reason for not tapping an interface that does not exist.
const gone = "gone"

// untapped: loopback is counted only on request; a member of a bridge, bond or
// team is not a place where this namespace sends or receives, a member of a
// VRF is.
func untapped(l netlink.Link, masters map[int]netlink.Link) string {
	a := l.Attrs()
	if a.RawFlags&unix.IFF_LOOPBACK != 0 {
		return "loopback"
	}
	if a.MasterIndex == 0 {
		return ""
	}
	master := masters[a.MasterIndex]
	if master == nil {
		return "member of another interface"
	}
	if master.Type() == "vrf" {
		return ""
	}
	return "member of " + master.Attrs().Name
}

func (t *Tap) renamed(p *port, name string) {
	if p.Name != name {
		t.log.Info("interface renamed", "from", p.Name, "to", name)
		p.Name = name
	}
}

// attach taps one interface in both directions or not at all.
func (t *Tap) attach(l netlink.Link) {
	a := l.Attrs()
	p := &port{Interface: event.Interface{
		Iface: event.Iface{Netns: t.netns, Index: uint32(a.Index)},
		Name:  a.Name,
	}}
	old := t.ports[p.Iface.Index]
	if old != nil {
		// Left a bridge, say: the account goes on.
		p.low, p.high = old.low, old.high
	}
	t.ports[p.Iface.Index] = p
	err := t.attachBoth(p, a.EncapType)
	switch {
	case err == nil:
		t.log.Info("Attached flow probe", "interface", p.Name, "by", p.How)
	case errors.Is(err, unix.ENODEV), errors.As(err, &netlink.LinkNotFoundError{}):
		// Gone between listing and attaching.
		delete(t.ports, p.Iface.Index)
	default:
		p.Problem = err.Error()
		if old == nil || old.Problem != p.Problem {
			t.log.Warn("Not attached: flow probe", "interface", p.Name, "error", err)
		}
	}
}

func (t *Tap) attachBoth(p *port, encap string) error {
	header, err := linkHeader(encap)
	if err != nil {
		return err
	}
	prog, err := t.program(header)
	if err != nil {
		return explain(err)
	}
	before, err := readDevice(p.Iface.Index)
	if err != nil {
		return err
	}
	if err := t.attachPrograms(p, &prog.objs); err != nil {
		p.release()
		return explain(err)
	}
	after, err := readDevice(p.Iface.Index)
	if err != nil {
		p.release()
		return err
	}
	// What is counted between the two readings may or may not have been tapped.
	p.low.start(after)
	p.high.start(before)
	return nil
}

func (t *Tap) attachPrograms(p *port, progs *kernelPrograms) error {
	if t.cfg.Attach != AttachClsact && !t.refused {
		err := attachTCX(p, progs)
		if err == nil || t.cfg.Attach == AttachTCX || !errors.Is(err, ebpf.ErrNotSupported) {
			return err
		}
		t.refused = true
		t.log.Info("this kernel has no TCX (6.6 has it), using clsact")
	}
	return t.attachClsact(p, progs)
}

func attachTCX(p *port, progs *kernelPrograms) error {
	for _, d := range []struct {
		prog *ebpf.Program
		at   ebpf.AttachType
	}{{progs.FlowIngress, ebpf.AttachTCXIngress}, {progs.FlowEgress, ebpf.AttachTCXEgress}} {
		l, err := link.AttachTCX(link.TCXOptions{
			Interface: int(p.Iface.Index),
			Program:   d.prog,
			Attach:    d.at,
			Anchor:    link.Head(),
		})
		if err != nil {
			return err
		}
		p.links = append(p.links, tcxLink{l})
	}
	p.How = string(AttachTCX)
	return nil
}

// linkHeader is the length of what stands before the IP header, by device type.
func linkHeader(encap string) (uint32, error) {
	switch encap {
	case "ether":
		return etherHeader, nil
	case "none", "rawip", "ipip", "tunnel", "tunnel6", "sit", "gre", "gre6", "ppp":
		return 0, nil
	}
	return 0, fmt.Errorf("device type %q is not known to the tap", encap)
}

// detach ends the tap on one interface and keeps its account, which is read up
// to this moment where the interface is still there.
func (t *Tap) detach(p *port) {
	before, err1 := readDevices()
	p.release()
	after, err2 := readDevices()
	if c, ok := before[p.Iface.Index]; ok && err1 == nil {
		p.low.read(c)
	}
	if c, ok := after[p.Iface.Index]; ok && err2 == nil {
		p.high.read(c)
	} else {
		p.unread = true
	}
	p.gone = time.Now()
	t.log.Info("Detached flow probe", "interface", p.Name)
}

// attached tells whether all that was attached still is. Another process may
// remove a filter, and an index may come back as another interface.
func (p *port) attached() bool {
	for _, c := range p.links {
		if a, ok := c.(interface{ attached() bool }); ok && !a.attached() {
			return false
		}
	}
	return true
}

func (p *port) release() {
	for _, c := range p.links {
		// The interface has usually taken the attachment along already.
		_ = c.Close()
	}
	p.links, p.How = nil, ""
}

// tcxLink is a link that tells whether its interface is still there.
type tcxLink struct{ link.Link }

func (l tcxLink) attached() bool {
	info, err := l.Info()
	if err != nil || info.TCX() == nil {
		return true // not told; nothing says that it is gone
	}
	return info.TCX().Ifindex != 0
}

func (t *Tap) detachAll() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	var err error
	for _, p := range t.ports {
		for _, c := range p.links {
			err = errors.Join(err, c.Close())
		}
		p.links = nil
	}
	t.ports = map[uint32]*port{}
	if t.owner != nil {
		err = errors.Join(err, t.owner.Close())
		t.owner = nil
	}
	return err
}

// Follow keeps the tap on the interfaces as they come and go, until ctx ends.
func (t *Tap) Follow(ctx context.Context) error {
	for {
		if err := t.follow(ctx); err != nil || ctx.Err() != nil {
			return err
		}
		// The subscription broke, as when its buffer overflowed.
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
		if err := t.Sync(); err != nil {
			t.log.Warn("interfaces not followed", "error", err)
		}
	}
}

// follow is one subscription, until it breaks or ctx ends.
func (t *Tap) follow(ctx context.Context) error {
	updates := make(chan netlink.LinkUpdate, 64)
	failed := make(chan error, 1)
	err := netlink.LinkSubscribeWithOptions(updates, ctx.Done(), netlink.LinkSubscribeOptions{
		ErrorCallback: func(err error) {
			select {
			case failed <- err:
			default:
			}
		},
	})
	if err != nil {
		return fmt.Errorf("follow interfaces: %w", err)
	}
	// What the kernel could not tell is found by looking.
	sweep := time.NewTicker(30 * time.Second)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case u, open := <-updates:
			if !open {
				select {
				case err := <-failed:
					t.log.Warn("lost track of interfaces, looking again", "error", err)
				default:
				}
				return nil
			}
			t.lastWords(&u)
			t.drain(updates)
		case <-sweep.C:
		}
		if err := t.Sync(); err != nil {
			t.log.Warn("interfaces not followed", "error", err)
		}
	}
}

// drain takes what else has arrived: one look at the interfaces answers all.
func (t *Tap) drain(updates <-chan netlink.LinkUpdate) {
	for {
		select {
		case u, open := <-updates:
			if !open {
				return
			}
			t.lastWords(&u)
		default:
			return
		}
	}
}

// lastWords reads the counters that an interface takes leave with: it cannot
// be asked any more.
func (t *Tap) lastWords(u *netlink.LinkUpdate) {
	if u.Header.Type != unix.RTM_DELLINK || u.IfInfomsg.Family != unix.AF_UNSPEC || u.Link == nil || u.Attrs().Statistics == nil {
		return
	}
	st := u.Attrs().Statistics
	c := deviceCounters{
		rx: event.Counter{Packets: st.RxPackets, Bytes: st.RxBytes},
		tx: event.Counter{Packets: st.TxPackets, Bytes: st.TxBytes},
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.ports[uint32(u.Attrs().Index)]; p != nil && (p.How != "" || p.unread) {
		p.unread = false
		p.low.read(c)
		p.high.read(c)
	}
}
