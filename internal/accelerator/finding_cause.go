// SPDX-License-Identifier: Apache-2.0

package accelerator

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/orb8/orb8/internal/event"
)

// Bytes a second.
const (
	// much is what storage or RDMA moves at least, to be why a GPU waits.
	much = 1 << 20
	// some is what is more than heartbeats, metrics and logs.
	some = 64 << 10
)

const (
	// recent is how long before its GPU had nothing to do somebody may have fallen
	// silent, for whom it waits: steps of training are not longer.
	recent = 60 * second
	// settled is how long after it what was under way may still come.
	settled = 2 * second
)

// causeKey tells one cause from another.
type causeKey struct {
	what event.GPUCause
	peer peerKey
}

// cause is why a GPU does no work; of no known one the key is empty.
type cause struct {
	key    causeKey
	who    *event.Identity
	tx, rx uint64
	silent int64
	sums   sums
	clause string
}

func (c *cause) fill(f *event.GPUFinding) {
	f.Cause, f.Peer, f.TxRate, f.RxRate, f.Silent = c.key.what, c.who, c.tx, c.rx, c.silent
	f.Resent, f.Failed = uint64(c.sums.resent), uint64(c.sums.failed)
}

// why looks at what the network did while the GPU had nothing to do since then.
func (f *finder) why(h *event.GPUHolder, n *network, since int64, told *peerKey) cause {
	if n == nil || !h.NetworkKnown {
		return cause{clause: "what its network does is not known"}
	}
	v := n.see(2*f.n, told)
	rdma := v.rdma.Bytes()
	lost, waited := v.troubled, n.awaited(since)
	if lost != nil && !lost.mattered && (v.most != nil && v.rate(v.bytes) >= some || waited != nil) {
		lost = nil // it never mattered, and somebody else does
	}
	silent, failed := n.dns.silent[0]+n.dns.silent[1], n.dns.failed[0]+n.dns.failed[1]
	switch {
	case v.store != nil && v.rate(v.stored) >= much && v.stored >= max(v.best, rdma):
		return v.storage()
	case silent+failed >= 2 && n.dns.asked > n.dns.answered:
		return n.unanswered(silent, failed)
	case lost != nil:
		return v.lost(lost)
	case v.rate(rdma) >= much && rdma >= v.bytes:
		c := cause{key: causeKey{what: event.CauseRDMA}, tx: v.rate(v.rdma.TxBytes), rx: v.rate(v.rdma.RxBytes)}
		c.clause = "moves data by RDMA: " + both(c.tx, c.rx)
		return c
	case v.most != nil && v.rate(v.bytes) >= some:
		return v.busiest()
	case waited != nil:
		c := v.awaited(waited, since)
		if k, ok := f.kernels(h.At); ok {
			c.clause += "; meanwhile " + k.clause
		}
		return c
	}
	if c, ok := f.kernels(h.At); ok {
		return c
	}
	return v.nothing()
}

// sight is what the window of a network shows.
type sight struct {
	n *network
	// Storage in all; of all but the DNS and who is not waited for.
	stored, bytes uint64
	// Most with storage; with anybody; and most of whoever is no storage.
	store, most           *peer
	storedMost, all, best uint64
	// With whom nothing works, and whose data the holder does not read.
	troubled, unread *peer
	rdma             event.Traffic
}

// see looks at all peers; who was troubled before longer than so is not any more. Of
// several with whom about as much moves, who was told of is told again.
func (n *network) see(trouble int64, told *peerKey) *sight {
	v := &sight{n: n, rdma: n.rdma[0]}
	v.rdma.Add(n.rdma[1])
	var most, stores float64
	for _, p := range n.peers {
		s := p.sum()
		moved := s.tx + s.rx
		if p.role == roleAside || p.role == roleDNS {
			continue
		}
		v.bytes += moved
		weight := float64(moved)
		if p.key == *told {
			weight *= 1.5
		}
		if moved > 0 && (v.most == nil || p.more(v.most, weight, most)) {
			v.most, v.all, most = p, moved, weight
		}
		if p.role != roleStorage {
			v.best = max(v.best, moved)
		} else if v.stored += moved; moved > 0 && (v.store == nil || p.more(v.store, weight, stores)) {
			v.store, v.storedMost, stores = p, moved, weight
		}
		if p.isTroubled() && n.at-p.troubled <= trouble && (v.troubled == nil || v.troubled.lessTroubled(p)) {
			v.troubled = p
		}
		if p.unread.some() && p.open > 0 && (v.unread == nil || p.more(v.unread, p.pastOf(n.at), v.unread.pastOf(n.at))) {
			v.unread = p
		}
	}
	return v
}

