// SPDX-License-Identifier: Apache-2.0

package render

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestEscape(t *testing.T) {
	for _, c := range []struct{ in, want, word string }{
		{"", "", ""},
		{"sshd", "sshd", "sshd"},
		{"Web Content", "Web Content", `Web\x20Content`},
		{"dév-日本", "dév-日本", "dév-日本"},
		{`dev-disk\x2dby.device`, `dev-disk\x2dby.device`, `dev-disk\x2dby.device`},
		{"a\x1b[2Jb", `a\x1b[2Jb`, `a\x1b[2Jb`},
		{"a\r\n\tb\x00\x7f", `a\x0d\x0a\x09b\x00\x7f`, `a\x0d\x0a\x09b\x00\x7f`},
		// C1 control, as UTF-8 and as a bare byte.
		{"\u009b31m", `\u009b31m`, `\u009b31m`},
		{"\x9b31m\xff", `\x9b31m\xff`, `\x9b31m\xff`},
		// Direction override, zero width, line separator, no-break space, tag.
		{"\u202egpj\u2066", `\u202egpj\u2066`, `\u202egpj\u2066`},
		{"\u200b\u2028\u00a0\ufeff", `\u200b\u2028\u00a0\ufeff`, `\u200b\u2028\u00a0\ufeff`},
		{"\U000e0041", `\U000e0041`, `\U000e0041`},
		{"\ufffd", "\ufffd", "\ufffd"},
	} {
		if got := Escape(c.in); got != c.want {
			t.Errorf("Escape(%q) = %s, want %s", c.in, got, c.want)
		}
		if got := escapeWord(c.in); got != c.word {
			t.Errorf("escapeWord(%q) = %s, want %s", c.in, got, c.word)
		}
	}
}

// FuzzEscape: whatever comes, only printable characters leave; a text that was
// clean is not changed; JSON keeps its meaning.
func FuzzEscape(f *testing.F) {
	for _, s := range []string{"sshd", "a b", "\x1b[31m", "\u202e", "\xff\xfe", "\u009b", "\U000e0041\U0001f600", `"\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, word := Escape(s), escapeWord(s)
		for _, out := range []string{got, word} {
			if !utf8.ValidString(out) || strings.IndexFunc(out, func(r rune) bool { return !strconv.IsPrint(r) }) >= 0 {
				t.Errorf("%q lets something through: %q", s, out)
			}
		}
		if strings.Contains(word, " ") {
			t.Errorf("a word with a blank: %q", word)
		}
		if again := Escape(got); again != got {
			t.Errorf("not stable: %q then %q", got, again)
		}
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var want, back string
		safe := escapeJSON(text)
		if strings.IndexFunc(string(safe), func(r rune) bool { return !strconv.IsPrint(r) }) >= 0 {
			t.Errorf("JSON of %q lets something through: %q", s, safe)
		}
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(safe, &back); err != nil || back != want {
			t.Errorf("JSON of %q is %s: %q, %v", s, safe, back, err)
		}
	})
}
