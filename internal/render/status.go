// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// Status writes the block of one node.
func Status(w io.Writer, s Style, n *orb8v1.NodeStatus) error {
	b := &block{style: s}
	b.field("Node", n.GetNode(), bold)
	if n.GetError() != "" {
		b.field("Error", n.GetError(), red)
		return b.write(w)
	}
	b.field("Version", n.GetVersion(), plain)
	b.health(n)
	b.field("Uptime", s.age(n.GetUptimeNs()), plain)
	b.field("Events processed", s.number(n.GetEventsProcessed()), plain)
	b.dropped(n)
	b.field("Pods tracked", s.number(uint64(n.GetPodsTracked())), plain)
	b.field("Active flows", s.number(uint64(n.GetActiveFlows()))+" of at most "+s.number(uint64(n.GetMaxFlows())), plain)
	if c := n.GetCost(); c != nil {
		b.field("Cost", s.cost(c, n.GetUptimeNs()), plain)
	}
	for _, note := range n.GetNotes() {
		b.field("Note", note, plain)
	}
	b.gpu(n.GetGpu())
	b.namespaces(n.GetNamespaces())
	if err := b.write(w); err != nil || len(n.GetInterfaces()) == 0 {
		return err
	}
	if _, err := io.WriteString(w, "\n"); err != nil {
		return err
	}
	if s.Wide {
		return audits(w, s, n.GetInterfaces())
	}
	told := tell(n)
	if len(told.list) > 0 {
		if err := interfaces(w, s, told.list, told.own); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, told.rest(s))
	return err
}

// manyInterfaces is how many are shown that have nothing to say.
const manyInterfaces = 20

// told is which interfaces have something to say, and how many have not.
type told struct {
	list []*orb8v1.InterfaceStatus
	// Inode number of the agent's own namespace; 0 where it is not known.
	own uint64
	// Left out: those of other namespaces that are as they should be, and those
	// that are gone. One of these may stand for many.
	quiet, gone int
	folded      bool
}

// tell leaves out interfaces that are gone with nothing unaccounted, and, where
// there are many, those of other namespaces that are as they should be.
func tell(n *orb8v1.NodeStatus) told {
	var t told
	for _, ns := range n.GetNamespaces() {
		if ns.GetOwn() {
			t.own = ns.GetNetns()
		}
	}
	left := 0
	for _, i := range n.GetInterfaces() {
		if isGone(i) && !unaccounted(i) {
			t.gone++
			t.folded = t.folded || i.GetTap().GetIfindex() == 0
			continue
		}
		left++
	}
	for _, i := range n.GetInterfaces() {
		switch {
		case isGone(i) && !unaccounted(i):
		case left > manyInterfaces && i.GetTap().GetNetns() != t.own && !unaccounted(i) && i.GetState() == "attached" && i.GetNote() == "":
			t.quiet++
		default:
			t.list = append(t.list, i)
		}
	}
	return t
}

func isGone(i *orb8v1.InterfaceStatus) bool { return i.GetState() == "gone" }

func unaccounted(i *orb8v1.InterfaceStatus) bool {
	in, out := i.GetIngress(), i.GetEgress()
	return in.GetUnaccountedPackets() != 0 || out.GetUnaccountedPackets() != 0 ||
		in.GetUnaccountedBytes() != 0 || out.GetUnaccountedBytes() != 0
}

// rest says in lines what was left out.
func (t told) rest(s Style) string {
	var lines string
	if t.quiet > 0 {
		lines = fmt.Sprintf("and %s more interfaces of other namespaces, tapped and with nothing unaccounted (-o wide)\n", s.number(uint64(t.quiet)))
	}
	if t.gone > 0 {
		number := s.number(uint64(t.gone))
		if t.folded {
			number += " or more"
		}
		what := "interfaces that are gone"
		if number == "1" {
			what = "interface that is gone"
		}
		lines += fmt.Sprintf("and %s %s (-o wide)\n", number, what)
	}
	return lines
}

