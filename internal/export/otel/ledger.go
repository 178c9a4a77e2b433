// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"time"

	"github.com/orb8/orb8/internal/event"
)

// Flows says which records connections give.
type Flows string

// FlowsNone: none. FlowsClosed: one as a connection ends, or has gone quiet.
// FlowsInterval: also one a minute while it lives. FlowsAll: also one as it opens.
const (
	FlowsNone     Flows = "none"
	FlowsClosed   Flows = "closed"
	FlowsInterval Flows = "interval"
	FlowsAll      Flows = "all"
)

// Valid tells whether it is one of these.
func (f Flows) Valid() bool {
	return f == FlowsNone || f == FlowsClosed || f == FlowsInterval || f == FlowsAll
}

// flowInterval is how long a connection that lives is told of as one.
const flowInterval = time.Minute

// ledger holds what has not been told yet of connections that live. All that
// moved is in some record, and in one only: a record says what moved since the one
// before it. It belongs to the consumer's goroutine.
type ledger struct {
	flows Flows
	// After so long without a packet a connection is told, and forgotten.
	quiet time.Duration
	// Connections held; one more makes another be told before its time.
	most     int
	accounts map[event.Conn]*account
	free     []*account
	tell     func(*record)
	record   record
}

// account is a connection as of its last event.
type account struct {
	flow event.Flow
	// Part of the flow's total, and until when.
	told  event.Traffic
	since int64
}

func newLedger(flows Flows, quiet time.Duration, most int) *ledger {
	return &ledger{flows: flows, quiet: quiet, most: most, accounts: map[event.Conn]*account{}}
}

// kinds of events that the ledger lives on.
func (l *ledger) kinds() []event.Kind {
	if l.flows == FlowsNone {
		return nil
	}
	return []event.Kind{event.KindOpened, event.KindTraffic, event.KindClosed, event.KindRefused, event.KindReset, event.KindFailed}
}

// add takes what happened to a connection.
func (l *ledger) add(e *event.Event) {
	a := l.accounts[e.Flow.Conn]
	if a != nil && a.flow.First != e.Flow.First { // another one under the same tuple
		l.rest(a, whyQuiet)
		a = nil
	}
	if a == nil {
		a = l.open(e)
	}
	a.flow = e.Flow
	switch e.Kind {
	case event.KindOpened:
		if l.flows == FlowsAll {
			l.say(a, whyOpened, e.Time)
		}
	case event.KindTraffic:
		if l.flows != FlowsClosed && !a.flow.State.Ended() && e.DeltaEnd-a.since >= int64(flowInterval) {
			l.say(a, whyInterval, e.DeltaEnd)
		}
	default:
		l.say(a, why(e.Kind.String()), e.Time)
		l.drop(a)
	}
}

// open makes an account. What the connection moved before this event was told, or
// was before the agent was asked to tell.
func (l *ledger) open(e *event.Event) *account {
	if len(l.accounts) >= l.most {
		for _, a := range l.accounts { // any
			l.rest(a, whyInterval)
			break
		}
	}
	var a *account
	if n := len(l.free); n > 0 {
		a, l.free = l.free[n-1], l.free[:n-1]
	} else {
		a = new(account)
	}
	*a = account{told: e.Flow.Total, since: max(e.Flow.First, e.DeltaStart)}
	a.told.Sub(e.Delta)
	l.accounts[e.Flow.Conn] = a
	return a
}

// sweep tells of what has gone quiet. What moves after a connection's end, too, is
// told here.
func (l *ledger) sweep(now time.Time) {
	before := now.Add(-l.quiet).UnixNano()
	for _, a := range l.accounts {
		if a.flow.Last < before {
			l.rest(a, whyQuiet)
		}
	}
}

// end tells the rest, as the agent ends.
func (l *ledger) end() {
	for _, a := range l.accounts {
		l.rest(a, whyInterval)
	}
}

// rest tells what is not told, if anything, and forgets the connection.
func (l *ledger) rest(a *account, w why) {
	if a.told != a.flow.Total {
		l.say(a, w, a.flow.Last)
	}
	l.drop(a)
}

func (l *ledger) drop(a *account) {
	delete(l.accounts, a.flow.Conn)
	if len(l.free) < 1024 {
		l.free = append(l.free, a)
	}
}

func (l *ledger) say(a *account, w why, at int64) {
	l.record = record{why: w, flow: a.flow, moved: a.flow.Total, since: a.since, at: max(at, a.since)}
	l.record.moved.Sub(a.told)
	a.told, a.since = a.flow.Total, l.record.at
	l.tell(&l.record)
}
