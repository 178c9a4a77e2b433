// SPDX-License-Identifier: Apache-2.0

package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/kube/reach"
	"github.com/orb8/orb8/internal/relay"
)

// Bounds on the look for agents: where nobody said that a cluster is to be
// asked, and where somebody did, who may have to log in first.
const (
	clusterTimeout = 5 * time.Second
	namedTimeout   = time.Minute
)

// Kubernetes says which cluster to look for agents in, and which of its nodes
// to ask.
type Kubernetes struct {
	// As in the flags; "" takes what kubectl would.
	Kubeconfig, Context string
	// Of the agents; "" takes the usual one.
	Namespace string
	// Names; none is all.
	Nodes, NotNodes []string
}

// named: somebody said that a cluster is to be asked, or which.
func (k Kubernetes) named() bool { return k.Kubeconfig != "" || k.Context != "" }

// meant: a part of some cluster was asked for.
func (k Kubernetes) meant() bool { return k.Namespace != "" || len(k.Nodes) > 0 }

// errNoCluster says that no kubeconfig leads anywhere.
var errNoCluster = errors.New("no kubeconfig")

// Cluster asks the agents of a Kubernetes cluster, through its API server.
type Cluster struct {
	relay *relay.Relay
	who   string
	ways  *ways
	nodes []*Client

	mu sync.Mutex
	// What the last node that failed would have tried.
	try string
}

var _ Observer = (*Cluster)(nil)

// open reads the kubeconfig.
func (k Kubernetes) open() (*reach.Cluster, error) {
	c, err := reach.Open(reach.Config{Kubeconfig: k.Kubeconfig, Context: k.Context, Namespace: k.Namespace})
	if errors.Is(err, reach.ErrNoConfig) {
		return nil, errNoCluster
	}
	return c, told(err)
}

// told takes over the words of reach.
func told(err error) error {
	var e *reach.Error
	if errors.As(err, &e) {
		return &Error{e.Text, e.Try}
	}
	if errors.Is(err, context.Canceled) {
		return ErrInterrupted
	}
	return err
}

// cluster finds the agents of a cluster.
func (w Where) cluster(ctx context.Context) (Observer, error) {
	k, err := w.Kubernetes.open()
	if err != nil {
		return nil, err
	}
	patience := clusterTimeout
	if w.Kubernetes.named() {
		patience = namedTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	agents, err := k.Agents(ctx)
	if err != nil {
		return nil, told(err)
	}
	c := &Cluster{ways: &ways{cluster: k, dials: make(chan struct{}, maxDials)}}
	var nodes []relay.Node
	for _, a := range agents {
		if len(w.Kubernetes.Nodes) > 0 && !slices.Contains(w.Kubernetes.Nodes, a.Node) || slices.Contains(w.Kubernetes.NotNodes, a.Node) {
			continue
		}
		node, err := c.ways.client(a)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.nodes = append(c.nodes, node)
		nodes = append(nodes, relay.Node{Name: a.Node, Observer: node})
	}
	if len(nodes) == 0 {
		return nil, &Error{
			fmt.Sprintf("no agent of %s is on a node that was asked for (agents are on %s)", k.Name(), names(agents)),
			listAgents(k),
		}
	}
	c.who = fmt.Sprintf("the agents of %s (%d nodes)", k.Name(), len(nodes))
	if len(nodes) == 1 {
		c.who = fmt.Sprintf("the agent on node %s of %s", nodes[0].Name, k.Name())
	}
	// A question to a node ends a moment before, in words that tell more.
	c.relay = relay.New(relay.Config{Nodes: nodes, Patience: answerTimeout + time.Second, Reason: c.reason})
	w.Say("asking " + c.who)
	return c, nil
}

// listAgents is the command that shows where agents are and how they do.
func listAgents(k *reach.Cluster) string {
	return k.Kubectl("get pods -o wide -n " + k.Namespace() + " -l " + reach.Label)
}

func names(agents []reach.Agent) string {
	const most = 10
	var list []string
	for _, a := range agents[:min(most, len(agents))] {
		list = append(list, a.Node)
	}
	if more := len(agents) - most; more > 0 {
		list = append(list, fmt.Sprintf("%d more", more))
	}
	return strings.Join(list, ", ")
}

// reason is an error without the command to try, which is another for each node.
func reason(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Text
	}
	return err.Error()
}