// namespaces sums up how many are tapped and how late that was, and says which
// are not.
func (b *block) namespaces(list []*orb8v1.NamespaceStatus) {
	var late []time.Duration
	var problems []string
	for _, n := range list {
		switch {
		case n.GetTappedSinceNs() != 0:
			late = append(late, time.Duration(n.GetUntappedNs()))
		default:
			name := n.GetName()
			if name == "" {
				name = strconv.FormatUint(n.GetNetns(), 10)
			}
			problems = append(problems, name+" is not tapped: "+n.GetProblem())
		}
	}
	if len(list) == 0 {
		return
	}
	slices.Sort(late)
	text := b.style.number(uint64(len(late))) + " tapped"
	if len(late) > 0 {
		text += fmt.Sprintf("; longest untapped: median %s, at most %s (of those older than the agent: since its start)",
			late[len(late)/2].Round(100*time.Microsecond), late[len(late)-1].Round(100*time.Microsecond))
	}
	b.field("Namespaces", text, plain)
	const most = 10
	for _, p := range problems[:min(most, len(problems))] {
		b.more(p, yellow)
	}
	if len(problems) > most {
		b.more(fmt.Sprintf("and %d more that are not tapped", len(problems)-most), yellow)
	}
}

// block lines up names and values.
type block struct {
	style Style
	lines []string
}

func (b *block) field(name, value string, t tone) {
	const width = len("Events processed:") + 1
	value = Escape(value)
	if value == "" {
		value = "-"
	}
	b.lines = append(b.lines, fmt.Sprintf("%-*s %s", width, name+":", b.style.paint(value, t)))
}

// more continues the field before.
func (b *block) more(text string, t tone) {
	b.lines = append(b.lines, "  "+b.style.paint(Escape(text), t))
}

func (b *block) health(n *orb8v1.NodeStatus) {
	if n.GetHealthy() {
		b.field("Health", "OK", green)
		return
	}
	message := n.GetHealthMessage()
	if message == "" {
		message = "no reason given"
	}
	b.field("Health", "NOT OK: "+message, red)
}

func (b *block) dropped(n *orb8v1.NodeStatus) {
	t := plain
	if n.GetEventsDropped() > 0 {
		t = yellow
	}
	b.field("Events dropped", b.style.number(n.GetEventsDropped()), t)
	for _, l := range n.GetLosses() {
		if l.GetCount() > 0 {
			b.more(Loss(l), yellow)
		}
	}
}

func (b *block) write(w io.Writer) error {
	_, err := io.WriteString(w, strings.Join(b.lines, "\n")+"\n")
	return err
}

func (s Style) number(n uint64) string {
	if s.Human {
		return group(n)
	}
	return strconv.FormatUint(n, 10)
}

func (s Style) age(ns int64) string {
	if s.Human {
		return Age(time.Duration(ns))
	}
	return strconv.FormatInt(ns/int64(time.Second), 10) + "s"
}

func (s Style) size(n uint64) string {
	if s.Human {
		return Bytes(n)
	}
	return strconv.FormatUint(n, 10) + " bytes"
}

func (s Style) cost(c *orb8v1.Cost, uptimeNS int64) string {
	cpu := fmt.Sprintf("%.2fs CPU", c.GetCpuSeconds())
	if uptimeNS > 0 {
		cpu += fmt.Sprintf(" (%.2f%% of a core)", 100*c.GetCpuSeconds()/time.Duration(uptimeNS).Seconds())
	}
	return fmt.Sprintf("%s, %s memory, %s kernel maps", cpu, s.size(c.GetResidentBytes()), s.size(c.GetKernelMapBytes()))
}

// interfaces is a row for each. own is the agent's own namespace.
func interfaces(w io.Writer, s Style, list []*orb8v1.InterfaceStatus, own uint64) error {
	right := func(title, raw string) column { return column{title: title, raw: raw, right: true} }
	t := newTable(s, []column{
		{title: "INTERFACE"},
		{title: "BY"},
		right("IN", "IN_BYTES"), right("IN_PKTS", "IN_PACKETS"),
		right("OUT", "OUT_BYTES"), right("OUT_PKTS", "OUT_PACKETS"),
		right("UNACCOUNTED", "UNACCOUNTED_BYTES"), right("PKTS", "UNACCOUNTED_PACKETS"),
		stateColumn(),
	})
	for _, i := range list {
		in, out := i.GetIngress(), i.GetEgress()
		t.add([]cell{
			{text: place(i, own)},
			{text: i.GetAttached()},
			s.bytes(in.GetCounted().GetBytes()), s.count(in.GetCounted().GetPackets()),
			s.bytes(out.GetCounted().GetBytes()), s.count(out.GetCounted().GetPackets()),
			s.unaccounted(in.GetUnaccountedBytes() + out.GetUnaccountedBytes()),
			s.unaccounted(in.GetUnaccountedPackets() + out.GetUnaccountedPackets()),
			attachState(i),
		})
	}
	return t.Flush(w)
}

