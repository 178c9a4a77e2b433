// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"strings"
	"time"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// Summary says in lines what an answer holds and, so that nobody takes a part
// for the whole, what it does not. shown is the number of rows before it,
// limit what was asked for at most.
func Summary(s *orb8v1.Summary, shown int, limit uint32) []string {
	lines := []string{matched(s, shown, limit)}
	if apart := countedApart(s); apart != "" {
		lines = append(lines, "counted, but in none of the flows above: "+apart)
	}
	for _, g := range s.GetGaps() {
		lines = append(lines, fmt.Sprintf("nothing was counted on %s from %s to %s",
			g.GetNode(), stamp(g.GetStartNs()), stamp(g.GetEndNs())))
	}
	return lines
}

func matched(s *orb8v1.Summary, shown int, limit uint32) string {
	line := plural(s.GetMatchedFlows(), "flow")
	if s.GetKnownFlows() != s.GetMatchedFlows() {
		line = fmt.Sprintf("%s of %s", group(s.GetMatchedFlows()), plural(s.GetKnownFlows(), "flow"))
	}
	m := s.GetMatched()
	line += fmt.Sprintf(": %s sent, %s received", Bytes(m.GetTxBytes()), Bytes(m.GetRxBytes()))
	switch {
	case uint64(shown) == s.GetMatchedFlows():
	case uint64(shown) < uint64(limit):
		line += fmt.Sprintf("; %s shown, the most that the agent gives (its ORB8_MAX_QUERY_LIMIT)", group(uint64(shown)))
	default:
		line += fmt.Sprintf("; %s shown, all: --limit %d", group(uint64(shown)), s.GetMatchedFlows())
	}
	return line
}

func countedApart(s *orb8v1.Summary) string {
	var parts []string
	for _, p := range []struct {
		t    *orb8v1.Traffic
		what string
	}{
		{s.GetRemainder(), "of flows that are over"},
		{s.GetOverflow(), "without detail (the losses below say why)"},
		{s.GetUnaccounted(), "unaccounted: the interfaces counted it and the tap did not"},
	} {
		bytes := p.t.GetTxBytes() + p.t.GetRxBytes()
		packets := p.t.GetTxPackets() + p.t.GetRxPackets()
		if bytes+packets > 0 {
			parts = append(parts, fmt.Sprintf("%s (%s) %s", Bytes(bytes), plural(packets, "packet"), p.what))
		}
	}
	return strings.Join(parts, ", ")
}

// Losses says of each what Loss does, and of what was not understood one line:
// anybody can send such to a port.
func Losses(all []*orb8v1.Loss) (lines []string) {
	var sum uint64
	var stages []string
	for _, l := range all {
		if l.GetCount() == 0 {
			continue
		}
		if !strings.HasPrefix(l.GetStage(), "dns_") && !strings.HasPrefix(l.GetStage(), "hello_") {
			lines = append(lines, Loss(l))
			continue
		}
		sum += l.GetCount()
		stages = append(stages, fmt.Sprintf("%d %s", l.GetCount(), escapeWord(l.GetStage())))
	}
	if sum > 0 {
		lines = append(lines, plural(sum, "message")+" not understood: "+strings.Join(stages, ", "))
	}
	return lines
}

// Loss says what was lost, where, and what to do.
func Loss(l *orb8v1.Loss) string {
	line := fmt.Sprintf("%s lost at %s", plural(l.GetCount(), "event"), l.GetStage())
	if l.GetHint() != "" {
		line += ": " + l.GetHint()
	}
	return line
}

// NodeState says that a node's part is missing; "" when it is not.
func NodeState(n *orb8v1.NodeState) string {
	if n.GetAnswered() {
		return ""
	}
	line := "node " + n.GetNode() + " did not answer"
	if n.GetError() != "" {
		line += ": " + n.GetError()
	}
	return line
}

// PerSecond is the rate between two totals of one connection.
func PerSecond(before, now *orb8v1.Traffic, elapsed time.Duration) Rate {
	// Totals never shrink but when the connection's entry is made anew.
	if elapsed <= 0 || now.GetTxBytes() < before.GetTxBytes() || now.GetRxBytes() < before.GetRxBytes() {
		return Rate{}
	}
	per := func(n uint64) uint64 { return uint64(float64(n) / elapsed.Seconds()) }
	return Rate{
		Tx:    per(now.GetTxBytes() - before.GetTxBytes()),
		Rx:    per(now.GetRxBytes() - before.GetRxBytes()),
		Known: true,
	}
}
