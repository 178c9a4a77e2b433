// SPDX-License-Identifier: Apache-2.0

// Package kube tells of a cluster by watching its API server: the pods of one
// node, and, where it is asked to, whatever has an address in the cluster. It
// keeps of each object no more than its key, and the owners of pods, until the
// top one is known. It never lists again while a watch can be resumed, never
// changes anything in the cluster, and is read through cluster.Inbox alone.
package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/orb8/orb8/internal/cluster"
)

// Config says what is watched, and by which right.
type Config struct {
	// Name of the own node.
	Node string
	// Path of a kubeconfig, or InCluster; empty is InCluster where there is a
	// service account, else the file that $KUBECONFIG names.
	Kubeconfig string
	// Keys of the pod labels that are kept; "*" is all.
	Labels []string
	// Keys of the own node's labels that are kept. Where there are any the own node
	// is watched, whatever else is.
	NodeLabels []string
	// Watch the address map of the whole cluster too.
	Cluster bool
	Log     *slog.Logger
}

// InCluster takes the service account of the pod that this process runs in.
const InCluster = "in-cluster"

// ErrNoCluster tells that nothing says how to reach an API server.
var ErrNoCluster = errors.New("no service account here, and KUBECONFIG is not set: name a kubeconfig, or run as a pod")

// Watch is a cluster.Source that watches the API server.
type Watch struct {
	cfg       Config
	client    *client
	workloads *workloads
	feeds     []*feed
	problems  *problems
	toList    atomic.Int32
	inbox     atomic.Pointer[cluster.Inbox]
}

var _ cluster.Source = (*Watch)(nil)

// Open reads how to reach the API server, and asks it nothing yet.
func Open(cfg Config) (*Watch, error) {
	if cfg.Node == "" {
		return nil, errors.New("open Kubernetes watch: the name of this node is not known: set it (ORB8_NODE_NAME, from spec.nodeName)")
	}
	restConfig, err := access(cfg.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("open Kubernetes watch: %w", err)
	}
	return newWatch(cfg, restConfig)
}

func newWatch(cfg Config, restConfig *rest.Config) (*Watch, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c, err := connect(restConfig, cfg.Node)
	if err != nil {
		return nil, fmt.Errorf("open Kubernetes watch: %w", err)
	}
	w := &Watch{cfg: cfg, client: c, problems: newProblems(c.host, cfg.Log)}
	w.workloads = newWorkloads(c, w.problems, cfg.Cluster)
	for _, r := range resources(&cfg) {
		w.feeds = append(w.feeds, newFeed(w, r))
	}
	return w, nil
}

// Problems says what cannot be told, and what to try.
func (w *Watch) Problems() []string {
	all := w.problems.list(w.feeds)
	f := w.feed(nodes)
	if f == nil {
		f = w.feed(ownNode)
	}
	if f != nil && f.synced() && w.toList.Load() == 0 && !f.has(w.cfg.Node) {
		all = append(all, fmt.Sprintf("the cluster has no node %q: which pods are this node's cannot be listed: set ORB8_NODE_NAME to the name that `kubectl get nodes` shows", w.cfg.Node))
	}
	return all
}

func (w *Watch) feed(what string) *feed {
	for _, f := range w.feeds {
		if f.name == what {
			return f
		}
	}
	return nil
}

// Run tells until the context ends, whatever becomes of the API server. It is
// for one run.
func (w *Watch) Run(ctx context.Context, to *cluster.Inbox) error {
	w.problems.start()
	w.workloads.inbox = to
	w.toList.Store(int32(len(w.feeds)))
	w.inbox.Store(to)
	// What the library says of its own is in Problems.
	ctx = klog.NewContext(ctx, logr.Discard())
	var group sync.WaitGroup
	for _, f := range w.feeds {
		group.Go(func() { f.reflector(ctx).RunWithContext(ctx) })
	}
	group.Go(func() { w.workloads.lookups.run(ctx) })
	group.Wait()
	w.client.close()
	return nil
}

// put tells of what needs no more than that.
func (w *Watch) put(c cluster.Change) {
	c.At = time.Now().UnixNano()
	w.inbox.Load().Put(c)
}

// settled counts the watches that have told all there is; the last one ends
// the start.
func (w *Watch) settled() {
	if w.toList.Add(-1) == 0 {
		w.inbox.Load().Synced()
	}
}

// The API server is tried again after so long at most, with half as much
// jitter: all agents lose it at once.
const (
	firstRetry = 200 * time.Millisecond
	lastRetry  = 3 * time.Second
)

func (f *feed) reflector(ctx context.Context) *cache.Reflector {
	quiet := logr.Discard()
	r := cache.NewReflectorWithOptions(f, nil, f, cache.ReflectorOptions{
		Logger:          &quiet,
		Name:            f.name,
		TypeDescription: f.name,
		Clock:           &clockUntil{ctx: ctx},
		Backoff:         &wait.Backoff{Duration: firstRetry, Cap: lastRetry, Steps: 10, Factor: 2, Jitter: 0.5},
	})
	r.WatchListPageSize = f.page
	return r
}

// clockUntil rings early when the context ends: the library waits for its
// pauses without looking at the context.
type clockUntil struct {
	clock.RealClock
	ctx context.Context
}

func (c *clockUntil) After(d time.Duration) <-chan time.Time {
	rings := make(chan time.Time, 1)
	timer := time.AfterFunc(d, func() {
		select {
		case rings <- time.Now():
		default:
		}
	})
	context.AfterFunc(c.ctx, func() { timer.Reset(0) })
	return rings
}
