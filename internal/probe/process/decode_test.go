// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

func execSample(netns, pid uint32) []byte {
	b := binary.NativeEndian.AppendUint32(nil, execEvent)
	b = binary.NativeEndian.AppendUint32(b, netns)
	b = binary.NativeEndian.AppendUint32(b, pid)
	b = append(b, 0, 0, 0, 0)
	return binary.NativeEndian.AppendUint64(b, 1<<40)
}

func cgroupSample(id uint64, path string, length, cut uint16) []byte {
	b := binary.NativeEndian.AppendUint32(nil, cgroupEvent)
	b = binary.NativeEndian.AppendUint16(b, length)
	b = binary.NativeEndian.AppendUint16(b, cut)
	b = binary.NativeEndian.AppendUint64(b, id)
	return append(append(b, path...), make([]byte, cgroupSize-pathAt-len(path))...)
}

func TestDecode(t *testing.T) {
	if e, ok := decode(execSample(4026531840, 77)); !ok || e.kind != execEvent || e.netns != 4026531840 || e.pid != 77 || e.cgroup != 1<<40 {
		t.Errorf("%+v %v", e, ok)
	}
	if e, ok := decode(cgroupSample(1<<40, "/a/b", 4, 0)); !ok || e.cgroup != 1<<40 || e.name() != "/a/b" {
		t.Errorf("%+v %v", e, ok)
	}
	long := strings.Repeat("x", pathBytes)
	if e, ok := decode(cgroupSample(1, long, pathBytes, 1)); !ok || e.name() != long+Cut {
		t.Errorf("%+v %v", e, ok)
	}
	for name, b := range map[string][]byte{
		"nothing":          nil,
		"short":            execSample(1, 2)[:execSize-1],
		"no kind":          make([]byte, execSize),
		"cut-off cgroup":   cgroupSample(1, "/a", 2, 0)[:cgroupSize-1],
		"beyond its space": cgroupSample(1, "/a", pathBytes+1, 0),
	} {
		if e, ok := decode(b); ok {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// Whatever the bytes are, the path is of them and within its bound.
func FuzzDecode(f *testing.F) {
	f.Add(execSample(4026531840, 1))
	f.Add(cgroupSample(77, "/kubepods.slice/x", 17, 0))
	f.Add(cgroupSample(77, strings.Repeat("x", pathBytes), pathBytes, 1))
	f.Add(cgroupSample(77, "", 65535, 1))
	f.Add([]byte{2, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, ok := decode(b)
		if !ok {
			if e.kind != 0 || e.path != nil {
				t.Errorf("%+v of what could not be read", e)
			}
			return
		}
		if len(e.path) > pathBytes || !bytes.Contains(b, e.path) {
			t.Errorf("a path of %d bytes", len(e.path))
		}
		if e.kind == execEvent && string(execSample(e.netns, e.pid)[:12]) != string(b[:12]) {
			t.Errorf("%+v of % x", e, b)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	exec, cgroup := execSample(1, 2), cgroupSample(1, "/a/b", 4, 0)
	b.ReportAllocs()
	for b.Loop() {
		decode(exec)
		decode(cgroup)
	}
}
