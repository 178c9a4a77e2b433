// SPDX-License-Identifier: Apache-2.0

package event

import (
	"strconv"
	"strings"
)

// Protocol is an IANA protocol number.
type Protocol uint8

// The protocols with names.
const (
	ICMP   Protocol = 1
	TCP    Protocol = 6
	UDP    Protocol = 17
	ICMPv6 Protocol = 58
	SCTP   Protocol = 132
)

// String gives the name, or the number as text where orb8 has no name for it.
func (p Protocol) String() string {
	switch p {
	case ICMP:
		return "ICMP"
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case ICMPv6:
		return "ICMPv6"
	case SCTP:
		return "SCTP"
	}
	return strconv.Itoa(int(p))
}

// ParseProtocol reads a name in any case, or a number from 0 to 255.
func ParseProtocol(s string) (Protocol, bool) {
	for _, p := range []Protocol{ICMP, TCP, UDP, ICMPv6, SCTP} {
		if strings.EqualFold(s, p.String()) {
			return p, true
		}
	}
	n, err := strconv.ParseUint(s, 10, 8)
	return Protocol(n), err == nil
}
