// SPDX-License-Identifier: Apache-2.0

package event

// Health is TCP's own view of a connection, read from the local socket, and
// what ICMP said of it.
type Health struct {
	// Smoothed and minimum round-trip time, microseconds; 0 is not known.
	RTT, MinRTT uint32
	// Segments retransmitted in the socket's life, and of them those of before the
	// first packet sent that was seen.
	Retransmits, RetransmitsBefore uint32
	// Segments that came before one they follow, in the socket's life, where the
	// kernel tells.
	OutOfOrder uint32
	ICMPErrors uint32
	BytesAcked uint64
	// When the first SYN was seen, and the first SYN with ACK, of either end:
	// microseconds of no known beginning, which wrap around; 0: none was.
	SYN, SYNACK uint32
	// Times the window was said to be zero, by the local end and by the remote one.
	ZeroWindowsTx, ZeroWindowsRx uint32
	// Union of the TCP flags seen, as on the wire (FIN=1 … CWR=128).
	FlagsTx, FlagsRx   uint8
	ICMPType, ICMPCode uint8
	TellsOrder         bool
	// The last window that was seen of each was zero.
	ShutTx, ShutRx bool
	// Who sent the first FIN, and the first RST.
	ClosedBy, ResetBy Side
	// Why a connection was never open.
	Failure Failure
	// Of Retransmits, those that the last update told of.
	Resent uint32
}

// TCP flags as on the wire.
const (
	FlagFIN uint8 = 1 << iota
	FlagSYN
	FlagRST
	FlagPSH
	FlagACK
	FlagURG
	FlagECE
	FlagCWR
)

// Side is one of the two ends.
type Side uint8

// SideUnknown: nobody did, or it was not seen who.
const (
	SideUnknown Side = iota
	SideLocal
	SideRemote
)

// Other is the side as the other end calls it.
func (s Side) Other() Side {
	switch s {
	case SideLocal:
		return SideRemote
	case SideRemote:
		return SideLocal
	}
	return s
}

// String gives the word used in the output; "" is not known.
func (s Side) String() string {
	switch s {
	case SideLocal:
		return "local"
	case SideRemote:
		return "remote"
	}
	return ""
}

// Failure is why a connection was never open.
type Failure uint8

// FailureNone: it was, or it is not known whether it was.
const (
	FailureNone Failure = iota
	// Nobody listens there, or a firewall says so.
	FailureRefused
	// Nobody answered.
	FailureTimedOut
	// The network or the host said that there is no way, or the neighbour did not
	// answer.
	FailureUnreachable
	// A reset after the first answer, or by the end that had asked.
	FailureReset
	// The process closed the socket while it was connecting.
	FailureGivenUp
)

var failureNames = [...]string{"", "refused", "timed_out", "unreachable", "reset", "given_up"}

func (f Failure) String() string {
	if int(f) < len(failureNames) {
		return failureNames[f]
	}
	return ""
}

// FailedConnect is a connect that the kernel says has failed.
type FailedConnect struct {
	// Ifindex is 0 where there is no route any more.
	Conn Conn
	// Unix nanoseconds.
	Time int64
	// Of the socket; 0 is not known.
	Cookie, Cgroup uint64
	// Segments that it sent again.
	Retransmits uint32
	Failure     Failure
}
