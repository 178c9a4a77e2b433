// SPDX-License-Identifier: Apache-2.0

package store

import (
	"slices"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/event"
)

// tcpStep is an epoch of one connection, which sent something.
func tcpStep(change func(*event.Delta)) *event.Delta {
	d := &event.Delta{Conn: event.Conn{Protocol: event.TCP, LocalPort: 1, Ifindex: 2, Netns: 3}, FirstTx: true, Traffic: event.Traffic{TxPackets: 1}}
	change(d)
	return d
}

// lived is what is known after some epochs.
func lived(steps ...func(*event.Delta)) *event.Flow {
	s := NewFlows(Limits{})
	var f *event.Flow
	for _, step := range steps {
		s.Begin()
		f, _ = apply(s, tcpStep(step))
	}
	return f
}

func asks(d *event.Delta)    { d.Health.FlagsTx, d.Health.SYN = syn, 4_294_967_000 }
func asksNow(d *event.Delta) { d.Health.FlagsTx, d.Health.SYN = syn, 900 }
func answers(d *event.Delta) { d.Health.FlagsTx, d.Health.FlagsRx, d.Health.SYNACK = ack, synAck, 704 }
func moves(d *event.Delta)   { d.Health.FlagsTx, d.Health.FlagsRx = ack, ack }

// The two stamps of a handshake may come in different epochs, and wrap around.
func TestHandshakeAcrossEpochs(t *testing.T) {
	for name, c := range map[string]struct {
		steps       []func(*event.Delta)
		syn, synAck uint32
	}{
		"in one":                           {[]func(*event.Delta){func(d *event.Delta) { answers(d); asks(d) }}, 4_294_967_000, 704},
		"in two":                           {[]func(*event.Delta){asks, answers}, 4_294_967_000, 704},
		"asked twice, answered twice":      {[]func(*event.Delta){asks, asksNow, answers, func(d *event.Delta) { d.Health.SYNACK = 999 }}, 4_294_967_000, 704},
		"older than the agent":             {[]func(*event.Delta){answers, moves}, 0, 704},
		"asked before the agent was there": {[]func(*event.Delta){func(d *event.Delta) { asks(d); d.HasSocket, d.Health.RetransmitsBefore = true, 1 }, answers}, 0, 704},
		"older, and then a SYN":            {[]func(*event.Delta){moves, asks}, 0, 0},
	} {
		if h := lived(c.steps...).Health; h.SYN != c.syn || h.SYNACK != c.synAck {
			t.Errorf("%s: asked at %d, answered at %d; want %d and %d", name, h.SYN, h.SYNACK, c.syn, c.synAck)
		}
	}
}

// A window that stays zero over many epochs was said to be zero once.
func TestZeroWindowAcrossEpochs(t *testing.T) {
	shut := func(n uint32, began, is bool) func(*event.Delta) {
		return func(d *event.Delta) { d.Health.ZeroWindowsTx, d.BeganShutTx, d.Health.ShutTx = n, began, is }
	}
	receives := func(d *event.Delta) { d.Traffic = event.Traffic{RxPackets: 1} }
	for name, c := range map[string]struct {
		steps []func(*event.Delta)
		want  uint32
	}{
		"once":                      {[]func(*event.Delta){moves, shut(1, false, true)}, 1},
		"from the first packet on":  {[]func(*event.Delta){shut(1, true, true)}, 1},
		"goes on":                   {[]func(*event.Delta){shut(1, false, true), shut(1, true, true), receives, shut(1, true, true)}, 1},
		"goes on, and comes again":  {[]func(*event.Delta){shut(1, false, true), shut(3, true, true)}, 3},
		"opens where nobody looked": {[]func(*event.Delta){shut(1, false, true), shut(0, false, false), shut(1, true, true)}, 2},
		"opens within":              {[]func(*event.Delta){shut(2, false, false), shut(1, false, true), shut(1, true, false)}, 3},
	} {
		if h := lived(c.steps...).Health; h.ZeroWindowsTx != c.want || h.ZeroWindowsRx != 0 {
			t.Errorf("%s: %d times, want %d", name, h.ZeroWindowsTx, c.want)
		}
	}
}

func TestWhoEndedIt(t *testing.T) {
	ends := func(tx, rx uint8, closed, reset event.Side) func(*event.Delta) {
		return func(d *event.Delta) {
			d.Health.FlagsTx, d.Health.FlagsRx, d.Health.ClosedBy, d.Health.ResetBy = tx, rx, closed, reset
		}
	}
	const no, here, there = event.SideUnknown, event.SideLocal, event.SideRemote
	for name, c := range map[string]struct {
		steps         []func(*event.Delta)
		closed, reset event.Side
	}{
		"in one epoch":        {[]func(*event.Delta){moves, ends(fin, fin, there, no)}, there, no},
		"one after the other": {[]func(*event.Delta){moves, ends(fin, ack, here, no), ends(0, fin, there, no)}, here, no},
		"both at once":        {[]func(*event.Delta){ends(fin, fin, no, no), ends(fin, 0, here, no)}, no, no},
		"reset by the other":  {[]func(*event.Delta){moves, ends(ack, rst, no, there), ends(rst, 0, no, here)}, no, there},
	} {
		if h := lived(c.steps...).Health; h.ClosedBy != c.closed || h.ResetBy != c.reset {
			t.Errorf("%s: closed by %q, reset by %q; want %q and %q", name, h.ClosedBy, h.ResetBy, c.closed, c.reset)
		}
	}
	f := lived(func(d *event.Delta) { ends(fin, fin, here, no)(d); d.Loopback = true })
	if f.Health.ClosedBy != no {
		t.Error("on loopback nobody knows who was first")
	}
}

