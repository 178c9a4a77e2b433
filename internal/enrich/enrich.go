// SPDX-License-Identifier: Apache-2.0

// Package enrich says who the ends of a connection are. It is asked once for
// each new connection and once more when the owner of its socket becomes
// known, never guesses, and allocates nothing per connection: identities are
// shared. The agent's pipeline asks it.
package enrich

import "github.com/orb8/orb8/internal/event"

// Enricher knows one node.
type Enricher struct {
	host, external *event.Identity
}

// New makes an enricher for the node's own network namespace.
func New(node string) *Enricher {
	return &Enricher{
		host:     &event.Identity{Class: event.ClassHost, Node: node},
		external: &event.Identity{Class: event.ClassExternal},
	}
}

// Identify fills in the ends of f.
func (e *Enricher) Identify(f *event.Flow) {
	f.Local, f.Remote = e.host, e.external
}
