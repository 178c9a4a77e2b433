// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"strings"
	"time"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/l7/dns"
)

// record is what waits to be sent: of a connection, a drop or a look-up.
type record struct {
	flow event.Flow
	// Of a connection: why it is told now, and what moved from since to at.
	why   why
	moved event.Traffic
	since int64
	// Unix nanoseconds.
	at     int64
	drop   *event.Drop
	lookup *event.Lookup
}

// why a connection is told: the kind of event, or one of these.
type why string

const (
	whyOpened   why = "opened"
	whyInterval why = "interval"
	whyQuiet    why = "quiet"
)

// Names of the events.
const (
	eventFlow   = "orb8.flow"
	eventDrop   = "orb8.drop"
	eventLookup = "orb8.dns.lookup"
)

// scribe writes records, one behind the other; it keeps its memory.
type scribe struct {
	all, record, scratch buffer
}

// write appends a record to all.
func (s *scribe) write(r *record) {
	s.record = s.record[:0]
	s.record.fixed(recordTime, uint64(r.at))
	s.record.fixed(recordObserved, uint64(time.Now().UnixNano()))
	s.ends(r)
	name, grave := eventFlow, false
	switch {
	case r.drop != nil:
		name, grave = eventDrop, true
		s.drop(r.drop)
	case r.lookup != nil:
		name = eventLookup
		grave = r.lookup.RCode != rcodeNoError && r.lookup.RCode != rcodeNXDomain
		s.lookup(r.lookup)
	default:
		grave = r.flow.State == event.StateRefused || r.flow.State == event.StateFailed
		s.flow(r)
	}
	s.record.string(recordEvent, name)
	severity, text := byte(severityInfo), "INFO"
	if grave {
		severity, text = severityWarn, "WARN"
	}
	s.record = append(s.record, recordSeverity, severity)
	s.record.string(recordSeverityText, text)
	s.all.bytes(scopeRecord, s.record)
}

func (s *scribe) flow(r *record) {
	f := &r.flow
	s.text("orb8.flow.event", string(r.why))
	s.text("orb8.flow.state", f.State.String())
	s.text("orb8.flow.opened_by", f.OpenedBy.String())
	s.seconds("orb8.flow.duration", time.Duration(r.at-r.since))
	s.number("orb8.flow.transmit.bytes", r.moved.TxBytes)
	s.number("orb8.flow.transmit.packets", r.moved.TxPackets)
	s.number("orb8.flow.receive.bytes", r.moved.RxBytes)
	s.number("orb8.flow.receive.packets", r.moved.RxPackets)
	s.text("orb8.flow.failure", f.Health.Failure.String())
	if f.Health.RTT != 0 {
		s.seconds("orb8.tcp.rtt", time.Duration(f.Health.RTT)*time.Microsecond)
	}
	s.some("orb8.tcp.retransmits", uint64(f.Health.Retransmits))
	if f.TLS != nil {
		s.text("orb8.tls.server_name", f.TLS.ServerName)
	}
}

func (s *scribe) drop(d *event.Drop) {
	s.text("orb8.drop.reason", d.Reason)
	s.text("orb8.drop.location", d.Location)
	s.number("orb8.drop.bytes", d.Amount.Bytes)
	s.number("orb8.drop.packets", d.Amount.Packets)
	if d.Folded {
		s.yes("orb8.drop.folded")
	}
}

const (
	rcodeNoError  event.RCode = 0
	rcodeNXDomain event.RCode = 3
)

func (s *scribe) lookup(l *event.Lookup) {
	s.text(semconv.DNSQuestionNameKey, l.Name)
	s.text("orb8.dns.question.type", dns.TypeName(l.Type))
	s.text("orb8.dns.rcode", dns.RCodeName(l.RCode))
	role := "client"
	if l.Role == event.RoleServer {
		role = "server"
	}
	s.text("orb8.dns.role", role)
	if len(l.Answers) > 0 {
		answers := make([]string, 0, len(l.Answers))
		for i := range l.Answers {
			switch a := &l.Answers[i]; {
			case a.Addr.IsValid():
				answers = append(answers, a.Addr.String())
			case a.Target != "":
				answers = append(answers, strings.ToValidUTF8(a.Target, "\ufffd"))
			}
		}
		s.list(semconv.DNSAnswersKey, answers)
	}
	if l.Answered != 0 {
		s.seconds("orb8.dns.lookup.duration", time.Duration(l.Latency()))
	}
	s.number("orb8.dns.tries", uint64(l.Tries))
	s.some("orb8.dns.search_misses", uint64(l.SearchMisses))
}
