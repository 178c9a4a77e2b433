// SPDX-License-Identifier: Apache-2.0

package event

// Hello is what a client said as it began to speak TLS. It does not change.
type Hello struct {
	// Whom it wants to reach (SNI); "" where it did not say. As Name of a look-up.
	ServerName string
	// Protocols that it offers, as ALPN has them.
	ALPN []string
	// The highest version that it offers: 0x0304 is TLS 1.3.
	Version uint16
	// Encrypted Client Hello: ServerName is of the outer one.
	ECH bool
}
