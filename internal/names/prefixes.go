// SPDX-License-Identifier: Apache-2.0

package names

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"unicode"

	"github.com/orb8/orb8/internal/event"
)

// maxPrefixes bounds a list of names.
const maxPrefixes = 65_536

// Prefixes is a list of networks with names. It does not change; a nil one is empty.
type Prefixes struct {
	byPrefix map[netip.Prefix]string
	// Lengths that there are, the longest first.
	v4, v6 []int
}

// ReadPrefixes reads a list: on each line a name and a network or address,
// "storage 10.20.0.0/16". What follows a # is a comment.
func ReadPrefixes(r io.Reader) (*Prefixes, error) {
	p := &Prefixes{byPrefix: map[netip.Prefix]string{}}
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		if err := p.add(fields); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	for prefix := range p.byPrefix {
		lengths := &p.v6
		if prefix.Addr().Is4() {
			lengths = &p.v4
		}
		if !slices.Contains(*lengths, prefix.Bits()) {
			*lengths = append(*lengths, prefix.Bits())
		}
	}
	for _, lengths := range [][]int{p.v4, p.v6} {
		slices.Sort(lengths)
		slices.Reverse(lengths)
	}
	return p, nil
}

func (p *Prefixes) add(fields []string) error {
	if len(fields) != 2 {
		return errors.New(`want a name and a network, such as "storage 10.20.0.0/16"`)
	}
	if len(fields[0]) > 253 {
		return fmt.Errorf("the name has %d bytes, 253 are allowed", len(fields[0]))
	}
	if strings.ContainsFunc(fields[0], func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("the name %q has characters that cannot be printed", fields[0])
	}
	prefix, err := netip.ParsePrefix(fields[1])
	if err != nil {
		addr, notAddr := netip.ParseAddr(fields[1])
		if notAddr != nil || addr.Zone() != "" {
			return fmt.Errorf("%q is no network or address, such as 10.20.0.0/16 or 2001:db8::1", fields[1])
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	if prefix.Addr().Is4In6() {
		return fmt.Errorf("%s: write it as IPv4", fields[1])
	}
	if was, twice := p.byPrefix[prefix.Masked()]; twice && was != fields[0] {
		return fmt.Errorf("%s is called %q above, and %q here", prefix.Masked(), was, fields[0])
	}
	if p.byPrefix[prefix.Masked()] = fields[0]; len(p.byPrefix) > maxPrefixes {
		return fmt.Errorf("more than %d networks", maxPrefixes)
	}
	return nil
}

// Name is that of the smallest network that an address is in, or "".
func (p *Prefixes) Name(ip event.IP) string {
	if p == nil || len(p.byPrefix) == 0 {
		return ""
	}
	addr := ip.Addr()
	lengths := p.v6
	if addr.Is4() {
		lengths = p.v4
	}
	for _, bits := range lengths {
		prefix, err := addr.Prefix(bits)
		if err != nil {
			continue
		}
		if name, ok := p.byPrefix[prefix]; ok {
			return name
		}
	}
	return ""
}
