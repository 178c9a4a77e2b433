// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"io"
	"strconv"
	"time"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// Rate is how fast a connection moves, in bytes a second.
type Rate struct {
	Tx, Rx uint64
	Known  bool
}

// FlowTable shows connections, one a row, as seen from the local end.
type FlowTable struct {
	table   *Table
	columns []flowColumn
	style   Style
}

// NewFlowTable makes a table; rates adds the columns of a repeated question.
func NewFlowTable(style Style, rates bool) *FlowTable {
	v := inFlows
	if style.Wide {
		v = inFlowsWide
	}
	if rates {
		v |= inRates
	}
	return newFlowTable(style, v)
}

func newFlowTable(style Style, v view) *FlowTable {
	t := &FlowTable{style: style}
	var columns []column
	for _, c := range flowColumns() {
		if c.in&v != 0 {
			t.columns = append(t.columns, c)
			columns = append(columns, c.column)
		}
	}
	t.table = newTable(style, columns)
	return t
}

// Add takes a connection and its rate.
func (t *FlowTable) Add(f *orb8v1.FlowRecord, rate Rate) {
	t.add(flowRow{flow: f, moved: f.GetTotal(), rate: rate})
}

// Flush writes what was added.
func (t *FlowTable) Flush(w io.Writer) error { return t.table.Flush(w) }

func (t *FlowTable) add(r flowRow) {
	r.style = t.style
	cells := make([]cell, len(t.columns))
	for i, c := range t.columns {
		cells[i] = c.cell(r)
	}
	t.table.add(cells)
}

// A view is a choice of columns.
type view uint8

const (
	inFlows view = 1 << iota
	inFlowsWide
	inRates
	inEvents
	inEventsWide

	inWide  = inFlowsWide | inEventsWide
	inLists = inFlows | inEvents
	inAll   = inLists | inWide
)

// A flowColumn knows where it is shown and how to get its cell from a row.
type flowColumn struct {
	in view
	column
	cell func(flowRow) cell
}

