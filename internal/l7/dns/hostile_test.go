// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	reference "github.com/miekg/dns"

	"github.com/orb8/orb8/internal/event"
)

// wire writes a response with these counts by hand.
func wire(counts [4]uint16, parts ...string) []byte {
	b := []byte{0, 7, 0x80, 0}
	for _, n := range counts {
		b = binary.BigEndian.AppendUint16(b, n)
	}
	return append(b, strings.Join(parts, "")...)
}

const (
	// A question for "a.", and the parts of records; the name begins at headerSize.
	questionA = "\x01a\x00\x00\x01\x00\x01"
	pointerA  = "\xc0\x0c"
	inA       = "\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\xc0\x00\x02\x01"
	inCNAME   = "\x00\x05\x00\x01\x00\x00\x00\x05"
	opt       = "\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"
)

// at is a pointer to so many bytes behind the header.
func at(off int) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(0xc000+headerSize+off)))
}

var hostile = map[string]struct {
	b    []byte
	want error
}{
	"empty":                          {nil, ErrShort},
	"half a header":                  {wire([4]uint16{})[:11], ErrShort},
	"text":                           {[]byte("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"), ErrNotDNS},
	"TLS":                            {[]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00"), ErrNotDNS},
	"reserved bit":                   {append([]byte{0, 7, 0x80, 0x40}, wire([4]uint16{})[4:]...), ErrNotDNS},
	"opcode 3":                       {append([]byte{0, 7, 0x18, 0}, wire([4]uint16{})[4:]...), ErrNotDNS},
	"opcode 7":                       {append([]byte{0, 7, 0x38, 0}, wire([4]uint16{})[4:]...), ErrNotDNS},
	"counts for more than a message": {wire([4]uint16{1, 4000, 2000, 0}, questionA), ErrNotDNS},
	"counts that lie":                {wire([4]uint16{1, 2, 0, 0}, questionA, pointerA, inA), ErrCut},
	"only a header":                  {wire([4]uint16{1, 1}), nil},
	"a question's header":            {append([]byte{0, 7, 0, 0}, wire([4]uint16{1})[4:]...), ErrCut},
	"half a question":                {wire([4]uint16{1}, questionA[:5]), ErrCut},
	"half a label":                   {wire([4]uint16{1}, "\x05ab"), ErrCut},
	"half a pointer":                 {wire([4]uint16{1, 1}, questionA, "\xc0"), ErrCut},
	"half an address":                {wire([4]uint16{1, 1}, questionA, pointerA, inA[:12]), ErrCut},
	"no additional":                  {wire([4]uint16{1, 0, 0, 1}, questionA), ErrCut},
	"label of 64":                    {wire([4]uint16{1}, "\x40", strings.Repeat("a", 64), "\x00\x00\x01\x00\x01"), ErrLabel},
	"label of kind 2":                {wire([4]uint16{1, 1}, questionA, "\x80\x00", inA), ErrLabel},
	"name of 256":                    {wire([4]uint16{1}, strings.Repeat("\x01a", 127), "\x00\x00\x01\x00\x01"), nil},
	"name of 257":                    {wire([4]uint16{1}, strings.Repeat("\x01a", 126), "\x02ab\x00\x00\x01\x00\x01"), ErrLabel},
	"name of 256 by pointer":         {wire([4]uint16{1, 1}, strings.Repeat("\x01a", 127), "\x00\x00\x01\x00\x01", "\x01b", pointerA, inA), ErrLabel},
	"pointer to itself":              {wire([4]uint16{1, 1}, questionA, at(len(questionA)), inA), ErrCompression},
	"pointer in the question":        {wire([4]uint16{1}, "\x01a", pointerA, "\x00\x01\x00\x01"), ErrCompression},
	"pointer forward":                {wire([4]uint16{1, 2}, questionA, at(len(questionA)+16), inA, pointerA, inA), ErrCompression},
	"pointer into the header":        {wire([4]uint16{1, 1}, questionA, "\xc0\x04", inA), ErrCompression},
	"pointer beyond the end":         {wire([4]uint16{1, 1}, questionA, "\xff\xff", inA), ErrCompression},
	"pointers in a ring": {wire([4]uint16{1, 2}, questionA,
		pointerA, inCNAME, "\x00\x02", at(len(questionA)+12), at(len(questionA)+10), inA), ErrCompression},
	"pointer that runs into itself": {wire([4]uint16{1, 1}, questionA, "\x01b", at(4), inA), ErrCompression},
	"A of nothing":                  {wire([4]uint16{1, 1}, questionA, pointerA, inA[:8], "\x00\x00"), ErrRecord},
	"A of 5":                        {wire([4]uint16{1, 1}, questionA, pointerA, inA[:8], "\x00\x05\x01\x02\x03\x04\x05"), ErrRecord},
	"AAAA of 4":                     {wire([4]uint16{1, 1}, questionA, pointerA, "\x00\x1c", inA[2:]), ErrRecord},
	"CNAME of nothing":              {wire([4]uint16{1, 1}, questionA, pointerA, inCNAME, "\x00\x00"), ErrRecord},
	"CNAME beyond its end":          {wire([4]uint16{1, 1}, questionA, pointerA, inCNAME, "\x00\x02\x01b\x00"), ErrRecord},
	"CNAME before its end":          {wire([4]uint16{1, 1}, questionA, pointerA, inCNAME, "\x00\x04\x01b\x00\x00"), ErrRecord},
	"two OPTs":                      {wire([4]uint16{1, 0, 0, 2}, questionA, opt, opt), ErrRecord},
	"OPT of a name":                 {wire([4]uint16{1, 0, 0, 1}, questionA, pointerA, opt[1:]), ErrRecord},
	"OPT before the end":            {wire([4]uint16{1, 1, 1, 1}, questionA, opt, opt, opt), nil},
	"bytes behind the end":          {wire([4]uint16{1}, questionA, "\xff\xff"), nil},
}

func TestHostile(t *testing.T) {
	m := &Message{}
	for name, test := range hostile {
		if err := Parse(test.b, m); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, not %v", name, err, test.want)
		}
		resolve(m) // whatever was read
	}
}

