// SPDX-License-Identifier: Apache-2.0

package render

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

func TestShares(t *testing.T) {
	for share, want := range map[float64]string{0: "0%", 0.00001: "<0.01%", 0.00034: "0.03%", 0.038: "3.8%", 0.5: "50%", 1: "100%"} {
		if got := percent(share); got != want {
			t.Errorf("%v reads %q, want %q", share, got, want)
		}
	}
}

func TestSpans(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0µs", 45 * time.Microsecond: "45µs", 3010 * time.Millisecond: "3.01s", 127 * time.Second: "2m7s", -time.Second: "0µs", 1 << 62: "53375d23h",
	} {
		if got := Span(int64(d)); got != want {
			t.Errorf("%v reads %q, want %q", d, got, want)
		}
	}
}

func TestHowItEnded(t *testing.T) {
	for want, e := range map[string]*orb8v1.Event{
		"by remote after 3.01s":     {Kind: orb8v1.EventKind_EVENT_KIND_CLOSED, Flow: &orb8v1.FlowRecord{DurationNs: new(int64(3_010_000_000)), Health: &orb8v1.Health{ClosedBy: "remote"}}},
		"by local in the handshake": {Kind: orb8v1.EventKind_EVENT_KIND_RESET, Flow: &orb8v1.FlowRecord{Health: &orb8v1.Health{ResetBy: "local", Failure: "reset"}}},
		"by remote after 85µs":      {Kind: orb8v1.EventKind_EVENT_KIND_REFUSED, Flow: &orb8v1.FlowRecord{DurationNs: new(int64(85_900)), Health: &orb8v1.Health{ResetBy: "remote", Failure: "refused"}}},
		"given up after 2m":         {Kind: orb8v1.EventKind_EVENT_KIND_FAILED, Flow: &orb8v1.FlowRecord{DurationNs: new(int64(120_000_000_000)), Health: &orb8v1.Health{Failure: "given_up"}}},
		"unreachable":               {Kind: orb8v1.EventKind_EVENT_KIND_FAILED, Flow: &orb8v1.FlowRecord{Health: &orb8v1.Health{Failure: "unreachable"}}},
		"":                          {Kind: orb8v1.EventKind_EVENT_KIND_OPENED, Flow: &orb8v1.FlowRecord{DurationNs: new(int64(5)), Health: &orb8v1.Health{ClosedBy: "remote"}}},
	} {
		r := flowRow{flow: e.GetFlow(), kind: e.GetKind()}
		if got := r.how().text; got != want {
			t.Errorf("%v reads %q, want %q", e, got, want)
		}
	}
}

// What is not known is absent, and a number that is 0 is not.
func TestHealthInJSON(t *testing.T) {
	read := func(f *orb8v1.FlowRecord) map[string]any {
		var b strings.Builder
		if err := FlowJSON(&b, f); err != nil {
			t.Fatal(err)
		}
		m := map[string]any{}
		if err := json.Unmarshal([]byte(b.String()), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	names := []string{"handshake_us", "retransmits", "retransmit_ratio", "out_of_order", "zero_windows_tx", "zero_windows_rx", "closed_by", "reset_by", "failure", "duration_ns"}
	for _, f := range []*orb8v1.FlowRecord{{Protocol: 6}, {Protocol: 17, Health: &orb8v1.Health{IcmpErrors: 1}}} {
		got := read(f)
		for _, name := range names {
			if v, known := got[name]; known {
				t.Errorf("%v: %s is %v", f, name, v)
			}
		}
	}
	got := read(&orb8v1.FlowRecord{Protocol: 6, DurationNs: new(int64(7)), Health: &orb8v1.Health{
		HandshakeUs: new(uint32(0)), RetransmitRatio: new(0.0), OutOfOrder: new(uint64(0)), ZeroWindowsTx: 1, ClosedBy: "local", ResetBy: "remote", Failure: "reset",
	}})
	want := map[string]any{
		"handshake_us": 0.0, "retransmits": 0.0, "retransmit_ratio": 0.0, "out_of_order": 0.0, "zero_windows_tx": 1.0, "zero_windows_rx": 0.0,
		"closed_by": "local", "reset_by": "remote", "failure": "reset", "duration_ns": 7.0,
	}
	for _, name := range names {
		if got[name] != want[name] {
			t.Errorf("%s is %v, want %v", name, got[name], want[name])
		}
	}
}
