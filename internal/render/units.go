// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Units for people are decimal, as in networking: 1KB is 1,000 bytes.
const prefixes = "KMGTPE"

// Bytes is a size for people: 999B, 1.4KB, 12.3GB.
func Bytes(n uint64) string { return scale(float64(n)) + "B" }

// Count is a number for people: 999, 1.4K, 12.3G.
func Count(n uint64) string { return scale(float64(n)) }

func scale(f float64) string {
	if f < 999.5 {
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
	for i := range len(prefixes) {
		f /= 1000
		// What would print as 1000.0 belongs to the next prefix.
		if f < 999.95 || i == len(prefixes)-1 {
			return strconv.FormatFloat(f, 'f', 1, 64) + prefixes[i:i+1]
		}
	}
	return ""
}

// Micros is a short time for people, from microseconds: 85µs, 1.2ms, 3.40s.
func Micros(us uint32) string {
	switch {
	case us < 1000:
		return strconv.Itoa(int(us)) + "µs"
	case us < 999_950:
		return fmt.Sprintf("%.1fms", float64(us)/1e3)
	}
	return fmt.Sprintf("%.2fs", float64(us)/1e6)
}

// Age is a long time for people: its two largest units, 3d4h, 12m5s.
func Age(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	s := int64(d / time.Second)
	parts := []struct {
		n    int64
		unit string
	}{{s / 86400, "d"}, {s / 3600 % 24, "h"}, {s / 60 % 60, "m"}, {s % 60, "s"}}
	for i, p := range parts {
		if p.n == 0 {
			continue
		}
		text := fmt.Sprintf("%d%s", p.n, p.unit)
		if i+1 < len(parts) && parts[i+1].n != 0 {
			text += fmt.Sprintf("%d%s", parts[i+1].n, parts[i+1].unit)
		}
		return text
	}
	return "0s"
}

// plural is "1 flow", "2 flows", with the number in full and grouped.
func plural(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return group(n) + " " + noun + "s"
}

// group is 1234567 as 1,234,567.
func group(n uint64) string {
	digits := strconv.FormatUint(n, 10)
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}
