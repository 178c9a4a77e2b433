// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"io"
	"strconv"
	"time"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
)

// DropTable shows what was dropped, one row for whom it met, reason and place; or
// as it happens, one for a connection.
type DropTable struct {
	table   *Table
	columns []dropColumn
	style   Style
}

// dropRow is what the columns draw from. Event is nil in lists.
type dropRow struct {
	style Style
	drop  *orb8v1.DropRecord
	event *orb8v1.Event
}

// A dropView is where a column is shown.
type dropView uint8

const (
	inDrops dropView = 1 << iota
	inDropsWide
	inDropEvents
	inDropEventsWide

	inDropLists  = inDrops | inDropsWide
	inDropTraces = inDropEvents | inDropEventsWide
	inDropWide   = inDropsWide | inDropEventsWide
)

type dropColumn struct {
	in dropView
	column
	cell func(dropRow) cell
}

func dropText(text func(*orb8v1.DropRecord) string) func(dropRow) cell {
	return func(r dropRow) cell { return cell{text: text(r.drop)} }
}

func dropEnd(text func(*orb8v1.FlowRecord) string) func(dropRow) cell {
	return func(r dropRow) cell { return cell{text: text(r.event.GetFlow())} }
}

// dropColumns are all there are, in their order in every view.
func dropColumns() []dropColumn {
	return []dropColumn{
		{inDropTraces, column{title: "TIME", usual: 12, usualRaw: 24}, func(r dropRow) cell { return flowRow{style: r.style, time: r.event.GetTimeNs()}.clock() }},
		{inDropLists | inDropEventsWide, column{title: "NODE", drop: 4}, dropText((*orb8v1.DropRecord).GetNode)},
		{inDropEventsWide, column{title: "NETNS", usual: 10}, func(r dropRow) cell { return cell{text: netnsName(r.drop.GetTap())} }},
		{inDropEventsWide, column{title: "INTERFACE"}, func(r dropRow) cell { return cell{text: interfaceName(r.drop.GetTap())} }},
		{inDropLists, column{title: "AT", fit: true}, dropText(dropAt)},
		{inDropsWide, column{title: "NETNS"}, func(r dropRow) cell { return cell{text: netnsName(r.drop.GetTap())} }},
		{inDropTraces, column{title: "LOCAL", fit: true, usual: 22}, dropEnd(func(f *orb8v1.FlowRecord) string { return nameAndPort(f.GetLocal(), hasPorts(f)) })},
		{inDropEventsWide, column{title: "LOCAL_IP"}, dropEnd(func(f *orb8v1.FlowRecord) string { return f.GetLocal().GetIp() })},
		{inDropTraces, column{title: "REMOTE", fit: true, usual: 22}, dropEnd(remoteName)},
		{inDropEventsWide, column{title: "REMOTE_IP"}, dropEnd(func(f *orb8v1.FlowRecord) string { return f.GetRemote().GetIp() })},
		{inDropTraces, column{title: "PROTO", usual: 4}, dropEnd(dropProtocol)},
		{inDropLists | inDropTraces, column{title: "REASON", usual: 16}, func(r dropRow) cell { return cell{r.drop.GetReason(), red} }},
		{inDropLists | inDropTraces, column{title: "PKTS", raw: "PACKETS", right: true, usual: 5}, func(r dropRow) cell { return r.style.count(r.drop.GetPackets()) }},
		{inDrops | inDropWide, column{title: "BYTES", right: true, drop: 2}, func(r dropRow) cell { return r.style.bytes(r.drop.GetBytes()) }},
		{inDropsWide, column{title: "FIRST"}, func(r dropRow) cell { return cell{text: r.style.date(r.drop.GetFirstNs())} }},
		{inDropLists, column{title: "LAST", drop: 3}, func(r dropRow) cell { return cell{text: r.style.date(r.drop.GetLastNs())} }},
		{inDropsWide, column{title: "WORKLOAD"}, dropText(func(d *orb8v1.DropRecord) string { return workloadName(d.GetAt().GetWorkload()) })},
		{inDropEventsWide, column{title: "CONNECTION"}, dropEnd(func(f *orb8v1.FlowRecord) string { return hexID(f.GetConnectionId()) })},
		{inDropLists | inDropTraces, column{title: "PLACE", fit: true, drop: 1, usual: 24}, dropText((*orb8v1.DropRecord).GetLocation)},
		{inDropLists | inDropEventsWide, column{title: "MEANING", sentence: true, wraps: true}, dropText((*orb8v1.DropRecord).GetHint)},
	}
}

// NewDropTable makes a table of a list.
func NewDropTable(style Style) *DropTable {
	if style.Wide {
		return newDropTable(style, inDropsWide)
	}
	return newDropTable(style, inDrops)
}

// NewDropEventTable makes a table that may go on for ever.
func NewDropEventTable(style Style) *DropTable {
	v := inDropEvents
	if style.Wide {
		v = inDropEventsWide
	}
	t := newDropTable(style, v)
	t.table.reserve()
	return t
}

func newDropTable(style Style, v dropView) *DropTable {
	t := &DropTable{style: style}
	var columns []column
	for _, c := range dropColumns() {
		if c.in&v != 0 {
			t.columns = append(t.columns, c)
			columns = append(columns, c.column)
		}
	}
	t.table = newTable(style, columns)
	return t
}

