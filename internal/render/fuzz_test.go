// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// Whatever a record holds, it is one line of JSON and one row of a table, and
// nothing in them moves a cursor.
func FuzzFlow(f *testing.F) {
	for _, r := range []*orb8v1.FlowRecord{
		{},
		{Protocol: 6, Local: &orb8v1.End{Ip: "10.1.2.3", Port: 80, Namespace: "a", Pod: "b"}, Remote: &orb8v1.End{Ip: "fd00::1"}, Total: &orb8v1.Traffic{TxBytes: 1 << 63}},
		{Protocol: 999, FirstSeenNs: -1 << 63, LastSeenNs: 1<<63 - 1, OpenedBy: 77, Health: &orb8v1.Health{RttUs: 1<<32 - 1}, State: "\n"},
	} {
		b, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, "\x1b[31m", true, 80)
		f.Add(b, "a b\n\u202e", false, 0)
	}
	f.Fuzz(func(t *testing.T, b []byte, name string, human bool, width int) {
		var record orb8v1.FlowRecord
		if proto.Unmarshal(b, &record) != nil {
			return
		}
		if record.GetLocal() != nil {
			record.Local.Process, record.Local.Unit = name, name
		}
		if record.GetRemote() != nil {
			record.Remote.Service, record.Remote.Pod = name, name
			record.Remote.Fqdn, record.Remote.FqdnSource = name, name
		}
		record.Tls = &orb8v1.Tls{ServerName: name, Alpn: []string{name}, Version: name}
		record.Node, record.State = name, name
		var out bytes.Buffer
		if err := FlowJSON(&out, &record); err != nil {
			t.Fatal(err)
		}
		checkLines(t, out.String(), 1)
		if !json.Valid(out.Bytes()) {
			t.Errorf("not JSON: %s", &out)
		}
		out.Reset()
		table := NewFlowTable(Style{Human: human, Wide: len(name)%2 == 0, Width: width % 500}, true)
		table.Add(&record, Rate{})
		if err := table.Flush(&out); err != nil {
			t.Fatal(err)
		}
		checkLines(t, out.String(), 2)
	})
}

func FuzzPod(f *testing.F) {
	for _, r := range []*orb8v1.PodRecord{
		{},
		{Namespace: "shop", Name: "web-0", Phase: "Running", Ips: []string{"10.1.2.3", "fd00::1"}, CreatedNs: 1, Workload: &orb8v1.Workload{Kind: "StatefulSet", Name: "web"}},
		{Containers: []*orb8v1.PodContainer{{}, {Name: "a", Id: "0"}}, Labels: map[string]string{"a\n": "\x1b"}, DeletedNs: -1 << 63},
	} {
		b, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, "\x1b[31m", true, 80)
		f.Add(b, "a b\n\u202e", false, 0)
	}
	f.Fuzz(func(t *testing.T, b []byte, name string, human bool, width int) {
		var pod orb8v1.PodRecord
		if proto.Unmarshal(b, &pod) != nil {
			return
		}
		pod.Name, pod.Phase, pod.Node = name, name, name
		var out bytes.Buffer
		if err := PodJSON(&out, &pod); err != nil {
			t.Fatal(err)
		}
		checkLines(t, out.String(), 1)
		if !json.Valid(out.Bytes()) {
			t.Errorf("not JSON: %s", &out)
		}
		out.Reset()
		table := NewPodTable(Style{Human: human, Wide: len(name)%2 == 0, Width: width % 500})
		table.Add(&pod)
		if err := table.Flush(&out); err != nil {
			t.Fatal(err)
		}
		checkLines(t, out.String(), 2)
	})
}

func checkLines(t *testing.T, text string, lines int) {
	t.Helper()
	if n := strings.Count(text, "\n"); n != lines || !strings.HasSuffix(text, "\n") {
		t.Errorf("%d lines, want %d: %q", n, lines, text)
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && !strconv.IsPrint(r) }); i >= 0 {
		t.Errorf("lets something through at %d: %q", i, text)
	}
}