func (p *peer) isTroubled() bool { return p.failures >= 2 || p.unanswered >= 2 }

func (p *peer) lessTroubled(o *peer) bool {
	if p.mattered != o.mattered {
		return o.mattered
	}
	return o.more(p, float64(o.failures+o.unanswered), float64(p.failures+p.unanswered))
}

// awaited is for whom a holder waits whose network is silent: who has an open
// connection, sent the most before, and is silent since. Who does not take what is
// sent comes first. Of those that sent as much it is who fell silent first: the others
// have had their turn.
func (n *network) awaited(since int64) (whom *peer) {
	shut, most := false, 0.0
	for _, p := range n.peers {
		if p.mayBeAwaited(since) {
			shut = shut || p.shut.some()
			most = max(most, p.pastOf(since))
		}
	}
	may := func(p *peer) bool {
		return p.mayBeAwaited(since) && (p.shut.some() || !shut && p.pastOf(since) >= most/4)
	}
	first := int64(math.MaxInt64)
	for _, p := range n.peers {
		if may(p) {
			first = min(first, p.loud)
		}
	}
	for _, p := range n.peers {
		if may(p) && p.loud < first+settled && (whom == nil || p.more(whom, p.pastOf(since), whom.pastOf(since))) {
			whom = p
		}
	}
	return whom
}

// more orders peers; those of whom there is as much, by name, so that they stay
// where they are.
func (p *peer) more(o *peer, mine, its float64) bool {
	return mine > its || mine == its && cmp.Or(cmp.Compare(p.key.name, o.key.name), bytes.Compare(p.key.ip[:], o.key.ip[:])) < 0
}

func (p *peer) mayBeAwaited(since int64) bool {
	if p.open == 0 || p.role != rolePeer || p.loud > since+settled {
		return false
	}
	return p.shut.some() || !p.unread.some() && p.loud >= since-recent && p.loud != 0
}

func (v *sight) rate(bytes uint64) uint64 { return uint64(float64(bytes) / v.n.seconds()) }

// of is a cause that is somebody.
func (v *sight) of(what event.GPUCause, p *peer) cause {
	s := p.sum()
	return cause{key: causeKey{what, p.key}, who: p.who, sums: s, tx: v.rate(s.tx), rx: v.rate(s.rx)}
}

func (v *sight) storage() cause {
	c := v.of(event.CauseStorage, v.store)
	if c.rx >= c.tx {
		c.clause = "reads " + rate(c.rx) + " from " + v.store.name()
	} else {
		c.clause = "writes " + rate(c.tx) + " to " + v.store.name()
	}
	if v.rate(v.stored-v.storedMost) >= some {
		c.clause += ", with all of its storage " + rate(v.rate(v.stored))
	}
	return c
}

func (n *network) unanswered(silent, failed uint32) cause {
	said := "does not answer"
	if failed > silent {
		said = "fails"
	}
	return cause{
		key: causeKey{what: event.CauseDNS},
		clause: fmt.Sprintf("the DNS %s (%s in %.0fs, the last for %s)",
			said, count(uint64(silent)+uint64(failed), "look-up"), n.seconds(), clean(n.dns.name)),
	}
}

