// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"strings"
	"unicode/utf8"
)

// Text marks what is not UTF-8. Protobuf refuses to send it, and with it the
// whole answer; yet a process chooses its own name, and whoever makes a cgroup,
// an interface or a network namespace that one's. So every text that goes into
// a message comes through here.
func Text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// Texts is Text for a list. What needs no change is not copied.
func Texts(list []string) []string {
	for i, s := range list {
		if !utf8.ValidString(s) {
			out := append([]string{}, list...)
			for j := i; j < len(out); j++ {
				out[j] = Text(out[j])
			}
			return out
		}
	}
	return list
}

// labels is Text for both sides of each. What needs no change is not copied.
func labels(m map[string]string) map[string]string {
	for k, v := range m {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			out := make(map[string]string, len(m))
			for k, v := range m {
				out[Text(k)] = Text(v)
			}
			return out
		}
	}
	return m
}
