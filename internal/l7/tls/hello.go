// SPDX-License-Identifier: Apache-2.0

package tls

import (
	"golang.org/x/crypto/cryptobyte"

	"github.com/orb8/orb8/internal/event"
)

const (
	randomSize   = 32
	maxSessionID = 32

	extensionServerName = 0
	extensionALPN       = 16
	extensionVersions   = 43
	extensionECH        = 0xfe0d // RFC 9849

	nameHost = 0
	// As in the DNS, and a last dot.
	maxServerName = 254
	// Clients offer two or three.
	maxProtocols = 16

	// The inner hello is never on the wire. What a client makes up for want of a
	// key (GREASE) cannot be told from an outer one, and shall not.
	echOuter = 0
)

// parse reads the body of a ClientHello (RFC 8446, 4.1.2). Before extensions were
// invented it ended without any.
func parse(body cryptobyte.String, h *event.Hello) bool {
	var sessionID, ciphers, compressions cryptobyte.String
	if !body.ReadUint16(&h.Version) || h.Version>>8 != majorVersion || !body.Skip(randomSize) ||
		!body.ReadUint8LengthPrefixed(&sessionID) || len(sessionID) > maxSessionID ||
		!body.ReadUint16LengthPrefixed(&ciphers) || len(ciphers) == 0 || len(ciphers)%2 != 0 ||
		!body.ReadUint8LengthPrefixed(&compressions) || len(compressions) == 0 {
		return false
	}
	if body.Empty() {
		return true
	}
	var extensions cryptobyte.String
	if !body.ReadUint16LengthPrefixed(&extensions) || !body.Empty() {
		return false
	}
	var seen seen
	for !extensions.Empty() {
		var kind uint16
		var data cryptobyte.String
		if !extensions.ReadUint16(&kind) || !extensions.ReadUint16LengthPrefixed(&data) ||
			!seen.first(kind) || !extension(kind, data, h) {
			return false
		}
	}
	return true
}

// seen has the extensions that were there, of those that are read: each may come
// once.
type seen struct{ serverName, alpn, versions, ech bool }

func (s *seen) first(kind uint16) bool {
	var was *bool
	switch kind {
	case extensionServerName:
		was = &s.serverName
	case extensionALPN:
		was = &s.alpn
	case extensionVersions:
		was = &s.versions
	case extensionECH:
		was = &s.ech
	default:
		return true
	}
	first := !*was
	*was = true
	return first
}

func extension(kind uint16, data cryptobyte.String, h *event.Hello) bool {
	switch kind {
	case extensionServerName:
		return serverName(data, h)
	case extensionALPN:
		return protocols(data, h)
	case extensionVersions:
		return versions(data, h)
	case extensionECH:
		var kind uint8
		if !data.ReadUint8(&kind) {
			return false
		}
		h.ECH = kind == echOuter
	}
	return true
}

// serverName reads RFC 6066, 3: a list, in which only the name of a host was ever
// defined.
func serverName(data cryptobyte.String, h *event.Hello) bool {
	var list cryptobyte.String
	if !data.ReadUint16LengthPrefixed(&list) || list.Empty() || !data.Empty() {
		return false
	}
	named := false
	for !list.Empty() {
		var kind uint8
		var name cryptobyte.String
		if !list.ReadUint8(&kind) || !list.ReadUint16LengthPrefixed(&name) {
			return false
		}
		if kind != nameHost {
			continue
		}
		if named || len(name) == 0 || len(name) > maxServerName {
			return false
		}
		named = true
		if n := len(name) - 1; n > 0 && name[n] == '.' {
			name = name[:n]
		}
		h.ServerName = lower(name)
	}
	return true
}

// protocols reads RFC 7301, 3.1.
func protocols(data cryptobyte.String, h *event.Hello) bool {
	var list cryptobyte.String
	if !data.ReadUint16LengthPrefixed(&list) || list.Empty() || !data.Empty() {
		return false
	}
	for !list.Empty() {
		var name cryptobyte.String
		if !list.ReadUint8LengthPrefixed(&name) || len(name) == 0 {
			return false
		}
		if len(h.ALPN) < maxProtocols && !isGreaseName(name) {
			h.ALPN = append(h.ALPN, plain(name))
		}
	}
	return true
}

// versions takes the highest that is offered, and the one in the head of the hello
// where none is known.
func versions(data cryptobyte.String, h *event.Hello) bool {
	var list cryptobyte.String
	if !data.ReadUint8LengthPrefixed(&list) || list.Empty() || !data.Empty() {
		return false
	}
	highest := uint16(0)
	for !list.Empty() {
		var v uint16
		if !list.ReadUint16(&v) {
			return false
		}
		if v>>8 == majorVersion { // not GREASE, which is 0x0a0a to 0xfafa, no draft
			highest = max(highest, v)
		}
	}
	if highest != 0 {
		h.Version = highest
	}
	return true
}

// isGreaseName tells the protocols that clients make up so that servers stay
// used to unknown ones (RFC 8701).
func isGreaseName(name []byte) bool {
	return len(name) == 2 && name[0] == name[1] && name[0]&0xf == 0xa
}
