// SPDX-License-Identifier: Apache-2.0

// Package orb8v1 is the public API of orb8: generated messages and services.
// OrbitAgentService is the original's wire format; Observer is the richer one.
package orb8v1

//go:generate ./generate.sh