// AddDrop takes a row of a list.
func (t *DropTable) AddDrop(d *orb8v1.DropRecord) { t.add(dropRow{t.style, d, nil}) }

// Add takes an event.
func (t *DropTable) Add(e *orb8v1.Event) { t.add(dropRow{t.style, e.GetDrop(), e}) }

func (t *DropTable) add(r dropRow) {
	cells := make([]cell, len(t.columns))
	for i, c := range t.columns {
		cells[i] = c.cell(r)
	}
	t.table.add(cells)
}

// Flush writes what was added.
func (t *DropTable) Flush(w io.Writer) error { return t.table.Flush(w) }

// dropAt is whom it met: a pod, a process of the host, the node, a namespace of
// nobody that is known.
func dropAt(d *orb8v1.DropRecord) string {
	at, tap := d.GetAt(), d.GetTap()
	name := Name(at)
	switch {
	case name != "":
		return name
	case at.GetPodUid() != "":
		return "pod/" + at.GetPodUid()
	case at.GetClass() == string(event.ClassHost):
		return "node/" + d.GetNode()
	case tap.GetNetns() == 0:
		return string(event.ClassUnknown)
	case tap.GetNamespace() != "":
		return "netns/" + tap.GetNamespace()
	}
	return "netns/" + strconv.FormatUint(tap.GetNetns(), 10)
}

// dropProtocol: of ARP, and of packets of many connections, there is none.
func dropProtocol(f *orb8v1.FlowRecord) string {
	if f.GetProtocol() == 0 && f.GetLocal().GetIp() == "" {
		return ""
	}
	return protocolName(f.GetProtocol())
}

// DropsSummary says in one line what an answer holds, and what it does not. shown
// is the number of packets in the rows before it.
func DropsSummary(s *orb8v1.DropsSummary, shown uint64) string {
	line := plural(s.GetMatchedPackets(), "packet") + " dropped"
	if s.GetKnownPackets() != s.GetMatchedPackets() {
		line = fmt.Sprintf("%s of %s dropped", group(s.GetMatchedPackets()), plural(s.GetKnownPackets(), "packet"))
	}
	if s.GetStartNs() > 0 && s.GetEndNs() > s.GetStartNs() {
		line += " in " + Age(time.Duration(s.GetEndNs()-s.GetStartNs()))
	}
	if shown < s.GetMatchedPackets() {
		line += fmt.Sprintf("; %s shown, more: --limit", group(shown))
	}
	return line
}

// dropJSON is what was dropped as programs read it. Unknown fields are absent.
type dropJSON struct {
	Node      string   `json:"node,omitempty"`
	Netns     uint64   `json:"netns,omitempty"`
	NetnsName string   `json:"netns_name,omitempty"`
	Interface string   `json:"interface,omitempty"`
	At        *endJSON `json:"at,omitempty"`
	Reason    string   `json:"reason"`
	Hint      string   `json:"hint,omitempty"`
	Location  string   `json:"location,omitempty"`
	Packets   uint64   `json:"packets"`
	Bytes     uint64   `json:"bytes"`
	FirstNS   int64    `json:"first_ns,omitempty"`
	LastNS    int64    `json:"last_ns,omitempty"`
}

// dropEventJSON is the connection and what was dropped of it.
type dropEventJSON struct {
	Event        string   `json:"event"`
	TimeNS       int64    `json:"time_ns"`
	ConnectionID string   `json:"connection_id,omitempty"`
	Protocol     string   `json:"protocol,omitempty"`
	Local        *endJSON `json:"local,omitempty"`
	Remote       *endJSON `json:"remote,omitempty"`
	dropJSON
}

// DropJSON writes a row of a list as one line.
func DropJSON(w io.Writer, d *orb8v1.DropRecord) error {
	j := newDropJSON(d)
	if d.GetAt() != nil {
		at := newEndJSON(d.GetAt(), false)
		j.At = &at
	}
	return JSON(w, j)
}

// DropEventJSON writes an event as one line.
func DropEventJSON(w io.Writer, e *orb8v1.Event) error {
	f := e.GetFlow()
	ports := hasPorts(f)
	local, remote := newEndJSON(f.GetLocal(), ports), newEndJSON(f.GetRemote(), ports)
	return JSON(w, dropEventJSON{
		Event: event.KindDrop.String(), TimeNS: e.GetTimeNs(), ConnectionID: hexID(f.GetConnectionId()),
		Protocol: dropProtocol(f), Local: &local, Remote: &remote, dropJSON: newDropJSON(e.GetDrop()),
	})
}

func newDropJSON(d *orb8v1.DropRecord) dropJSON {
	return dropJSON{
		Node: d.GetNode(), Netns: d.GetTap().GetNetns(), NetnsName: d.GetTap().GetNamespace(), Interface: d.GetTap().GetInterface(),
		Reason: d.GetReason(), Hint: d.GetHint(), Location: d.GetLocation(),
		Packets: d.GetPackets(), Bytes: d.GetBytes(), FirstNS: d.GetFirstNs(), LastNS: d.GetLastNs(),
	}
}
