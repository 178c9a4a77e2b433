// SPDX-License-Identifier: Apache-2.0

package drop

import (
	"strconv"
	"strings"
	"testing"
)

func TestPlaces(t *testing.T) {
	asked := 0
	p := places{known: map[uint64]string{}, ask: func(address uint64) (string, bool) {
		asked++
		return map[uint64]string{
			1: "tcp_v4_rcv+0x91/0xd10", 2: "nft_do_chain+0x3e8/0x600 [nf_tables]", 3: "plain",
		}[address], address < 10
	}}
	for address, want := range map[uint64]string{
		1: "tcp_v4_rcv+0x91", 2: "nft_do_chain+0x3e8[nf_tables]", 3: "plain", 0xffffffff81000010: "0xffffffff81000010",
	} {
		for range 2 {
			if got := p.name(address); got != want {
				t.Errorf("%x is %q, want %q", address, got, want)
			}
		}
	}
	if asked != 4 || !p.nameless {
		t.Errorf("asked %d times, nameless %v", asked, p.nameless)
	}
	for i := range uint64(3 * maxPlaces) {
		p.name(100 + i)
	}
	if len(p.known) > maxPlaces {
		t.Errorf("%d places are kept", len(p.known))
	}
}

func FuzzShorten(f *testing.F) {
	f.Add("nft_do_chain+0x3e8/0x600 [nf_tables]")
	f.Add("/ / ")
	f.Fuzz(func(t *testing.T, name string) {
		got := shorten(name)
		if len(got) > len(name) || !strings.HasPrefix(got, strings.SplitN(name, "/", 2)[0]) {
			t.Errorf("%s of %s", strconv.Quote(got), strconv.Quote(name))
		}
	})
}
