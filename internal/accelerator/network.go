// SPDX-License-Identifier: Apache-2.0

package accelerator

import (
	"math"

	"github.com/orb8/orb8/internal/event"
)

const (
	// mostPeers bounds what is remembered of one holder's network: as many as a map of
	// 128 places takes. 200 holders that have as many are 6 MiB.
	mostPeers = 112
	// quiet is what may come from a peer in a second that says nothing: heartbeats,
	// acknowledgements, somebody who asks for metrics.
	quiet = 8 << 10
	// half is how long it takes until what a peer moved counts half, where peers are
	// compared.
	half = 60 * second
	// longest is how far apart rounds may be. After more, what is known of the time
	// before is not known to go on.
	longest = 5 * second
	second  = int64(1e9)
)

// network is what the network of one holder does: in this second, and in a window
// of the last N/2 to N seconds, N being how long something lasts before it is a
// finding. So what moved before it began is not in the window.
type network struct {
	peers map[peerKey]*peer
	// When the second, and the two parts of the window, began.
	at, began, turned int64
	turn              int64
	moved             event.Traffic
	resent            uint64
	total, rdma       [2]event.Traffic
	dns               dns
	// Who was told of by such an address and port: to hash a name takes longer than the
	// rest.
	lately [128]*peer
}

// dns is what came of look-ups.
type dns struct {
	// Unanswered, and answered that the server has failed.
	silent, failed [2]uint32
	// Of the last of those, and the last that was answered.
	asked, answered int64
	name            string
}

// sums of a peer's connections.
type sums struct {
	tx, rx         uint64
	resent, failed uint32
}

func (s *sums) add(o *sums) {
	s.tx += o.tx
	s.rx += o.rx
	s.resent += o.resent
	s.failed += o.failed
}

// peer is who a holder exchanges data with.
type peer struct {
	key peerKey
	// As it was last told of.
	who  *event.Identity
	ip   event.IP
	role role
	// Of the second that is not over; of the window.
	now    sums
	window [2]sums
	// When it was last told of, when anything came, when it said more than who is quiet does, and
	// when a connect failed or something was sent again.
	used, heard, loud, troubled int64
	// What came since it was loud. Since anything came, what was sent again; since
	// something worked, connects that failed.
	trickle              uint64
	unanswered, failures uint32
	// Connections: not fewer than one, while any is seen to live.
	open uint32
	// What it said, as of then.
	past   float64
	pastAt int64
	// The connection, if any, on which it does not take what is sent; and on which the
	// holder does not read what has come.
	shut, unread ports
	// In this second; ever, and with much data.
	works, mattered bool
}

// ports are a connection of a peer's; without any it is none.
type ports struct{ local, remote uint16 }

func (p ports) some() bool { return p != ports{} }

// tell takes in whether something is so of a connection, which is not of another.
func (p *ports) tell(f *event.Flow, is bool) {
	this := ports{f.Conn.LocalPort, f.Conn.RemotePort}
	if is {
		*p = this
	} else if *p == this {
		*p = ports{}
	}
}

func newNetwork(c *Config) *network {
	// Two seconds less, because the first sample of what lasts is of the second before.
	return &network{peers: map[peerKey]*peer{}, turn: max(int64(c.Idle)/2-second, second)}
}

// flow takes in what a connection of the holder's moved.
func (n *network) flow(f *event.Flow, moved *event.Traffic, ended, failed bool) {
	n.moved.Add(*moved)
	n.resent += uint64(f.Health.Resent)
	if f.Remote == nil {
		return
	}
	u := useOf(f)
	recalled := &n.lately[(f.Conn.Remote[15]^uint8(f.Conn.RemotePort))%uint8(len(n.lately))]
	p := *recalled
	if p == nil || p.who != f.Remote || p.ip != f.Conn.Remote || p.key.use != u {
		p = n.find(f, u)
		*recalled = p
	}
	p.used = n.at
	p.now.tx += moved.TxBytes
	p.now.rx += moved.RxBytes
	p.now.resent += f.Health.Resent
	if failed {
		p.now.failed++
		if f.Total != *moved && p.open > 0 {
			p.open-- // it had begun
		}
		return
	}
	if f.State == event.StateEstablished || f.State == event.StateNone && moved.RxPackets > 0 {
		p.works = true
	}
	if f.Conn.Protocol != event.TCP {
		return
	}
	p.shut.tell(f, f.Health.ShutRx && !ended)
	p.unread.tell(f, f.Health.ShutTx && !ended)
	switch {
	case ended:
		// A short one was never seen to live.
		if f.Total != *moved && p.open > 0 {
			p.open--
		}
	case f.OpenedBy != event.OpenerUnknown && f.Total == *moved:
		p.open++
	case p.open == 0:
		p.open = 1 // it was there before it was told of
	}
}

func (n *network) find(f *event.Flow, u use) *peer {
	key := peerOf(f, u)
	p := n.peers[key]
	if p == nil {
		p = n.meet(key, f)
	}
	if p.ip = f.Conn.Remote; p.who != f.Remote {
		p.rename(f)
	}
	return p
}

