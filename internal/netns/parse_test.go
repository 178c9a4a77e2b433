// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"encoding/binary"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// record is one of inotify's, its name padded as the kernel does.
func record(watch int32, mask uint32, name string) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(watch))
	b = binary.NativeEndian.AppendUint32(b, mask)
	b = binary.NativeEndian.AppendUint32(b, 0)
	padded := 0
	if name != "" {
		padded = (len(name) + 16) &^ 15
	}
	b = binary.NativeEndian.AppendUint32(b, uint32(padded))
	return append(append(b, name...), make([]byte, padded-len(name))...)
}

func TestParseChanges(t *testing.T) {
	b := append(record(1, unix.IN_CREATE, "cni-77"), record(-1, unix.IN_Q_OVERFLOW, "")...)
	b = append(b, record(2, unix.IN_DELETE, strings.Repeat("x", 255))...)
	got := parseChanges(b)
	want := []change{{1, unix.IN_CREATE, "cni-77"}, {-1, unix.IN_Q_OVERFLOW, ""}, {2, unix.IN_DELETE, strings.Repeat("x", 255)}}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
}

func FuzzParseChanges(f *testing.F) {
	f.Add(record(1, unix.IN_CREATE, "cni-77"))
	f.Add(append(record(-1, unix.IN_Q_OVERFLOW, ""), record(2, unix.IN_DELETE, "a")...))
	f.Add(record(1, unix.IN_CREATE, "cni-77")[:20])
	f.Add(record(1, unix.IN_CREATE, strings.Repeat("x", 255)))
	f.Fuzz(func(t *testing.T, b []byte) {
		got := parseChanges(b)
		if len(got) > len(b)/unix.SizeofInotifyEvent {
			t.Errorf("%d changes in %d bytes", len(got), len(b))
		}
		for _, c := range got {
			if strings.ContainsRune(c.name, 0) {
				t.Errorf("name %q", c.name)
			}
		}
	})
}

func TestParseLink(t *testing.T) {
	for text, want := range map[string]uint32{
		"net:[4026531840]": 4026531840, "net:[1]": 1, "net:[4294967295]": math.MaxUint32,
		"net:[4294967296]": 0, "net:[0]": 0, "net:[]": 0, "net:[-1]": 0, "net:[1": 0, "uts:[4026531838]": 0, "": 0, "net:[ 1]": 0,
	} {
		if got, ok := parseLink([]byte(text)); ok != (want != 0) || ok && got != want {
			t.Errorf("%q: %d %v", text, got, ok)
		}
	}
}

func FuzzParseLink(f *testing.F) {
	for _, s := range []string{"net:[4026531840]", "net:[4294967296]", "net:[]", "uts:[4026531838]", "net:[00000000001]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, ok := parseLink([]byte(s))
		digits := strings.TrimSuffix(strings.TrimPrefix(s, "net:["), "]")
		want, err := strconv.ParseUint(digits, 10, 32)
		valid := err == nil && want > 0 && len(digits) <= 10 && s == "net:["+digits+"]"
		if ok != valid || ok && uint64(n) != want {
			t.Errorf("%q: %d %v, want %d %v", s, n, ok, want, valid)
		}
	})
}

// entry64 is one of getdents64's.
func entry64(name string) []byte {
	b := make([]byte, 19, 64)
	length := (19 + len(name) + 1 + 7) &^ 7
	binary.NativeEndian.PutUint16(b[16:], uint16(length))
	b = append(b, name...)
	return append(b, make([]byte, length-len(b))...)
}

func FuzzNextPID(f *testing.F) {
	f.Add(append(entry64("1"), entry64("4194304")...))
	f.Add(append(entry64("self"), entry64("77")...))
	f.Add(entry64("99999999999999"))
	f.Add(entry64("77")[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			_, rest := nextPID(b)
			if len(rest) >= len(b) {
				t.Fatal("stands still")
			}
			b = rest
		}
	})
}

func TestNextPID(t *testing.T) {
	b := append(append(entry64("self"), entry64("77")...), entry64("4194304")...)
	var got []uint32
	for len(b) > 0 {
		var pid uint32
		pid, b = nextPID(b)
		got = append(got, pid)
	}
	if len(got) != 3 || got[0] != 0 || got[1] != 77 || got[2] != 4194304 {
		t.Errorf("%v", got)
	}
}

const statLine = "77 (a) b (c)) S 1 77 77 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 "

func TestParseStart(t *testing.T) {
	if n, ok := parseStart([]byte(statLine + "12345 0 0\n")); n != 12345 || !ok {
		t.Errorf("%d %v", n, ok)
	}
	for _, s := range []string{"", "77 (a", "77 (a) S 1", statLine + "x 0", statLine + "18446744073709551615"} {
		if n, ok := parseStart([]byte(s)); ok {
			t.Errorf("%q: %d", s, n)
		}
	}
}

func FuzzParseStart(f *testing.F) {
	f.Add([]byte(statLine + "12345 0 0\n"))
	f.Add([]byte(statLine + "18446744073709551615"))
	f.Add([]byte("77 (a) S 1"))
	f.Add([]byte(")"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, ok := parseStart(b); ok && time.Duration(n)*10*time.Millisecond < 0 {
			t.Errorf("%q started at %d", b, n)
		}
	})
}

// A file waits a sixteenth of its age for the next look, and a second in all.
func TestPatience(t *testing.T) {
	p := newPending()
	begin := time.Unix(1e9, 0)
	at := begin
	p.renewed("/run/netns/a")
	if due := p.due(at, 10); len(due) != 1 {
		t.Fatalf("due %q", due)
	}
	looks := 0
	for ; p.postpone("/run/netns/a", at) && !p.stale["/run/netns/a"]; looks++ {
		next := p.next()
		if late := next.Sub(at); late > max(firstRetry, at.Sub(begin)/16) || late <= 0 {
			t.Fatalf("at %v: the next look comes %v later", at.Sub(begin), late)
		}
		if due := p.due(next.Add(-1), 10); len(due) != 0 {
			t.Fatalf("due too early: %q", due)
		}
		at = next
		if due := p.due(at, 10); len(due) != 1 {
			t.Fatalf("due %q", due)
		}
	}
	if age := at.Sub(begin); age < lastRetry || age > 2*lastRetry || looks > 200 {
		t.Errorf("given up after %d looks in %v", looks, age)
	}
	if !p.next().IsZero() || len(p.due(at.Add(time.Hour), 10)) != 0 {
		t.Error("looks again by itself")
	}
	// Made anew, it has all the patience again.
	p.renewed("/run/netns/a")
	if len(p.due(at, 10)) != 1 || !p.postpone("/run/netns/a", at) || p.next() != at.Add(firstRetry) {
		t.Error("a new file is not waited for")
	}
	p.settled("/run/netns/a")
	for i := range maxWaiting + 1 {
		if ok := p.postpone(strconv.Itoa(i), at); ok != (i < maxWaiting) {
			t.Fatalf("%d are waited for: %v", i, ok)
		}
	}
}
