// SPDX-License-Identifier: Apache-2.0

package drop

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
)

// maxPlaces bounds the names that are kept: a kernel has some hundred places
// where it drops packets.
const maxPlaces = 4096

// places knows what the kernel calls addresses in its code. It asks the kernel
// for one name, by a program, where reading the table of all symbols takes a
// tenth of a second and the capability SYSLOG.
type places struct {
	ask   func(address uint64) (string, bool)
	known map[uint64]string
	// The kernel was asked in vain.
	nameless bool
}

func newPlaces(prog *ebpf.Program, result *ebpf.Map) places {
	var name [symbolBytes]byte
	return places{known: map[uint64]string{}, ask: func(address uint64) (string, bool) {
		if rc, err := prog.Run(&ebpf.RunOptions{Context: address}); err != nil || int32(rc) <= 0 {
			return "", false
		}
		if result.Lookup(uint32(0), &name) != nil {
			return "", false
		}
		text, _, _ := bytes.Cut(name[:], []byte{0})
		return string(text), true
	}}
}

// symbolBytes is the kernel's SYMBOL_BYTES.
const symbolBytes = 160

// name gives symbol+offset, or the address where the kernel does not tell.
func (p *places) name(address uint64) string {
	if name, ok := p.known[address]; ok {
		return name
	}
	name, ok := p.ask(address)
	if !ok {
		p.nameless = true
		name = "0x" + strconv.FormatUint(address, 16)
	}
	if len(p.known) >= maxPlaces {
		clear(p.known)
	}
	p.known[address] = shorten(name)
	return p.known[address]
}

// shorten takes the function's length and the blank off: of
// "symbol+0x1f/0x200 [module]" it leaves "symbol+0x1f[module]".
func shorten(name string) string {
	name, rest, _ := strings.Cut(name, "/")
	_, module, _ := strings.Cut(rest, " ")
	return name + module
}
