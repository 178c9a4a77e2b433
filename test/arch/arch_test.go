// SPDX-License-Identifier: Apache-2.0

// Package arch holds the rules of the house as a test: which room may import
// which, how long a file may be, and what stands at its top.
package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/orb8/orb8/"

// floors are the rooms from the top of the house to the bottom; a room may
// import rooms on lower floors only. Rooms on one floor are siblings and do not
// know each other.
var floors = [][]string{
	{"cmd/orb8", "cmd/orb8-agent", "test/bench", "test/e2e/plugin", "test/e2e/traffic", "test/gpu", "test/monitoring"},
	{"internal/agent", "internal/cli"}, // assembly, and the command line
	{"internal/client"},
	{"internal/observer", "internal/render", "internal/relay", "internal/kube/reach", "internal/export/prom", "internal/export/otel"},
	{"internal/wire", "internal/export/meter"},
	{"internal/store"},
	{"internal/enrich", "internal/kube", "internal/sandbox"},
	{"internal/accelerator", "internal/cluster", "internal/conntrack", "internal/kubelet", "internal/lookup", "internal/netstat", "internal/probe/capture", "internal/probe/connect", "internal/probe/flow", "internal/probe/drop", "internal/probe/gpu", "internal/probe/process", "internal/probe/rdma", "internal/probe/socket", "internal/probe/stats"},
	{"internal/filter", "internal/l7/dns", "internal/l7/tls", "internal/netns", "internal/cgroup", "internal/pair", "internal/names"},
	{"internal/kube/reach/reachtest"},                         // an API server for tests
	{"internal/event", "internal/pcapng", "internal/version"}, // the words
	{"api/orb8/v1"},
}

// The command line knows the agents by their API alone: all that it may import
// of the house.
var only = map[string][]string{
	"internal/cli":    {"api/orb8/v1", "internal/client", "internal/render", "internal/pair", "internal/event", "internal/pcapng"},
	"internal/client": {"api/orb8/v1", "internal/relay", "internal/kube/reach"},
	"internal/relay":  {"api/orb8/v1"},
	"internal/render": {"api/orb8/v1", "internal/pair", "internal/event"},
	"internal/pair":   {"api/orb8/v1", "internal/event"},
	"internal/event":  {},
	"internal/l7/dns": {"internal/event"},
	"internal/l7/tls": {"internal/event"},
	"internal/pcapng": {},
	"api/orb8/v1":     {},
}

// What only one room may import of the outside.
var guarded = map[string][]string{
	"github.com/cilium/ebpf":         {"internal/probe/", "internal/bpftest", "test/bench"},
	"github.com/vishvananda/netlink": {"internal/probe/", "internal/netns", "internal/conntrack", "internal/bpftest", "test/bench"},
	"k8s.io/client-go":               {"internal/kube"},
	"k8s.io/kubelet":                 {"internal/kubelet", "test/e2e"},
	"google.golang.org/protobuf":     {"api/", "internal/wire", "internal/observer", "internal/export/otel"},
	"github.com/spf13/cobra":         {"internal/cli", "internal/agent"},
	"github.com/prometheus":          {"internal/export/prom"},
	"go.opentelemetry.io":            {"internal/export/otel"},
	"github.com/ebitengine/purego":   {"internal/probe/gpu", "test/gpu"},
}

type pkg struct {
	ImportPath, Dir string
	Imports         []string
	GoFiles         []string
	TestGoFiles     []string
	XTestGoFiles    []string
}

func (p *pkg) room() string { return strings.TrimPrefix(p.ImportPath, module) }

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,Imports,GoFiles,TestGoFiles,XTestGoFiles", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// floor of a room, from 0 at the top; -1 for test help, which is free.
func floor(room string) int {
	return slices.IndexFunc(floors, func(rooms []string) bool { return slices.Contains(rooms, room) })
}

func TestArrowsPointDown(t *testing.T) {
	for _, p := range packages(t) {
		room := p.room()
		if room == "internal/bpftest" || room == "test/arch" || room == "test/smoke/oldwire" {
			continue
		}
		from := floor(room)
		if from < 0 && len(p.GoFiles) > 0 {
			t.Errorf("%s has no floor: give it one in this file", room)
			continue
		}
		for _, path := range p.Imports {
			to, ours := strings.CutPrefix(path, module)
			if !ours {
				continue
			}
			if floor(to) <= from && room != "test/bench" {
				t.Errorf("%s imports %s, which is not below it", room, to)
			}
			if allowed, narrow := only[room]; narrow && !slices.Contains(allowed, to) {
				t.Errorf("%s imports %s; it may import only %v", room, to, allowed)
			}
		}
	}
}

func TestTheOutsideIsKeptInItsRooms(t *testing.T) {
	for _, p := range packages(t) {
		for _, path := range p.Imports {
			for outside, rooms := range guarded {
				if path != outside && !strings.HasPrefix(path, outside+"/") {
					continue
				}
				if !slices.ContainsFunc(rooms, func(r string) bool { return strings.HasPrefix(p.room(), r) }) {
					t.Errorf("%s imports %s; only %v may", p.room(), path, rooms)
				}
			}
		}
	}
}
