// SPDX-License-Identifier: Apache-2.0

package render

import (
	"io"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/pair"
)

// PairTable shows connections with both of their ends, one a row.
type PairTable struct {
	table   *Table
	columns []pairColumn
	style   Style
}

type pairColumn struct {
	column
	wide bool
	cell func(Style, *pair.Pair) cell
}

// pairColumns are all there are, in their order.
func pairColumns() []pairColumn {
	text := func(of func(*pair.Pair) string) func(Style, *pair.Pair) cell {
		return func(_ Style, p *pair.Pair) cell { return cell{text: of(p)} }
	}
	lost := func(of func(*pair.Pair) *uint64) func(Style, *pair.Pair) cell {
		return func(s Style, p *pair.Pair) cell { return s.lost(of(p), p.Moving) }
	}
	// What only the end itself knows.
	side := func(of func(*pair.Pair) *pair.Side, tell func(Style, *pair.Side) cell) func(Style, *pair.Pair) cell {
		return func(s Style, p *pair.Pair) cell {
			if of(p) == nil {
				return cell{}
			}
			return tell(s, of(p))
		}
	}
	from, to := func(p *pair.Pair) *pair.Side { return p.From }, func(p *pair.Pair) *pair.Side { return p.To }
	sent := func(s Style, e *pair.Side) cell { return s.count(e.Total.GetTxPackets()) }
	sentBytes := func(s Style, e *pair.Side) cell { return s.bytes(e.Total.GetTxBytes()) }
	node := func(_ Style, e *pair.Side) cell { return cell{text: e.GetNode()} }
	netns := func(_ Style, e *pair.Side) cell { return cell{text: netnsName(e.GetTap())} }
	rtt := func(s Style, e *pair.Side) cell { return flowRow{style: s}.micros(e.GetHealth().GetRttUs()) }
	retransmits := func(s Style, e *pair.Side) cell { return flowRow{style: s, flow: e.FlowRecord}.retransmits() }
	return []pairColumn{
		{column{title: "FROM", fit: true}, false, text(fromName)},
		{column{title: "DIR"}, false, func(_ Style, p *pair.Pair) cell { return cell{pairArrow(p), dim} }},
		{column{title: "TO", fit: true}, false, text(toName)},
		{column{title: "PROTO", drop: 8}, false, text(func(p *pair.Pair) string { return protocolName(p.Either().GetProtocol()) })},
		{column{title: "STATE"}, true, func(s Style, p *pair.Pair) cell { return flowRow{style: s, flow: p.Either().FlowRecord}.state() }},
		{column{title: "SEEN", drop: 9}, false, text(seen)},
		{column{title: "SENT", right: true, drop: 3}, false, side(from, sent)},
		{column{title: "LOST", right: true}, false, lost(func(p *pair.Pair) *uint64 { return p.LostThere })},
		{column{title: "SENT_BACK", right: true, drop: 2}, false, side(to, sent)},
		{column{title: "LOST_BACK", right: true}, false, lost(func(p *pair.Pair) *uint64 { return p.LostBack })},
		{column{title: "MOVING", drop: 1}, false, text(func(p *pair.Pair) string { return map[bool]string{true: "yes", false: "no"}[p.Moving] })},
		{column{title: "RTT", raw: "RTT_US", right: true, drop: 7}, false, side(from, rtt)},
		{column{title: "RTT_BACK", raw: "RTT_BACK_US", right: true, drop: 6}, false, side(to, rtt)},
		{column{title: "RETR", raw: "RETRANSMITS", right: true, drop: 5}, false, side(from, retransmits)},
		{column{title: "RETR_BACK", raw: "RETRANSMITS_BACK", right: true, drop: 4}, false, side(to, retransmits)},
		{column{title: "TX", raw: "SENT_BYTES", right: true}, true, side(from, sentBytes)},
		{column{title: "RX", raw: "SENT_BACK_BYTES", right: true}, true, side(to, sentBytes)},
		{column{title: "FROM_NODE"}, true, side(from, node)},
		{column{title: "FROM_NETNS"}, true, side(from, netns)},
		{column{title: "TO_NODE"}, true, side(to, node)},
		{column{title: "TO_NETNS"}, true, side(to, netns)},
		{column{title: "CONNECTION"}, true, text(func(p *pair.Pair) string { return hexID(p.Either().GetConnectionId()) })},
	}
}

