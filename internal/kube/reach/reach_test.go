// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/kube/reach/reachtest"
)

// open leads to a server by a kubeconfig.
func open(t *testing.T, s *reachtest.Server) *Cluster {
	t.Helper()
	t.Cleanup(s.Close)
	path := filepath.Join(t.TempDir(), "config")
	if err := s.Kubeconfig(path); err != nil {
		t.Fatal(err)
	}
	c, err := Open(Config{Kubeconfig: path})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// says fails unless err is in words that have a command to try.
func says(t *testing.T, err error, words, try string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(e.Text, words) || !strings.Contains(e.Try, try) || strings.Contains(e.Error(), "\n") {
		t.Errorf("%v, want %q and to try %q", err, words, try)
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("KUBECONFIG", "")
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := Open(Config{}); !errors.Is(err, ErrNoConfig) {
		t.Errorf("nothing there: %v", err)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
	_, err := Open(Config{})
	says(t, err, "nor the token of a service account", "--standalone")
	t.Setenv("KUBECONFIG", filepath.Join(dir, "none"))
	_, err = Open(Config{})
	says(t, err, "there is no kubeconfig at "+dir+"/none (from KUBECONFIG)", "orb8 --kubeconfig")
	blank := filepath.Join(dir, "blank")
	if err := os.WriteFile(blank, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", blank)
	_, err = Open(Config{})
	says(t, err, "the kubeconfig at "+blank+" has no current context", "config get-contexts")
	_, err = Open(Config{Kubeconfig: filepath.Join(dir, "none")})
	says(t, err, "there is no kubeconfig at", "orb8 --kubeconfig")
	bad := filepath.Join(dir, "bad")
	if err := os.WriteFile(bad, []byte("apiVersion: v1\nkind: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(Config{Kubeconfig: bad})
	says(t, err, "the kubeconfig cannot be used", "config view")
	s := reachtest.New()
	defer s.Close()
	good := filepath.Join(dir, "good")
	if err := s.Kubeconfig(good); err != nil {
		t.Fatal(err)
	}
	_, err = Open(Config{Kubeconfig: good, Context: "other"})
	says(t, err, "has no context other", "config get-contexts")
	t.Setenv("KUBECONFIG", good)
	c, err := Open(Config{})
	if err != nil || c.Name() != "context test" || c.Namespace() != Namespace {
		t.Errorf("%v, %v", c, err)
	}
}

func TestAgents(t *testing.T) {
	s := reachtest.New(
		reachtest.Pod{Name: "agent-old", Node: "n1", Ending: true},
		reachtest.Pod{Name: "agent-new", Node: "n1"},
		reachtest.Pod{Name: "agent-bad", Node: "n0", Waiting: "CrashLoopBackOff"},
		reachtest.Pod{Name: "agent-last", Node: "n3", Ending: true, Waiting: "x"},
		reachtest.Pod{Name: "agent-late", Node: "n4", Unready: true},
	)
	c := open(t, s)
	agents, err := c.Agents(t.Context())
	if err != nil || len(agents) != 4 {
		t.Fatal(agents, err)
	}
	if a := agents[0]; a.Node != "n0" || a.Problem != "the agent pod agent-bad is not ready (CrashLoopBackOff)" {
		t.Errorf("%+v", a)
	}
	if a := agents[1]; a.Pod != "agent-new" || a.Problem != "" {
		t.Errorf("%+v", a)
	}
	if a := agents[2]; !strings.Contains(a.Problem, "it is to end") {
		t.Errorf("%+v", a)
	}
	if a := agents[3]; a.Problem != "" || a.Doubt != "the agent pod agent-late is not ready (it runs)" {
		t.Errorf("%+v", a)
	}
	s.Set()
	_, err = c.Agents(t.Context())
	says(t, err, "no agents found in namespace orb8-system of context test", "apply -k deploy/overlays/default")
	s.Forbid("list")
	_, err = c.Agents(t.Context())
	says(t, err, "the right to list pods in namespace orb8-system", "auth can-i list pods -n orb8-system")
	s.Close()
	_, err = c.Agents(t.Context())
	says(t, err, "cannot be reached: dial tcp", "get --raw /readyz")
}

// What runs is asked; what does not is told with its reason.
func TestAgentStates(t *testing.T) {
	const unready = `"conditions":[{"type":"Ready","status":"False","message":"containers with unready status: [agent]"}]`
	for status, want := range map[string][2]string{
		`"phase":"Running","conditions":[{"type":"Ready","status":"True"}]`:                                      {},
		`"phase":"Running",` + unready:                                                                           {"", "containers with unready status: [agent]"},
		`"phase":"Running","containerStatuses":[{"state":{"running":{}}}],` + unready:                            {"", "containers with unready status: [agent]"},
		`"phase":"Running","containerStatuses":[{"state":{"waiting":{"reason":"CrashLoopBackOff"}}}],` + unready: {"CrashLoopBackOff", ""},
		`"phase":"Running","containerStatuses":[{"state":{"terminated":{"reason":"OOMKilled"}}}],` + unready:     {"OOMKilled", ""},
		`"phase":"Pending","containerStatuses":[{"state":{"waiting":{"reason":"ContainerCreating"}}}]`:           {"ContainerCreating", ""},
		`"phase":"Pending","conditions":[{"type":"PodScheduled","status":"False","message":"no room"}]`:          {"it is not scheduled: no room", ""},
		`"phase":"Failed","reason":"Evicted"`:                                                                    {"Evicted", ""},
		`"phase":"Pending"`:                                                                                      {"Pending", ""},
		``:                                                                                                       {"no reason given", ""},
	} {
		var list podList
		if err := json.Unmarshal([]byte(`{"items":[{"metadata":{"name":"a"},"spec":{"nodeName":"n"},"status":{`+status+`}}]}`), &list); err != nil {
			t.Fatal(err)
		}
		found := fleet{}
		found.add(list.Items)
		got := found.agents("ns")[0]
		for i, text := range []string{got.Problem, got.Doubt} {
			if text != "" {
				text = strings.TrimSuffix(strings.TrimPrefix(text, "the agent pod a is not ready ("), ")")
			}
			if text != want[i] {
				t.Errorf("%s: %+v, want %q", status, got, want)
			}
		}
	}
}

func TestAgentsOfSomethingElse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// Accepts and says nothing.
	s := reachtest.New()
	c := open(t, s)
	c.base.Host = l.Addr().String()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = c.Agents(ctx)
	says(t, err, "no reply in time", "readyz")
}

func TestDial(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(conn, conn)
				conn.Close()
			}()
		}
	}()
	s := reachtest.New(reachtest.Pod{Name: "echo", Node: "n1", Address: l.Addr().String()}, reachtest.Pod{Name: "deaf", Node: "n2", Address: "127.0.0.1:1"})
	c := open(t, s)
	conn, err := c.Dial(t.Context(), Namespace, "echo")
	if err != nil {
		t.Fatal(err)
	}
	sent := strings.Repeat("0123456789", 20_000)
	go func() { _, _ = io.WriteString(conn, sent) }()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != sent {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	// A deadline ends it.
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(got); err == nil {
		t.Error("the deadline passed unseen")
	}
	if err := conn.Close(); err != nil {
		t.Logf("closed twice: %v", err)
	}

	deaf, err := c.Dial(t.Context(), Namespace, "deaf")
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	if _, err := deaf.Read(got); !errors.Is(err, errRefused) {
		t.Errorf("nothing listens: %v", err)
	}
	_, err = c.Dial(t.Context(), Namespace, "other")
	says(t, err, "there is no pod other in namespace orb8-system", "get pods -n orb8-system -l app=orb8-agent")
	if !IsGone(err) {
		t.Error("another may be in its place")
	}
	s.Forbid("create")
	_, err = c.Dial(t.Context(), Namespace, "echo")
	says(t, err, "the right to create pods/portforward in namespace orb8-system", "can-i create pods/portforward -n orb8-system")
	s.Close()
	_, err = c.Dial(t.Context(), Namespace, "echo")
	says(t, err, "cannot be reached", "readyz")
}
