// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Bounds of the look-ups of owners that no watch tells of.
const (
	lookupsPerSecond = 5
	lookupBurst      = 20
	mostAnswers      = 4096
	mostQuestions    = 4096
	// A kind that may not be asked for, or is not there, is tried again then.
	kindLife     = 10 * time.Minute
	longestRetry = 5 * time.Minute
)

type question struct {
	ref
	namespace string
	tries     int
}

// place is where the API server keeps a kind.
type place struct {
	plural string
	// Not in namespaces.
	wide bool
	// None of it can be asked for.
	closed bool
	until  time.Time
}

// lookups asks for the metadata of owners, one after the other and each once.
type lookups struct {
	client   *client
	problems *problems
	learn    func(uid string)
	limit    *rate.Limiter
	retry    time.Duration

	mu      sync.Mutex
	answers map[string]ref // by UID, as workloads has them
	asked   map[string]bool
	queue   []question
	more    chan struct{}

	// Of the one goroutine: by group and kind.
	places map[string]place
}

func newLookups(c *client, p *problems, learn func(string)) *lookups {
	return &lookups{
		client: c, problems: p, learn: learn, retry: lastRetry,
		limit:   rate.NewLimiter(lookupsPerSecond, lookupBurst),
		answers: map[string]ref{}, asked: map[string]bool{}, more: make(chan struct{}, 1),
		places: map[string]place{},
	}
}

// known gives what a look-up has found: the owner of this owner, or none.
func (l *lookups) known(uid string) (ref, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	parent, ok := l.answers[uid]
	return parent, ok
}

// want asks, some time. Where there is no room the pod keeps the owner that it
// has, until it is told of again.
func (l *lookups) want(q question) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asked[q.uid] {
		return
	}
	if len(l.asked) >= mostQuestions {
		l.problems.overflow()
		return
	}
	l.asked[q.uid] = true
	l.push(q)
}

func (l *lookups) push(q question) {
	l.queue = append(l.queue, q)
	select {
	case l.more <- struct{}{}:
	default:
	}
}

func (l *lookups) next() (q question, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		l.queue = nil
		return q, false
	}
	q, l.queue = l.queue[0], l.queue[1:]
	return q, true
}

func (l *lookups) run(ctx context.Context) {
	for ctx.Err() == nil {
		q, ok := l.next()
		if !ok {
			select {
			case <-l.more:
			case <-ctx.Done():
			}
			continue
		}
		switch parent, err := l.ask(ctx, q); {
		case ctx.Err() != nil:
		case err != nil:
			l.later(q)
		default:
			l.answer(q.uid, parent)
		}
	}
}

// later asks again, ever more seldom, while others are asked.
func (l *lookups) later(q question) {
	wait := min(l.retry<<min(q.tries, 10), longestRetry)
	q.tries++
	time.AfterFunc(wait, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.push(q)
	})
}

func (l *lookups) answer(uid string, parent ref) {
	l.mu.Lock()
	delete(l.asked, uid)
	for other := range l.answers {
		if len(l.answers) < mostAnswers {
			break
		}
		delete(l.answers, other) // any: it is asked for again at worst
	}
	l.answers[uid] = parent
	l.mu.Unlock()
	l.learn(uid)
}

// ask gives the owner of an owner, or none; an error is worth another try.
func (l *lookups) ask(ctx context.Context, q question) (ref, error) {
	at := l.place(q)
	for range 2 {
		if at.closed {
			return ref{}, nil
		}
		if err := l.limit.Wait(ctx); err != nil {
			return ref{}, err
		}
		m, err := l.client.metadata(ctx, q.path(at))
		switch {
		case err == nil:
			l.problems.clearOwner(q.resource(at))
			return parentOf(m, q), nil
		case denied(err):
			l.problems.setOwner(q.resource(at), err)
			at.closed, at.until = true, time.Now().Add(kindLife)
			l.places[q.key()] = at
		case apierrors.IsNotFound(err) && named(err, q.name):
			return ref{}, nil // it is gone
		case apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err):
			if at, err = l.discover(ctx, q); err != nil {
				return ref{}, err
			}
		default:
			return ref{}, err
		}
	}
	return ref{}, nil
}

// named tells that it is the object which is not found, not its kind.
func named(err error, name string) bool {
	s, ok := err.(apierrors.APIStatus)
	return ok && s.Status().Details != nil && s.Status().Details.Name == name
}

func parentOf(m *metav1.PartialObjectMetadata, q question) ref {
	if string(m.UID) != q.uid {
		return ref{} // another of that name: the owner is gone
	}
	var c conversion
	parent := c.controller(m)
	if parent.uid == q.uid {
		return ref{}
	}
	return parent
}

func (q *question) key() string { return q.group() + "/" + q.kind }

func (q *question) resource(at place) string {
	if g := q.group(); g != "" {
		return at.plural + "." + g
	}
	return at.plural
}

func (q *question) version() string {
	if q.group() == "" {
		return "/api/" + q.api
	}
	return "/apis/" + q.api
}

func (q *question) path(at place) string {
	if at.wide {
		return strings.Join([]string{q.version(), at.plural, q.name}, "/")
	}
	return strings.Join([]string{q.version(), "namespaces", q.namespace, at.plural, q.name}, "/")
}

// place is what was found out about a kind, or the guess that holds nearly
// always: its plural, in namespaces.
func (l *lookups) place(q question) place {
	if at, is := l.places[q.key()]; is && time.Now().Before(at.until) {
		return at
	}
	gv, _ := schema.ParseGroupVersion(q.api)
	plural, _ := meta.UnsafeGuessKindToResource(gv.WithKind(q.kind))
	return place{plural: plural.Resource}
}

// discover asks the API server where it keeps a kind.
func (l *lookups) discover(ctx context.Context, q question) (place, error) {
	if err := l.limit.Wait(ctx); err != nil {
		return place{}, err
	}
	at := place{closed: true, until: time.Now().Add(kindLife)}
	list, err := l.client.kinds(ctx, q.version())
	if err != nil && !apierrors.IsNotFound(err) && !denied(err) {
		return at, fmt.Errorf("discover %s: %w", q.api, err)
	}
	if err == nil {
		for i := range list.APIResources {
			if r := &list.APIResources[i]; r.Kind == q.kind && !strings.Contains(r.Name, "/") && !strings.ContainsAny(r.Name, "?#%") {
				at.plural, at.wide, at.closed = r.Name, !r.Namespaced, false
				break
			}
		}
	}
	if len(l.places) >= mostAnswers {
		clear(l.places)
	}
	l.places[q.key()] = at
	return at, nil
}
