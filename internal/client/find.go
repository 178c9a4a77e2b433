// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// nearbyTimeout bounds the look at one place where nobody said an agent is.
const nearbyTimeout = 300 * time.Millisecond

// Starter starts the whole line inside this process and gives a connection to
// it; the function it returns stops it.
type Starter func(ctx context.Context) (*grpc.ClientConn, func() error, error)

// Where says where to ask. Told by none of Address, Standalone and a named
// Kubernetes cluster, Find looks around.
type Where struct {
	Address    *Address
	Standalone bool
	Kubernetes Kubernetes

	Getenv func(string) string
	// Places looked at after the environment; nil for the standard ports of
	// this machine.
	Nearby []Address
	// Start is nil where standalone is not possible.
	Start Starter
	// Where there is no Kubernetes and nothing of one was asked for, the last
	// resort is to start standalone without being told to.
	MayStart bool
	// Say tells which place was chosen, when it was not told.
	Say func(string)
}

// A candidate is one place in the order of looking.
type candidate struct {
	address Address
	// How it came to be looked at.
	source  string
	timeout time.Duration
}

// Find gives whom to ask: the place that was named, which is not dialed yet, or
// the first that answers.
func Find(ctx context.Context, w Where) (Observer, error) {
	switch {
	case w.Address != nil:
		return w.dial(*w.Address)
	case w.Standalone:
		return start(ctx, w.Start)
	case w.Kubernetes.named():
		return w.cluster(ctx)
	}
	candidates, err := w.candidates()
	if err != nil {
		return nil, err
	}
	var tried []string
	var silent *Client
	for _, c := range candidates {
		found, err := w.probe(ctx, c)
		if err == nil {
			w.Say("asking " + c.address.String() + c.source)
			return found, nil
		}
		if ctx.Err() != nil {
			return nil, ErrInterrupted
		}
		if c.source != "" {
			// Somebody wanted this one: looking elsewhere must not go unseen.
			w.Say(c.address.String() + c.source + " does not answer, looking elsewhere")
		}
		tried = append(tried, c.address.Place)
		if errors.Is(err, errSilent) && silent == nil {
			silent = &Client{Address: c.address}
		}
	}
	return w.elsewhere(ctx, tried, silent)
}

// elsewhere is where to ask when nothing near answers: the cluster of the
// kubeconfig, and this machine only where there is no kubeconfig. One machine in
// place of a cluster that fails would be taken for the cluster.
func (w Where) elsewhere(ctx context.Context, tried []string, silent *Client) (Observer, error) {
	found, err := w.cluster(ctx)
	switch {
	case err == nil:
		return found, nil
	case errors.Is(err, ErrInterrupted):
		return nil, err
	case silent != nil:
		// Perhaps an agent that hangs: starting another would hide that.
		return nil, silent.silent()
	case !errors.Is(err, errNoCluster):
		return nil, err
	}
	try := startAgent
	switch {
	case w.Kubernetes.meant():
		try = "orb8 --kubeconfig PATH status, or sudo orb8 --standalone status to look at this machine"
		fallthrough
	case !w.MayStart, w.Start == nil:
		return nil, &Error{"no agent or server found (tried " + strings.Join(tried, ", ") + ", and there is no kubeconfig)", try}
	}
	w.Say("no agent found and there is no kubeconfig, starting standalone: only this machine is seen")
	return start(ctx, w.Start)
}

// candidates is the order of looking nearby.
func (w Where) candidates() ([]candidate, error) {
	var list []candidate
	for _, v := range []struct {
		name  string
		parse func(string) (Address, error)
	}{{"ORB8_SERVER", ParseServer}, {"ORB8_AGENT", ParseAgent}} {
		value := w.Getenv(v.name)
		if value == "" {
			continue
		}
		a, err := v.parse(value)
		if err != nil {
			var e *Error
			if errors.As(err, &e) {
				return nil, &Error{v.name + ": " + e.Text, e.Try}
			}
			return nil, &Error{v.name + ": " + err.Error(), "unset " + v.name}
		}
		timeout := connectTimeout
		if a.Role == AgentPod {
			timeout = clusterTimeout
		}
		list = append(list, candidate{a, " (from " + v.name + ")", timeout})
	}
	nearby := w.Nearby
	if nearby == nil {
		nearby = []Address{
			{Server, fmt.Sprintf("localhost:%d", ServerPort)},
			{Agent, fmt.Sprintf("localhost:%d", AgentPort)},
		}
	}
	for _, a := range nearby {
		list = append(list, candidate{a, "", nearbyTimeout})
	}
	return list, nil
}

// probe dials a place and keeps the connection if an Observer is there: any
// program may hold port 8080. Agents and servers serve the standard health
// service, which answers NotFound for services it does not know.
func (w Where) probe(ctx context.Context, place candidate) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, place.timeout)
	defer cancel()
	c, err := w.dial(place.address)
	if err != nil {
		return nil, err
	}
	_, err = c.health.Check(ctx, &healthv1.HealthCheckRequest{Service: orb8v1.Observer_ServiceDesc.ServiceName})
	if err != nil {
		if ctx.Err() != nil && c.dial.connected() {
			err = errSilent
		}
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// errSilent says that a place accepts connections and does not answer.
var errSilent = errors.New("accepts connections but does not answer")

func start(ctx context.Context, starter Starter) (Observer, error) {
	if starter == nil {
		return nil, &Error{"--standalone is not possible with this program", "sudo orb8-agent"}
	}
	conn, stop, err := starter(ctx)
	if err != nil {
		return nil, &Error{"start standalone: " + err.Error(), "sudo orb8 --standalone status"}
	}
	c := newClient(Address{Role: Standalone}, conn, &dialer{})
	c.close = func() error { return errors.Join(conn.Close(), stop()) }
	return c, nil
}
