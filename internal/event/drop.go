// SPDX-License-Identifier: Apache-2.0

package event

// Drop is packets of one connection that the kernel dropped for one reason at
// one place.
type Drop struct {
	// As far as the packet tells: the addresses are zero where it does not, the
	// namespace is 0 where neither a device nor a socket does. Local is where it was
	// going, of what has come in, and else where it comes from.
	Conn Conn
	// The running kernel's name, or number; what it means, in one sentence, or ""
	// where that is not known.
	Reason, Hint string
	// There was no room for its connection: it may be of many.
	Folded bool
	// Where in the kernel's code.
	Location string
	// Segments, as the kernel had them when it dropped them.
	Amount Counter
	// Unix nanoseconds.
	First, Last int64
}
