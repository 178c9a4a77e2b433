// SPDX-License-Identifier: Apache-2.0

package event

import "net/netip"

// Role tells which end of a look-up is the local one.
type Role uint8

// RoleClient: the local end asked. RoleServer: it was asked.
const (
	RoleClient Role = iota + 1
	RoleServer
)

// RCode is how the DNS answered, as in the header with EDNS's upper bits.
type RCode uint16

// RCodeTimeout and RCodeUnreachable are no codes of the DNS, which have 12 bits:
// nobody answered, and an ICMP error said that nobody is there.
const (
	RCodeTimeout     RCode = 0xffff
	RCodeUnreachable RCode = 0xfffe
)

// MaxAnswers bounds the answers that a look-up keeps.
const MaxAnswers = 16

// Lookup is one question of one client's to one server, and what came of it. It
// does not change once it is told.
type Lookup struct {
	// As this namespace sees it: the local end is the client, or the server.
	Conn Conn
	Role Role
	// Of the local end's socket; 0 where that is not known.
	Cookie, Cgroup uint64
	// In small letters and without the last dot, bytes that are no plain characters
	// as \DDD; the root is ".".
	Name string
	// Type of record that was asked for, its number.
	Type  uint16
	RCode RCode
	// At most MaxAnswers, and how many there were.
	Answers     []Answer
	AnswerCount int
	// Unix nanoseconds; Answered is 0 when nobody did. Asked is the first try.
	Asked, Answered int64
	// How many times it was sent.
	Tries uint16
	// The answer was cut; this is asked over TCP for that.
	Truncated, TCPRetry bool
	// The server asked somebody else to answer it.
	Upstream bool
	// Names that the client's resolver tried before this one, because of its search
	// list, and that do not exist; and the domains that it tried them with.
	SearchMisses  uint16
	SearchDomains []string
}

// Latency is from the first question to the answer; 0 when there was none.
func (l *Lookup) Latency() int64 {
	if l.Answered == 0 {
		return 0
	}
	return l.Answered - l.Asked
}

// Answer is one record of an answer.
type Answer struct {
	Type uint16
	// Seconds.
	TTL uint32
	// Of A and AAAA.
	Addr netip.Addr
	// Of CNAME: as Name of a look-up.
	Target string
}
