// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metainternal "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/orb8/orb8/internal/cluster"
)

// A right that is lacking is asked for so seldom: somebody has to grant it.
const deniedPause = 30 * time.Second

// A stream ends so long after its last event: to the library, one that is short
// and without events would be a reason to ask for everything again.
const shortest = 1100 * time.Millisecond

var errShort = errors.New("the connection is closed as soon as it is opened")

// feed stands on both sides of one reflector: it asks the API server, turns
// what comes into facts at once, and tells them. It remembers keys alone.
type feed struct {
	*resource
	client   *client
	problems *problems
	tell     func(*fact)
	gone     func(key string)
	settled  func()
	pause    time.Duration
	// Objects that made no sense.
	ignored atomic.Uint64

	mu     sync.Mutex
	keys   map[string]struct{}
	listed bool
	once   sync.Once
}

var (
	_ cache.ListerWatcherWithContext = (*feed)(nil)
	_ cache.ListerWatcher            = (*feed)(nil)
	_ cache.ReflectorStore           = (*feed)(nil)
)

func newFeed(w *Watch, r *resource) *feed {
	f := &feed{
		resource: r, client: w.client, problems: w.problems, settled: w.settled,
		pause: deniedPause, keys: map[string]struct{}{},
	}
	switch {
	case r.owners():
		f.tell, f.gone = w.workloads.tellOwner, w.workloads.goneOwner
	case r.kind == cluster.KindPod:
		f.tell, f.gone = w.workloads.tellPod, w.workloads.gonePod
	default:
		f.tell = func(fact *fact) { w.put(fact.change) }
		f.gone = func(key string) { w.put(change(r.kind, key)) }
	}
	return f
}

// has tells whether there is such an object.
func (f *feed) has(key string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.keys[key]
	return ok
}

func (f *feed) synced() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.listed
}

// settle says once that the start does not wait for this feed any more.
func (f *feed) settle() { f.once.Do(f.settled) }

// note keeps what has failed. Without owners the start is complete; without
// addresses it never is.
func (f *feed) note(ctx context.Context, err error) {
	if ctx.Err() != nil || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || expired(err) {
		return // an older server that cannot stream what there is, or time to list
	}
	f.problems.set(f, err)
	if denied(err) && (f.owners() || f.optional) {
		f.settle()
	}
}

func denied(err error) bool  { return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) }
func expired(err error) bool { return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) }

// ListWithContext asks for a page.
func (f *feed) ListWithContext(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
	if f.page > 0 && opts.ResourceVersion == "0" {
		opts.ResourceVersion = "" // else the server takes no notice of the page's size
	}
	obj, err := f.client.list(ctx, f.resource, opts)
	if err != nil {
		f.note(ctx, err)
		if denied(err) {
			f.problems.pause(ctx, f.pause)
		}
		return nil, err
	}
	facts := &metainternal.List{}
	if m, err := meta.ListAccessor(obj); err == nil {
		facts.ResourceVersion, facts.Continue = m.GetResourceVersion(), m.GetContinue()
	}
	err = meta.EachListItem(obj, func(o runtime.Object) error {
		if fact := f.fact(o); fact != nil {
			facts.Items = append(facts.Items, fact)
		}
		return nil
	})
	return facts, err
}

// fact reads an object; nil where it makes no sense.
func (f *feed) fact(o runtime.Object) *fact {
	fact := f.read(o)
	m, err := meta.Accessor(o)
	if fact == nil || err != nil {
		f.ignored.Add(1)
		return nil
	}
	fact.ObjectMeta = metav1.ObjectMeta{
		Namespace: m.GetNamespace(), Name: m.GetName(), ResourceVersion: m.GetResourceVersion(),
	}
	return fact
}

