// SPDX-License-Identifier: Apache-2.0

package store

import "github.com/orb8/orb8/internal/event"

// mergeHealth adds what an epoch told of a connection's health; the traffic has
// been added already.
func mergeHealth(f *event.Flow, d *event.Delta) {
	h := &f.Health
	if f.Conn.Protocol == event.TCP {
		mergeLife(f, d)
	}
	h.FlagsTx |= d.Health.FlagsTx
	h.FlagsRx |= d.Health.FlagsRx
	if d.Health.ICMPErrors > 0 {
		h.ICMPErrors += d.Health.ICMPErrors
		h.ICMPType, h.ICMPCode = d.Health.ICMPType, d.Health.ICMPCode
	}
	h.Resent = 0
	if !d.HasSocket {
		return
	}
	before := h.Retransmits
	if !f.HasSocket {
		h.RetransmitsBefore = d.Health.RetransmitsBefore
		before = max(before, h.RetransmitsBefore)
	}
	f.HasSocket = true
	h.Resent = d.Health.Retransmits - min(before, d.Health.Retransmits)
	h.RTT, h.MinRTT = d.Health.RTT, d.Health.MinRTT
	h.Retransmits, h.BytesAcked = d.Health.Retransmits, d.Health.BytesAcked
	h.OutOfOrder, h.TellsOrder = d.Health.OutOfOrder, d.Health.TellsOrder
}

// mergeLife adds how a TCP connection began and ended, and its windows.
func mergeLife(f *event.Flow, d *event.Delta) {
	h, now := &f.Health, &d.Health
	// The SYN of a connection that was known before is late, or another one's; one
	// that was sent again is not the first. On loopback the two ends tell of one
	// connection in any order.
	first := f.Total == d.Traffic && !(d.FirstTx && now.RetransmitsBefore > 0)
	if h.SYN == 0 && (first || d.Loopback) {
		h.SYN = now.SYN
	}
	if h.SYNACK == 0 {
		h.SYNACK = now.SYNACK
	}
	addZeros(&h.ZeroWindowsTx, now.ZeroWindowsTx, h.ShutTx && d.BeganShutTx)
	addZeros(&h.ZeroWindowsRx, now.ZeroWindowsRx, h.ShutRx && d.BeganShutRx)
	if d.Traffic.TxPackets > 0 {
		h.ShutTx = now.ShutTx
	}
	if d.Traffic.RxPackets > 0 {
		h.ShutRx = now.ShutRx
	}
	if d.Loopback {
		return // which of the two ends was first is not known
	}
	before := h.FlagsTx | h.FlagsRx
	if before&event.FlagFIN == 0 {
		h.ClosedBy = now.ClosedBy
	}
	if before&event.FlagRST == 0 {
		h.ResetBy = now.ResetBy
	}
}

// addZeros counts how often a window was said to be zero from then on. Each epoch
// counts its first, though it may have been zero since before.
func addZeros(sum *uint32, n uint32, goesOn bool) {
	if goesOn && n > 0 {
		n--
	}
	*sum += n
}

// byOpener: the end that had asked took it back.
func byOpener(f *event.Flow) bool {
	switch f.OpenedBy {
	case event.OpenerLocal:
		return f.Health.ResetBy == event.SideLocal
	case event.OpenerRemote:
		return f.Health.ResetBy == event.SideRemote
	}
	return false
}

// failure tells why a connection that has just ended was never open; none where
// it was, or that was not seen.
func failure(f *event.Flow) event.Failure {
	tx, rx := f.Health.FlagsTx, f.Health.FlagsRx
	switch {
	case f.State == event.StateRefused:
		return event.FailureRefused
	case f.State != event.StateReset:
		return event.FailureNone
	// What opens it is the answer to the answer.
	case f.OpenedBy == event.OpenerLocal && tx&event.FlagACK == 0, f.OpenedBy == event.OpenerRemote && rx&event.FlagACK == 0:
		return event.FailureReset
	}
	return event.FailureNone
}