// A socket that was there before has a past that is not the agent's.
func TestRetransmitsBefore(t *testing.T) {
	again := func(before, now uint32) func(*event.Delta) {
		return func(d *event.Delta) {
			d.HasSocket, d.Health.RetransmitsBefore, d.Health.Retransmits = true, before, now
		}
	}
	if h := lived(moves, again(7, 9), again(9, 12)).Health; h.RetransmitsBefore != 7 || h.Retransmits != 12 {
		t.Errorf("%d of %d are of before", h.RetransmitsBefore, h.Retransmits)
	}
}

func TestWhyItWasNeverOpen(t *testing.T) {
	flags := func(tx, rx uint8, reset event.Side) func(*event.Delta) {
		return func(d *event.Delta) { d.Health.FlagsTx, d.Health.FlagsRx, d.Health.ResetBy = tx, rx, reset }
	}
	for name, c := range map[string]struct {
		steps   []func(*event.Delta)
		state   event.State
		failure event.Failure
	}{
		"refused":               {[]func(*event.Delta){flags(syn, rst|ack, event.SideRemote)}, event.StateRefused, event.FailureRefused},
		"taken back":            {[]func(*event.Delta){flags(syn|rst, 0, event.SideLocal)}, event.StateReset, event.FailureReset},
		"reset after an answer": {[]func(*event.Delta){asks, flags(rst, synAck, event.SideLocal)}, event.StateReset, event.FailureReset},
		"reset when open":       {[]func(*event.Delta){asks, flags(ack|rst, synAck, event.SideLocal)}, event.StateReset, event.FailureNone},
		"reset later":           {[]func(*event.Delta){moves, flags(0, rst, event.SideRemote)}, event.StateReset, event.FailureNone},
	} {
		if f := lived(c.steps...); f.State != c.state || f.Health.Failure != c.failure {
			t.Errorf("%s: %v, %q; want %v, %q", name, f.State, f.Health.Failure, c.state, c.failure)
		}
	}
}

// told is what Fail said of one connection.
type told struct {
	conn     event.Conn
	kind     Happened
	identify bool
}

func fail(s *Flows, failed ...event.FailedConnect) (all []told) {
	s.Fail(failed, func(f *event.Flow, h Happened, identify bool) { all = append(all, told{f.Conn, h, identify}) })
	return all
}

func TestFailedConnects(t *testing.T) {
	s := NewFlows(Limits{})
	s.Begin()
	d := tcpStep(asks)
	d.Cookie, d.First, d.Last = 77, 1000, 2000
	f, _ := apply(s, d)
	f.Local = &event.Identity{}
	x := event.FailedConnect{Conn: d.Conn, Time: 5000, Cookie: 77, Failure: event.FailureTimedOut, Retransmits: 2}
	x.Conn.LocalPort, x.Conn.Ifindex = 99, 0 // as the host had it before its translation
	got := fail(s, x)
	if want := []told{{d.Conn, 1 << event.KindFailed, false}}; !slices.Equal(got, want) {
		t.Fatalf("told %+v, want %+v", got, want)
	}
	if f.State != event.StateFailed || f.Last != 5000 || f.Health.Failure != event.FailureTimedOut || f.Health.Retransmits != 2 {
		t.Errorf("the connection is %v since %d: %+v", f.State, f.Last, f.Health)
	}
	if got := fail(s, x); got != nil {
		t.Errorf("told twice: %+v", got)
	}
	// What comes late is not another connection.
	late := tcpStep(func(d *event.Delta) { d.Health.FlagsRx, d.Health.FlagsTx, d.Health.SYNACK = synAck, rst, 9 })
	if again, _ := apply(s, late); again != f || again.State != event.StateFailed {
		t.Errorf("a late answer made it %v", again.State)
	}
}

// A pod may be tapped from outside: on an interface that its sockets do not know,
// and without them.
func TestFailedOnAnotherInterface(t *testing.T) {
	for name, step := range map[string]func(*event.Delta){
		"asks":    asks,
		"refused": func(d *event.Delta) { d.Health.FlagsTx, d.Health.FlagsRx = syn, rst },
	} {
		s := NewFlows(Limits{})
		s.Begin()
		d := tcpStep(step)
		f, _ := apply(s, d)
		x := event.FailedConnect{Conn: d.Conn, Time: 1, Cookie: 4, Failure: event.FailureRefused}
		x.Conn.Ifindex = 77
		if fail(s, x); s.Stats().Flows != 1 || f.State != event.StateRefused || f.Health.Failure != event.FailureRefused {
			t.Errorf("%s: %d connections, %v: %v", name, s.Stats().Flows, f.State, f.Health.Failure)
		}
	}
}

