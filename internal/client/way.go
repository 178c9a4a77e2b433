// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/orb8/orb8/internal/kube/reach"
)

const (
	// listAge is how long a list of the agents is good for, so that many nodes
	// without one do not ask the API server each for itself.
	listAge = 2 * time.Second
	// maxDials is how many ways to pods are made at once.
	maxDials = 32
)

// ways are the ways to the pods of a cluster's agents.
type ways struct {
	cluster *reach.Cluster
	dials   chan struct{}

	mu     sync.Mutex
	listed time.Time
	agents []reach.Agent
	failed error
}

// client asks the agent of one node.
func (w *ways) client(a reach.Agent) (*Client, error) {
	way := &way{ways: w, agent: a}
	d := &dialer{dial: func(ctx context.Context) (net.Conn, error) {
		conn, err := way.dial(ctx)
		return conn, told(err)
	}}
	c, err := dial(Address{AgentPod, a.Namespace + "/" + a.Pod}, d, podParams())
	if err == nil {
		c.doubt = way.doubt
	}
	return c, err
}

// podParams: a way to a pod takes longer, and is not asked for as often.
func podParams() grpc.ConnectParams {
	return grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 500 * time.Millisecond, Multiplier: 2, MaxDelay: 15 * time.Second},
		MinConnectTimeout: answerTimeout,
	}
}

// list gives the agents as they were a moment ago at most.
func (w *ways) list(ctx context.Context) ([]reach.Agent, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.listed) > listAge {
		w.agents, w.failed = w.cluster.Agents(ctx)
		w.listed = time.Now()
	}
	return w.agents, w.failed
}

// way leads to the agent of one node, whichever pod that is. gRPC dials once at
// a time.
type way struct {
	ways *ways

	mu    sync.Mutex
	agent reach.Agent
	tried bool // what is doubted is listed again before the next time
}

func (w *way) last() (a reach.Agent, tried bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	tried, w.tried = w.tried, w.agent.Doubt != ""
	return w.agent, tried
}

func (w *way) set(a reach.Agent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.agent, w.tried = a, a.Doubt != ""
}

func (w *way) doubt() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.agent.Doubt
}

func (w *way) dial(ctx context.Context) (net.Conn, error) {
	select {
	case w.ways.dials <- struct{}{}:
		defer func() { <-w.ways.dials }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	agent, tried := w.last()
	if agent.Problem == "" && !tried {
		conn, err := w.ways.cluster.Dial(ctx, agent.Namespace, agent.Pod)
		if !reach.IsGone(err) {
			return conn, err
		}
	}
	agents, err := w.ways.list(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(agents, func(a reach.Agent) bool { return a.Node == agent.Node })
	if i < 0 {
		return nil, &Error{"there is no agent on node " + agent.Node + " any more", w.ways.cluster.Kubectl("get pods -o wide -n " + agent.Namespace)}
	}
	agent = agents[i]
	w.set(agent)
	if agent.Problem != "" {
		return nil, &Error{agent.Problem, w.ways.cluster.Kubectl("describe pod -n " + agent.Namespace + " " + agent.Pod)}
	}
	return w.ways.cluster.Dial(ctx, agent.Namespace, agent.Pod)
}

// dial prepares a client for an address.
func (w Where) dial(a Address) (*Client, error) {
	if a.Role != AgentPod {
		return Dial(a)
	}
	k, err := w.Kubernetes.open()
	if errors.Is(err, errNoCluster) {
		return nil, &Error{"there is no kubeconfig that leads to " + a.String(), "orb8 --kubeconfig PATH --agent " + a.Place + " status"}
	}
	if err != nil {
		return nil, err
	}
	namespace, pod, _ := strings.Cut(a.Place, "/")
	d := &dialer{dial: func(ctx context.Context) (net.Conn, error) {
		conn, err := k.Dial(ctx, namespace, pod)
		return conn, told(err)
	}}
	return dial(a, d, podParams())
}
