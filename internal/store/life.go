// SPDX-License-Identifier: Apache-2.0

package store

import "github.com/orb8/orb8/internal/event"

// Happened is a set of event kinds.
type Happened uint16

// Has tells whether kind is in the set.
func (h Happened) Has(k event.Kind) bool { return h&(1<<k) != 0 }

func (h *Happened) add(k event.Kind) { *h |= 1 << k }

// end adds what it is called that a connection has come to its end.
func (h *Happened) end(s event.State) {
	switch s {
	case event.StateClosed:
		h.add(event.KindClosed)
	case event.StateReset:
		h.add(event.KindReset)
	case event.StateRefused:
		h.add(event.KindRefused)
	case event.StateFailed:
		h.add(event.KindFailed)
	}
}

// opener tells which end opened a connection that is seen for the first time.
// TCP says so; of the rest, the first packet is taken for the opening one,
// unless the connection may be older than the agent.
func opener(d *event.Delta, atStart bool) event.Opener {
	switch {
	case d.Conn.Kind == event.ConnEchoOpenedLocal:
		return event.OpenerLocal
	case d.Conn.Kind == event.ConnEchoOpenedRemote:
		return event.OpenerRemote
	case d.Conn.Protocol == event.TCP && d.FirstAnswers:
		if d.FirstTx {
			return event.OpenerRemote
		}
		return event.OpenerLocal
	case d.Conn.Protocol == event.TCP:
		if d.FirstTx && d.Health.FlagsTx&event.FlagSYN != 0 {
			return event.OpenerLocal
		}
		if !d.FirstTx && d.Health.FlagsRx&event.FlagSYN != 0 {
			return event.OpenerRemote
		}
		return event.OpenerUnknown
	case d.Conn.Protocol != event.UDP && d.Conn.Protocol != event.SCTP, d.Conn.Kind == event.ConnFragment, d.Loopback, atStart:
		return event.OpenerUnknown
	case d.FirstTx:
		return event.OpenerLocal
	}
	return event.OpenerRemote
}

// live moves a connection through its life and tells what happened on the way; a
// short connection may live its whole life in one epoch.
func live(f *event.Flow, d *event.Delta) (happened Happened) {
	wasOpen := opened(f)
	mergeHealth(f, d)
	if d.Traffic.Packets() > 0 {
		happened.add(event.KindTraffic)
	}
	if f.Conn.Protocol != event.TCP {
		return happened | advanceOther(f, d)
	}
	was := f.State
	if was.Ended() {
		if !wasOpen && opened(f) { // what it had received comes after
			happened.add(event.KindOpened)
		}
		return happened
	}
	f.State = tcpState(f)
	if f.State.Ended() && was < event.StateEstablished {
		f.Health.Failure = failure(f)
	}
	if !wasOpen && opened(f) {
		happened.add(event.KindOpened)
	}
	if f.State != was {
		happened.end(f.State)
	}
	return happened
}

// opened tells that the handshake was seen from both sides, and is over. One
// side's packets may come without the other's: see Translate.
func opened(f *event.Flow) bool {
	return f.Health.FlagsTx&f.Health.FlagsRx&event.FlagSYN != 0 && f.State >= event.StateEstablished &&
		f.Health.Failure == event.FailureNone
}

// tcpState reads the state off the flags that were ever seen. Who opens and has
// acknowledged something is past the handshake.
func tcpState(f *event.Flow) event.State {
	tx, rx := f.Health.FlagsTx, f.Health.FlagsRx
	both, either := tx&rx, tx|rx
	opening := either&event.FlagSYN != 0 && both&event.FlagSYN == 0 && tx&(event.FlagSYN|event.FlagACK) != event.FlagSYN|event.FlagACK
	switch {
	case both&event.FlagFIN != 0:
		return event.StateClosed
	case opening && either&event.FlagRST != 0 && !byOpener(f), opening && unreachable(f):
		return event.StateRefused
	case either&event.FlagRST != 0:
		return event.StateReset
	case tx&event.FlagFIN != 0:
		return event.StateFinWait
	case rx&event.FlagFIN != 0:
		return event.StateCloseWait
	case opening && tx&event.FlagSYN != 0 && tx&event.FlagACK == 0:
		return event.StateSynSent
	case opening && rx&event.FlagSYN != 0 && rx&event.FlagACK == 0:
		return event.StateSynRecv
	case both&event.FlagSYN != 0 && f.OpenedBy == event.OpenerRemote && rx&event.FlagACK == 0:
		return event.StateSynRecv
	case both&event.FlagSYN != 0 && f.OpenedBy == event.OpenerLocal && tx&event.FlagACK == 0:
		return event.StateSynSent
	}
	return event.StateEstablished
}

// advanceOther: without a handshake the first packet opens, and only ICMP can
// refuse. An answer afterwards takes the refusal back.
func advanceOther(f *event.Flow, d *event.Delta) (happened Happened) {
	if d.Traffic.Packets() > 0 && f.Total == d.Traffic && f.OpenedBy != event.OpenerUnknown {
		happened.add(event.KindOpened)
	}
	was := f.State
	switch {
	case d.Health.ICMPErrors > 0 && unreachable(f):
		f.State = event.StateRefused
		if was != f.State {
			happened.add(event.KindRefused)
		}
	case d.Traffic.TxPackets > 0 && d.Traffic.RxPackets > 0:
		f.State = event.StateNone
	}
	return happened
}

// unreachable: the last ICMP error said that nobody listens or that a firewall
// forbids it.
func unreachable(f *event.Flow) bool {
	if f.Health.ICMPErrors == 0 {
		return false
	}
	if f.Conn.Local.Addr().Is4() {
		// Protocol, port unreachable; administratively prohibited.
		c := f.Health.ICMPCode
		return f.Health.ICMPType == 3 && (c == 2 || c == 3 || c == 9 || c == 10 || c == 13)
	}
	// Administratively prohibited, port unreachable.
	return f.Health.ICMPType == 1 && (f.Health.ICMPCode == 1 || f.Health.ICMPCode == 4)
}
