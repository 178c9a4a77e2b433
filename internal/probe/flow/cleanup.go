// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
)

// Leftovers is what processes left behind when they were killed: filters and
// qdiscs of clsact. What belongs to a living process stays.
type Leftovers struct {
	dir    string
	mu     sync.Mutex      // guards the rest
	known  map[string]bool // token: its owner is dead
	qdiscs map[event.Iface]bool
	files  map[string][]event.Iface // of dead owners: what is not cleaned yet
	err    error
}

// FindLeftovers looks which owners are dead.
func FindLeftovers(stateDir string) *Leftovers {
	if stateDir == "" {
		stateDir = DefaultStateDir
	}
	d := &Leftovers{dir: stateDir, known: map[string]bool{}, qdiscs: map[event.Iface]bool{}, files: map[string][]event.Iface{}}
	files, _ := filepath.Glob(tokenFile(stateDir, "*"))
	for _, f := range files {
		d.is(strings.TrimPrefix(filepath.Base(f), "clsact-"))
	}
	return d
}

// Clean removes what is in the calling thread's network namespace, and tells
// what it removed.
func (d *Leftovers) Clean() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	netns, err := threadNetns()
	if err != nil {
		return nil, err
	}
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	err = d.err
	var removed []string
	for _, l := range links {
		did, e := d.cleanLink(l, netns)
		removed = append(removed, did...)
		err = errors.Join(err, e)
	}
	return removed, errors.Join(err, d.forget(func(i event.Iface) bool { return i.Netns == netns }))
}

// Forget removes the notes of dead owners, once all namespaces were cleaned: what
// is noted and was not found has ended with its namespace.
func (d *Leftovers) Forget() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.forget(func(event.Iface) bool { return true })
}

func (d *Leftovers) forget(done func(event.Iface) bool) (err error) {
	for f, made := range d.files {
		d.files[f] = slices.DeleteFunc(made, done)
		if len(d.files[f]) > 0 {
			continue
		}
		delete(d.files, f)
		if e := os.Remove(f); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

func (d *Leftovers) cleanLink(l netlink.Link, netns uint32) (removed []string, err error) {
	index, name := l.Attrs().Index, l.Attrs().Name
	made := d.qdiscs[event.Iface{Netns: netns, Index: uint32(index)}]
	if has, err := hasClsact(index); err != nil || !has {
		return nil, unlessGone(err)
	}
	filters, err := clsactFilters(index)
	if err != nil {
		return nil, unlessGone(err)
	}
	for _, f := range filters {
		b, ok := f.(*netlink.BpfFilter)
		if !ok || !strings.HasPrefix(b.Name, filterPrefix) || !d.left(b) {
			continue
		}
		if err := unlessGone(netlink.FilterDel(b)); err != nil {
			return removed, fmt.Errorf("remove filter of %s: %w", name, err)
		}
		direction := "egress"
		if b.Parent == netlink.HANDLE_MIN_INGRESS {
			direction = "ingress"
		}
		removed = append(removed, fmt.Sprintf("%s: %s filter %s", name, direction, b.Name))
	}
	if !made {
		return removed, nil
	}
	did, err := removeQdisc(index)
	if err != nil {
		return removed, fmt.Errorf("remove qdisc of %s: %w", name, err)
	}
	if did {
		removed = append(removed, name+": clsact qdisc")
	}
	return removed, nil
}

// left tells whether the owner of a filter is dead. One that keeps its notes
// elsewhere is asked for in the kernel.
func (d *Leftovers) left(f *netlink.BpfFilter) bool {
	token := strings.TrimPrefix(f.Name, filterPrefix)
	if _, err := os.Stat(tokenFile(d.dir, token)); err == nil || d.known[token] {
		return d.is(token)
	}
	dead, known := ownerIsDead(ebpf.ProgramID(f.Id))
	return known && dead
}

// ownerIsDead reads it off the program: with the process that loaded it the
// kernel empties the array of programs that it goes on to.
func ownerIsDead(id ebpf.ProgramID) (dead, known bool) {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return false, false
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return false, false
	}
	maps, _ := info.MapIDs()
	for _, id := range maps {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			continue
		}
		var next uint32
		is := m.Type() == ebpf.ProgramArray
		if is {
			err = m.Lookup(uint32(0), &next)
		}
		_ = m.Close()
		if is {
			return errors.Is(err, ebpf.ErrKeyNotExist), err == nil || errors.Is(err, ebpf.ErrKeyNotExist)
		}
	}
	return false, false
}

// is tells whether the owner of a token is dead: its file can be locked, or is
// not there any more.
func (d *Leftovers) is(token string) bool {
	if dead, ok := d.known[token]; ok {
		return dead
	}
	d.known[token] = d.look(token)
	return d.known[token]
}

func (d *Leftovers) look(token string) bool {
	f, err := os.Open(tokenFile(d.dir, token))
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if errors.Is(err, fs.ErrPermission) {
		d.err = fmt.Errorf("whether it is in use: %w (needs root)", err)
	}
	if err != nil {
		return false
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return false
	}
	made, err := readNotes(f.Name())
	if err != nil {
		return false
	}
	for _, i := range made {
		d.qdiscs[i] = true
	}
	d.files[f.Name()] = made
	return true
}

// readNotes is what an owner wrote down with noteQdisc.
func readNotes(path string) ([]event.Iface, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var made []event.Iface
	for line := range strings.Lines(string(b)) {
		ns, index, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err1 := strconv.ParseUint(ns, 10, 32)
		i, err2 := strconv.ParseUint(index, 10, 32)
		if err1 == nil && err2 == nil {
			made = append(made, event.Iface{Netns: uint32(n), Index: uint32(i)})
		}
	}
	return made, nil
}

// noted tells whether any other owner, dead or alive, wrote a qdisc down.
func noted(dir string, i event.Iface, but string) bool {
	files, _ := filepath.Glob(tokenFile(dir, "*"))
	return slices.ContainsFunc(files, func(f string) bool {
		if f == tokenFile(dir, but) {
			return false
		}
		made, err := readNotes(f)
		return err == nil && slices.Contains(made, i)
	})
}

func threadNetns() (uint32, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return 0, fmt.Errorf("own network namespace: %w", err)
	}
	defer f.Close()
	return inode(f)
}
