// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
)

// A clsact filter outlives the process that made it, unlike a TCX link. So each
// process has a token: its filters are named orb8-TOKEN, and a file of that
// name is locked while the process lives and lists the clsact qdiscs that it
// made. Whoever finds a filter whose file nobody holds may remove it.

// DefaultStateDir is where the token files are.
const DefaultStateDir = "/run/orb8"

const (
	filterPrefix   = "orb8-"
	filterPriority = 1
	filterHandle   = 1
)

// clsactOwner is this process as the owner of filters and qdiscs.
type clsactOwner struct {
	token string
	file  *os.File
}

func newClsactOwner(dir string) (*clsactOwner, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("note clsact attachments: %w", err)
	}
	var b [4]byte
	_, _ = rand.Read(b[:])
	o := &clsactOwner{token: hex.EncodeToString(b[:])}
	var err error
	o.file, err = os.OpenFile(tokenFile(dir, o.token), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("note clsact attachments: %w", err)
	}
	if err := unix.Flock(int(o.file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", o.file.Name(), err), o.file.Close())
	}
	return o, nil
}

func tokenFile(dir, token string) string { return filepath.Join(dir, "clsact-"+token) }

// noteQdisc writes down that the qdisc is ours, before it is made.
func (o *clsactOwner) noteQdisc(i event.Iface) error {
	_, err := fmt.Fprintf(o.file, "%d %d\n", i.Netns, i.Index)
	return err
}

// Close forgets the token; filters and qdiscs must be gone by then.
func (o *clsactOwner) Close() error {
	return errors.Join(os.Remove(o.file.Name()), o.file.Close())
}

func (t *Tap) attachClsact(p *port, progs *kernelPrograms) error {
	if t.owner == nil {
		owner, err := newClsactOwner(t.cfg.StateDir)
		if err != nil {
			return err
		}
		t.owner = owner
	}
	made, err := t.makeQdisc(p.Iface)
	if err != nil {
		return err
	}
	if made {
		p.links = append(p.links, clsactQdisc(int(p.Iface.Index)))
	}
	for _, d := range []struct {
		fd     int
		parent uint32
	}{
		{progs.FlowIngress.FD(), netlink.HANDLE_MIN_INGRESS},
		{progs.FlowEgress.FD(), netlink.HANDLE_MIN_EGRESS},
	} {
		f := &netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{
				LinkIndex: int(p.Iface.Index),
				Parent:    d.parent,
				Handle:    filterHandle,
				Protocol:  unix.ETH_P_ALL,
				Priority:  filterPriority,
			},
			Fd:           d.fd,
			Name:         filterPrefix + t.owner.token,
			DirectAction: true,
		}
		if err := addFilter(f); err != nil {
			return fmt.Errorf("clsact filter: %w", err)
		}
		// Filters go before the qdisc.
		p.links = append([]io.Closer{clsactFilter{f}}, p.links...)
	}
	p.How = string(AttachClsact)
	return nil
}

// addFilter takes the first free handle: another filter may share the priority.
func addFilter(f *netlink.BpfFilter) error {
	var err error
	for range 16 {
		if err = netlink.FilterAdd(f); !errors.Is(err, unix.EEXIST) {
			return err
		}
		f.Handle++
	}
	return err
}

func (t *Tap) makeQdisc(i event.Iface) (made bool, err error) {
	if has, err := hasClsact(int(i.Index)); has || err != nil {
		return false, err
	}
	if err := t.owner.noteQdisc(i); err != nil {
		return false, fmt.Errorf("note clsact qdisc: %w", err)
	}
	err = netlink.QdiscAdd(clsact(int(i.Index)))
	if errors.Is(err, unix.EEXIST) { // somebody was quicker
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("clsact qdisc: %w", err)
	}
	return true, nil
}

func hasClsact(index int) (bool, error) {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return false, err
	}
	qdiscs, err := netlink.QdiscList(l)
	if err != nil {
		return false, fmt.Errorf("list qdiscs: %w", err)
	}
	for _, q := range qdiscs {
		if q.Type() == "clsact" {
			return true, nil
		}
	}
	return false, nil
}

func clsact(index int) *netlink.GenericQdisc {
	return &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT},
		QdiscType:  "clsact",
	}
}

// clsactFilter and clsactQdisc end what they name; that it is gone already is
// not an error.
type clsactFilter struct{ *netlink.BpfFilter }

func (f clsactFilter) Close() error { return unlessGone(netlink.FilterDel(f.BpfFilter)) }

// attached looks for the filter where it was put.
func (f clsactFilter) attached() bool {
	at := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: f.LinkIndex}}
	filters, err := netlink.FilterList(at, f.Parent)
	if err != nil {
		return unlessGone(err) != nil
	}
	return slices.ContainsFunc(filters, func(other netlink.Filter) bool {
		b, ok := other.(*netlink.BpfFilter)
		return ok && b.Name == f.Name
	})
}

