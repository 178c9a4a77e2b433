// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Escape makes a text safe to print: control characters, what changes the
// direction or hides, and invalid UTF-8 are shown as escapes. Whoever can name
// a process could otherwise move the reader's cursor. A backslash stays one:
// systemd's own names hold some.
func Escape(s string) string { return escape(s, false) }

// escapeWord is Escape with blanks shown too, so that a cell stays one word.
func escapeWord(s string) string { return escape(s, true) }

func escape(s string, blanks bool) string {
	bad := func(r rune) bool {
		return r == utf8.RuneError || !strconv.IsPrint(r) || blanks && r == ' '
	}
	if strings.IndexFunc(s, bad) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n <= 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case !bad(r) || r == utf8.RuneError:
			b.WriteRune(r)
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		i += n
	}
	return b.String()
}

// escapeJSON does the same for the text of a JSON value, by JSON's own
// escapes, so that its meaning stays: encoding/json leaves DEL, C1 control and
// direction characters as they are.
func escapeJSON(text []byte) []byte {
	clean := true
	for _, c := range text {
		if c >= 0x7f {
			clean = false
			break
		}
	}
	if clean {
		return text
	}
	out := make([]byte, 0, len(text)+16)
	for _, r := range string(text) {
		switch {
		case r == '\n' || strconv.IsPrint(r):
			out = utf8.AppendRune(out, r)
		case r < 0x10000:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		}
	}
	return out
}
