// SPDX-License-Identifier: Apache-2.0

package enrich

import (
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/probe/socket"
)

// owner finds who holds the socket of a connection. What only sends or answers
// below sockets (echo replies, later fragments) has none to look for.
func (e *Enricher) owner(f *event.Flow) (o socket.Owner, known, final bool) {
	if e.cfg.Sockets == nil || f.Conn.Kind != event.ConnPlain && f.Cookie == 0 {
		return o, false, true
	}
	if f.Cookie != 0 {
		if o, known = e.cfg.Sockets.Owner(f.Cookie); known && o.Final {
			return o, true, true
		}
	}
	if !known && ofTheStack(&f.Conn) {
		return o, false, true
	}
	byPlace, found := e.cfg.Sockets.Find(&f.Conn)
	// What systemd makes or listens for is not for itself.
	known = known && o.PID != 1
	switch {
	case !found:
		return o, known, false
	case f.Cookie != 0 && !byPlace.Kernel:
		// A socket of which a listing does not know the cookie is younger than it,
		// and perhaps another than was found at its place.
		byPlace.Final = false
	}
	return byPlace, byPlace.Final || byPlace.PID != 1, byPlace.Final
}

// ofTheStack: neighbour discovery, multicast reports, echo replies and errors
// are sent by the network stack itself, through sockets that nobody holds. Only
// a process that sends such things by a socket of its own is known at once.
func ofTheStack(c *event.Conn) bool {
	const igmp = 2
	switch c.Protocol {
	case event.ICMP, event.ICMPv6:
		return c.Kind != event.ConnEchoOpenedLocal
	case igmp:
		return true
	}
	return false
}

// opener tells who opened a connection that is older than the agent: the end
// that listens is the server. It says nothing where that does not decide.
func (e *Enricher) opener(f *event.Flow) {
	c := &f.Conn
	if f.OpenedBy != event.OpenerUnknown || c.Kind != event.ConnPlain || c.LocalPort == 0 || c.RemotePort == 0 ||
		e.cfg.Sockets == nil || e.cfg.Sockets.Generation() == 0 {
		return
	}
	low, high := e.cfg.Ephemeral(c.Netns)
	client := func(port uint16) bool { return port >= low && port <= high }
	listens := e.cfg.Sockets.Listening(c)
	if c.Protocol == event.UDP {
		// Clients are bound and not connected as servers are: ports decide.
		listens = listens && !client(c.LocalPort)
		if listens && !client(c.RemotePort) {
			return
		}
	}
	switch {
	case listens:
		f.OpenedBy = event.OpenerRemote
	case client(c.LocalPort) && !client(c.RemotePort) && (c.Protocol == event.TCP || c.Protocol == event.UDP || c.Protocol == event.SCTP):
		f.OpenedBy = event.OpenerLocal
	}
}
