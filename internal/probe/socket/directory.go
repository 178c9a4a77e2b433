// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"github.com/orb8/orb8/internal/event"
)

// directory is what one listing found. It does not change: readers of an old
// one are not disturbed by a new one.
type directory struct {
	bound   int
	sockets []record
	// Into sockets: by inode while listing, by cookie, by both ends, by the local
	// end alone.
	inodes  map[uint64]uint32
	cookies map[uint64]uint32
	conns   map[event.Conn]uint32
	places  map[event.Conn]uint32
	cut     uint64
}

func newDirectory(bound int) *directory {
	return &directory{
		bound:   bound,
		inodes:  map[uint64]uint32{},
		cookies: map[uint64]uint32{},
		conns:   map[event.Conn]uint32{},
		places:  map[event.Conn]uint32{},
	}
}

// add takes a socket that a process holds. Several may hold one.
func (d *directory) add(r *record) {
	if r.conn.LocalPort == 0 {
		return // never bound: it carries nothing yet
	}
	if i, ok := d.inodes[r.inode]; ok {
		if s := &d.sockets[i]; s.conn == r.conn && before(&s.process, &r.process) {
			s.process = r.process
		}
		return
	}
	if i, ok := d.keep(r); ok {
		d.inodes[r.inode] = i
	}
}

// before tells that b is rather the user of a socket than a. A socket is handed
// down: systemd opens it for a service, a server for its workers, a monitor for
// its session. So it is whoever started last, and never systemd while another
// has it.
func before(a, b *Process) bool {
	if (a.PID == 1) != (b.PID == 1) {
		return a.PID == 1
	}
	if a.Start != b.Start {
		return a.Start < b.Start
	}
	return a.PID < b.PID
}

func (d *directory) keep(r *record) (uint32, bool) {
	if len(d.sockets) >= d.bound {
		d.cut++
		return 0, false
	}
	i := uint32(len(d.sockets))
	d.sockets = append(d.sockets, *r)
	if r.cookie != 0 {
		d.cookies[r.cookie] = i
	}
	return i, true
}

// seal ends the listing of held sockets: now that each has its owner, they are
// put where they are found by their addresses.
func (d *directory) seal() {
	d.inodes = nil
	for i := range d.sockets {
		d.place(uint32(i))
	}
}

// addKernel takes a socket of the kernel; a process that holds it goes first.
func (d *directory) addKernel(r *record) {
	if _, held := d.cookies[r.cookie]; r.conn.LocalPort == 0 || held && r.cookie != 0 {
		return
	}
	if _, held := d.conns[r.conn]; held {
		return
	}
	// A child of a process's socket that waits to be accepted is not the
	// kernel's, although the kernel may have made its listener (multipath TCP).
	if s := d.at(&r.conn); s != nil && !s.kernel {
		return
	}
	if i, ok := d.keep(r); ok {
		d.place(i)
	}
}

func (d *directory) place(i uint32) {
	s := &d.sockets[i]
	if s.conn.RemotePort != 0 && s.state != stateListen {
		d.conns[s.conn] = i
		return
	}
	if s.conn.Protocol == event.TCP && s.state != stateListen {
		return // bound, and not used yet
	}
	key := s.conn
	key.Remote, key.RemotePort = event.IP{}, 0
	other, shared := d.places[key]
	if !shared {
		d.places[key] = i
		return
	}
	// Several sockets share a port; which one gets a packet is the kernel's
	// secret. What they have in common is still true.
	o := &d.sockets[other]
	if o.process == s.process {
		return
	}
	if o.inode != 0 {
		merged := *o
		merged.cookie, merged.inode, merged.process.PID, merged.process.Start = 0, 0, 0, 0
		d.sockets = append(d.sockets, merged)
		d.places[key] = uint32(len(d.sockets) - 1)
		o = &d.sockets[len(d.sockets)-1]
		s = &d.sockets[i]
	}
	if o.process.Name != s.process.Name {
		o.process.Name = Name{}
	}
	if o.process.Cgroup != s.process.Cgroup {
		o.process.Cgroup = 0
	}
}

// conn finds the socket of a connection by both its ends.
func (d *directory) conn(c *event.Conn) *record {
	key := *c
	key.Ifindex, key.Kind = 0, 0
	if i, ok := d.conns[key]; ok {
		return &d.sockets[i]
	}
	return nil
}

// at finds the socket that receives at the local end what no connected socket
// does: bound to the address, else to all.
func (d *directory) at(c *event.Conn) *record {
	key := event.Conn{Local: c.Local, LocalPort: c.LocalPort, Netns: c.Netns, Protocol: c.Protocol}
	if i, ok := d.places[key]; ok {
		return &d.sockets[i]
	}
	v4 := c.Local.Addr().Is4()
	if v4 {
		key.Local = anyIPv4()
		if i, ok := d.places[key]; ok {
			return &d.sockets[i]
		}
	}
	key.Local = event.IP{}
	if i, ok := d.places[key]; ok && !(v4 && d.sockets[i].v6only) {
		return &d.sockets[i]
	}
	return nil
}

func anyIPv4() event.IP { return event.IP{10: 0xff, 11: 0xff} }