// Many that are not known cost one look at the table.
func BenchmarkFailed(b *testing.B) {
	const flows, fails = 100_000, 2700
	s := NewFlows(Limits{Flows: 2 * flows})
	s.Begin()
	for i := range flows {
		d := tcpStep(moves)
		d.Conn.Netns = uint32(i)
		applyAny(s, d)
	}
	list := make([]event.FailedConnect, fails)
	for i := range list {
		c := event.Conn{Protocol: event.TCP, Netns: uint32(i), LocalPort: 9, Ifindex: 5}
		list[i] = event.FailedConnect{Conn: c, Time: 1, Cookie: uint64(i) + 1, Failure: event.FailureTimedOut}
	}
	s.Fail(list, func(*event.Flow, Happened, bool) {})
	for i := range list {
		list[i].Conn.Ifindex = 6
	}
	for b.Loop() {
		s.Fail(list, func(*event.Flow, Happened, bool) {})
	}
}

// A connect that never sent a packet shows nevertheless, and takes part in no
// account.
func TestFailedWithoutPackets(t *testing.T) {
	s := NewFlows(Limits{Timeout: time.Second})
	s.Begin()
	c := event.Conn{Protocol: event.TCP, LocalPort: 5, Netns: 3}
	got := fail(s,
		event.FailedConnect{Conn: c, Time: 10, Cookie: 5, Cgroup: 6, Failure: event.FailureUnreachable},
		event.FailedConnect{Conn: event.Conn{Protocol: event.TCP, LocalPort: 6, Netns: 3}, Time: 11, Failure: event.FailureRefused})
	if len(got) != 2 || !got[0].identify || !got[1].identify {
		t.Fatalf("told %+v", got)
	}
	f := s.Get(c)
	if f == nil || f.State != event.StateFailed || f.OpenedBy != event.OpenerLocal || f.Total != (event.Traffic{}) || f.Cgroup != 6 || f.Health.SYN != 0 {
		t.Fatalf("the connection is %+v", f)
	}
	s.Expire(time.Unix(5, 0))
	if st := s.Stats(); st.Flows != 0 || len(s.ifaces) != 0 {
		t.Errorf("%d connections and %d interfaces are left", st.Flows, len(s.ifaces))
	}
}

// What packets have told of is not told again.
func TestFailedAndSeen(t *testing.T) {
	for name, c := range map[string]struct {
		step    func(*event.Delta)
		says    event.Failure
		state   event.State
		failure event.Failure
	}{
		"refused":              {func(d *event.Delta) { d.Health.FlagsTx, d.Health.FlagsRx = syn, rst }, event.FailureRefused, event.StateRefused, event.FailureRefused},
		"given up, then reset": {func(d *event.Delta) { d.Health.FlagsTx, d.Health.FlagsRx = syn|rst, synAck }, event.FailureGivenUp, event.StateReset, event.FailureGivenUp},
		"another one's":        {moves, event.FailureTimedOut, event.StateEstablished, event.FailureNone},
	} {
		s := NewFlows(Limits{})
		s.Begin()
		f, _ := apply(s, tcpStep(c.step))
		got := fail(s, event.FailedConnect{Conn: f.Conn, Time: 1, Failure: c.says})
		if len(got) != 0 || f.State != c.state || f.Health.Failure != c.failure {
			t.Errorf("%s: told %+v; %v, %q", name, got, f.State, f.Health.Failure)
		}
	}
}

// A process that was told so and closes its socket has not given up.
func TestClosedForWantOfAWay(t *testing.T) {
	s := NewFlows(Limits{})
	s.Begin()
	d := tcpStep(func(d *event.Delta) {
		asks(d)
		d.Health.ICMPErrors, d.Health.ICMPType, d.Health.ICMPCode = 1, 3, 1
		d.Conn.Local[10], d.Conn.Local[11] = 0xff, 0xff
	})
	f, _ := apply(s, d)
	if fail(s, event.FailedConnect{Conn: d.Conn, Failure: event.FailureGivenUp}); f.State != event.StateFailed || f.Health.Failure != event.FailureUnreachable {
		t.Errorf("%v: %v", f.State, f.Health.Failure)
	}
}

// Nobody answers: the kernel asks again after 1, 2, 4, … seconds, and all of it
// is one connection.
func TestPatienceWhileConnecting(t *testing.T) {
	s := NewFlows(Limits{Timeout: 5 * time.Second})
	var f *event.Flow
	for _, at := range []int64{1, 2, 4, 8, 16, 32} {
		s.Begin()
		s.Expire(time.Unix(at, 0))
		d := tcpStep(asks)
		d.First, d.Last = at*1e9, at*1e9
		f, _ = apply(s, d)
	}
	if f.Total.TxPackets != 6 {
		t.Errorf("the last of several connections: %+v", f)
	}
	s.Expire(time.Unix(100, 0))
	if s.Stats().Flows != 0 {
		t.Error("remembered for ever")
	}
}