func (v *sight) lost(p *peer) cause {
	c := v.of(event.CausePeer, p)
	c.silent = p.silence(v.n.at)
	if p.failures >= p.unanswered {
		c.clause = fmt.Sprintf("connects to %s fail (%d in a row)", p.name(), p.failures)
	} else {
		c.clause = fmt.Sprintf("%s does not answer (%s sent again since)", p.name(), count(uint64(p.unanswered), "segment"))
	}
	return c
}

func (v *sight) busiest() cause {
	c := v.of(event.CausePeer, v.most)
	c.clause = "exchanges data with " + v.most.name() + ": " + both(c.tx, c.rx)
	if v.all < v.bytes/2 {
		c.clause = fmt.Sprintf("exchanges %s with many, the most with %s: %s", rate(v.rate(v.bytes)), v.most.name(), both(c.tx, c.rx))
	}
	return c
}

func (v *sight) awaited(p *peer, since int64) cause {
	c := v.of(event.CausePeer, p)
	c.silent = p.silence(v.n.at)
	said := "has sent nothing for " + lasted(c.silent)
	switch {
	case p.shut.some():
		c.silent = v.n.at - max(p.loud, since)
		said = "does not take what is sent to it"
	case p.trickle > 0:
		c.silent = v.n.at - p.loud
		said = "has sent only " + size(p.trickle) + " for " + lasted(c.silent)
	}
	c.clause = "waits for " + p.name() + ", which " + said
	return c
}

// silence is how long it has sent nothing; 0 where it never has.
func (p *peer) silence(at int64) int64 {
	if p.heard == 0 {
		return 0
	}
	return at - p.heard
}

func (v *sight) nothing() cause {
	c := cause{key: causeKey{what: event.CauseNothing}, clause: "nothing moves on its network"}
	all := v.n.total[0]
	all.Add(v.n.total[1])
	if bytes := all.Bytes(); bytes > 0 {
		c.clause = "next to nothing moves on its network, " + rate(v.rate(bytes))
	}
	if v.unread != nil {
		c.clause += "; it does not read what " + v.unread.name() + " has sent"
	}
	return c
}

// kernels is the storage that the kernel of the node uses, for whoever it does.
func (f *finder) kernels(at int64) (cause, bool) {
	k := f.kernel
	if k == nil || at-k.at > longest {
		return cause{}, false
	}
	v := k.see(0, &peerKey{})
	if v.store == nil || v.rate(v.stored) < much {
		return cause{}, false
	}
	c := v.storage()
	c.clause = "the node's kernel " + c.clause + ", for whom is not known"
	return c, true
}

// name is for people; whatever is in it.
func (p *peer) name() string {
	w := p.who
	var name string
	switch {
	case w.Pod != "":
		name = "pod " + w.Namespace + "/" + w.Pod
	case w.FQDN != "":
		name = w.FQDN
	case w.Service != "":
		name = "service " + w.Service
	case w.Class == event.ClassNode && w.Node != "":
		name = "node " + w.Node + " (" + p.key.ip.Addr().String() + ")"
	default:
		name = p.key.ip.Addr().String()
	}
	if p.key.use != useDNS && useNames[p.key.use] != "" && p.role == roleStorage {
		name += " (" + useNames[p.key.use] + ")"
	}
	return clean(name)
}

// clean has nothing in it that a terminal would do something with.
func clean(s string) string {
	const most = 300
	if len(s) > most {
		s = s[:most]
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

func both(tx, rx uint64) string { return "sends " + rate(tx) + ", receives " + rate(rx) }

func rate(n uint64) string { return size(n) + "/s" }

// size is decimal, as in networking: 1.2 GB.
func size(n uint64) string {
	const prefixes = "KMGTPE"
	if n < 1000 {
		return strconv.FormatUint(n, 10) + " B"
	}
	f, i := float64(n)/1000, 0
	for f >= 999.95 && i < len(prefixes)-1 {
		f, i = f/1000, i+1
	}
	return strconv.FormatFloat(f, 'f', 1, 64) + " " + prefixes[i:i+1] + "B"
}

func count(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.FormatUint(n, 10) + " " + noun + "s"
}
