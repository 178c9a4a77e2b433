// SPDX-License-Identifier: Apache-2.0

package wire

import (
	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
)

// health is absent when nothing is known.
func health(f *event.Flow) *pb.Health {
	h := &f.Health
	if !f.HasSocket && h.FlagsTx|h.FlagsRx == 0 && h.ICMPErrors == 0 && h.Failure == event.FailureNone {
		return nil
	}
	m := &pb.Health{
		RttUs:           h.RTT,
		MinRttUs:        h.MinRTT,
		Retransmits:     uint64(h.Retransmits),
		BytesAcked:      h.BytesAcked,
		TcpFlagsTx:      uint32(h.FlagsTx),
		TcpFlagsRx:      uint32(h.FlagsRx),
		IcmpErrors:      h.ICMPErrors,
		IcmpType:        uint32(h.ICMPType),
		IcmpCode:        uint32(h.ICMPCode),
		RetransmitRatio: retransmitRatio(f),
		HandshakeUs:     handshake(h),
		ZeroWindowsTx:   uint64(h.ZeroWindowsTx),
		ZeroWindowsRx:   uint64(h.ZeroWindowsRx),
		ClosedBy:        h.ClosedBy.String(),
		ResetBy:         h.ResetBy.String(),
		Failure:         h.Failure.String(),
	}
	if h.TellsOrder {
		m.OutOfOrder = new(uint64(h.OutOfOrder))
	}
	return m
}

// handshake is nil where its beginning or its answer was not seen. The stamps
// wrap around; an answer from before the question is not its answer.
func handshake(h *event.Health) *uint32 {
	took := h.SYNACK - h.SYN
	if h.SYN == 0 || h.SYNACK == 0 || int32(took) < 0 {
		return nil
	}
	return &took
}

// retransmitRatio is of what was sent since the connection was first seen, and
// nil where no socket was.
func retransmitRatio(f *event.Flow) *float64 {
	h := &f.Health
	if !f.HasSocket || f.Conn.Protocol != event.TCP || f.Total.TxPackets == 0 || h.Retransmits < h.RetransmitsBefore {
		return nil
	}
	// What the machine itself lost was sent again, and not seen before.
	return new(min(1, float64(h.Retransmits-h.RetransmitsBefore)/float64(f.Total.TxPackets)))
}

// duration is nil where the beginning was not seen.
func duration(f *event.Flow, now int64) *int64 {
	if f.Health.SYN == 0 {
		return nil
	}
	if f.State.Ended() {
		now = f.Last
	}
	return new(max(0, now-f.First))
}
