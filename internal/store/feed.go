// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/filter"
)

// Feed passes events on to followers and remembers the recent ones. A follower
// that is too slow loses events, and is told how many; it never holds up the
// table.
type Feed struct {
	cfg       FeedConfig
	followers []*Follower
	recent    []event.Event // a ring
	next      int
	lost      uint64
}

// FeedConfig bounds a feed. The zero value works.
type FeedConfig struct {
	// Batches that a follower may lag behind; 0 means 1,000.
	Queue int
	// Followers at one time; 0 means 16. One that has stopped to read holds 20 MB
	// in a queue of 1,000.
	Followers int
	// Connection events remembered; 0 means 4,096.
	Recent int
}

// feedBatch is how many events travel together. Epochs come in bursts: a queue
// of single events would lose most of one however fast its reader is.
const feedBatch = 64

// NewFeed makes a feed without followers.
func NewFeed(cfg FeedConfig) *Feed {
	if cfg.Queue <= 0 {
		cfg.Queue = 1000
	}
	if cfg.Followers <= 0 {
		cfg.Followers = 16
	}
	if cfg.Recent <= 0 {
		cfg.Recent = 4096
	}
	return &Feed{cfg: cfg}
}

// Wish is what a follower wants to hear of.
type Wish struct {
	Filter filter.Filter
	// Of look-ups, beside Filter.
	Lookups filter.Lookups
	// Of GPUs: these devices; Filter is about who holds them.
	GPUs filter.GPUs
	// Empty means all.
	Kinds []event.Kind
	// Unix nanoseconds; recent events from then on come first. 0: none.
	Since int64
}

// Follower receives batches of events. Its queue is read by one goroutine; the
// rest is the feed's.
type Follower struct {
	wish    Happened
	filter  filter.Filter
	lookups filter.Lookups
	gpus    filter.GPUs
	queue   chan []event.Event
	pending []event.Event
	lost    atomic.Uint64
}

// Events is the queue; it is closed when the feed ends.
func (f *Follower) Events() <-chan []event.Event { return f.queue }

// Lost returns how many events found no room since it was last asked.
func (f *Follower) Lost() uint64 { return f.lost.Swap(0) }

// ErrTooManyFollowers refuses a follower beyond the bound.
var ErrTooManyFollowers = errors.New("as many followers as this agent serves")

// Follow adds a follower.
func (f *Feed) Follow(w Wish) (*Follower, error) {
	if len(f.followers) >= f.cfg.Followers {
		return nil, fmt.Errorf("%w (%d)", ErrTooManyFollowers, len(f.followers))
	}
	fo := &Follower{wish: ^Happened(0), filter: w.Filter, lookups: w.Lookups, gpus: w.GPUs, queue: make(chan []event.Event, f.cfg.Queue)}
	if len(w.Kinds) > 0 {
		fo.wish = 0
		for _, k := range w.Kinds {
			fo.wish.add(k)
		}
	}
	if w.Since > 0 {
		f.replay(fo, w.Since)
	}
	f.followers = append(f.followers, fo)
	return fo, nil
}

// Leave removes a follower; that it left already is no error.
func (f *Feed) Leave(fo *Follower) {
	for i, o := range f.followers {
		if o == fo {
			f.followers = append(f.followers[:i:i], f.followers[i+1:]...)
		}
	}
}

// Close ends all followers' queues.
func (f *Feed) Close() {
	for _, fo := range f.followers {
		close(fo.queue)
	}
	f.followers = nil
}

// Wanted tells whether an update is worth an event at all: the usual answer is
// no, and costs nothing.
func (f *Feed) Wanted(h Happened) bool {
	return h != 0 && (len(f.followers) > 0 || h&^fleeting != 0)
}

// fleeting is what comes too often to be remembered.
const fleeting Happened = 1<<event.KindTraffic | 1<<event.KindDrop | 1<<event.KindDNS | 1<<event.KindGPUSample

