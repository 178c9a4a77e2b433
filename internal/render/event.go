// SPDX-License-Identifier: Apache-2.0

package render

import (
	"io"
	"time"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// EventTable shows events as they come, one a row. TX and RX are what moved in
// the interval (traffic), or in the connection's whole life (its end).
type EventTable struct{ flows *FlowTable }

// NewEventTable makes a table that may go on for ever.
func NewEventTable(style Style) *EventTable {
	v := inEvents
	if style.Wide {
		v = inEventsWide
	}
	t := &EventTable{newFlowTable(style, v)}
	t.flows.table.reserve()
	return t
}

// Add takes an event.
func (t *EventTable) Add(e *orb8v1.Event) {
	row := flowRow{flow: e.GetFlow(), kind: e.GetKind(), time: e.GetTimeNs()}
	switch e.GetKind() {
	case orb8v1.EventKind_EVENT_KIND_TRAFFIC:
		row.moved = e.GetFlow().GetDelta()
	case orb8v1.EventKind_EVENT_KIND_CLOSED, orb8v1.EventKind_EVENT_KIND_RESET:
		row.moved = e.GetFlow().GetTotal()
	}
	t.flows.add(row)
}

// Flush writes what was added.
func (t *EventTable) Flush(w io.Writer) error { return t.flows.Flush(w) }

func (r flowRow) clock() cell {
	if r.style.Human {
		return cell{time.Unix(0, r.time).Format("15:04:05.000"), dim}
	}
	return cell{text: stamp(r.time)}
}

func (r flowRow) event() cell {
	c := cell{text: eventName(r.kind)}
	switch r.kind {
	case orb8v1.EventKind_EVENT_KIND_OPENED:
		c.tone = green
	case orb8v1.EventKind_EVENT_KIND_REFUSED, orb8v1.EventKind_EVENT_KIND_RESET, orb8v1.EventKind_EVENT_KIND_FAILED:
		c.tone = red
	case orb8v1.EventKind_EVENT_KIND_CLOSED:
		c.tone = dim
	}
	return c
}

func eventName(k orb8v1.EventKind) string {
	switch k {
	case orb8v1.EventKind_EVENT_KIND_TRAFFIC:
		return "traffic"
	case orb8v1.EventKind_EVENT_KIND_OPENED:
		return "opened"
	case orb8v1.EventKind_EVENT_KIND_CLOSED:
		return "closed"
	case orb8v1.EventKind_EVENT_KIND_REFUSED:
		return "refused"
	case orb8v1.EventKind_EVENT_KIND_RESET:
		return "reset"
	case orb8v1.EventKind_EVENT_KIND_FAILED:
		return "failed"
	}
	return "unknown"
}
