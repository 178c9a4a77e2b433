// SPDX-License-Identifier: Apache-2.0

package names

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/orb8/orb8/internal/event"
)

const list = `
# what is where
storage   10.20.0.0/16
storage-a 10.20.1.0/24	# the fast one
gateway   10.20.1.1
all-of-it 2001:db8::/32
one       2001:db8::1
`

func TestPrefixes(t *testing.T) {
	p, err := ReadPrefixes(strings.NewReader(list))
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]string{
		"10.20.0.1": "storage", "10.20.1.2": "storage-a", "10.20.1.1": "gateway", "10.21.0.1": "",
		"2001:db8::2": "all-of-it", "2001:db8::1": "one", "2001:db9::": "",
	} {
		if got := p.Name(event.IPFrom(netip.MustParseAddr(addr))); got != want {
			t.Errorf("%s is called %q, want %q", addr, got, want)
		}
	}
	var none *Prefixes
	if got := none.Name(event.IP{}); got != "" {
		t.Errorf("without a list: %q", got)
	}
}

func TestPrefixesThatAreNone(t *testing.T) {
	for text, want := range map[string]string{
		"storage":                         `line 1: want a name and a network, such as "storage 10.20.0.0/16"`,
		"a 10.0.0.0/8\nb 10.0.0.0/99":     `line 2: "10.0.0.0/99" is no network`,
		"a 10.0.0.1/8\nb 10.0.0.0/8":      `10.0.0.0/8 is called "a" above, and "b" here`,
		"a fe80::1%eth0":                  `is no network`,
		"a ::ffff:10.0.0.0/104":           "write it as IPv4",
		"\x1b[31mred 10.0.0.0/8":          "cannot be printed",
		"a b 10.0.0.0/8":                  "want a name and a network",
		strings.Repeat("x", 300) + " ::1": "the name has 300 bytes",
	} {
		if _, err := ReadPrefixes(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
}

func FuzzReadPrefixes(f *testing.F) {
	f.Add(list, "10.20.1.1")
	f.Fuzz(func(t *testing.T, text, addr string) {
		p, err := ReadPrefixes(strings.NewReader(text))
		if ip, bad := netip.ParseAddr(addr); err == nil && bad == nil && ip.Zone() == "" {
			p.Name(event.IPFrom(ip))
		}
	})
}