type clsactQdisc int

// Close removes the qdisc unless somebody else's filter is on it by now.
func (q clsactQdisc) Close() error {
	filters, err := clsactFilters(int(q))
	if err != nil || len(filters) > 0 {
		return unlessGone(err)
	}
	return unlessGone(netlink.QdiscDel(clsact(int(q))))
}

func unlessGone(err error) error {
	var notFound netlink.LinkNotFoundError
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.As(err, &notFound) {
		return nil
	}
	return err
}

func clsactFilters(index int) ([]netlink.Filter, error) {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return nil, err
	}
	var all []netlink.Filter
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := netlink.FilterList(l, parent)
		if err != nil {
			return nil, err
		}
		all = append(all, filters...)
	}
	return all, nil
}

// Cleanup removes, in the calling thread's network namespace, what earlier
// processes left behind when they were killed, and tells what it removed.
// What belongs to a living process stays.
func Cleanup(stateDir string) ([]string, error) {
	if stateDir == "" {
		stateDir = DefaultStateDir
	}
	netns, err := ownNetns()
	if err != nil {
		return nil, err
	}
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	dead := newDeadTokens(stateDir)
	var removed []string
	for _, l := range links {
		did, e := cleanLink(l, netns, dead)
		removed = append(removed, did...)
		err = errors.Join(err, e)
	}
	return removed, errors.Join(err, dead.forget(netns))
}

func cleanLink(l netlink.Link, netns uint32, dead *deadTokens) (removed []string, err error) {
	index, name := l.Attrs().Index, l.Attrs().Name
	filters, err := clsactFilters(index)
	if err != nil {
		return nil, unlessGone(err)
	}
	for _, f := range filters {
		b, ok := f.(*netlink.BpfFilter)
		if !ok || !strings.HasPrefix(b.Name, filterPrefix) || !dead.is(strings.TrimPrefix(b.Name, filterPrefix)) {
			continue
		}
		if err := unlessGone(netlink.FilterDel(b)); err != nil {
			return removed, fmt.Errorf("remove filter of %s: %w", name, err)
		}
		removed = append(removed, fmt.Sprintf("%s: filter %s", name, b.Name))
	}
	if !dead.madeQdisc(event.Iface{Netns: netns, Index: uint32(index)}) {
		return removed, nil
	}
	if has, err := hasClsact(index); err != nil || !has {
		return removed, unlessGone(err)
	}
	if err := clsactQdisc(index).Close(); err != nil {
		return removed, fmt.Errorf("remove qdisc of %s: %w", name, err)
	}
	return append(removed, name+": clsact qdisc"), nil
}

// deadTokens knows which tokens belong to no living process, and the qdiscs
// that their owners made.
type deadTokens struct {
	dir    string
	known  map[string]bool
	qdiscs map[event.Iface]bool
	files  map[string][]event.Iface
}

func newDeadTokens(dir string) *deadTokens {
	d := &deadTokens{dir: dir, known: map[string]bool{}, qdiscs: map[event.Iface]bool{}, files: map[string][]event.Iface{}}
	files, _ := filepath.Glob(tokenFile(dir, "*"))
	for _, f := range files {
		d.is(strings.TrimPrefix(filepath.Base(f), "clsact-"))
	}
	return d
}

// is tells whether the owner of a token is dead: its file can be locked, or is
// not there any more.
func (d *deadTokens) is(token string) bool {
	if dead, ok := d.known[token]; ok {
		return dead
	}
	d.known[token] = d.look(token)
	return d.known[token]
}

func (d *deadTokens) look(token string) bool {
	f, err := os.Open(tokenFile(d.dir, token))
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if err != nil {
		return false
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return false
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		return false
	}
	made := []event.Iface{}
	for line := range strings.Lines(string(b)) {
		ns, index, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err1 := strconv.ParseUint(ns, 10, 32)
		i, err2 := strconv.ParseUint(index, 10, 32)
		if err1 == nil && err2 == nil {
			iface := event.Iface{Netns: uint32(n), Index: uint32(i)}
			made = append(made, iface)
			d.qdiscs[iface] = true
		}
	}
	d.files[token] = made
	return true
}

func (d *deadTokens) madeQdisc(i event.Iface) bool { return d.qdiscs[i] }

// forget removes the files of dead owners whose work was all in this namespace.
func (d *deadTokens) forget(netns uint32) error {
	var err error
	for token, made := range d.files {
		elsewhere := false
		for _, i := range made {
			elsewhere = elsewhere || i.Netns != netns
		}
		if !elsewhere {
			err = errors.Join(err, os.Remove(tokenFile(d.dir, token)))
		}
	}
	return err
}
