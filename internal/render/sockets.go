// SPDX-License-Identifier: Apache-2.0

package render

import (
	"io"
	"strconv"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
)

// SocketsTable shows what is wrong with the sockets of namespaces: a row for each
// finding, and one for a namespace without.
type SocketsTable struct {
	table   *Table
	columns []socketsColumn
	style   Style
}

type socketsColumn struct {
	column
	wide bool
	cell func(Style, *orb8v1.SocketsRecord, *orb8v1.Finding) cell
}

// socketsColumns are all there are, in their order.
func socketsColumns() []socketsColumn {
	number := func(of func(*orb8v1.SocketsRecord) uint64) func(Style, *orb8v1.SocketsRecord, *orb8v1.Finding) cell {
		return func(s Style, r *orb8v1.SocketsRecord, _ *orb8v1.Finding) cell {
			if known(r, of(r)) == nil {
				return cell{}
			}
			return s.count(of(r))
		}
	}
	times := func(of func(*orb8v1.Finding) uint64) func(Style, *orb8v1.SocketsRecord, *orb8v1.Finding) cell {
		return func(s Style, _ *orb8v1.SocketsRecord, f *orb8v1.Finding) cell {
			if f == nil {
				return cell{}
			}
			return s.count(of(f))
		}
	}
	return []socketsColumn{
		{column{title: "NODE", drop: 1}, false, func(_ Style, r *orb8v1.SocketsRecord, _ *orb8v1.Finding) cell { return cell{text: r.GetNode()} }},
		{column{title: "OWNER", fit: true}, false, func(_ Style, r *orb8v1.SocketsRecord, _ *orb8v1.Finding) cell { return cell{text: socketsOwner(r)} }},
		{column{title: "NETNS", right: true}, true, func(_ Style, r *orb8v1.SocketsRecord, _ *orb8v1.Finding) cell { return numberCell(r.GetNetns()) }},
		{column{title: "TCP", right: true}, false, number((*orb8v1.SocketsRecord).GetTcpInUse)},
		{column{title: "TIME_WAIT", right: true, drop: 3}, false, number((*orb8v1.SocketsRecord).GetTcpTimeWait)},
		{column{title: "ORPHANS", right: true}, true, number((*orb8v1.SocketsRecord).GetTcpOrphans)},
		{column{title: "UDP", right: true, drop: 2}, false, number((*orb8v1.SocketsRecord).GetUdpInUse)},
		{column{title: "MEMORY", raw: "MEMORY_BYTES", right: true}, false, func(s Style, r *orb8v1.SocketsRecord, _ *orb8v1.Finding) cell {
			if known(r, r.GetMemoryBytes()) == nil {
				return cell{}
			}
			return s.bytes(r.GetMemoryBytes())
		}},
		{column{title: "COUNTER"}, true, func(_ Style, _ *orb8v1.SocketsRecord, f *orb8v1.Finding) cell { return cell{text: f.GetCounter()} }},
		{column{title: "COUNT", right: true}, true, times((*orb8v1.Finding).GetCount)},
		{column{title: "SINCE_SEEN", right: true}, true, times((*orb8v1.Finding).GetSinceSeen)},
		{column{title: "LAST_MINUTE", right: true, drop: 4}, false, times((*orb8v1.Finding).GetLastMinute)},
		{column{title: "WHEN"}, false, func(_ Style, _ *orb8v1.SocketsRecord, f *orb8v1.Finding) cell { return findingAge(f) }},
		{column{title: "FINDING", sentence: true, wraps: true}, false, func(_ Style, r *orb8v1.SocketsRecord, f *orb8v1.Finding) cell {
			if f == nil {
				return cell{r.GetProblem(), yellow}
			}
			return cell{text: f.GetMeaning()}
		}},
	}
}

// known is a number, or nil where it was not read.
func known(r *orb8v1.SocketsRecord, n uint64) *uint64 {
	if n == 0 && r.GetProblem() != "" {
		return nil
	}
	return &n
}

// socketsOwner is whose a namespace is: a pod's, the node's own, or nobody's
// that is known.
func socketsOwner(r *orb8v1.SocketsRecord) string {
	o := r.GetOwner()
	switch {
	case o.GetPod() != "":
		return Name(o)
	case o.GetPodUid() != "":
		return "pod/" + o.GetPodUid()
	case o.GetClass() == string(event.ClassHost):
		return "node/" + r.GetNode()
	case r.GetName() != "":
		return "netns/" + r.GetName()
	}
	return "netns/" + strconv.FormatUint(r.GetNetns(), 10)
}

