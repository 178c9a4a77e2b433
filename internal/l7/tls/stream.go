// SPDX-License-Identifier: Apache-2.0

// Package tls reads the ClientHello that a TLS connection begins with: whom the
// client wants to reach, and what it can speak. It decrypts nothing, keeps no state
// and reads nothing behind the hello. Names of what is outside come from it where
// the DNS told none.
package tls

import (
	"encoding/binary"

	"github.com/orb8/orb8/internal/event"
)

// Why there is no hello. The word is stable: losses are counted by it.
const (
	// More bytes are needed.
	ErrIncomplete Cause = "incomplete"
	// The bytes do not begin as TLS does; SSL 2's own hello is none.
	ErrNotTLS Cause = "not_tls"
	// A hello of more than MaxHello.
	ErrTooLong Cause = "too_long"
	// A hello that breaks the rules of its structure.
	ErrMalformed Cause = "malformed"
)

// Cause is why there is no hello.
type Cause string

func (c Cause) Error() string { return "read ClientHello: " + string(c) }

// MaxHello bounds the bytes of a hello without the headers of records. Those of
// browsers with post-quantum keys have 2,000; Go's server takes as many as this.
const MaxHello = 1 << 16

const (
	recordHeader    = 5
	handshakeHeader = 4
	maxRecord       = 1 << 14

	contentHandshake = 22
	typeClientHello  = 1
	majorVersion     = 3
	maxMinorVersion  = 4
)

// LooksLikeHello tells whether a packet's bytes can be the beginning of one.
func LooksLikeHello(b []byte) bool {
	return len(b) > recordHeader && record(b) == "" && b[recordHeader] == typeClientHello
}

// record tells what is wrong with the header of a record of the handshake, as far
// as it is there.
func record(b []byte) Cause {
	if len(b) > 0 && b[0] != contentHandshake ||
		len(b) > 1 && b[1] != majorVersion ||
		len(b) > 2 && b[2] > maxMinorVersion {
		return ErrNotTLS
	}
	if len(b) >= recordHeader {
		// An empty one is not allowed here; nor is a longer one without encryption.
		if n := binary.BigEndian.Uint16(b[3:]); n == 0 || n > maxRecord {
			return ErrNotTLS
		}
	}
	return ""
}

// ParseClientHello reads the hello that b begins with, the first bytes that a
// client sent. With ErrIncomplete need says how many bytes it takes at least,
// counted from the beginning of b: more than there are, and not more than the hello
// has. Any other error is a Cause too, and final.
func ParseClientHello(b []byte) (h *event.Hello, need int, err error) {
	body, need, cause := message(b)
	if cause != "" {
		return nil, need, cause
	}
	h = &event.Hello{}
	if !parse(body, h) {
		return nil, 0, ErrMalformed
	}
	return h, 0, nil
}

// message takes the handshake's first message out of its records: as a part of b
// where it is in one, as nearly always.
func message(b []byte) (body []byte, need int, cause Cause) {
	var joined []byte
	want := handshakeHeader // so many bytes of the message are known to come
	for off := 0; ; {
		if cause = record(b[off:]); cause != "" {
			if off > 0 {
				cause = ErrMalformed
			}
			return nil, 0, cause
		}
		if len(b)-off < recordHeader {
			return nil, off + recordHeader + want - len(joined), ErrIncomplete
		}
		size := int(binary.BigEndian.Uint16(b[off+3:]))
		off += recordHeader
		part := b[off:min(off+size, len(b))]
		if joined == nil {
			joined = part[:len(part):len(part)] // to append to it is to copy it
		} else {
			joined = append(joined, part...)
		}
		if want, cause = wanted(joined); cause != "" {
			return nil, 0, cause
		}
		missing := want - len(joined)
		if missing <= 0 {
			return joined[handshakeHeader:want], 0, ""
		}
		if left := size - len(part); left > 0 {
			need = len(b) + missing
			if missing > left {
				need += recordHeader
			}
			return nil, need, ErrIncomplete
		}
		off += size
	}
}

// wanted is how many bytes the message has that b is the beginning of, as far as
// that is known.
func wanted(b []byte) (int, Cause) {
	if len(b) > 0 && b[0] != typeClientHello {
		return 0, ErrNotTLS
	}
	if len(b) < handshakeHeader {
		return handshakeHeader, ""
	}
	n := handshakeHeader + int(binary.BigEndian.Uint32(b)&0xffffff)
	if n > MaxHello {
		return 0, ErrTooLong
	}
	return n, ""
}
