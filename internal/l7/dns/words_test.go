// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"strings"
	"testing"

	reference "github.com/miekg/dns"

	"github.com/orb8/orb8/internal/event"
)

func TestTypesHaveTheirNames(t *testing.T) {
	for number := range 1 << 16 {
		name := TypeName(uint16(number))
		if known, ok := reference.TypeToString[uint16(number)]; ok && name != known && !strings.HasPrefix(name, typePrefix) {
			t.Errorf("%d is %s, not %s", number, name, known)
		}
		if got, ok := TypeNumber(strings.ToLower(name)); !ok || int(got) != number {
			t.Errorf("%s is %d, %v, not %d", name, got, ok, number)
		}
	}
	for _, name := range []string{"", "B", "TYPE", "TYPE65536", "TYPE-1", "TYPEA", "TYP"} {
		if n, ok := TypeNumber(name); ok {
			t.Errorf("%q is %d", name, n)
		}
	}
}

func TestCodesHaveTheirNames(t *testing.T) {
	for code := range maxRCode + 1 {
		name := RCodeName(event.RCode(code))
		known, ok := reference.RcodeToString[code]
		if code == reference.RcodeBadVers {
			known = "BADVERS" // the reference names it for TSIG
		}
		if ok != !strings.HasPrefix(name, rcodePrefix) || ok && name != strings.ToUpper(known) {
			t.Errorf("%d is %s, not %s", code, name, known)
		}
		if got, ok := RCodeNumber(strings.ToLower(name)); !ok || int(got) != code {
			t.Errorf("%s is %d, %v, not %d", name, got, ok, code)
		}
	}
	if code, ok := RCodeNumber("timeout"); !ok || code != event.RCodeTimeout || RCodeName(code) != "TIMEOUT" {
		t.Error("TIMEOUT is", code, ok)
	}
	for _, name := range []string{"", "OK", "RCODE", "RCODE4096", "RCODE65535"} {
		if n, ok := RCodeNumber(name); ok {
			t.Errorf("%q is %d", name, n)
		}
	}
}
