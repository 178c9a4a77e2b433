// SPDX-License-Identifier: Apache-2.0

package cluster

import "sync"

// Inbox holds changes until the owner of the Map takes them: of each object
// the last one, so that it is bounded by the cluster itself. It is for any
// goroutine; the zero value works.
type Inbox struct {
	mu      sync.Mutex
	changes map[inboxKey]Change
	synced  bool
}

type inboxKey struct {
	kind Kind
	key  string
}

// Put adds changes.
func (i *Inbox) Put(changes ...Change) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.changes == nil {
		i.changes = make(map[inboxKey]Change, len(changes))
	}
	for _, c := range changes {
		key := inboxKey{c.Kind, c.Key}
		if before, ok := i.changes[key]; ok && c.Kind == KindPod {
			c = c.after(&before)
		}
		i.changes[key] = c
	}
}

// after is what there is to tell of a pod of which there was something to tell
// already. That it is gone is the last word: another watch may be behind. What
// it was is worth knowing all the same, since it may have been seen to talk.
func (c Change) after(before *Change) Change {
	wasGone, isGone := before.gone(), c.gone()
	switch {
	case isGone && c.Pod == nil:
		c.Pod = before.Pod
	case wasGone && !isGone && before.Pod != nil:
		return *before
	case wasGone && !isGone:
		c.At = before.At
	}
	c.Gone = wasGone || isGone
	return c
}

// gone tells that the object is there no more.
func (c *Change) gone() bool {
	return c.Gone || c.Pod == nil && c.Service == nil && c.Endpoints == nil && c.Node == nil
}

// Synced tells that all that there was at the start has been put: from now on,
// an address that nobody has is outside of the cluster.
func (i *Inbox) Synced() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.synced = true
}

// Take gives what came since the last time, in no order, and whether the start
// is complete.
func (i *Inbox) Take() (changes []Change, synced bool) {
	i.mu.Lock()
	taken, synced := i.changes, i.synced
	i.changes = nil
	i.mu.Unlock()
	for _, c := range taken {
		changes = append(changes, c)
	}
	return changes, synced
}