// lost is a number of segments, at least where the connection moves.
func (s Style) lost(n *uint64, moving bool) cell {
	if n == nil {
		return cell{}
	}
	c := s.count(*n)
	if *n > 0 {
		c.tone = red
		if s.Human && moving {
			c.text = "≥" + c.text
		}
	}
	return c
}

func fromName(p *pair.Pair) string {
	e := p.Either()
	if p.From != nil {
		return nameAndPort(e.GetLocal(), hasPorts(e.FlowRecord))
	}
	return nameAndPort(e.GetRemote(), hasPorts(e.FlowRecord))
}

func toName(p *pair.Pair) string {
	if p.From != nil {
		return remoteName(p.From.FlowRecord)
	}
	return nameAndPort(p.To.GetLocal(), hasPorts(p.To.FlowRecord))
}

// pairArrow: who opened it comes first, where that is known.
func pairArrow(p *pair.Pair) string {
	for _, s := range []*pair.Side{p.From, p.To} {
		if s != nil && s.GetOpenedBy() != orb8v1.Opener_OPENER_UNKNOWN {
			return arrow(orb8v1.Opener_OPENER_LOCAL)
		}
	}
	return arrow(orb8v1.Opener_OPENER_UNKNOWN)
}

// seen tells which ends are tapped.
func seen(p *pair.Pair) string {
	switch {
	case p.To == nil:
		return "from"
	case p.From == nil:
		return "to"
	}
	return "both"
}

// NewPairTable makes a table.
func NewPairTable(style Style) *PairTable {
	t := &PairTable{style: style}
	var columns []column
	for _, c := range pairColumns() {
		if !c.wide || style.Wide {
			t.columns = append(t.columns, c)
			columns = append(columns, c.column)
		}
	}
	t.table = newTable(style, columns)
	return t
}

// Add takes a connection.
func (t *PairTable) Add(p *pair.Pair) {
	cells := make([]cell, len(t.columns))
	for i, c := range t.columns {
		cells[i] = c.cell(t.style, p)
	}
	t.table.add(cells)
}

// Flush writes what was added.
func (t *PairTable) Flush(w io.Writer) error { return t.table.Flush(w) }

// pairJSON is a connection as programs read it. An end that was not seen, and a
// loss that is not known, are absent.
type pairJSON struct {
	ConnectionID string    `json:"connection_id"`
	Protocol     string    `json:"protocol"`
	Seen         string    `json:"seen"`
	Moving       bool      `json:"moving"`
	Lost         *uint64   `json:"lost,omitempty"`
	LostBack     *uint64   `json:"lost_back,omitempty"`
	From         *flowJSON `json:"from,omitempty"`
	To           *flowJSON `json:"to,omitempty"`
}

// PairJSON writes a connection as one line.
func PairJSON(w io.Writer, p *pair.Pair) error {
	return JSON(w, pairJSON{
		ConnectionID: hexID(p.Either().GetConnectionId()),
		Protocol:     protocolName(p.Either().GetProtocol()),
		Seen:         seen(p),
		Moving:       p.Moving,
		Lost:         p.LostThere,
		LostBack:     p.LostBack,
		From:         sideJSON(p.From),
		To:           sideJSON(p.To),
	})
}

func sideJSON(s *pair.Side) *flowJSON {
	if s == nil {
		return nil
	}
	j := newFlowJSON(s.FlowRecord)
	j.TxBytes, j.TxPackets = s.Total.GetTxBytes(), s.Total.GetTxPackets()
	j.RxBytes, j.RxPackets = s.Total.GetRxBytes(), s.Total.GetRxPackets()
	return &j
}
