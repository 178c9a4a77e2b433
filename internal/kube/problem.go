// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// An API server that has not told everything by then is worth a word.
const startLimit = 10 * time.Second

// problems keeps what the API server does not answer, and since when.
type problems struct {
	host string
	log  *slog.Logger

	mu      sync.Mutex
	started time.Time
	failed  map[*feed]failure
	// By resource of an owner that cannot be looked up.
	owners map[string]string
	// Closed when something is answered again: worth a try for everything else.
	back chan struct{}
	// Owners that were not looked up for want of room.
	missed uint64
}

type failure struct {
	since time.Time
	err   error
}

func newProblems(host string, log *slog.Logger) *problems {
	return &problems{host: host, log: log, failed: map[*feed]failure{}, owners: map[string]string{}, back: make(chan struct{})}
}

func (p *problems) start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.started = time.Now()
}

func (p *problems) set(f *feed, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, is := p.failed[f]
	now := failure{since: before.since, err: cause(err)}
	if !is {
		now.since = time.Now()
	}
	switch {
	case is:
	case denied(err):
		p.log.Warn("the API server refuses", "server", p.host, "what", f.name, "error", now.err)
	case len(p.failed) == 0:
		p.log.Warn("the API server does not answer", "server", p.host, "what", f.name, "error", now.err)
	}
	p.failed[f] = now
}

func (p *problems) clear(f *feed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, is := p.failed[f]; !is {
		return
	}
	delete(p.failed, f)
	close(p.back)
	p.back = make(chan struct{})
	if len(p.failed) == 0 {
		p.log.Info("the API server answers again", "server", p.host)
	}
}

// pause waits, or until something else is answered again.
func (p *problems) pause(ctx context.Context, d time.Duration) {
	p.mu.Lock()
	back := p.back
	p.mu.Unlock()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-back:
	case <-ctx.Done():
	}
}

// setOwner keeps that owners of a kind cannot be looked up.
func (p *problems) setOwner(plural string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, is := p.owners[plural]; !is {
		p.log.Warn("owners cannot be looked up", "resource", plural, "error", err)
	}
	p.owners[plural] = fmt.Sprintf("cannot get %s: %s lacks get on %[1]s (add it to the ClusterRole): a workload may have an owner that is not told", plural, who(err))
}

func (p *problems) overflow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.missed++
}

func (p *problems) clearOwner(plural string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.owners, plural)
}

// list gives a line for each right that is lacking, and one for all that fails
// in one way.
func (p *problems) list(feeds []*feed) (all []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	type group struct {
		names []string
		since time.Time
	}
	alike := map[string]*group{}
	var order []string
	for _, f := range feeds {
		if n := f.ignored.Load(); n > 0 {
			all = append(all, fmt.Sprintf("ignored what is no proper object %d times among %s: look at the cluster's admission", n, f.name))
		}
		fail, is := p.failed[f]
		if !is {
			if f.synced() || p.started.IsZero() || time.Since(p.started) < startLimit {
				continue
			}
			fail = failure{since: p.started, err: errors.New("the answer is not complete yet")}
		}
		if apierrors.IsForbidden(fail.err) {
			all = append(all, f.forbidden(fail.err))
			continue
		}
		text := fail.err.Error()
		g := alike[text]
		if g == nil {
			g = &group{since: fail.since}
			alike[text], order = g, append(order, text)
		}
		g.names = append(g.names, f.name)
		if fail.since.Before(g.since) {
			g.since = fail.since
		}
	}
	for _, text := range order {
		g := alike[text]
		all = append(all, fmt.Sprintf("cannot watch %s at the API server %s since %s: %s: what is known stays, what is new has no name: %s",
			strings.Join(g.names, ", "), p.host, g.since.Format(time.TimeOnly), text, advice(text)))
	}
	owners := make([]string, 0, len(p.owners))
	for _, text := range p.owners {
		owners = append(owners, text)
	}
	slices.Sort(owners)
	if p.missed > 0 {
		owners = append(owners, fmt.Sprintf("%d owners of pods were not looked up for want of room: their workloads may have owners that are not told", p.missed))
	}
	return append(all, owners...)
}

func advice(text string) string {
	switch {
	case strings.Contains(text, "x509"):
		return "check certificate-authority in the kubeconfig"
	case strings.Contains(text, "nauthorized"), strings.Contains(text, "provide credentials"):
		return "check the credentials: the token or certificate may have expired"
	}
	return "check that it is up and can be reached from this node"
}

func (r *resource) forbidden(err error) string {
	if strings.Contains(err.Error(), "cannot watch resource") {
		return fmt.Sprintf("cannot watch %s: %s lacks watch on %s in the whole cluster (apply deploy/): what is new is known late, or not at all",
			r.name, who(err), r.plural)
	}
	return fmt.Sprintf("cannot list %s: %s lacks list and watch on %s in the whole cluster (apply deploy/): %s",
		r.name, who(err), r.plural, r.missing)
}

// who is refused, as the API server says it: User "NAME" cannot …
func who(err error) string {
	_, name, ok := strings.Cut(err.Error(), `User "`)
	if name, _, ended := strings.Cut(name, `"`); ok && ended {
		if account, is := strings.CutPrefix(name, "system:serviceaccount:"); is {
			return "the ServiceAccount " + strings.Replace(account, ":", "/", 1)
		}
		return "the user " + name
	}
	return "this agent"
}

// cause drops the URL: it holds nothing but the question, and would make every
// resource fail in a way of its own.
func cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
