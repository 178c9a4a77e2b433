// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
)

// answerTo is what the kernel says of an entry.
func answerTo(e *entry, seq uint32) []byte {
	b := appendQuestion(nil, &e.orig, seq)
	reply := appendQuestion(nil, &e.reply, seq)[unix.SizeofNlMsghdr+sizeofNfgenmsg:]
	binary.NativeEndian.PutUint16(reply[2:], ctaTupleReply|unix.NLA_F_NESTED)
	b = append(b, reply...)
	binary.NativeEndian.PutUint16(b[4:], newEntry)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	return b
}

func refusal(errno unix.Errno, seq uint32) []byte {
	m := message{}
	m.u32(unix.SizeofNlMsghdr + 4)
	m.u16(unix.NLMSG_ERROR)
	m.u16(0)
	m.u32(seq)
	m.u32(0)
	m.u32(uint32(-int32(errno)))
	return m
}

func entries() []entry {
	echo := tuple{protocol: event.ICMP, srcPort: 7, dstPort: 7, icmpType: echoRequest}
	echo.src, _ = at(client)
	echo.dst, _ = at(backend)
	echo6 := tuple{protocol: event.ICMPv6, srcPort: 7, dstPort: 7, icmpType: echoReply6}
	echo6.src, _ = at("[fd00::1]:0")
	echo6.dst, _ = at("[fd00::2]:0")
	v6 := tcp("[fd00::1]:80", "[fd00::2]:5000")
	return []entry{
		{tcp(client, service), tcp(backend, client)},
		{v6, v6.inverted()},
		{echo, echo.inverted()},
		{echo6, echo6.inverted()},
	}
}

func TestParseAnswer(t *testing.T) {
	for _, e := range entries() {
		late := refusal(unix.ENOENT, 4)
		got, mine, err := parseAnswer(append(late, answerTo(&e, 5)...), 5)
		if got != e || !mine || err != nil {
			t.Errorf("%+v, %v, %v; want %+v", got, mine, err, e)
		}
		if _, mine, err := parseAnswer(late, 5); mine || err != nil {
			t.Errorf("a late answer: %v, %v", mine, err)
		}
	}
	for errno, want := range map[unix.Errno]error{unix.ENOENT: errNoEntry, unix.EPERM: unix.EPERM, 0: errGarbled} {
		if _, mine, err := parseAnswer(refusal(errno, 5), 5); !mine || !errors.Is(err, want) {
			t.Errorf("%v: %v, %v", errno, mine, err)
		}
	}
}

// Whatever comes, an entry is read whole or not at all, and what is written is
// read the same.
func FuzzParseAnswer(f *testing.F) {
	for _, e := range entries() {
		f.Add(answerTo(&e, 1))
	}
	f.Add(refusal(unix.ENOENT, 1))
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, mine, err := parseAnswer(b, 1)
		if (!mine || err != nil) && e != (entry{}) {
			t.Errorf("%+v of what is none: %v", e, err)
		}
		if !mine || err != nil {
			return
		}
		for _, u := range []tuple{e.orig, e.reply} {
			if echo := u.protocol == event.ICMP || u.protocol == event.ICMPv6; u.src.Addr().Is4() != u.dst.Addr().Is4() || !echo && u.icmpType != 0 {
				return // nothing that a kernel says
			}
		}
		if again, mine, err := parseAnswer(answerTo(&e, 1), 1); again != e || !mine || err != nil {
			t.Errorf("%+v becomes %+v, %v", e, again, err)
		}
	})
}

func BenchmarkQuestionAndAnswer(b *testing.B) {
	e := entries()[0]
	answer := answerTo(&e, 1)
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = appendQuestion(out[:0], &e.orig, 1)
		if _, mine, err := parseAnswer(answer, 1); !mine || err != nil {
			b.Fatal(err)
		}
	}
}
