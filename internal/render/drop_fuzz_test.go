// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"encoding/json"
	"testing"

	"google.golang.org/protobuf/proto"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

func FuzzDrop(f *testing.F) {
	for _, r := range []*orb8v1.Event{
		{},
		{
			Kind: orb8v1.EventKind_EVENT_KIND_DROP, TimeNs: 1 << 62,
			Flow: &orb8v1.FlowRecord{Protocol: 6, Local: &orb8v1.End{Ip: "10.1.2.3", Port: 80}, Remote: &orb8v1.End{Ip: "fd00::1"}},
			Drop: &orb8v1.DropRecord{Packets: 1 << 63, At: &orb8v1.End{Class: "host"}, Tap: &orb8v1.Tap{Netns: 7}},
		},
		{Drop: &orb8v1.DropRecord{FirstNs: -1 << 63, LastNs: 1<<63 - 1, At: &orb8v1.End{PodUid: "\n"}}},
	} {
		b, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, "\x1b[31m", true, 80)
		f.Add(b, "a b\n\u202e", false, 0)
	}
	f.Fuzz(func(t *testing.T, b []byte, name string, human bool, width int) {
		var e orb8v1.Event
		if proto.Unmarshal(b, &e) != nil {
			return
		}
		if e.GetDrop() == nil {
			e.Drop = &orb8v1.DropRecord{}
		}
		e.Drop.Reason, e.Drop.Location, e.Drop.Hint, e.Drop.Node = name, name, name, name
		style := Style{Human: human, Wide: len(name)%2 == 0, Width: width % 500}
		list, events := NewDropTable(style), NewDropEventTable(style)
		list.AddDrop(e.GetDrop())
		events.Add(&e)
		for _, table := range []*DropTable{list, events} {
			var out bytes.Buffer
			if err := table.Flush(&out); err != nil {
				t.Fatal(err)
			}
			checkLines(t, out.String(), 2)
		}
		var drop, event bytes.Buffer
		if err := DropJSON(&drop, e.GetDrop()); err != nil {
			t.Fatal(err)
		}
		if err := DropEventJSON(&event, &e); err != nil {
			t.Fatal(err)
		}
		for _, out := range []*bytes.Buffer{&drop, &event} {
			checkLines(t, out.String(), 1)
			if !json.Valid(out.Bytes()) {
				t.Errorf("not JSON: %s", out)
			}
		}
	})
}
