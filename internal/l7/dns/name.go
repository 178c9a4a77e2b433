// SPDX-License-Identifier: Apache-2.0

package dns

import "encoding/binary"

const (
	maxName  = 255 // on the wire, lengths and root included
	maxLabel = 63
	// As many as a name can have labels; nobody compresses to more.
	maxHops = 127
	// What the names of a message may unfold to: four times the longest message.
	maxWork = 4 << 16
	// Names of a message that are told apart. A chain of CNAMEs has a handful.
	maxNames = 64
)

// none stands for a name that found no room.
const none = -1

// names holds the names of one message, each once, as people write them.
type names struct {
	written []byte
	spans   []span
	work    int
	// The pointer that was read last as a whole name, and what it led to: the owner
	// of most records is the one of the record before.
	pointer uint16
	last    int
}

// span is where a name is written. It is reached when the name that was asked leads
// to it, which holds for ttl seconds.
type span struct {
	from, to int
	reached  bool
	ttl      uint32
}

func (n *names) reset() {
	*n = names{written: n.written[:0], spans: n.spans[:0]}
}

// read gives the number of the name at off, and where the bytes go on after it.
func (n *names) read(b []byte, off int) (id, next int, err error) {
	pointer := uint16(0)
	if off+2 <= len(b) && b[off] >= 0xc0 {
		pointer = binary.BigEndian.Uint16(b[off:])
		if pointer == n.pointer {
			return n.last, off + 2, nil
		}
	}
	from := len(n.written)
	if next, err = n.unfold(b, off); err != nil {
		n.written = n.written[:from]
		return none, 0, err
	}
	id = n.number(from)
	if pointer != 0 {
		n.pointer, n.last = pointer, id
	}
	return id, next, nil
}

// number finds what was written last among the names, or adds it.
func (n *names) number(from int) int {
	name := n.written[from:]
	for id, s := range n.spans {
		if string(n.written[s.from:s.to]) == string(name) {
			n.written = n.written[:from]
			return id
		}
	}
	if len(n.spans) == maxNames {
		n.written = n.written[:from]
		return none
	}
	n.spans = append(n.spans, span{from: from, to: len(n.written)})
	return len(n.spans) - 1
}

// text is a name as a string: old, where that is the same.
func (n *names) text(id int, old string) string {
	if id == none {
		return ""
	}
	name := n.written[n.spans[id].from:n.spans[id].to]
	if string(name) == old {
		return old
	}
	return string(name)
}

// unfold writes the name at off. A pointer leads back, to what has its end before
// the place that points to it begins: so none leads round, and what is cut off
// cannot be there.
func (n *names) unfold(b []byte, off int) (next int, err error) {
	from := len(n.written)
	size, hops, start := 1, 0, off
	end, beyond := len(b), ErrCut
	for {
		if off >= end {
			return 0, beyond
		}
		c := int(b[off])
		switch {
		case c == 0:
			if hops == 0 {
				next = off + 1
			}
			if len(n.written) == from {
				n.written = append(n.written, '.')
			}
			n.work += size + hops
			return next, nil
		case c <= maxLabel:
			if size += c + 1; size > maxName {
				return 0, ErrLabel
			}
			if off+1+c > end {
				return 0, beyond
			}
			if len(n.written) > from {
				n.written = append(n.written, '.')
			}
			n.written = appendLabel(n.written, b[off+1:off+1+c])
			off += 1 + c
		case c >= 0xc0:
			if off+2 > end {
				return 0, beyond
			}
			to := int(binary.BigEndian.Uint16(b[off:]) & 0x3fff)
			if hops++; to >= start || to < headerSize || hops > maxHops || n.work > maxWork {
				return 0, ErrCompression
			}
			if hops == 1 {
				next = off + 2
			}
			end, beyond = start, ErrCompression
			off, start = to, to
		default:
			return 0, ErrLabel
		}
	}
}

// appendLabel writes a label so that no byte of it can be taken for another, nor
// for a command to a terminal.
func appendLabel(to, label []byte) []byte {
	for _, c := range label {
		switch {
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_':
			to = append(to, c)
		case 'A' <= c && c <= 'Z':
			to = append(to, c|0x20)
		case c == '.' || c == '\\':
			to = append(to, '\\', c)
		case c > ' ' && c < 0x7f:
			to = append(to, c)
		default:
			to = append(to, '\\', '0'+c/100, '0'+c/10%10, '0'+c%10)
		}
	}
	return to
}

// skipName passes over the name at off without following it.
func skipName(b []byte, off int) (next int, err error) {
	for off < len(b) {
		c := int(b[off])
		switch {
		case c == 0:
			return off + 1, nil
		case c <= maxLabel:
			off += 1 + c
		case c >= 0xc0:
			if off+2 > len(b) {
				return 0, ErrCut
			}
			return off + 2, nil
		default:
			return 0, ErrLabel
		}
	}
	return 0, ErrCut
}