// Each part of a message is cut, and has what was whole.
func TestEveryPrefixIsCut(t *testing.T) {
	whole := answer(t, "example.com.", reference.TypeA,
		"example.com. 30 CNAME x.example.com.", "x.example.com. 30 A 192.0.2.1", "x.example.com. 30 A 192.0.2.2")
	whole.SetEdns0(1232, false)
	b := pack(t, whole)
	m := &Message{}
	kept := 0
	for n := range b {
		err := Parse(b[:n], m)
		switch {
		case n < headerSize:
			if !errors.Is(err, ErrShort) {
				t.Fatal(n, err)
			}
			continue
		case n == headerSize && err == nil:
			continue
		case !errors.Is(err, ErrCut):
			t.Fatal(n, err)
		}
		if got := len(m.Answers) + len(resolve(m)); got < kept || m.ID != 7 || m.AnswerCount != 3 && m.Questions == 1 {
			t.Fatalf("%d bytes: %+v", n, m)
		}
		kept = len(m.Answers) + len(resolve(m))
	}
	if kept != 5 {
		t.Errorf("%d answers and addresses of the longest", kept)
	}
}

// large are messages of nearly 64 KB, each made to cost as much as it can.
func large() map[string][]byte {
	records := func(n int, record func(i int) string) []byte {
		var parts strings.Builder
		parts.WriteString(questionA)
		for i := range n {
			parts.WriteString(record(i))
		}
		return wire([4]uint16{1, uint16(n)}, parts.String())
	}
	letter := func(i int) string { return fmt.Sprintf("%04x", i) }
	long := strings.Repeat("\x01b", 120)
	var chain strings.Builder // of pointers to pointers
	for i := range 8000 {
		chain.WriteString(at(len(questionA) + 20 + 2*max(i-1, 0)))
	}
	return map[string][]byte{
		"addresses":               records(4000, func(int) string { return pointerA + inA }),
		"names":                   records(3000, func(i int) string { return "\x04" + letter(i) + pointerA + inA }),
		"names of no compression": records(3000, func(i int) string { return "\x04" + letter(i) + "\x00" + inA }),
		"names that end alike": records(3000, func(i int) string {
			if i == 0 {
				return long + pointerA + inA
			}
			return "\x04" + letter(i) + at(len(questionA)) + inA
		}),
		"a chain": records(2500, func(i int) string {
			return "\x04" + letter(i) + "\x00" + inCNAME + "\x00\x06\x04" + letter(i+1) + "\x00"
		}),
		"pointers to pointers": wire([4]uint16{1, 3000}, questionA,
			pointerA, "\x00\x10\x00\x01\x00\x00\x00\x00\x3e\x80", chain.String()[:16000],
			strings.Repeat(at(200)+at(15000)+inA[2:], 2700)),
		"labels of nothing else": wire([4]uint16{1, 4000}, questionA, strings.Repeat("\x01b", 32000)),
		"zeros":                  append(wire([4]uint16{1, 4000}), bytes.Repeat([]byte{0}, 65000)...),
		"bytes to be escaped": records(800, func(i int) string {
			return "\x3f" + strings.Repeat("\xff", 59) + letter(i) + "\x00" + inA
		}),
	}
}

func TestLargeMessagesAreBounded(t *testing.T) {
	m := &Message{}
	for name, b := range large() {
		if len(b) > maxSize {
			t.Errorf("%s has %d bytes", name, len(b))
		}
		err := Parse(b, m)
		if err != nil && !errors.Is(err, ErrCut) && !errors.Is(err, ErrLabel) && !errors.Is(err, ErrCompression) {
			t.Errorf("%s: %v", name, err)
		}
		if m.names.work > maxWork+maxName+maxHops {
			t.Errorf("%s: names of %d bytes", name, m.names.work)
		}
		if len(m.Answers) > event.MaxAnswers || len(m.addresses) > maxAddresses || len(m.links) > maxLinks || len(m.names.spans) > maxNames {
			t.Errorf("%s keeps %d answers, %d addresses, %d CNAMEs, %d names", name, len(m.Answers), len(m.addresses), len(m.links), len(m.names.spans))
		}
		if kept := len(m.addresses) + len(m.links) + m.LeftOut; err == nil && name != "zeros" && kept != m.AnswerCount {
			t.Errorf("%s: %d of %d are accounted for", name, kept, m.AnswerCount)
		}
	}
	if most := maxNames*4*maxName + 4*maxName; cap(m.names.written) > 2*most {
		t.Errorf("%d bytes of names stay", cap(m.names.written))
	}
	if cap(m.addresses) > 2*maxAddresses || cap(m.links) > 2*maxLinks || cap(m.Answers) > 2*event.MaxAnswers {
		t.Error("more stays than is kept of a message")
	}
}

func BenchmarkLarge(b *testing.B) {
	for name, message := range large() {
		b.Run(name, func(b *testing.B) {
			m := &Message{}
			for b.Loop() {
				_ = Parse(message, m)
			}
		})
	}
}
