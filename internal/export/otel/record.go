// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"
	sdklog "go.opentelemetry.io/otel/sdk/log"
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

// scribe writes records of the SDK. The SDK makes the first one, with its resource
// and scope, and the rest are copies: its own way looks every attribute up among
// all that were there before.
type scribe struct {
	blank sdklog.Record
	attrs []attribute.KeyValue
}

func (s *scribe) write(r *record) sdklog.Record {
	s.attrs = s.attrs[:0]
	out := s.blank
	out.SetTimestamp(time.Unix(0, r.at))
	out.SetObservedTimestamp(time.Now())
	s.ends(r)
	name, severity := eventFlow, log.SeverityInfo
	switch {
	case r.drop != nil:
		name, severity = eventDrop, log.SeverityWarn
		s.drop(r.drop)
	case r.lookup != nil:
		name = eventLookup
		if c := r.lookup.RCode; c != rcodeNoError && c != rcodeNXDomain {
			severity = log.SeverityWarn
		}
		s.lookup(r.lookup)
	default:
		if r.flow.State == event.StateRefused || r.flow.State == event.StateFailed {
			severity = log.SeverityWarn
		}
		s.flow(r)
	}
	out.SetEventName(name)
	out.SetSeverity(severity)
	out.SetSeverityText(severity.String())
	out.SetAttributes(s.attrs...) // keeps a copy
	return out
}

func (s *scribe) text(k attribute.Key, v string) {
	if v != "" { // a batch with what is not UTF-8 would be refused as a whole
		s.attrs = append(s.attrs, k.String(strings.ToValidUTF8(v, "\ufffd")))
	}
}

func (s *scribe) number(k attribute.Key, v uint64) {
	s.attrs = append(s.attrs, k.Int64(int64(v)))
}

// some is for numbers of which nothing is not worth a word.
func (s *scribe) some(k attribute.Key, v uint64) {
	if v != 0 {
		s.number(k, v)
	}
}

func (s *scribe) seconds(k attribute.Key, d time.Duration) {
	s.attrs = append(s.attrs, k.Float64(d.Seconds()))
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
		s.attrs = append(s.attrs, attribute.Bool("orb8.drop.folded", true))
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
				answers = append(answers, a.Target)
			}
		}
		s.attrs = append(s.attrs, semconv.DNSAnswersKey.StringSlice(answers))
	}
	if l.Answered != 0 {
		s.seconds("orb8.dns.lookup.duration", time.Duration(l.Latency()))
	}
	s.number("orb8.dns.tries", uint64(l.Tries))
	s.some("orb8.dns.search_misses", uint64(l.SearchMisses))
}