// stateColumn is a sentence, so it comes last: only there may it have blanks
// and a row be its fields nevertheless.
func stateColumn() column { return column{title: "STATE", fit: true, sentence: true} }

// audits is a row for each direction of each, with the whole audit.
func audits(w io.Writer, s Style, list []*orb8v1.InterfaceStatus) error {
	columns := []column{
		{title: "NAMESPACE"},
		{title: "INTERFACE"},
		{title: "NETNS", right: true},
		{title: "IFINDEX", right: true},
		{title: "BY"},
		{title: "DIRECTION"},
	}
	both := func(name string) {
		columns = append(columns, column{title: name, raw: name + "_BYTES", right: true}, column{title: "PKTS", raw: name + "_PACKETS", right: true})
	}
	for _, name := range []string{"FLOWS", "REMAINDER", "OVERFLOW", "FORWARDED", "CARRIED", "NOT_IP", "MALFORMED", "COUNTED", "SEGMENTATION", "INTERFACE"} {
		both(name)
	}
	columns = append(columns, column{title: "DROPPED", raw: "DROPPED_PACKETS", right: true})
	both("UNACCOUNTED")
	t := newTable(s, append(columns, stateColumn()))
	for _, i := range list {
		for _, d := range []struct {
			name  string
			audit *orb8v1.Audit
		}{{"ingress", i.GetIngress()}, {"egress", i.GetEgress()}} {
			row := []cell{
				{text: i.GetNamespace()},
				{text: interfaceName(i.GetTap())},
				numberCell(i.GetTap().GetNetns()), numberCell(uint64(i.GetTap().GetIfindex())),
				{text: i.GetAttached()},
				{text: d.name},
			}
			a := d.audit
			for _, c := range []*orb8v1.Counter{
				a.GetFlows(), a.GetRemainder(), a.GetOverflow(), a.GetForwarded(), a.GetCarried(), a.GetNotIp(), a.GetMalformed(),
				a.GetCounted(), a.GetSegmentation(), a.GetInterface(),
			} {
				row = append(row, s.bytes(c.GetBytes()), s.count(c.GetPackets()))
			}
			t.add(append(row, s.count(a.GetDroppedPackets()), s.unaccounted(a.GetUnaccountedBytes()), s.unaccounted(a.GetUnaccountedPackets()), attachState(i)))
		}
	}
	return t.Flush(w)
}

// place is an interface's name, after its namespace's unless that is the
// agent's own. A namespace that nobody named shows as its inode number, or its
// interfaces would be taken for the agent's.
func place(i *orb8v1.InterfaceStatus, own uint64) string {
	name, netns := interfaceName(i.GetTap()), i.GetTap().GetNetns()
	switch {
	case i.GetNamespace() != "":
		return i.GetNamespace() + "/" + name
	case own != 0 && netns != 0 && netns != own:
		return "net:" + strconv.FormatUint(netns, 10) + "/" + name
	}
	return name
}

// interfaceName is the index where there is no name, and "" where there is
// neither.
func interfaceName(t *orb8v1.Tap) string {
	if t.GetInterface() == "" && t.GetIfindex() != 0 {
		return "#" + strconv.FormatUint(uint64(t.GetIfindex()), 10)
	}
	return t.GetInterface()
}

// netnsName is the inode number where there is no name, and "" where there is
// neither.
func netnsName(t *orb8v1.Tap) string {
	if t.GetNamespace() == "" && t.GetNetns() != 0 {
		return strconv.FormatUint(t.GetNetns(), 10)
	}
	return t.GetNamespace()
}

func attachState(i *orb8v1.InterfaceStatus) cell {
	c := cell{text: i.GetState()}
	if i.GetNote() != "" {
		c.text += "; " + i.GetNote()
	}
	if c.text != "attached" {
		c.tone = yellow
	}
	return c
}

// unaccounted is in full even for people: it should be 0, and may be negative.
func (s Style) unaccounted(n int64) cell {
	if n == 0 {
		return cell{text: "0"}
	}
	return cell{strconv.FormatInt(n, 10), yellow}
}

func (s Style) bytes(n uint64) cell {
	if s.Human {
		return cell{text: Bytes(n)}
	}
	return cell{text: strconv.FormatUint(n, 10)}
}

func (s Style) count(n uint64) cell {
	if s.Human {
		return cell{text: Count(n)}
	}
	return cell{text: strconv.FormatUint(n, 10)}
}
