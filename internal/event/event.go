// SPDX-License-Identifier: Apache-2.0

// Package event holds the words of orb8: what a connection is, who its ends
// are, and what happened to it. It holds no behaviour beyond naming, imports
// nothing of orb8, and is read by every other room.
//
// Conn, Delta and Flow are values without heap parts except identities, so
// that the hot path copies them and allocates nothing.
package event

import (
	"encoding/binary"
	"net/netip"
)

// IP is an address in network order; IPv4 is mapped into IPv6 (::ffff:a.b.c.d).
type IP [16]byte

// Addr gives the address in Go's own form, IPv4 unmapped.
func (ip IP) Addr() netip.Addr { return netip.AddrFrom16(ip).Unmap() }

// IPFrom is the inverse of Addr.
func IPFrom(a netip.Addr) IP { return a.As16() }

// Conn names a connection as one interface of one network namespace saw it.
// It is the key of the flow table: comparable, and 48 bytes.
type Conn struct {
	Local, Remote IP
	// Ports in host order. ICMP echo: LocalPort is the echo id, RemotePort 0.
	// Other ICMP, other protocols and later fragments: both 0.
	LocalPort, RemotePort uint16
	Ifindex               uint32
	// Inode number of the network namespace (the kernel's are 32 bits wide).
	Netns    uint32
	Protocol Protocol
	Kind     ConnKind
	// Named, so that the compiler compares and hashes 48 plain bytes; zero.
	Reserved [2]byte
}

// Ports are the ports as shown to people: an ICMP echo id is not a port.
func (c *Conn) Ports() (local, remote uint16) {
	if c.Kind != ConnPlain {
		return 0, 0
	}
	return c.LocalPort, c.RemotePort
}

// ID is the same at both ends of a connection: FNV-1a (64 bit) over the
// protocol, the kind without its side, and the two (address, port) pairs in
// the order of their bytes. Ports are big-endian. See docs/api.md.
func (c *Conn) ID() uint64 {
	var a, b [18]byte
	copy(a[:], c.Local[:])
	copy(b[:], c.Remote[:])
	lp, rp := c.LocalPort, c.RemotePort
	kind := c.Kind
	if kind == ConnEchoOpenedLocal || kind == ConnEchoOpenedRemote {
		// Both ends know the echo id, and neither has a port.
		kind, rp = ConnEchoOpenedLocal, lp
	}
	binary.BigEndian.PutUint16(a[16:], lp)
	binary.BigEndian.PutUint16(b[16:], rp)
	if string(a[:]) > string(b[:]) {
		a, b = b, a
	}
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	h = (h ^ uint64(c.Protocol)) * prime
	h = (h ^ uint64(kind)) * prime
	for _, x := range a {
		h = (h ^ uint64(x)) * prime
	}
	for _, x := range b {
		h = (h ^ uint64(x)) * prime
	}
	return h
}

// ConnKind tells apart connections that ports do not.
type ConnKind uint8

// The kinds. An echo's key holds who asked, so that two hosts that ping each
// other with one id stay two conversations.
const (
	ConnPlain ConnKind = iota
	ConnEchoOpenedLocal
	ConnEchoOpenedRemote
	ConnFragment
)

// Traffic counts wire bytes, Ethernet header included, and segments, as the
// local end sends (Tx) and receives (Rx) them.
type Traffic struct {
	TxBytes, TxPackets, RxBytes, RxPackets uint64
}

// Add adds o to t.
func (t *Traffic) Add(o Traffic) {
	t.TxBytes += o.TxBytes
	t.TxPackets += o.TxPackets
	t.RxBytes += o.RxBytes
	t.RxPackets += o.RxPackets
}

// Reversed is t as the other end sees it.
func (t *Traffic) Reversed() Traffic {
	return Traffic{TxBytes: t.RxBytes, TxPackets: t.RxPackets, RxBytes: t.TxBytes, RxPackets: t.TxPackets}
}

// Sub takes o from t; o must be a part of t.
func (t *Traffic) Sub(o Traffic) {
	t.TxBytes -= o.TxBytes
	t.TxPackets -= o.TxPackets
	t.RxBytes -= o.RxBytes
	t.RxPackets -= o.RxPackets
}

// Bytes is both directions together.
func (t *Traffic) Bytes() uint64 { return t.TxBytes + t.RxBytes }

// Packets is both directions together.
func (t *Traffic) Packets() uint64 { return t.TxPackets + t.RxPackets }

