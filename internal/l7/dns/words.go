// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"strconv"
	"strings"

	"github.com/orb8/orb8/internal/event"
)

// As IANA writes them; those that are in use, and meta types.
var typeNames = [...]struct {
	number uint16
	name   string
}{
	{typeA, "A"},
	{typeAAAA, "AAAA"},
	{typeCNAME, "CNAME"},
	{12, "PTR"},
	{33, "SRV"},
	{65, "HTTPS"},
	{16, "TXT"},
	{2, "NS"},
	{6, "SOA"},
	{15, "MX"},
	{64, "SVCB"},
	{10, "NULL"},
	{13, "HINFO"},
	{17, "RP"},
	{18, "AFSDB"},
	{24, "SIG"},
	{25, "KEY"},
	{29, "LOC"},
	{35, "NAPTR"},
	{36, "KX"},
	{37, "CERT"},
	{39, "DNAME"},
	{typeOPT, "OPT"},
	{42, "APL"},
	{43, "DS"},
	{44, "SSHFP"},
	{45, "IPSECKEY"},
	{46, "RRSIG"},
	{47, "NSEC"},
	{48, "DNSKEY"},
	{49, "DHCID"},
	{50, "NSEC3"},
	{51, "NSEC3PARAM"},
	{52, "TLSA"},
	{53, "SMIMEA"},
	{55, "HIP"},
	{59, "CDS"},
	{60, "CDNSKEY"},
	{61, "OPENPGPKEY"},
	{62, "CSYNC"},
	{63, "ZONEMD"},
	{99, "SPF"},
	{108, "EUI48"},
	{109, "EUI64"},
	{249, "TKEY"},
	{250, "TSIG"},
	{251, "IXFR"},
	{252, "AXFR"},
	{253, "MAILB"},
	{254, "MAILA"},
	{255, "ANY"},
	{256, "URI"},
	{257, "CAA"},
}

const typePrefix = "TYPE" // RFC 3597

// TypeName is how a type of record is written: A, AAAA, or TYPE65280.
func TypeName(number uint16) string {
	for i := range typeNames {
		if typeNames[i].number == number {
			return typeNames[i].name
		}
	}
	return typePrefix + strconv.Itoa(int(number))
}

// TypeNumber is the type of that name, letters in any case.
func TypeNumber(name string) (uint16, bool) {
	for i := range typeNames {
		if strings.EqualFold(typeNames[i].name, name) {
			return typeNames[i].number, true
		}
	}
	n, ok := suffix(name, typePrefix, 1<<16-1)
	return uint16(n), ok
}

// As IANA writes them; 16 is BADVERS in EDNS, BADSIG in TSIG's own field.
var rcodeNames = [...]string{
	0: "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN",
	"YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE", "DSOTYPENI",
	16: "BADVERS", "BADKEY", "BADTIME", "BADMODE", "BADNAME", "BADALG", "BADTRUNC", "BADCOOKIE",
}

const (
	rcodePrefix = "RCODE"
	rcodeNone   = "TIMEOUT"
	rcodeNobody = "UNREACHABLE"
	maxRCode    = 1<<12 - 1
)

// RCodeName is how a response code is written: NOERROR, NXDOMAIN, or RCODE4095;
// TIMEOUT when nobody answered, UNREACHABLE when nobody is there to answer.
func RCodeName(code event.RCode) string {
	switch {
	case code == event.RCodeTimeout:
		return rcodeNone
	case code == event.RCodeUnreachable:
		return rcodeNobody
	case int(code) < len(rcodeNames) && rcodeNames[code] != "":
		return rcodeNames[code]
	}
	return rcodePrefix + strconv.Itoa(int(code))
}

// RCodeNumber is the response code of that name, letters in any case.
func RCodeNumber(name string) (event.RCode, bool) {
	switch {
	case strings.EqualFold(name, rcodeNone):
		return event.RCodeTimeout, true
	case strings.EqualFold(name, rcodeNobody):
		return event.RCodeUnreachable, true
	}
	for code, known := range rcodeNames {
		if known != "" && strings.EqualFold(known, name) {
			return event.RCode(code), true
		}
	}
	n, ok := suffix(name, rcodePrefix, maxRCode)
	return event.RCode(n), ok
}

// suffix is the number behind a prefix.
func suffix(name, prefix string, most uint64) (uint64, bool) {
	if len(name) <= len(prefix) || !strings.EqualFold(name[:len(prefix)], prefix) {
		return 0, false
	}
	n, err := strconv.ParseUint(name[len(prefix):], 10, 16)
	return n, err == nil && n <= most
}
