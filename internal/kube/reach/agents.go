// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Agent is the pod of an agent.
type Agent struct {
	Namespace, Pod, Node string
	// Why it cannot answer; "" when it runs.
	Problem string
	// Why it may not, though it runs; "" when it is ready. The node controller
	// says so of agents that answer well when a node was not heard of.
	Doubt string
}

// Bounds on what the API server is believed.
const (
	pageSize  = 500
	maxAgents = 20_000
	maxAnswer = 64 << 20
)

// Agents lists the agents, one a node, by the name of the node.
func (c *Cluster) Agents(ctx context.Context) ([]Agent, error) {
	found := fleet{}
	for next := ""; ; {
		page, err := c.page(ctx, next)
		if err != nil {
			return nil, err
		}
		found.add(page.Items)
		next = page.Metadata.Continue
		if next == "" || len(found) >= maxAgents {
			break
		}
	}
	if len(found) == 0 {
		return nil, failure(c.kubectl+" apply -k deploy/overlays/default to deploy them, orb8 --agent-namespace NAMESPACE status, or sudo orb8 --standalone status to look at this machine",
			"no agents found in namespace %s of %s (pods with the label %s)", c.namespace, c.name, Label)
	}
	return found.agents(c.namespace), nil
}

// fleet is the pod to ask on each node.
type fleet map[string]pod

func (f fleet) add(pods []pod) {
	for _, p := range pods {
		if before, ok := f[p.node()]; !ok || p.before(&before) {
			f[p.node()] = p
		}
	}
}

func (f fleet) agents(namespace string) []Agent {
	agents := make([]Agent, 0, len(f))
	for node, p := range f {
		agents = append(agents, Agent{Namespace: namespace, Pod: p.Metadata.Name, Node: node, Problem: p.problem(), Doubt: p.doubt()})
	}
	slices.SortFunc(agents, func(a, b Agent) int { return strings.Compare(a.Node, b.Node) })
	return agents
}

// podList is what is read of the API server's answer.
type podList struct {
	Metadata struct {
		Continue string `json:"continue"`
	} `json:"metadata"`
	Items []pod `json:"items"`
}

type pod struct {
	Metadata struct {
		Name              string     `json:"name"`
		CreationTimestamp time.Time  `json:"creationTimestamp"`
		DeletionTimestamp *time.Time `json:"deletionTimestamp"`
	} `json:"metadata"`
	Spec struct {
		NodeName string `json:"nodeName"`
	} `json:"spec"`
	Status struct {
		Phase      string `json:"phase"`
		Reason     string `json:"reason"`
		Conditions []struct {
			Type    string `json:"type"`
			Status  string `json:"status"`
			Message string `json:"message"`
		} `json:"conditions"`
		ContainerStatuses []struct {
			State struct {
				Waiting, Terminated *struct {
					Reason string `json:"reason"`
				}
			} `json:"state"`
		} `json:"containerStatuses"`
	} `json:"status"`
}

// node is where the pod is; one that has none yet stands for itself.
func (p *pod) node() string { return cmp.Or(p.Spec.NodeName, "of pod "+p.Metadata.Name) }

// before tells which of two pods of one node is asked, as while a new version
// takes the place of the old.
func (p *pod) before(o *pod) bool {
	if p.rank() != o.rank() {
		return p.rank() > o.rank()
	}
	return p.Metadata.CreationTimestamp.After(o.Metadata.CreationTimestamp)
}

func (p *pod) rank() int {
	switch {
	case p.ready() && p.Metadata.DeletionTimestamp == nil:
		return 2
	case p.Metadata.DeletionTimestamp == nil:
		return 1
	}
	return 0
}

func (p *pod) condition(name string) (status, message string) {
	for _, c := range p.Status.Conditions {
		if c.Type == name {
			return c.Status, c.Message
		}
	}
	return "", ""
}

func (p *pod) ready() bool {
	status, _ := p.condition("Ready")
	return status == "True"
}

// problem says why an agent cannot be asked: it does not run.
func (p *pod) problem() string {
	if p.ready() {
		return ""
	}
	stopped := p.Status.Phase != "Running"
	why := cmp.Or(p.Status.Reason, p.Status.Phase)
	for _, c := range p.Status.ContainerStatuses {
		if s := cmp.Or(c.State.Waiting, c.State.Terminated); s != nil {
			stopped, why = true, s.Reason
		}
	}
	if !stopped {
		return ""
	}
	if status, message := p.condition("PodScheduled"); status == "False" {
		why = "it is not scheduled: " + message
	}
	return p.notReady(why)
}

// doubt says why an agent that runs may not answer.
func (p *pod) doubt() string {
	if p.ready() || p.problem() != "" {
		return ""
	}
	_, why := p.condition("Ready")
	return p.notReady(cmp.Or(why, "it runs"))
}

func (p *pod) notReady(why string) string {
	if p.Metadata.DeletionTimestamp != nil {
		why = "it is to end"
	}
	return fmt.Sprintf("the agent pod %s is not ready (%s)", p.Metadata.Name, cmp.Or(why, "no reason given"))
}

func (c *Cluster) page(ctx context.Context, next string) (*podList, error) {
	u := c.base.JoinPath("api/v1/namespaces", c.namespace, "pods")
	q := url.Values{"labelSelector": {Label}, "limit": {fmt.Sprint(pageSize)}}
	if next != "" {
		q.Set("continue", next)
	}
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	defer resp.Body.Close()
	body := io.LimitReader(resp.Body, maxAnswer)
	if resp.StatusCode != http.StatusOK {
		var st struct {
			Message string `json:"message"`
		}
		// What is no JSON has no message.
		_ = json.NewDecoder(body).Decode(&st)
		return nil, c.refused(refusal{code: resp.StatusCode, message: st.Message, verb: "list", resource: "pods", namespace: c.namespace})
	}
	var list podList
	if err := json.NewDecoder(body).Decode(&list); err != nil {
		return nil, failure(c.kubectl+" cluster-info", "what answers at %s is no API server: %v", c.base.Host, err)
	}
	return &list, nil
}
