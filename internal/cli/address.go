// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"github.com/spf13/pflag"

	"github.com/orb8/orb8/internal/client"
)

// addressFlags say whom to ask.
type addressFlags struct {
	agent, server string
	standalone    bool
	kubernetes    client.Kubernetes
	flags         *pflag.FlagSet

	told *client.Address
}

func (f *addressFlags) add(flags *pflag.FlagSet) {
	f.flags = flags
	flags.StringVar(&f.agent, "agent", "", "ask the agent at `HOST:PORT` (port 9090 if left out), NAMESPACE/POD or unix:///PATH")
	flags.StringVar(&f.server, "server", "", "ask the server at `HOST:PORT` (port 8080 if left out)")
	flags.BoolVar(&f.standalone, "standalone", false, "look by itself, without an agent (root)")
	flags.StringVar(&f.kubernetes.Kubeconfig, "kubeconfig", "", "ask the agents of the cluster of this `FILE` (KUBECONFIG, ~/.kube/config)")
	flags.StringVar(&f.kubernetes.Context, "context", "", "ask the agents of the cluster of this `NAME` in the kubeconfig")
	flags.StringVar(&f.kubernetes.Namespace, "agent-namespace", "", "look for agents in this `NAMESPACE` (ORB8_AGENT_NAMESPACE; orb8-system)")
}

// check refuses what contradicts itself before anything is done.
func (f *addressFlags) check() error {
	var told []string
	for _, name := range []string{"agent", "server", "standalone"} {
		if f.flags.Changed(name) && (name != "standalone" || f.standalone) {
			told = append(told, "--"+name)
		}
	}
	if len(told) > 1 {
		return usagef("%s and %s exclude each other: give one of --agent, --server and --standalone", told[0], told[1])
	}
	if cluster := f.clusterFlag(); cluster != "" && len(told) > 0 && !strings.Contains(f.agent, "/") {
		return usagef("%s and %s exclude each other: with %s the agents of a cluster are asked", told[0], cluster, cluster)
	}
	var a client.Address
	var err error
	switch {
	case f.flags.Changed("agent"):
		a, err = client.ParseAgent(f.agent)
	case f.flags.Changed("server"):
		a, err = client.ParseServer(f.server)
	default:
		return nil
	}
	var explained *client.Error
	if errors.As(err, &explained) {
		return err
	}
	if err != nil {
		return usagef("%s %v", told[0], err)
	}
	f.told = &a
	return nil
}

// clusterFlag is the flag that says which cluster to ask, if one was given.
func (f *addressFlags) clusterFlag() string {
	for _, name := range []string{"kubeconfig", "context"} {
		if f.flags.Changed(name) {
			return "--" + name
		}
	}
	return ""
}

// connect finds whom to ask. nodes are those that can have an answer; nil is
// all.
func (a *app) connect(ctx context.Context, nodes *nodeChoice) (client.Observer, error) {
	k := a.address.kubernetes
	k.Namespace = cmp.Or(k.Namespace, a.cfg.Getenv("ORB8_AGENT_NAMESPACE"))
	if nodes != nil {
		k.Nodes, k.NotNodes = nodes.only, nodes.not
	}
	return client.Find(ctx, client.Where{
		Address:    a.address.told,
		Standalone: a.address.standalone,
		Kubernetes: k,
		Getenv:     a.cfg.Getenv,
		Nearby:     a.cfg.Nearby,
		Start:      a.cfg.Standalone,
		MayStart:   a.cfg.MayStart,
		Say:        a.say,
	})
}

// nodeChoice is which nodes' agents are asked, where each node has its own.
type nodeChoice struct{ only, not []string }