// findingAge is how recent it is: now is within the last minute, before is
// before the agent looked.
func findingAge(f *orb8v1.Finding) cell {
	switch {
	case f == nil:
		return cell{}
	case f.GetCurrent():
		return cell{"now", red}
	case f.GetSinceSeen() > 0:
		return cell{"earlier", yellow}
	}
	return cell{"before", dim}
}

// NewSocketsTable makes a table.
func NewSocketsTable(style Style) *SocketsTable {
	t := &SocketsTable{style: style}
	var columns []column
	for _, c := range socketsColumns() {
		if !c.wide || style.Wide {
			t.columns = append(t.columns, c)
			columns = append(columns, c.column)
		}
	}
	t.table = newTable(style, columns)
	return t
}

// Add takes a namespace.
func (t *SocketsTable) Add(r *orb8v1.SocketsRecord) {
	for _, f := range r.GetFindings() {
		t.add(r, f)
	}
	if len(r.GetFindings()) == 0 || r.GetProblem() != "" {
		t.add(r, nil)
	}
}

func (t *SocketsTable) add(r *orb8v1.SocketsRecord, f *orb8v1.Finding) {
	cells := make([]cell, len(t.columns))
	for i, c := range t.columns {
		cells[i] = c.cell(t.style, r, f)
	}
	t.table.add(cells)
}

// Flush writes what was added.
func (t *SocketsTable) Flush(w io.Writer) error { return t.table.Flush(w) }

// socketsJSON is a namespace as programs read it. Unknown fields are absent.
type socketsJSON struct {
	Node        string               `json:"node"`
	Netns       uint64               `json:"netns"`
	Name        string               `json:"name,omitempty"`
	Owner       endJSON              `json:"owner"`
	TCPInUse    *uint64              `json:"tcp_in_use,omitempty"`
	TCPTimeWait *uint64              `json:"tcp_time_wait,omitempty"`
	TCPOrphans  *uint64              `json:"tcp_orphans,omitempty"`
	UDPInUse    *uint64              `json:"udp_in_use,omitempty"`
	MemoryBytes *uint64              `json:"memory_bytes,omitempty"`
	Findings    []findingJSON        `json:"findings"`
	Counters    []socketsCounterJSON `json:"counters"`
	Problem     string               `json:"problem,omitempty"`
}

type findingJSON struct {
	Current bool   `json:"current"`
	Counter string `json:"counter"`
	growthJSON
	Meaning string `json:"meaning"`
}

type socketsCounterJSON struct {
	Name string `json:"name"`
	growthJSON
}

type growthJSON struct {
	Count      uint64 `json:"count"`
	SinceSeen  uint64 `json:"since_seen"`
	LastMinute uint64 `json:"last_minute"`
}

// SocketsJSON writes a namespace as one line.
func SocketsJSON(w io.Writer, r *orb8v1.SocketsRecord) error {
	j := socketsJSON{
		Node:        r.GetNode(),
		Netns:       r.GetNetns(),
		Name:        r.GetName(),
		Owner:       newEndJSON(r.GetOwner(), false),
		TCPInUse:    known(r, r.GetTcpInUse()),
		TCPTimeWait: known(r, r.GetTcpTimeWait()),
		TCPOrphans:  known(r, r.GetTcpOrphans()),
		UDPInUse:    known(r, r.GetUdpInUse()),
		MemoryBytes: known(r, r.GetMemoryBytes()),
		Findings:    []findingJSON{},
		Counters:    []socketsCounterJSON{},
		Problem:     r.GetProblem(),
	}
	for _, f := range r.GetFindings() {
		j.Findings = append(j.Findings, findingJSON{f.GetCurrent(), f.GetCounter(), growthJSON{f.GetCount(), f.GetSinceSeen(), f.GetLastMinute()}, f.GetMeaning()})
	}
	for _, c := range r.GetCounters() {
		j.Counters = append(j.Counters, socketsCounterJSON{c.GetName(), growthJSON{c.GetCount(), c.GetSinceSeen(), c.GetLastMinute()}})
	}
	return JSON(w, j)
}
