// SPDX-License-Identifier: Apache-2.0

package render

import (
	"strconv"
	"strings"
	"time"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
)

// isTCP: only TCP has what is told of health.
func isTCP(f *orb8v1.FlowRecord) bool {
	return f.GetHealth() != nil && event.Protocol(f.GetProtocol()) == event.TCP
}

// knownRetransmits: without a socket seen, or outside TCP, none is no number.
func knownRetransmits(f *orb8v1.FlowRecord) (uint64, bool) {
	n := f.GetHealth().GetRetransmits()
	return n, isTCP(f) && (n > 0 || f.GetHealth().RetransmitRatio != nil)
}

func (r flowRow) retransmits() cell {
	n, known := knownRetransmits(r.flow)
	return r.suspect(n, known)
}

// suspect is a number that is better 0.
func (r flowRow) suspect(n uint64, known bool) cell {
	c := r.count(n, known)
	if n > 0 {
		c.tone = yellow
	}
	return c
}

func (r flowRow) zeros(n uint64) cell { return r.suspect(n, isTCP(r.flow)) }

func (r flowRow) outOfOrder() cell {
	h := r.flow.GetHealth()
	return r.suspect(h.GetOutOfOrder(), h != nil && h.OutOfOrder != nil)
}

func (r flowRow) handshake() cell {
	h := r.flow.GetHealth()
	switch {
	case h == nil || h.HandshakeUs == nil:
		return cell{}
	case r.style.Human:
		return cell{text: Micros(h.GetHandshakeUs())}
	}
	return cell{text: strconv.FormatUint(uint64(h.GetHandshakeUs()), 10)}
}

func (r flowRow) retransmitRatio() cell {
	h := r.flow.GetHealth()
	switch {
	case h == nil || h.RetransmitRatio == nil:
		return cell{}
	case r.style.Human:
		return cell{text: percent(h.GetRetransmitRatio())}
	}
	return cell{text: strconv.FormatFloat(h.GetRetransmitRatio(), 'g', 4, 64)}
}

// percent is a share for people: 0%, 0.03%, 12%.
func percent(share float64) string {
	switch p := share * 100; {
	case p == 0:
		return "0%"
	case p < 0.01:
		return "<0.01%"
	case p < 1:
		return strconv.FormatFloat(p, 'f', 2, 64) + "%"
	case p < 10:
		return strconv.FormatFloat(p, 'f', 1, 64) + "%"
	default:
		return strconv.FormatFloat(p, 'f', 0, 64) + "%"
	}
}

func (r flowRow) duration() cell {
	switch ns := r.flow.DurationNs; {
	case ns == nil:
		return cell{}
	case r.style.Human:
		return cell{text: Span(*ns)}
	default:
		return cell{text: strconv.FormatInt(*ns, 10)}
	}
}

// Span is how long something took, from nanoseconds: as Micros up to a minute,
// then as Age.
func Span(ns int64) string {
	if d := time.Duration(ns); d >= time.Minute {
		return Age(d)
	}
	return Micros(uint32(max(ns, 0) / 1000))
}

// how says in a few words how a connection came to its end.
func (r flowRow) how() cell {
	h := r.flow.GetHealth()
	var words []string
	by := func(side string) {
		if side != "" {
			words = append(words, "by "+side)
		}
	}
	switch r.kind {
	case orb8v1.EventKind_EVENT_KIND_CLOSED:
		by(h.GetClosedBy())
	case orb8v1.EventKind_EVENT_KIND_REFUSED:
		by(h.GetResetBy())
	case orb8v1.EventKind_EVENT_KIND_RESET:
		by(h.GetResetBy())
		if h.GetFailure() != "" {
			words = append(words, "in the handshake")
		}
	case orb8v1.EventKind_EVENT_KIND_FAILED:
		words = append(words, inWords(h.GetFailure()))
	default:
		return cell{}
	}
	if ns := r.flow.GetDurationNs(); ns > 0 {
		words = append(words, "after "+Span(ns))
	}
	return cell{text: strings.Join(words, " ")}
}

// inWords is a name of the API for people: timed_out is timed out.
func inWords(name string) string { return strings.ReplaceAll(name, "_", " ") }

// healthJSON is the part of a connection's JSON that is about its health.
type healthJSON struct {
	Handshake       *uint32  `json:"handshake_us,omitempty"`
	RetransmitRatio *float64 `json:"retransmit_ratio,omitempty"`
	OutOfOrder      *uint64  `json:"out_of_order,omitempty"`
	ZeroWindowsTx   *uint64  `json:"zero_windows_tx,omitempty"`
	ZeroWindowsRx   *uint64  `json:"zero_windows_rx,omitempty"`
	ClosedBy        string   `json:"closed_by,omitempty"`
	ResetBy         string   `json:"reset_by,omitempty"`
	Failure         string   `json:"failure,omitempty"`
	DurationNS      *int64   `json:"duration_ns,omitempty"`
}

func newHealthJSON(f *orb8v1.FlowRecord) healthJSON {
	j := healthJSON{DurationNS: f.DurationNs}
	if !isTCP(f) {
		return j
	}
	h := f.GetHealth()
	j.Handshake, j.RetransmitRatio, j.OutOfOrder = h.HandshakeUs, h.RetransmitRatio, h.OutOfOrder
	tx, rx := h.GetZeroWindowsTx(), h.GetZeroWindowsRx()
	j.ZeroWindowsTx, j.ZeroWindowsRx = &tx, &rx
	j.ClosedBy, j.ResetBy, j.Failure = h.GetClosedBy(), h.GetResetBy(), h.GetFailure()
	return j
}
