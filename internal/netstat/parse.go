// SPDX-License-Identifier: Apache-2.0

package netstat

import (
	"bytes"
)

// table reads /proc/net/snmp and /proc/net/netstat: pairs of lines, names over
// numbers, both begun by the name of their protocol. It tells each number by the
// name that nstat gives it: TcpExt and ListenOverflows are one word. The name is
// only good until told returns.
func table(text []byte, told func(name []byte, n uint64)) {
	var name []byte
	for len(text) > 0 {
		var names, numbers []byte
		names, text = line(text)
		numbers, text = line(text)
		protocol, names, ok := bytes.Cut(names, []byte(": "))
		again, numbers, both := bytes.Cut(numbers, []byte(": "))
		if !ok || !both || !bytes.Equal(protocol, again) {
			return // not the file that it is taken for
		}
		for {
			var title, text []byte
			title, names = word(names)
			text, numbers = word(numbers)
			if len(title) == 0 || len(text) == 0 {
				break
			}
			if n, ok := number(text); ok {
				name = append(append(name[:0], protocol...), title...)
				told(name, n)
			}
		}
	}
}

// list reads /proc/net/snmp6: a name and a number in each line.
func list(text []byte, told func(name []byte, n uint64)) {
	for len(text) > 0 {
		var row []byte
		row, text = line(text)
		name, row := word(row)
		text, _ := word(row)
		if n, ok := number(text); ok && len(name) > 0 {
			told(name, n)
		}
	}
}

// gauges reads /proc/net/sockstat and sockstat6: after the name of a protocol,
// names and numbers by turns.
func gauges(text []byte, told func(protocol, name []byte, n uint64)) {
	for len(text) > 0 {
		var row []byte
		row, text = line(text)
		protocol, row, ok := bytes.Cut(row, []byte(": "))
		for ok && len(row) > 0 {
			var name, text []byte
			name, row = word(row)
			text, row = word(row)
			if n, ok := number(text); ok {
				told(protocol, name, n)
			}
		}
	}
}

func line(text []byte) (first, rest []byte) {
	first, rest, _ = bytes.Cut(text, []byte{'\n'})
	return first, rest
}

func word(text []byte) (first, rest []byte) {
	text = bytes.TrimLeft(text, " \t")
	end := bytes.IndexAny(text, " \t")
	if end < 0 {
		return text, nil
	}
	return text[:end], text[end:]
}

// number reads a whole one; others, as Tcp's MaxConn of -1, tell nothing here.
func number(text []byte) (n uint64, ok bool) {
	if len(text) == 0 || len(text) > 20 {
		return 0, false
	}
	for _, c := range text {
		d := uint64(c - '0')
		if d > 9 || n > (1<<64-1-d)/10 {
			return 0, false
		}
		n = 10*n + d
	}
	return n, true
}
