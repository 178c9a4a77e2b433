// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

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
	// Not the first handles, which others take or replace without a look.
	filterHandle = 0x6f38
)

// clsactOwner is this process as the owner of filters and qdiscs, from the first
// one on.
type clsactOwner struct {
	dir string

	mu    sync.Mutex
	token string
	file  *os.File
	made  map[event.Iface]int // qdisc: ports that count on it
	lines int                 // in the file
}

// open makes the token, unless there is one.
func (o *clsactOwner) open() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file != nil {
		return nil
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return fmt.Errorf("note clsact attachments: %w", err)
	}
	var b [4]byte
	_, _ = rand.Read(b[:])
	token := hex.EncodeToString(b[:])
	file, err := os.OpenFile(tokenFile(o.dir, token), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("note clsact attachments: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return errors.Join(fmt.Errorf("lock %s: %w", file.Name(), err), file.Close())
	}
	o.token, o.file, o.made = token, file, map[event.Iface]int{}
	return nil
}

// has tells whether there may be filters of this process.
func (o *clsactOwner) has() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.file != nil
}

// name is that of the filters.
func (o *clsactOwner) name() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return filterPrefix + o.token
}

func tokenFile(dir, token string) string { return filepath.Join(dir, "clsact-"+token) }

// noteQdisc writes down that the qdisc is ours, before it is made, and tells
// whether it was before.
func (o *clsactOwner) noteQdisc(i event.Iface) (ours bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.made[i]++
	return o.made[i] > 1, o.write(i)
}

// write is for who holds mu.
func (o *clsactOwner) write(i event.Iface) error {
	o.lines++
	_, err := fmt.Fprintf(o.file, "%d %d\n", i.Netns, i.Index)
	return err
}

// dropQdisc forgets a qdisc that is gone, or that one port less counts on, now
// and then in the file, too: a node sees many namespaces.
func (o *clsactOwner) dropQdisc(i event.Iface) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.made[i]--; o.made[i] <= 0 {
		delete(o.made, i)
	}
	if o.lines < 64+2*len(o.made) {
		return
	}
	// Killed in between, a qdisc without filters stays: nobody misses anything.
	if o.file.Truncate(0) != nil {
		return
	}
	o.lines = 0
	for i := range o.made {
		if o.write(i) != nil {
			return
		}
	}
}

// Close forgets the token; filters and qdiscs must be gone by then.
func (o *clsactOwner) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file == nil {
		return nil
	}
	err := errors.Join(os.Remove(o.file.Name()), o.file.Close())
	o.file = nil
	return err
}

func (t *Tap) attachClsact(p *port, progs *instance) error {
	if err := t.owner.open(); err != nil {
		return err
	}
	ours, err := t.owner.noteQdisc(t.device(p))
	if err != nil {
		return fmt.Errorf("note clsact qdisc: %w", err)
	}
	var filters []*netlink.BpfFilter
	for _, h := range hooks(p, progs) {
		filters = append(filters, &netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{
				LinkIndex: int(p.Iface.Index),
				Parent:    h.clsact,
				Handle:    filterHandle,
				Protocol:  unix.ETH_P_ALL,
				Priority:  filterPriority,
			},
			Fd:           h.program.FD(),
			Name:         t.owner.name(),
			DirectAction: true,
		})
	}
	qdisc, added, err := submitClsact(int(p.Iface.Index), filters)
	if err != nil {
		return err
	}
	made, err := t.madeQdisc(t.device(p), ours, qdisc)
	for i, f := range filters {
		if err == nil && added[i] != nil {
			added[i] = addFilter(f)
			err = added[i]
		}
		if added[i] == nil {
			p.links = append(p.links, clsactFilter{f})
		}
	}
	if made { // it goes after its filters
		p.links = append(p.links, clsactQdisc{&t.owner, t.device(p)})
	}
	if err != nil {
		return fmt.Errorf("clsact: %w", err)
	}
	p.How = string(AttachClsact)
	return nil
}

// addFilter takes the first free place: another filter may have the handle, or
// the priority for one protocol only, which the kernel refuses to share.
func addFilter(f *netlink.BpfFilter) error {
	var err error
	for range 16 {
		err = netlink.FilterAdd(f)
		switch {
		case errors.Is(err, unix.EEXIST):
			f.Handle++
		case errors.Is(err, unix.EINVAL):
			f.Priority++
		default:
			return err
		}
	}
	return err
}

// madeQdisc tells whether a qdisc that was asked for is orb8's to remove. One that
// another orb8 made is: whoever is the last on it removes it.
func (t *Tap) madeQdisc(i event.Iface, ours bool, answer error) (made bool, err error) {
	switch {
	case answer == nil:
		return true, nil
	case !errors.Is(answer, unix.EEXIST):
		t.owner.dropQdisc(i)
		return false, fmt.Errorf("qdisc: %w", answer)
	case ours || noted(t.cfg.StateDir, i, strings.TrimPrefix(t.owner.name(), filterPrefix)):
		return true, nil
	}
	t.owner.dropQdisc(i)
	if has, err := hasClsact(int(i.Index)); has || err != nil {
		return false, err
	}
	return false, errors.New("an ingress qdisc is where it has to go (see: tc qdisc show)")
}

func hasClsact(index int) (bool, error) {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return false, err
	}
	qdiscs, err := netlink.QdiscList(l)
	// One that was overlooked in an interrupted dump is found when it is added.
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
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

// state looks for the filter where it was put, among those that run before.
func (f clsactFilter) state() (attached bool, before string) {
	before = tcxProgram(f.LinkIndex, f.Parent)
	at := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: f.LinkIndex}}
	filters, err := netlink.FilterList(at, f.Parent)
	if err != nil {
		return unlessGone(err) != nil, before
	}
	for _, other := range filters {
		a := other.Attrs()
		b, ok := other.(*netlink.BpfFilter)
		ours := ok && strings.HasPrefix(b.Name, filterPrefix)
		if ok && b.Name == f.Name && a.Handle == f.Handle && a.Priority == f.Priority {
			return true, before
		}
		if !ours && before == "" {
			before = fmt.Sprintf("%s filter of priority %d", other.Type(), a.Priority)
			if ok && b.Name != "" {
				before = b.Name
			}
		}
	}
	return false, ""
}

type clsactQdisc struct {
	owner *clsactOwner
	iface event.Iface
}

// state: its filters tell whether it is there.
func (q clsactQdisc) state() (attached bool, before string) { return true, "" }

// Close removes the qdisc unless somebody else's filter is on it by now.
func (q clsactQdisc) Close() error {
	q.owner.dropQdisc(q.iface)
	_, err := removeQdisc(int(q.iface.Index))
	return err
}

func removeQdisc(index int) (removed bool, err error) {
	filters, err := clsactFilters(index)
	if err != nil || len(filters) > 0 {
		return false, unlessGone(err)
	}
	err = netlink.QdiscDel(clsact(index))
	return err == nil, unlessGone(err)
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
