// SPDX-License-Identifier: Apache-2.0

// Package dns reads one message of the DNS, as it was in a packet or in a TCP
// stream, into words. It keeps no state but the memory of the Message that it is
// given, never follows what is not in the message, and does bounded work whatever
// the bytes are. Look-ups are made of what it says.
package dns

import (
	"cmp"
	"encoding/binary"

	"github.com/orb8/orb8/internal/event"
)

// What ends a message early. The word is stable: losses are counted by it.
const (
	// Not even a header.
	ErrShort Cause = "short"
	// A header that no DNS sends.
	ErrNotDNS Cause = "not_dns"
	// A label of a reserved kind, or a name of more than 255 bytes.
	ErrLabel Cause = "label"
	// A pointer that leads forward, into the header or too far round, or names that
	// unfold to far more than a message holds.
	ErrCompression Cause = "compression"
	// A record that does not hold what its type says, or a second OPT.
	ErrRecord Cause = "record"
	// The bytes end before the message does.
	ErrCut Cause = "cut"
)

// Cause is why a message could not be read to its end.
type Cause string

func (c Cause) Error() string { return "read DNS message: " + string(c) }

const (
	headerSize   = 12
	questionSize = 5  // at least
	recordSize   = 11 // at least
	maxSize      = 1<<16 - 1

	flagResponse  = 1 << 15
	flagTruncated = 1 << 9
	flagZero      = 1 << 6

	unassignedOpcode = 3
	maxOpcode        = 6 // DSO, RFC 8490

	classIN = 1
	// The top bit of a class: in mDNS "answer by unicast", or "forget what you had".
	classMask = 1<<15 - 1

	typeA     = 1
	typeCNAME = 5
	typeAAAA  = 28
	typeOPT   = 41
)

// Message is what is read of one. Its memory is used again by the next Parse:
// who keeps Answers copies it.
type Message struct {
	ID       uint16
	Response bool
	Opcode   uint8
	// With EDNS's upper bits.
	RCode     event.RCode
	Truncated bool
	// As the header says; a response of mDNS has none, nor has one that is only a
	// header; queries of mDNS may have many.
	Questions int
	// The first question. In small letters and without the last dot, bytes that are
	// no plain characters as \DDD, a dot within a label as \. and a backslash as \\.
	// The root is "."; without a question it is "".
	Name        string
	Type, Class uint16
	// The first records of the answer section, at most event.MaxAnswers, and how many
	// the header says there are. Targets are as Name.
	Answers     []event.Answer
	AnswerCount int
	// Addresses and CNAMEs of the answer section for which there was no room.
	LeftOut int

	last      string // that is not "": Name of a message before
	names     names
	links     []link
	addresses []address
	edns      bool
}

// Parse reads b into m. After an error, which is always a Cause, m has what was
// read up to there; after ErrShort and ErrNotDNS that is nothing of use.
func Parse(b []byte, m *Message) error {
	m.reset()
	if len(b) < headerSize {
		return ErrShort
	}
	flags := binary.BigEndian.Uint16(b[2:])
	m.ID = binary.BigEndian.Uint16(b)
	m.Response = flags&flagResponse != 0
	m.Opcode = uint8(flags >> 11 & 0xf)
	m.Truncated = flags&flagTruncated != 0
	m.RCode = event.RCode(flags & 0xf)
	m.Questions = int(binary.BigEndian.Uint16(b[4:]))
	m.AnswerCount = int(binary.BigEndian.Uint16(b[6:]))
	authority := int(binary.BigEndian.Uint16(b[8:]))
	additional := int(binary.BigEndian.Uint16(b[10:]))
	least := headerSize + m.Questions*questionSize + (m.AnswerCount+authority+additional)*recordSize
	if m.Opcode == unassignedOpcode || m.Opcode > maxOpcode || flags&flagZero != 0 || least > maxSize {
		return ErrNotDNS
	}
	if len(b) == headerSize && m.Response {
		// Some refuse with nothing but a header, whose counts are the question's.
		m.Questions, m.AnswerCount = 0, 0
		return nil
	}
	off, err := m.questions(b)
	if err != nil {
		return err
	}
	off, err = m.answers(b, off)
	m.follow()
	if err != nil {
		return err
	}
	return m.rest(b, off, authority, additional)
}

// reset forgets the last message but for its name: a question and its answer,
// one after the other, share the string.
func (m *Message) reset() {
	*m = Message{
		last: cmp.Or(m.Name, m.last), Answers: m.Answers[:0], names: m.names,
		links: m.links[:0], addresses: m.addresses[:0],
	}
	m.names.reset()
}

// questions reads the first one and passes over the others.
func (m *Message) questions(b []byte) (off int, err error) {
	if m.Questions == 0 {
		return headerSize, nil
	}
	id, off, err := m.names.read(b, headerSize)
	if err != nil {
		return 0, err
	}
	if off+4 > len(b) {
		return 0, ErrCut
	}
	m.Name = m.names.text(id, m.last)
	m.Type = binary.BigEndian.Uint16(b[off:])
	m.Class = binary.BigEndian.Uint16(b[off+2:]) & classMask
	off += 4
	for range m.Questions - 1 {
		if off, err = skipName(b, off); err != nil {
			return 0, err
		}
		if off += 4; off > len(b) {
			return 0, ErrCut
		}
	}
	return off, nil
}

// record is one of any section.
type record struct {
	name        int // where its owner is
	Type, class uint16
	ttl         uint32
	data, end   int // where its data is, and what comes next
}

// nextRecord finds its way through the one at off without looking into it.
func nextRecord(b []byte, off int) (r record, err error) {
	r.name = off
	if off, err = skipName(b, off); err != nil {
		return r, err
	}
	if off+10 > len(b) {
		return r, ErrCut
	}
	r.Type = binary.BigEndian.Uint16(b[off:])
	r.class = binary.BigEndian.Uint16(b[off+2:])
	r.ttl = binary.BigEndian.Uint32(b[off+4:])
	r.data = off + 10
	r.end = r.data + int(binary.BigEndian.Uint16(b[off+8:]))
	if r.end > len(b) {
		return r, ErrCut
	}
	return r, nil
}

// rest passes over what follows the answers; the OPT of EDNS is there.
func (m *Message) rest(b []byte, off, authority, additional int) error {
	for i := range authority + additional {
		r, err := nextRecord(b, off)
		if err != nil {
			return err
		}
		off = r.end
		if r.Type != typeOPT || i < authority {
			continue
		}
		if m.edns || b[r.name] != 0 {
			return ErrRecord
		}
		m.edns = true
		m.RCode |= event.RCode(r.ttl>>24) << 4
	}
	return nil
}