// meet makes a peer known.
func (n *network) meet(key peerKey, f *event.Flow) *peer {
	var p *peer
	if len(n.peers) < mostPeers {
		p = &peer{}
	} else {
		p = n.leastUsed()
		delete(n.peers, p.key)
	}
	*p = peer{key: key, used: n.at}
	n.peers[key] = p
	p.rename(f)
	return p
}

// leastUsed is who is forgotten when there is no room: of some that a map happens to
// begin with, and of those for whom nobody can be waiting, if there are any, who was
// told of the longest ago.
func (n *network) leastUsed() (least *peer) {
	left := 16
	for _, p := range n.peers {
		if left--; left < 0 {
			break
		}
		switch {
		case least == nil, least.awaited() && !p.awaited():
			least = p
		case least.awaited() == p.awaited() && p.used < least.used:
			least = p
		}
	}
	return least
}

func (p *peer) awaited() bool { return p.loud != 0 && p.open > 0 }

func (p *peer) rename(f *event.Flow) {
	if p.who == nil || p.who.Workload != f.Remote.Workload || p.who.Service != f.Remote.Service {
		p.role = roleOf(p.key.use, f)
	}
	p.who = f.Remote
}

// lookup takes in what came of a look-up of the holder's.
func (n *network) lookup(l *event.Lookup) {
	const serverFailure = 2
	if l.Role != event.RoleClient {
		return
	}
	d := &n.dns
	switch l.RCode {
	case event.RCodeTimeout, event.RCodeUnreachable:
		d.silent[0]++
	case serverFailure:
		d.failed[0]++
	default:
		d.answered = max(d.answered, l.Answered)
		return
	}
	d.asked, d.name = max(d.asked, l.Asked), l.Name
}

// second closes the second: what moved in it, and what was sent again.
func (n *network) second(at int64) (moved event.Traffic, resent uint64) {
	past := at - n.at
	if n.at == 0 || past > longest || past <= 0 {
		n.forget(at)
		past = second
	}
	n.at = at
	if began := at - past; began-n.turned > n.turn-second/2 {
		n.rotate(began)
	}
	for _, p := range n.peers {
		p.close(at, past)
	}
	moved, resent = n.moved, n.resent
	n.total[0].Add(moved)
	n.moved, n.resent = event.Traffic{}, 0
	return moved, resent
}

// forget empties the window.
func (n *network) forget(at int64) {
	n.began, n.turned = at-second, at-second
	n.total, n.rdma = [2]event.Traffic{}, [2]event.Traffic{}
	n.dns.silent, n.dns.failed = [2]uint32{}, [2]uint32{}
	for _, p := range n.peers {
		p.window = [2]sums{}
	}
}

// rotate begins a new part of the window, and leaves the old one out.
func (n *network) rotate(at int64) {
	n.began, n.turned = n.turned, at
	n.total = [2]event.Traffic{1: n.total[0]}
	n.rdma = [2]event.Traffic{1: n.rdma[0]}
	n.dns.silent = [2]uint32{1: n.dns.silent[0]}
	n.dns.failed = [2]uint32{1: n.dns.failed[0]}
	for _, p := range n.peers {
		p.window = [2]sums{1: p.window[0]}
	}
}

// close adds the second, which lasted so long, to what is known of the peer.
func (p *peer) close(at, lasted int64) {
	if p.now == (sums{}) && !p.works {
		return
	}
	s := p.now
	p.window[0].add(&s)
	if s.failed > 0 || s.resent > 0 {
		p.troubled = at
	}
	p.failures += s.failed
	if p.works {
		p.failures = 0
	}
	p.unanswered += s.resent
	if s.rx > 0 {
		p.heard, p.unanswered = at, 0
	}
	// Acknowledgements are not more than a twentieth of what they are for.
	said, seconds := float64(s.rx)-float64(s.tx)/16, float64(lasted)/1e9
	p.trickle += s.rx
	if said >= quiet*seconds {
		// What is said quietly is left out: seen from when it fell silent, it would grow.
		p.loud, p.trickle = at, 0
		p.past, p.pastAt = p.pastOf(at)+said, at
	}
	p.mattered = p.mattered || float64(s.rx+s.tx) >= much*seconds
	p.now, p.works = sums{}, false
}

// pastOf is what moved, as seen from a time.
func (p *peer) pastOf(at int64) float64 {
	if p.past == 0 {
		return 0
	}
	// Not more than it was: a clock may be set back.
	return p.past * math.Exp2(min(float64(p.pastAt-at)/float64(half), 1))
}

// sum is what the peer did in the window.
func (p *peer) sum() sums {
	s := p.window[0]
	s.add(&p.window[1])
	return s
}

// seconds that the window is long.
func (n *network) seconds() float64 { return max(float64(n.at-n.began)/1e9, 1) }
