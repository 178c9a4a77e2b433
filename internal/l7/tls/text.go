// SPDX-License-Identifier: Apache-2.0

package tls

// plain makes a text of bytes so that none of them can be taken for another, nor
// for a command to a terminal: what is no plain character is \DDD, as in a name of
// the DNS.
func plain(b []byte) string {
	clean := true
	for _, c := range b {
		clean = clean && c > ' ' && c < 0x7f && c != '\\'
	}
	if clean {
		return string(b)
	}
	to := make([]byte, 0, 4*len(b))
	for _, c := range b {
		switch {
		case c == '\\':
			to = append(to, '\\', c)
		case c > ' ' && c < 0x7f:
			to = append(to, c)
		default:
			to = append(to, '\\', '0'+c/100, '0'+c/10%10, '0'+c%10)
		}
	}
	return string(to)
}

// lower is plain in small letters. Names have no others than those of ASCII.
func lower(b []byte) string {
	var buf [maxServerName]byte
	to := buf[:copy(buf[:], b)]
	for i, c := range to {
		if 'A' <= c && c <= 'Z' {
			to[i] = c | 0x20
		}
	}
	return plain(to)
}
