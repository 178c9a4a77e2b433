// SPDX-License-Identifier: Apache-2.0

package store

import "github.com/orb8/orb8/internal/event"

// LookupRow is all look-ups of one client at one server.
type LookupRow struct {
	// Which of the two is here.
	Role           event.Role
	Client, Server *event.Identity
	// Of the last look-up.
	ClientIP, ServerIP event.IP
	// Questions, those included that were sent again; look-ups that are over.
	Queries, Lookups, Timeouts uint64
	// Answers by response code.
	RCodes map[event.RCode]uint64
	// Answers NXDOMAIN that a search list alone is to blame for.
	SearchMisses uint64
	// Cut answers, and questions sent again over TCP for that.
	Truncated, TCPRetries uint64
	// Questions a second, of the last one to two minutes.
	PerSecond float64
	// Of the answers; role server: Upstream are those for which it asked somebody
	// else, and Latency the rest.
	Latency, Upstream event.Latencies
	// Unix nanoseconds.
	First, Last int64
	// The search domain that missed most often, and the name it was tried with last.
	SearchDomain, SearchName string
}

// LookupAnswer is the first rows of those that match, the most queries first.
type LookupAnswer struct {
	Rows []LookupRow
	// Rows before the limit, and of all that have the roles that were asked for.
	Matched, Known int
}