// WatchWithContext opens a stream, however long that takes: to the library, an
// API server that is away would be a reason to ask for everything again. Only a
// stream says that all is well: who may list and not watch lists again, seldom.
func (f *feed) WatchWithContext(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		w, stop, err := f.client.watch(ctx, f.resource, opts)
		if err == nil {
			f.problems.clear(f)
			s := &stream{feed: f, from: w, cancel: stop, events: make(chan watch.Event), done: make(chan struct{})}
			go s.run(ctx)
			return s, nil
		}
		f.note(ctx, err)
		if denied(err) && opts.SendInitialEvents == nil {
			f.problems.pause(ctx, f.pause)
		}
		if ctx.Err() != nil || !passing(err) {
			return nil, err
		}
		f.problems.pause(ctx, pause+rand.N(pause/2))
	}
}

// passing tells that the answer, if there is one, says nothing of the question.
func passing(err error) bool {
	var status apierrors.APIStatus
	return !errors.As(err, &status) || apierrors.IsTooManyRequests(err) || apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err)
}

// List is for the library's older interface.
func (f *feed) List(opts metav1.ListOptions) (runtime.Object, error) {
	return f.ListWithContext(context.Background(), opts)
}

// Watch is for the library's older interface.
func (f *feed) Watch(opts metav1.ListOptions) (watch.Interface, error) {
	return f.WatchWithContext(context.Background(), opts)
}

// stream is a watch whose objects are facts.
type stream struct {
	feed   *feed
	from   watch.Interface
	cancel func()
	events chan watch.Event
	done   chan struct{}
	once   sync.Once
}

// Stop ends the stream.
func (s *stream) Stop() {
	s.once.Do(func() {
		close(s.done)
		s.cancel()
		s.from.Stop()
	})
}

// ResultChan gives the events.
func (s *stream) ResultChan() <-chan watch.Event { return s.events }

func (s *stream) run(ctx context.Context) {
	defer close(s.events)
	defer s.Stop()
	last, seen := time.Now(), false
	for e := range s.from.ResultChan() {
		last, seen = time.Now(), true
		switch e.Type {
		case watch.Added, watch.Modified, watch.Deleted:
			fact := s.feed.fact(e.Object)
			if fact == nil {
				continue
			}
			e.Object = fact
		case watch.Error:
			s.feed.note(ctx, apierrors.FromObject(e.Object))
		}
		select {
		case s.events <- e:
		case <-s.done:
			return
		}
	}
	if quiet := time.Since(last); quiet < shortest {
		if !seen && ctx.Err() == nil {
			s.feed.note(ctx, errShort)
		}
		select {
		case <-s.done:
		case <-time.After(shortest - quiet):
		}
	}
}

// Add tells of an object.
func (f *feed) Add(obj any) error {
	fact, ok := obj.(*fact)
	if !ok {
		return nil
	}
	f.mu.Lock()
	f.keys[fact.key] = struct{}{}
	f.mu.Unlock()
	f.tell(fact)
	return nil
}

// Update tells of an object.
func (f *feed) Update(obj any) error { return f.Add(obj) }

// Delete tells that an object is gone.
func (f *feed) Delete(obj any) error {
	if fact, ok := obj.(*fact); ok {
		f.forget(fact.key)
	}
	return nil
}

func (f *feed) forget(key string) {
	f.mu.Lock()
	_, known := f.keys[key]
	delete(f.keys, key)
	f.mu.Unlock()
	if known {
		f.gone(key)
	}
}

// Replace tells of all there is, and of what is gone since.
func (f *feed) Replace(objs []any, _ string) error {
	now := make(map[string]struct{}, len(objs))
	for _, obj := range objs {
		if fact, ok := obj.(*fact); ok {
			now[fact.key] = struct{}{}
		}
	}
	f.mu.Lock()
	before := f.keys
	f.keys, f.listed = now, true
	f.mu.Unlock()
	// First what is gone: what there is now may have its address.
	for key := range before {
		if _, is := now[key]; !is {
			f.gone(key)
		}
	}
	for _, obj := range objs {
		if fact, ok := obj.(*fact); ok {
			f.tell(fact)
		}
	}
	f.settle()
	return nil
}

// Resync is never asked for.
func (f *feed) Resync() error { return nil }
