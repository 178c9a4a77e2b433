// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func record(length, captured uint32, tag uint16, data []byte) []byte {
	b := binary.NativeEndian.AppendUint64(nil, 1000)
	for _, v := range []uint32{3, length, captured} {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	b = binary.NativeEndian.AppendUint16(b, tag)
	if tag != 0 {
		b = append(b, 0x81, 0)
	} else {
		b = append(b, 0, 0)
	}
	return append(append(b, 1, 0, 0, 0, 0, 0, 0, 0), data...)
}

func TestDecode(t *testing.T) {
	data := []byte("abcdefABCDEF\x08\x00rest")
	for name, c := range map[string]struct {
		record []byte
		want   string
		length uint32
	}{
		"plain":              {record(100, 18, 0, data), string(data), 100},
		"longer record":      {record(14, 14, 0, data), string(data[:14]), 14},
		"tagged":             {record(100, 18, 5, data), "abcdefABCDEF\x81\x00\x00\x05\x08\x00re", 104},
		"tagged, cut before": {record(100, 11, 5, data), string(data[:11]), 100},
	} {
		var p Packet
		if err := p.decode(c.record, 20); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if string(p.Data) != c.want || p.Length != c.length || p.Time != 1000 || p.Interface != 3 || !p.Egress {
			t.Errorf("%s: %+v %q", name, p, p.Data)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(record(100, 4, 5, []byte("abcd")), uint32(64))
	f.Add(record(100, 20, 5, bytes.Repeat([]byte("ab"), 20)), uint32(64))
	f.Add([]byte("short"), uint32(1))
	f.Fuzz(func(t *testing.T, b []byte, snaplen uint32) {
		var p Packet
		if err := p.decode(b, snaplen); err == nil && len(p.Data) > len(b) {
			t.Error("more data than the record has")
		}
	})
}