// order in which things happen to a connection within one epoch.
var order = [...]event.Kind{event.KindOpened, event.KindTraffic, event.KindRefused, event.KindFailed, event.KindReset, event.KindClosed, event.KindDrop, event.KindDNS}

// Publish tells followers what happened to a connection in the epoch of e,
// whose kind and time it fills in.
func (f *Feed) Publish(h Happened, e *event.Event) {
	for _, k := range order {
		if !h.Has(k) {
			continue
		}
		e.Kind, e.Time = k, e.Flow.Last
		switch {
		case k == event.KindOpened:
			e.Time = e.Flow.First
		case k == event.KindDrop && e.Drop != nil:
			e.Time = e.Drop.Last
		case k == event.KindDNS && e.Lookup != nil:
			e.Time = cmp.Or(e.Lookup.Answered, e.Flow.Last, e.Lookup.Asked)
		}
		if !fleeting.Has(k) {
			f.remember(e)
		}
		for _, fo := range f.followers {
			f.offer(fo, e)
		}
	}
}

// PublishGPU tells followers what happened to a device, or what a holder does.
func (f *Feed) PublishGPU(k event.Kind, at int64, g *event.GPUEvent) {
	e := event.Event{Kind: k, Time: at, GPU: g}
	if !fleeting.Has(k) && (k != event.KindGPUThrottle || g.Throttle&harmful != 0) {
		own := *g // which is remembered without the others of its second
		e.GPU = &own
		f.remember(&e)
	}
	for _, fo := range f.followers {
		f.offer(fo, &e)
	}
}

// harmful are the reasons of a throttle that are remembered: a GPU at its power cap
// begins and ceases each second to be throttled.
const harmful = event.ThrottleHardware | event.ThrottleThermal | event.ThrottleHardwareThermal | event.ThrottlePowerBrake | event.ThrottleReliability

// Stats of a feed: followers now, and events that found no room, ever.
func (f *Feed) Stats() (followers int, lost uint64) { return len(f.followers), f.lost }

// Flush sends what is pending; it ends an epoch.
func (f *Feed) Flush() {
	for _, fo := range f.followers {
		f.send(fo)
	}
}

func (f *Feed) remember(e *event.Event) {
	if len(f.recent) < f.cfg.Recent {
		f.recent = append(f.recent, *e)
		return
	}
	f.recent[f.next] = *e
	f.next = (f.next + 1) % len(f.recent)
}

func (f *Feed) replay(fo *Follower, since int64) {
	for i := range f.recent {
		e := &f.recent[(f.next+i)%len(f.recent)]
		if e.Time >= since {
			f.offer(fo, e)
		}
	}
	f.send(fo)
}

func (f *Feed) offer(fo *Follower, e *event.Event) {
	switch {
	case !fo.wish.Has(e.Kind):
		return
	case e.GPU != nil:
		if !fo.wantsGPU(e) {
			return
		}
	case !fo.filter.Match(&e.Flow):
		return
	}
	if e.Lookup != nil && !fo.lookups.Match(e.Lookup) {
		return
	}
	fo.pending = append(fo.pending, *e)
	if len(fo.pending) == feedBatch {
		f.send(fo)
	}
}

func (f *Feed) send(fo *Follower) {
	n := len(fo.pending)
	if n == 0 {
		return
	}
	select {
	case fo.queue <- fo.pending:
		fo.pending = make([]event.Event, 0, feedBatch)
	default:
		fo.lost.Add(uint64(n))
		f.lost += uint64(n)
		fo.pending = fo.pending[:0]
	}
}

// wantsGPU: one of the holders is meant, as if it were the local end.
func (f *Follower) wantsGPU(e *event.Event) bool {
	if !f.gpus.MatchEvent(e.GPU) {
		return false
	}
	for _, who := range e.GPU.Holders {
		if f.filter.Match(&event.Flow{Local: who, Remote: &nobody}) {
			return true
		}
	}
	return false
}

var nobody event.Identity
