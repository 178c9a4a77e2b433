// SPDX-License-Identifier: Apache-2.0

package accelerator

import (
	"cmp"
	"hash/maphash"
	"strings"

	"github.com/orb8/orb8/internal/event"
)

// mostHolders bounds who is told apart; whoever finds no room is unattributed.
const mostHolders = 1024

// holderKey tells holders apart.
type holderKey struct {
	class event.Class
	// Of a pod its UID, where it has one; of the rest what there is that names it.
	uid, namespace, name string
	pid                  uint32
}

func keyOf(who *event.Identity) holderKey {
	k := holderKey{class: who.Class}
	switch {
	case who.PodUID != "":
		k.uid = who.PodUID
	case who.Pod != "":
		k.namespace, k.name = who.Namespace, who.Pod
	case who.Container != "":
		k.name = who.Container
	case who.Unit != "":
		k.name = who.Unit
	default:
		k.name, k.pid = who.Process, who.PID
	}
	return k
}

func (k *holderKey) compare(o *holderKey) int {
	return cmp.Or(
		cmp.Compare(k.class, o.class), cmp.Compare(k.namespace, o.namespace), cmp.Compare(k.name, o.name),
		cmp.Compare(k.uid, o.uid), cmp.Compare(k.pid, o.pid))
}

// holder is who has devices, from one round to the next.
type holder struct {
	key holderKey
	// As it was told of, and as it is shown: a pod is shown without a container, which
	// its shares have.
	told, who *event.Identity
	// Nil of what is unattributed.
	network *network
	finder  *finder
	// Of the rounds: the first, and the last with a share.
	since, seen int64
	shares      []event.GPUShare
	// Its connections have been told since the round before.
	watched bool
	rdma    event.RDMAUse
	// A shared RDMA device has others, too.
	rdmaUnknown bool
	state       event.GPUHolderState
}

func (h *holder) is(who *event.Identity) {
	if h.told == who {
		return
	}
	h.told, h.who = who, who
	if who.Pod != "" && who.Container != "" {
		pod := *who
		pod.Container = ""
		h.who = &pod
	}
}

// pod tells whether its network is known.
func (h *holder) pod() bool { return h.key.class == event.ClassPod }

// whose is the holder who is known as who; nil where there is no room, or nobody
// is known.
func (t *Tracker) whose(who *event.Identity) *holder {
	if who == nil || who.Class == event.ClassUnknown {
		return nil
	}
	k := keyOf(who)
	h := t.holders[k]
	if h == nil {
		if len(t.holders) >= mostHolders {
			t.lost.holders++
			return nil
		}
		h = &holder{key: k, since: t.at, network: newNetwork(&t.config), finder: newFinder(&t.config)}
		h.finder.kernel = t.kernel.network
		t.holders[k] = h
		if k.uid != "" {
			t.byUID[k.uid] = h
		}
		t.changed = true
	}
	if h.seen != t.at {
		h.seen = t.at
		h.is(who)
	}
	return h
}

// cached is what was found for an identity; the pointer keeps it, so that its
// address is nobody else's.
type cached struct {
	who    *event.Identity
	holder *holder
}

// cachedIdentities are more than the pods and containers of a node.
const cachedIdentities = 4096

// find is the holder whose identity it is, or nil: asked of each connection that
// moves data.
func (t *Tracker) find(who *event.Identity) *holder {
	if who == nil {
		return nil
	}
	c := &t.cache[maphash.Comparable(t.seed, who)%cachedIdentities]
	if c.who != who {
		c.who, c.holder = who, nil
		switch {
		case who.PodUID != "":
			c.holder = t.byUID[who.PodUID]
		case who.Class == event.ClassPod:
			c.holder = t.holders[keyOf(who)]
		case strings.HasPrefix(string(who.Class), string(event.ClassKernel)):
			c.holder = t.kernel
		}
	}
	return c.holder
}
