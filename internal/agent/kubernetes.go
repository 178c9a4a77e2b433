// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/cluster"
	"github.com/orb8/orb8/internal/conntrack"
	"github.com/orb8/orb8/internal/enrich"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/kube"
	"github.com/orb8/orb8/internal/netns"
	"github.com/orb8/orb8/internal/probe/socket"
	"github.com/orb8/orb8/internal/sandbox"
)

// podLabels are kept unless told otherwise: what people name applications and
// jobs by.
const podLabels = "app,k8s-app,app.kubernetes.io/name,app.kubernetes.io/instance,app.kubernetes.io/component," +
	"batch.kubernetes.io/job-name,batch.kubernetes.io/job-completion-index," +
	"jobset.sigs.k8s.io/jobset-name,jobset.sigs.k8s.io/replicatedjob-name," +
	"training.kubeflow.org/job-name,training.kubeflow.org/replica-type,training.kubeflow.org/replica-index," +
	"ray.io/cluster,ray.io/node-type,leaderworkerset.sigs.k8s.io/name,kueue.x-k8s.io/queue-name"

// namedNetns is where container runtimes put the namespaces that they make.
const namedNetns = "/run/netns"

// podLabels are the keys of the labels that are kept.
func (c *Config) podLabels() []string {
	return strings.FieldsFunc(c.PodLabels, func(r rune) bool { return r == ',' || r == ' ' })
}

// kubernetes is what there is on a node of a cluster. What cannot be had is nil,
// and a note says so.
type kubernetes struct {
	log *slog.Logger
	// What it tells comes by the inbox, to whoever owns the map.
	source cluster.Source
	inbox  cluster.Inbox
	names  *cluster.Map
	boxes  *sandbox.Sandboxes
	nat    *conntrack.Table
	// Who may choose in its place; nil where the node's cgroups are not known.
	balancers *socket.Balancers
	notes     []string
}

// openKubernetes returns nil where the agent is not to know of a cluster.
func openKubernetes(cfg *Config, groups *cgroup.Resolver) (*kubernetes, error) {
	access := cfg.Kubernetes
	switch {
	case access == kubernetesOff:
		return nil, nil
	case access == kubernetesAuto && os.Getenv("KUBERNETES_SERVICE_HOST") == "":
		return nil, nil
	case access == kubernetesAuto:
		access = kube.InCluster
	}
	own, err := netns.Own()
	if err != nil {
		return nil, err
	}
	k := &kubernetes{log: cfg.Log, names: cluster.New(cluster.Config{Node: cfg.Node, MaxPods: cfg.MaxPods})}
	watch, err := kube.Open(kube.Config{
		Node: cfg.Node, Kubeconfig: access, Labels: cfg.podLabels(), NodeLabels: cfg.nodeLabels(),
		Cluster: cfg.ClusterMap, Log: cfg.Log,
	})
	if err == nil {
		k.source = watch
	} else {
		k.note("pods are known by their UIDs alone", err)
	}
	k.boxes = sandbox.Open(sandbox.Config{Groups: groups, Own: own, Log: cfg.Log})
	if groups != nil {
		k.balancers = socket.OpenBalancers(groups.Path(k.boxes.NodeRoot()), cfg.Log)
	}
	if k.nat, err = conntrack.Open(conntrack.Config{Log: cfg.Log}); err != nil {
		k.nat = nil
		k.note("who serves a Service is not known", err)
	}
	return k, nil
}

func (k *kubernetes) note(what string, err error) {
	k.notes = append(k.notes, fmt.Sprintf("%s: %v", what, err))
	k.log.Warn(what, "error", err)
}

// sandboxes are nil outside of Kubernetes.
func (k *kubernetes) sandboxes() *sandbox.Sandboxes {
	if k == nil {
		return nil
	}
	return k.boxes
}

// join adds what is known of the cluster to what the machine knows.
func (k *kubernetes) join(cfg *enrich.Config) {
	if k == nil {
		return
	}
	cfg.Cluster, cfg.Sandboxes, cfg.SocketLB = k.names, k.boxes, k.balancers.Any
	if k.nat != nil {
		cfg.Translations = k.nat
	}
}

func (k *kubernetes) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return k.boxes.Run(ctx) })
	if k.source != nil {
		g.Go(func() error { return k.source.Run(ctx, &k.inbox) })
	}
	if k.nat != nil {
		g.Go(func() error { return k.nat.Run(ctx) })
	}
	if k.balancers != nil {
		g.Go(func() error { return k.balancers.Run(ctx) })
	}
	return g.Wait()
}

func (k *kubernetes) problems() []string {
	if k == nil {
		return nil
	}
	out := append(k.notes[:len(k.notes):len(k.notes)], k.boxes.Problems()...)
	if _, err := os.Stat(namedNetns); errors.Is(err, fs.ErrNotExist) {
		out = append(out, "there is no "+namedNetns+": a pod is tapped when its first process starts, not before (mount the host's, with HostToContainer)")
	}
	if k.source != nil {
		out = append(out, k.source.Problems()...)
	}
	if k.nat != nil {
		out = append(out, k.nat.Problems()...)
	}
	return append(out, k.balancers.Problems()...)
}

func (k *kubernetes) losses() []event.Loss {
	if k == nil || k.nat == nil {
		return nil
	}
	return k.nat.Losses()
}

func (k *kubernetes) Close() error {
	if k == nil || k.nat == nil {
		return nil
	}
	return k.nat.Close()
}