// flowColumns are all there are, in their order in every view.
func flowColumns() []flowColumn {
	return []flowColumn{
		{inEvents | inEventsWide, column{title: "TIME", usual: 12, usualRaw: 24}, flowRow.clock},
		{inEvents | inEventsWide, column{title: "EVENT", usual: 7}, flowRow.event},
		{inWide, column{title: "NODE"}, func(r flowRow) cell { return cell{text: r.flow.GetNode()} }},
		{inWide, column{title: "NETNS", usual: 10}, func(r flowRow) cell { return cell{text: netnsName(r.flow.GetTap())} }},
		{inWide, column{title: "INTERFACE"}, func(r flowRow) cell { return cell{text: interfaceName(r.flow.GetTap())} }},
		{inAll, column{title: "LOCAL", fit: true, usual: 22}, func(r flowRow) cell { return cell{text: nameAndPort(r.flow.GetLocal(), hasPorts(r.flow))} }},
		{inWide, column{title: "LOCAL_IP"}, func(r flowRow) cell { return cell{text: r.flow.GetLocal().GetIp()} }},
		{inAll, column{title: "DIR"}, func(r flowRow) cell { return cell{arrow(r.flow.GetOpenedBy()), dim} }},
		{inAll, column{title: "REMOTE", fit: true, usual: 22}, func(r flowRow) cell { return cell{text: remoteName(r.flow)} }},
		{inWide, column{title: "REMOTE_IP"}, func(r flowRow) cell { return cell{text: r.flow.GetRemote().GetIp()} }},
		{inWide, column{title: "NAME_FROM"}, func(r flowRow) cell { return cell{text: r.flow.GetRemote().GetFqdnSource()} }},
		{inAll, column{title: "PROTO", usual: 6}, func(r flowRow) cell { return cell{text: protocolName(r.flow.GetProtocol())} }},
		{inFlows | inWide, column{title: "STATE", drop: 2}, flowRow.state},
		{inWide, column{title: "FAILURE"}, func(r flowRow) cell { return cell{r.flow.GetHealth().GetFailure(), red} }},
		{inWide, column{title: "CLOSED_BY"}, func(r flowRow) cell { return cell{text: r.flow.GetHealth().GetClosedBy()} }},
		{inWide, column{title: "RESET_BY"}, func(r flowRow) cell { return cell{r.flow.GetHealth().GetResetBy(), red} }},
		{inWide, column{title: "DURATION", raw: "DURATION_NS", right: true}, flowRow.duration},
		{inAll, column{title: "TX", raw: "TX_BYTES", right: true, usual: 7}, func(r flowRow) cell { return r.bytes(r.moved.GetTxBytes(), r.moved != nil) }},
		{inAll, column{title: "RX", raw: "RX_BYTES", right: true, usual: 7}, func(r flowRow) cell { return r.bytes(r.moved.GetRxBytes(), r.moved != nil) }},
		{inRates, column{title: "TX/S", raw: "TX_BYTES/S", right: true}, func(r flowRow) cell { return r.bytes(r.rate.Tx, r.rate.Known) }},
		{inRates, column{title: "RX/S", raw: "RX_BYTES/S", right: true}, func(r flowRow) cell { return r.bytes(r.rate.Rx, r.rate.Known) }},
		{inLists, column{title: "PKTS", raw: "PACKETS", right: true, drop: 1, usual: 6}, func(r flowRow) cell {
			return r.count(r.moved.GetTxPackets()+r.moved.GetRxPackets(), r.moved != nil)
		}},
		{inWide, column{title: "TX_PKTS", raw: "TX_PACKETS", right: true}, func(r flowRow) cell { return r.count(r.moved.GetTxPackets(), r.moved != nil) }},
		{inWide, column{title: "RX_PKTS", raw: "RX_PACKETS", right: true}, func(r flowRow) cell { return r.count(r.moved.GetRxPackets(), r.moved != nil) }},
		{inAll, column{title: "RTT", raw: "RTT_US", right: true, usual: 6, drop: 4}, func(r flowRow) cell { return r.micros(r.flow.GetHealth().GetRttUs()) }},
		{inWide, column{title: "MIN_RTT", raw: "MIN_RTT_US", right: true}, func(r flowRow) cell { return r.micros(r.flow.GetHealth().GetMinRttUs()) }},
		{inWide, column{title: "HANDSHAKE", raw: "HANDSHAKE_US", right: true}, flowRow.handshake},
		{inAll, column{title: "RETR", raw: "RETRANSMITS", right: true, drop: 3}, flowRow.retransmits},
		{inWide, column{title: "RETR%", raw: "RETRANSMIT_RATIO", right: true}, flowRow.retransmitRatio},
		{inWide, column{title: "OUT_OF_ORDER", right: true}, flowRow.outOfOrder},
		{inWide, column{title: "ZERO_WIN_TX", raw: "ZERO_WINDOWS_TX", right: true}, func(r flowRow) cell { return r.zeros(r.flow.GetHealth().GetZeroWindowsTx()) }},
		{inWide, column{title: "ZERO_WIN_RX", raw: "ZERO_WINDOWS_RX", right: true}, func(r flowRow) cell { return r.zeros(r.flow.GetHealth().GetZeroWindowsRx()) }},
		{inWide, column{title: "FIRST_SEEN"}, func(r flowRow) cell { return r.date(r.flow.GetFirstSeenNs()) }},
		{inFlowsWide, column{title: "LAST_SEEN"}, func(r flowRow) cell { return r.date(r.flow.GetLastSeenNs()) }},
		{inWide, column{title: "LOCAL_WORKLOAD"}, func(r flowRow) cell { return cell{text: workloadName(r.flow.GetLocal().GetWorkload())} }},
		{inWide, column{title: "CONTAINER"}, func(r flowRow) cell { return cell{text: shortID(r.flow.GetLocal().GetContainer())} }},
		{inWide, column{title: "REMOTE_WORKLOAD"}, func(r flowRow) cell { return cell{text: workloadName(r.flow.GetRemote().GetWorkload())} }},
		{inWide, column{title: "REMOTE_NODE"}, func(r flowRow) cell { return cell{text: r.flow.GetRemote().GetNode()} }},
		{inWide, column{title: "TRANSLATED"}, func(r flowRow) cell { return cell{text: translation(r.flow)} }},
		{inWide, column{title: "UNIT"}, func(r flowRow) cell { return cell{text: r.flow.GetLocal().GetUnit()} }},
		{inWide, column{title: "PROCESS"}, func(r flowRow) cell { return cell{text: r.flow.GetLocal().GetProcess()} }},
		{inWide, column{title: "PID", right: true}, func(r flowRow) cell { return numberCell(uint64(r.flow.GetLocal().GetPid())) }},
		{inWide, column{title: "CGROUP", right: true}, func(r flowRow) cell { return numberCell(r.flow.GetLocal().GetCgroupId()) }},
		{inWide, column{title: "CONNECTION"}, func(r flowRow) cell { return cell{text: hexID(r.flow.GetConnectionId())} }},
		{inEvents | inEventsWide, column{title: "HOW", sentence: true, drop: 2, usual: 21}, flowRow.how},
	}
}

// flowRow is what the columns draw from.
type flowRow struct {
	style Style
	flow  *orb8v1.FlowRecord
	// What TX and RX show: the totals, or what one event tells; nil is unknown.
	moved *orb8v1.Traffic
	rate  Rate
	// Events only.
	kind orb8v1.EventKind
	time int64
}

func (r flowRow) state() cell {
	switch state := r.flow.GetState(); {
	case state == "reset", state == "refused", state == "failed":
		return cell{state, red}
	case state == "closed":
		return cell{state, dim}
	case state == "" && r.flow.GetFragments():
		return cell{"fragments", dim}
	default:
		return cell{text: state}
	}
}

func (r flowRow) bytes(n uint64, known bool) cell {
	if !known {
		return cell{}
	}
	return r.style.bytes(n)
}

func (r flowRow) count(n uint64, known bool) cell {
	if !known {
		return cell{}
	}
	return r.style.count(n)
}

func (r flowRow) micros(us uint32) cell {
	if us != 0 && r.style.Human {
		return cell{text: Micros(us)}
	}
	return numberCell(uint64(us))
}

func (r flowRow) date(ns int64) cell { return cell{text: r.style.date(ns)} }

// numberCell is for numbers of which 0 is not known.
func numberCell(n uint64) cell {
	if n == 0 {
		return cell{}
	}
	return cell{text: strconv.FormatUint(n, 10)}
}

// stamp is a time for programs, to the millisecond.
func stamp(ns int64) string { return time.Unix(0, ns).UTC().Format("2006-01-02T15:04:05.000Z") }

func hexID(id uint64) string {
	if id == 0 {
		return ""
	}
	return fmt.Sprintf("%016x", id)
}
