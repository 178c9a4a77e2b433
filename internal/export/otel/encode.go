// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
)

// The SDK's log records and their exporters take 75 allocations and three times
// the CPU for a record of 25 attributes; so this writes OTLP's messages as they
// are on the wire. The tests read them with the official ones.

// Tags of fields: the number times eight, and how it is written.
const (
	varint  = 0
	fixed64 = 1
	sized   = 2

	requestResourceLogs = 1<<3 | sized // ExportLogsServiceRequest
	logsResource        = 1<<3 | sized // ResourceLogs
	logsScopeLogs       = 2<<3 | sized
	logsSchema          = 3<<3 | sized
	scopeScope          = 1<<3 | sized // ScopeLogs
	scopeRecord         = 2<<3 | sized
	scopeName           = 1<<3 | sized // InstrumentationScope
	scopeVersion        = 2<<3 | sized
	resourceAttribute   = 1<<3 | sized // Resource
	recordTime          = 1<<3 | fixed64
	recordSeverity      = 2<<3 | varint
	recordSeverityText  = 3<<3 | sized
	recordAttribute     = 6<<3 | sized
	recordObserved      = 11<<3 | fixed64
	recordEvent         = 12<<3 | sized
	keyValueKey         = 1<<3 | sized // KeyValue
	keyValueValue       = 2<<3 | sized
	anyString           = 1<<3 | sized // AnyValue
	anyBool             = 2<<3 | varint
	anyInt              = 3<<3 | varint
	anyDouble           = 4<<3 | fixed64
	anyArray            = 5<<3 | sized
	arrayValue          = 1<<3 | sized // ArrayValue
)

// Numbers of severities.
const (
	severityInfo = 9
	severityWarn = 13
)

// buffer is a message that is being written.
type buffer []byte

// length is how many bytes a number takes.
func length(n uint64) int { return (bits.Len64(n|1) + 6) / 7 }

func (b *buffer) uvarint(n uint64) { *b = binary.AppendUvarint(*b, n) }

func (b *buffer) fixed(tag byte, n uint64) {
	*b = binary.LittleEndian.AppendUint64(append(*b, tag), n)
}

func (b *buffer) bytes(tag byte, v []byte) {
	*b = append(*b, tag)
	b.uvarint(uint64(len(v)))
	*b = append(*b, v...)
}

func (b *buffer) string(tag byte, v string) {
	*b = append(*b, tag)
	b.uvarint(uint64(len(v)))
	*b = append(*b, v...)
}

// attribute writes a KeyValue up to its value, which has n bytes.
func (b *buffer) attribute(tag byte, key attribute.Key, n int) {
	*b = append(*b, tag)
	b.uvarint(uint64(1 + length(uint64(len(key))) + len(key) + 1 + length(uint64(n)) + n))
	b.string(keyValueKey, string(key))
	*b = append(*b, keyValueValue)
	b.uvarint(uint64(n))
}

// text leaves out what is empty. What is not UTF-8 would have the whole batch
// refused.
func (b *buffer) text(tag byte, key attribute.Key, v string) {
	if v == "" {
		return
	}
	if !utf8.ValidString(v) {
		v = strings.ToValidUTF8(v, string(utf8.RuneError))
	}
	b.attribute(tag, key, 1+length(uint64(len(v)))+len(v))
	b.string(anyString, v)
}

// text and the rest write an attribute of the record.
func (s *scribe) text(key attribute.Key, v string) { s.record.text(recordAttribute, key, v) }

func (s *scribe) number(key attribute.Key, v uint64) {
	v = min(v, math.MaxInt64)
	s.record.attribute(recordAttribute, key, 1+length(v))
	s.record = append(s.record, anyInt)
	s.record.uvarint(v)
}

// some is for numbers of which nothing is not worth a word.
func (s *scribe) some(key attribute.Key, v uint64) {
	if v != 0 {
		s.number(key, v)
	}
}

func (s *scribe) seconds(key attribute.Key, d time.Duration) {
	s.record.attribute(recordAttribute, key, 9)
	s.record.fixed(anyDouble, math.Float64bits(d.Seconds()))
}

func (s *scribe) yes(key attribute.Key) {
	s.record.attribute(recordAttribute, key, 2)
	s.record = append(s.record, anyBool, 1)
}

func (s *scribe) address(key attribute.Key, a netip.Addr) {
	s.scratch = a.AppendTo(s.scratch[:0])
	s.plain(key, s.scratch)
}

// plain writes text that is known to be UTF-8.
func (s *scribe) plain(key attribute.Key, v []byte) {
	s.record.attribute(recordAttribute, key, 1+length(uint64(len(v)))+len(v))
	s.record.bytes(anyString, v)
}

// list writes texts, which are UTF-8.
func (s *scribe) list(key attribute.Key, all []string) {
	s.scratch = s.scratch[:0]
	for _, v := range all {
		s.scratch = append(s.scratch, arrayValue)
		s.scratch.uvarint(uint64(1 + length(uint64(len(v))) + len(v)))
		s.scratch.string(anyString, v)
	}
	s.record.attribute(recordAttribute, key, 1+length(uint64(len(s.scratch)))+len(s.scratch))
	s.record.bytes(anyArray, s.scratch)
}

// envelope is what the records of a request have in common.
type envelope struct{ resource, schema, scope []byte }

func newEnvelope(who *resource.Resource, version string) envelope {
	var attrs, r, schema, named, sc buffer
	for it := who.Iter(); it.Next(); {
		kv := it.Attribute()
		attrs.text(resourceAttribute, kv.Key, kv.Value.String())
	}
	r.bytes(logsResource, attrs)
	if url := who.SchemaURL(); url != "" {
		schema.string(logsSchema, url)
	}
	named.string(scopeName, scope)
	named.string(scopeVersion, version)
	sc.bytes(scopeScope, named)
	return envelope{r, schema, sc}
}

// request puts records, each with its tag, into the messages around them.
func (e *envelope) request(to, records buffer) buffer {
	inner := uint64(len(e.scope) + len(records))
	outer := uint64(len(e.resource)+len(e.schema)+1+length(inner)) + inner
	to = append(to[:0], requestResourceLogs)
	to.uvarint(outer)
	to = append(append(to, e.resource...), e.schema...)
	to = append(to, logsScopeLogs)
	to.uvarint(inner)
	return append(append(to, e.scope...), records...)
}