func (c *Cluster) reason(err error) string {
	var e *Error
	if errors.As(err, &e) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.try = e.Try
	}
	return reason(err)
}

// Try is what helps with the last node that failed.
func (c *Cluster) Try() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return cmp.Or(c.try, listAgents(c.ways.cluster))
}

// Who is the cluster.
func (c *Cluster) Who() string { return c.who }

// Close hangs up everywhere.
func (c *Cluster) Close() (err error) {
	for _, n := range c.nodes {
		err = errors.Join(err, n.Close())
	}
	return err
}

// Status asks for the state of every node.
func (c *Cluster) Status(ctx context.Context) (*orb8v1.StatusResponse, error) {
	answer, err := c.relay.Status(ctx)
	return answer, c.explain(err)
}

// Flows asks every node once.
func (c *Cluster) Flows(ctx context.Context, q *orb8v1.FlowsRequest) iter.Seq2[*orb8v1.FlowsResponse, error] {
	return explained(c, c.relay.Flows(ctx, q))
}

// Pods asks every node once.
func (c *Cluster) Pods(ctx context.Context, q *orb8v1.PodsRequest) iter.Seq2[*orb8v1.PodsResponse, error] {
	return explained(c, c.relay.Pods(ctx, q))
}

// Drops asks every node once.
func (c *Cluster) Drops(ctx context.Context, q *orb8v1.DropsRequest) iter.Seq2[*orb8v1.DropsResponse, error] {
	return explained(c, c.relay.Drops(ctx, q))
}

// Dns asks every node once.
func (c *Cluster) Dns(ctx context.Context, q *orb8v1.DnsRequest) iter.Seq2[*orb8v1.DnsResponse, error] {
	return explained(c, c.relay.Dns(ctx, q))
}

// Gpus asks every node once.
func (c *Cluster) Gpus(ctx context.Context, q *orb8v1.GpusRequest) iter.Seq2[*orb8v1.GpusResponse, error] {
	return explained(c, c.relay.Gpus(ctx, q))
}

// GpuDriver asks the node that is named, or every node.
func (c *Cluster) GpuDriver(ctx context.Context, q *orb8v1.GpuDriverRequest) (*orb8v1.GpuDriverResponse, error) {
	answer, err := c.relay.GpuDriver(ctx, q)
	return answer, c.explain(err)
}

// Sockets asks every node once.
func (c *Cluster) Sockets(ctx context.Context, q *orb8v1.SocketsRequest) iter.Seq2[*orb8v1.SocketsResponse, error] {
	return explained(c, c.relay.Sockets(ctx, q))
}

// Events follows every node, through its losses.
func (c *Cluster) Events(ctx context.Context, q *orb8v1.EventsRequest) iter.Seq2[*orb8v1.EventsResponse, error] {
	return explained(c, c.relay.Events(ctx, q))
}

// Capture asks every node for packets.
func (c *Cluster) Capture(ctx context.Context, q *orb8v1.CaptureRequest) iter.Seq2[*orb8v1.CaptureResponse, error] {
	return explained(c, c.relay.Capture(ctx, q))
}

func explained[M any](c *Cluster, answer iter.Seq2[M, error]) iter.Seq2[M, error] {
	return func(yield func(M, error) bool) {
		for m, err := range answer {
			if !yield(m, c.explain(err)) {
				return
			}
		}
	}
}

func (c *Cluster) explain(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return ErrInterrupted
	case errors.Is(err, relay.ErrNoneAnswered):
		return &Error{err.Error(), c.Try()}
	}
	return err
}
