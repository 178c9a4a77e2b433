// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/kube/reach/reachtest"
)

// agent listens as the agent of a node does, and gives its address.
func agent(t *testing.T, o *observer) (string, *grpc.Server) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	orb8v1.RegisterObserverServer(s, o)
	healthv1.RegisterHealthServer(s, health.NewServer())
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return l.Addr().String(), s
}

// find gives the agents of a cluster.
func find(t *testing.T, api *reachtest.Server) (Observer, error) {
	t.Helper()
	t.Cleanup(api.Close)
	path := filepath.Join(t.TempDir(), "config")
	if err := api.Kubeconfig(path); err != nil {
		t.Fatal(err)
	}
	c, err := Find(t.Context(), Where{Kubernetes: Kubernetes{Kubeconfig: path}, Say: func(string) {}})
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// The agent of a node may be another pod the next time, as after an update.
func TestAnotherPodOfTheNode(t *testing.T) {
	first, server := agent(t, &observer{})
	second, _ := agent(t, &observer{})
	api := reachtest.New(reachtest.Pod{Name: "agent-1", Node: "n1", Address: first}, reachtest.Pod{Name: "agent-bad", Node: "n2", Waiting: "ImagePullBackOff"})
	c, err := find(t, api)
	if err != nil {
		t.Fatal(err)
	}
	state := func() (n1, n2 string) {
		st, err := c.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range st.GetNodes() {
			switch n.GetNode() {
			case "n1":
				n1 = n.GetError()
			case "n2":
				n2 = n.GetError()
			}
		}
		return n1, n2
	}
	n1, n2 := state()
	if n1 != "" || !strings.Contains(n2, "agent-bad is not ready (ImagePullBackOff)") || !strings.Contains(c.Try(), "describe pod -n orb8-system agent-bad") {
		t.Errorf("%q, %q, try %s", n1, n2, c.Try())
	}
	third, _ := agent(t, &observer{})
	api.Set(reachtest.Pod{Name: "agent-2", Node: "n1", Address: second}, reachtest.Pod{Name: "agent-good", Node: "n2", Address: third})
	server.Stop()
	deadline := time.Now().Add(30 * time.Second)
	for {
		if n1, n2 = state(); n1 == "" && n2 == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not found again: %q, %q", n1, n2)
		}
		time.Sleep(100 * time.Millisecond)
	}
	// Nodes without an agent share what was listed.
	if lists := api.Lists(); lists > 40 {
		t.Errorf("%d lists", lists)
	}
}

// An agent that runs is asked, ready or not; only where it does not answer it is
// said that it was not.
func TestAgentThatIsNotReady(t *testing.T) {
	address, server := agent(t, &observer{})
	api := reachtest.New(reachtest.Pod{Name: "agent-1", Node: "n1", Address: address, Unready: true})
	c, err := find(t, api)
	if err != nil {
		t.Fatal(err)
	}
	// The answer of the fake has no nodes in it.
	if st, err := c.Status(t.Context()); err != nil || len(st.GetNodes()) > 0 {
		t.Fatalf("%v, %v", st, err)
	}
	server.Stop()
	says := func(want string) {
		t.Helper()
		deadline := time.Now().Add(30 * time.Second)
		for {
			st, err := c.Status(t.Context())
			if err != nil || len(st.GetNodes()) != 1 {
				t.Fatal(st, err)
			}
			got := st.GetNodes()[0].GetError()
			if strings.Contains(got, "nothing listens at port 9090") && strings.HasSuffix(got, want) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%q, want %q", got, want)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	says(": the agent pod agent-1 is not ready (it runs)")
	// It is ready by now: that was not why.
	api.Set(reachtest.Pod{Name: "agent-1", Node: "n1", Address: address})
	says("of the pod")
}

func TestClusterIsInterrupted(t *testing.T) {
	address, _ := agent(t, &observer{quiet: true})
	c, err := find(t, reachtest.New(reachtest.Pod{Name: "agent-1", Node: "n1", Address: address}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Status(ctx); !errors.Is(err, ErrInterrupted) {
		t.Errorf("status: %v", err)
	}
	for _, err := range c.Flows(ctx, &orb8v1.FlowsRequest{}) {
		if !errors.Is(err, ErrInterrupted) {
			t.Errorf("flows: %v", err)
		}
	}
	// The end of following is no error.
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for _, err := range c.Events(ctx, &orb8v1.EventsRequest{}) {
		if err != nil {
			t.Errorf("events: %v", err)
		}
	}
}
