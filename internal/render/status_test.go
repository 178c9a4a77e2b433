// SPDX-License-Identifier: Apache-2.0

package render

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

const ownNetns = 4026531840

func tapped(netns uint64, index uint32, name string) *orb8v1.InterfaceStatus {
	return &orb8v1.InterfaceStatus{
		Tap: &orb8v1.Tap{Netns: netns, Ifindex: index, Interface: name}, Attached: "tcx", State: "attached",
		Ingress: &orb8v1.Audit{}, Egress: &orb8v1.Audit{},
	}
}

func left(netns uint64, index uint32, name string) *orb8v1.InterfaceStatus {
	i := tapped(netns, index, name)
	i.Attached, i.State = "", "gone"
	return i
}

// shown is the table of interfaces, without its header.
func shown(t *testing.T, s Style, list ...*orb8v1.InterfaceStatus) []string {
	t.Helper()
	var out strings.Builder
	n := &orb8v1.NodeStatus{
		Node: "n", Interfaces: list,
		Namespaces: []*orb8v1.NamespaceStatus{{Netns: ownNetns, Own: true, TappedSinceNs: 1}, {Netns: 7, TappedSinceNs: 1}},
	}
	if err := Status(&out, s, n); err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(out.String(), "\n\n")
	var lines []string
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "INTERFACE") && !strings.HasPrefix(line, "NAMESPACE") {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	return lines
}

// TestPlace: whose an interface is can be told without a namespace's name.
func TestPlace(t *testing.T) {
	named := tapped(7, 2, "eth0")
	named.Namespace = "blue"
	for _, c := range []struct {
		i    *orb8v1.InterfaceStatus
		own  uint64
		want string
	}{
		{tapped(ownNetns, 2, "eth0"), ownNetns, "eth0"},
		{named, ownNetns, "blue/eth0"},
		{named, 0, "blue/eth0"},
		{tapped(7, 3, "t1"), ownNetns, "net:7/t1"},
		{tapped(7, 12, ""), ownNetns, "net:7/#12"},
		{tapped(ownNetns, 12, ""), ownNetns, "#12"},
		// An agent that did not say which is its own; what stands for the rest.
		{tapped(7, 3, "t1"), 0, "t1"},
		{tapped(0, 0, ""), ownNetns, ""},
	} {
		if got := place(c.i, c.own); got != c.want {
			t.Errorf("place(%v, %d) = %q, want %q", c.i, c.own, got, c.want)
		}
	}
}

// TestGoneInterfacesDoNotPileUp, unless they have something to say.
func TestGoneInterfacesDoNotPileUp(t *testing.T) {
	missed := left(7, 5, "t5")
	missed.Egress.UnaccountedBytes = 60
	folded := left(ownNetns, 0, "(gone)")

	for name, c := range map[string]struct {
		list []*orb8v1.InterfaceStatus
		want []string
	}{
		"none": {[]*orb8v1.InterfaceStatus{tapped(ownNetns, 2, "eth0")}, nil},
		"one":  {[]*orb8v1.InterfaceStatus{left(7, 3, "t3")}, []string{"and 1 interface that is gone (-o wide)"}},
		"two":  {[]*orb8v1.InterfaceStatus{left(7, 3, "t3"), left(7, 4, "t4")}, []string{"and 2 interfaces that are gone (-o wide)"}},
		"many": {[]*orb8v1.InterfaceStatus{left(7, 3, "t3"), folded}, []string{"and 2 or more interfaces that are gone (-o wide)"}},
		"told": {[]*orb8v1.InterfaceStatus{missed, left(7, 3, "t3")}, []string{"and 1 interface that is gone (-o wide)"}},
	} {
		lines := shown(t, Style{}, c.list...)
		var said []string
		for _, line := range lines {
			switch {
			case strings.HasPrefix(line, "and "):
				said = append(said, line)
			case strings.HasSuffix(line, "gone") != strings.HasPrefix(line, "net:7/t5"):
				t.Errorf("%s: row %q", name, line)
			}
		}
		if diff := cmp.Diff(c.want, said); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if wide := shown(t, Style{Wide: true}, c.list...); len(wide) != 2*len(c.list) {
			t.Errorf("%s: wide has %d lines, want two for each of %d", name, len(wide), len(c.list))
		}
	}
}

// TestQuietInterfacesAreCounted where there are many: what is gone is not
// counted among them.
func TestQuietInterfacesAreCounted(t *testing.T) {
	list := []*orb8v1.InterfaceStatus{tapped(ownNetns, 2, "eth0")}
	for i := range uint32(manyInterfaces) {
		list = append(list, tapped(7, i, "t"+strconv.Itoa(int(i))))
	}
	for range 30 {
		list = append(list, left(7, 99, "t99"))
	}
	lines := shown(t, Style{}, list...)
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "eth0 ") ||
		lines[1] != "and 20 more interfaces of other namespaces, tapped and with nothing unaccounted (-o wide)" ||
		lines[2] != "and 30 interfaces that are gone (-o wide)" {
		t.Errorf("%q", lines)
	}
	// Those that are gone do not make it many.
	if lines := shown(t, Style{}, list[1:]...); len(lines) != manyInterfaces+1 {
		t.Errorf("%d lines: %q", len(lines), lines)
	}
}

// TestStateIsTheRestOfTheLine, as it is written, and has no other line in it.
func TestStateIsTheRestOfTheLine(t *testing.T) {
	i := tapped(ownNetns, 3, "v\x200\n")
	i.Attached, i.State, i.Note = "", "member of br0", "a\nb\x1b[2J"
	for _, s := range []Style{{}, {Human: true}} {
		lines := shown(t, s, i)
		if len(lines) != 1 || !strings.HasSuffix(lines[0], `  member of br0; a\x0ab\x1b[2J`) {
			t.Errorf("%+v: %q", s, lines)
		}
	}
	if fields := strings.Fields(shown(t, Style{}, i)[0]); fields[0] != `v\x200\x0a` || fields[1] != "-" || fields[8] != "member" {
		t.Errorf("fields %q", fields)
	}
}

// TestFlowsTellTheirNamespace by name, or number where there is none.
func TestFlowsTellTheirNamespace(t *testing.T) {
	for _, c := range []struct {
		tap         *orb8v1.Tap
		netns, name string
		json        string
	}{
		{&orb8v1.Tap{Netns: 7, Ifindex: 3, Interface: "eth0", Namespace: "blue"}, "blue", "eth0", `"interface":"eth0","netns":7,"netns_name":"blue"`},
		{&orb8v1.Tap{Netns: 7, Ifindex: 3}, "7", "#3", `"netns":7`},
		{nil, "-", "-", `"protocol"`},
	} {
		f := &orb8v1.FlowRecord{Node: "n", Tap: c.tap}
		table, out := NewFlowTable(Style{Wide: true}, false), strings.Builder{}
		table.Add(f, Rate{})
		if err := table.Flush(&out); err != nil {
			t.Fatal(err)
		}
		_, row, _ := strings.Cut(out.String(), "\n")
		if cells := strings.Fields(row); cells[1] != c.netns || cells[2] != c.name {
			t.Errorf("%v: %q", c.tap, cells)
		}
		out.Reset()
		if err := FlowJSON(&out, f); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), c.json) || strings.Contains(out.String(), "netns_name") != (c.tap.GetNamespace() != "") {
			t.Errorf("%v: %s", c.tap, &out)
		}
	}
}