// Delta is what one connection did in one epoch.
type Delta struct {
	Conn Conn
	// Unix nanoseconds of the first and last packet of the epoch.
	First, Last int64
	Traffic     Traffic
	// What segmentation offload added to Traffic over what the device counted.
	Segmentation Traffic
	Health       Health
	// The first packet of a direction said that the window is zero, which may be no
	// change.
	BeganShutTx, BeganShutRx bool
	// Of the local socket; 0 until it has been seen sending.
	Cookie, Cgroup uint64
	// The first packet of the epoch was sent, not received.
	FirstTx bool
	// It was the answer to who opens a TCP connection.
	FirstAnswers bool
	// Seen on loopback: what either end sends is told to both, in any order.
	Loopback bool
	// Health was read from a socket.
	HasSocket bool
	// Packets of all connections that the epoch's table had no room for.
	Overflow uint64
	Place    Place
}

// Place tells whether a connection is one of the namespace that it was seen in.
type Place uint8

// PlaceOwn: this namespace sends and receives, on this interface. PlaceCarried:
// it carries for others, or for an interface above. PlaceUndecided: nothing was
// sent, which would tell; as before, or own.
const (
	PlaceOwn Place = iota
	PlaceCarried
	PlaceUndecided
)

// Opener tells which end opened a connection.
type Opener uint8

// OpenerUnknown: the connection is older than the agent.
const (
	OpenerUnknown Opener = iota
	OpenerLocal
	OpenerRemote
)

// String gives the word used in the output.
func (o Opener) String() string {
	switch o {
	case OpenerLocal:
		return "local"
	case OpenerRemote:
		return "remote"
	}
	return "unknown"
}

// State is where a connection is in its life.
type State uint8

// The states are TCP's, as far as packets tell; StateNone for the rest.
const (
	StateNone State = iota
	StateSynSent
	StateSynRecv
	StateEstablished
	// The local end has closed its side.
	StateFinWait
	// The remote end has closed its side.
	StateCloseWait
	StateClosed
	StateReset
	StateRefused
	// It was never open, and not refused either: see Failure.
	StateFailed
)

var stateNames = [...]string{"", "syn_sent", "syn_recv", "established", "fin_wait", "close_wait", "closed", "reset", "refused", "failed"}

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return ""
}

// Ended tells that no more data can move.
func (s State) Ended() bool { return s >= StateClosed }

// Flow is a connection with all that is known of it: the envelope (time, ends)
// and its totals.
type Flow struct {
	Conn          Conn
	Local, Remote *Identity
	// Unix nanoseconds.
	First, Last int64
	Total       Traffic
	Health      Health
	// Epoch of the last change.
	Epoch          uint64
	Cookie, Cgroup uint64
	// The other tuple, where the host translates this connection; else nil.
	NAT *Translation
	// What the local end said as it began to speak TLS; nil where that was not seen.
	TLS       *Hello
	OpenedBy  Opener
	State     State
	HasSocket bool
	// It is no flow of this place: see PlaceCarried.
	Carried bool
}

// Translation is the tuple of a connection on the other side of the host's
// address translation. The tap sees one of the two: in a pod the one that the
// socket has, in the host's namespace the one that is on the wire.
type Translation struct {
	Local, Remote         IP
	LocalPort, RemotePort uint16
	// This is the socket's tuple, and Conn the wire's; else the other way round.
	OfSocket bool
}

// Kind is what happened to a connection.
type Kind uint8

// KindTraffic: the connection moved data in an epoch.
const (
	KindTraffic Kind = iota + 1
	KindOpened
	KindClosed
	KindRefused
	KindReset
	// KindDrop: the kernel dropped packets of the connection.
	KindDrop
	// KindFailed: a connect failed otherwise than by a refusal.
	KindFailed
	// KindDNS: a look-up was answered, or given up.
	KindDNS
	// KindGPUSample and those after it are of devices and who holds them, and of no
	// connection.
	KindGPUSample
	KindGPUXid
	KindGPUThrottle
	KindGPUFinding
)

var kindNames = [...]string{"", "traffic", "opened", "closed", "refused", "reset", "drop", "failed", "dns", "gpu_sample", "gpu_xid", "gpu_throttle", "gpu_finding"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return ""
}

// Event is something that happened to a connection, and the connection then.
type Event struct {
	Kind Kind
	// Unix nanoseconds.
	Time int64
	Flow Flow
	// What moved in [DeltaStart, DeltaEnd).
	Delta                Traffic
	DeltaStart, DeltaEnd int64
	// Packets of that time, of any connection, that were counted without one.
	Overflow uint64
	// Of KindDrop: what was dropped. It does not change.
	Drop *Drop
	// Of KindDNS.
	Lookup *Lookup
	// Of the kinds of GPUs. Flow has ends of no names, for who looks at them.
	GPU *GPUEvent
}
