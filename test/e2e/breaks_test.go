// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

func short() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 30*time.Second)
}

// steady is a client that sends a frame every 100 ms in one connection, for as
// long as it lives, and its server.
func (s *scene) steady() (client, server pod, here *view) {
	t := s.t
	t.Helper()
	s.apply(t, s.owned("StatefulSet", "server", podSpec(place{node: 2}, container("main", "/bin/traffic", "serve", "-port", "7000"))))
	server = s.ready(s.ns, "server", workload{"StatefulSet", "server"})
	s.apply(t, s.owned("Deployment", "client", podSpec(place{node: 1}, container("main", "/bin/traffic", "send", "-to", server.ip+":7000", "-times", "0", "-every", "100ms"))))
	client = s.ready(s.ns, "client", workload{"Deployment", "client"})
	here = &view{
		node: client.node, protocol: "TCP", openedBy: "local", local: address{IP: client.ip}, remote: address{server.ip, 7000},
		localAs: s.podAs(client, "main", ""), remoteAs: s.podAs(server, "", ""),
	}
	eventually(t, 20*time.Second, func() []string { _, complaints := s.look(here); return complaints })
	return client, server, here
}

// agentRestarted: the new agent names a connection that is older than itself,
// and counts on from when it began.
func agentRestarted(t *testing.T, s *scene) {
	_, _, here := s.steady()
	before, _ := s.look(here)
	s.kubectl(t, "-n", "orb8-system", "delete", "pod", "-l", "app=orb8-agent", "--field-selector", "spec.nodeName="+here.node)
	deleted := time.Now()
	s.waitForAgents(t)
	t.Logf("an agent was ready again %v after the old one was gone", time.Since(deleted).Round(100*time.Millisecond))
	var packets uint64
	eventually(t, 20*time.Second, func() []string {
		r, complaints := s.look(here)
		if r == nil || len(complaints) > 0 {
			return complaints
		}
		if r.FirstSeenNS <= before.LastSeenNS || r.ConnectionID != before.ConnectionID {
			return []string{"this is not the same connection, counted anew: " + r.text}
		}
		if packets == 0 {
			packets = r.TxPackets
		}
		if r.TxPackets <= packets+5 || r.TxBytes <= 66*r.TxPackets || r.RxPackets == 0 {
			return []string{"it does not go on: " + r.text}
		}
		return nil
	})
}

// apiServerDown: for half a minute nobody can be asked. Connections of pods that
// are known go on being named; an agent that starts in that time counts, and has
// the names when the API server is back.
func apiServerDown(t *testing.T, s *scene) {
	s.apply(t, s.owned("StatefulSet", "server", podSpec(place{node: 2}, container("main", "/bin/traffic", "serve", "-port", "7000"))))
	server := s.ready(s.ns, "server", workload{"StatefulSet", "server"})
	again := fmt.Sprintf("while sleep 1; do /bin/traffic send -to %s:7000 -bytes 3000; done", server.ip)
	s.apply(t, s.owned("Deployment", "client", podSpec(place{node: 1}, container("main", "sh", "-c", again))))
	client := s.ready(s.ns, "client", workload{"Deployment", "client"})
	s.said(s.ns, client.name)
	here := &view{
		node: client.node, local: address{IP: client.ip}, remote: address{server.ip, 7000},
		localAs: s.podAs(client, "main", ""), remoteAs: s.podAs(server, "", ""),
	}

	s.do(t, "apiserver-down")
	down := time.Now()
	back := func() { s.do(t, "apiserver-up") }
	defer func() {
		if back != nil {
			back()
		}
	}()
	// Both ends' agents, without the API server between.
	eventually(t, 20*time.Second, func() (complaints []string) {
		for i, v := range []*view{
			here,
			{node: server.node, local: here.remote, remote: here.local, localAs: s.podAs(server, "main", ""), remoteAs: s.podAs(client, "", "")},
		} {
			complaints = append(complaints, s.during(i+1, v, down.Add(time.Second))...)
		}
		return complaints
	})
	// kubelet starts the container again without being told to.
	old := s.agents(t)["node1"]
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatalf("agent %d: %v", old, err)
	}
	var born time.Time
	eventually(t, 25*time.Second, func() []string {
		if pid := s.agents(t)["node1"]; pid == 0 || pid == old {
			return []string{"the agent of node1 has not come back"}
		}
		if _, _, err := s.askOnNode(1, "flows", "-o", "json"); err != nil {
			return []string{err.Error()}
		}
		born = time.Now()
		return nil
	})
	time.Sleep(time.Until(down.Add(30 * time.Second)))
	back()
	back = nil
	up := time.Now()
	eventually(t, time.Minute, func() []string {
		ctx, stop := short()
		defer stop()
		if _, err := s.script(ctx, "", "kc", "get", "--raw=/readyz"); err != nil {
			return []string{err.Error()}
		}
		return nil
	})
	ready := time.Now()
	// Those of the time without names have them now.
	eventually(t, 20*time.Second, func() []string {
		return s.during(1, here, born.Add(-time.Second))
	})
	t.Logf("the API server was ready %v after its start; the names were there %v later", ready.Sub(up).Round(time.Millisecond), time.Since(ready).Round(time.Millisecond))
	s.waitForAnswers(t)
	t.Logf("all agents answered through the API server %v after it was ready", time.Since(ready).Round(time.Millisecond))
}

// during says what is wrong with the connections of a view that began after a
// moment, as the node itself tells them.
func (s *scene) during(i int, v *view, after time.Time) []string {
	out, _, err := s.askOnNode(i, "flows", "-o", "json", "--limit", "10000")
	if err != nil {
		return []string{err.Error()}
	}
	all, err := parseRecords(out)
	if err != nil {
		return []string{err.Error()}
	}
	var complaints []string
	n := 0
	for _, r := range all {
		if fits(v.local, r.Local.address) && fits(v.remote, r.Remote.address) && r.FirstSeenNS > after.UnixNano() {
			n++
			complaints = append(complaints, v.differs(&r)...)
		}
	}
	if n == 0 {
		complaints = append(complaints, fmt.Sprintf("%s has no connection of %v, %v since %v", v.node, v.local, v.remote, after))
	}
	return complaints
}

// powerFailure: a dead node makes an answer partial, and the answer says which;
// when it is back its agent and its pods have their names again.
func powerFailure(t *testing.T, s *scene) {
	client, server := s.pair(place{node: 1}, place{node: 3}, 7000)
	s.waitForAnswers(t)
	s.do(t, "node-down", "3")
	up := func() { s.do(t, "node-up", "3") }
	defer func() {
		if up != nil {
			up()
		}
	}()
	started := time.Now()
	out, said, err := s.ask("flows", "-o", "json", "--limit", "10000")
	t.Logf("asked of a cluster with a dead node, the answer took %v; it said: %s", time.Since(started).Round(100*time.Millisecond), strings.TrimSpace(said))
	if err != nil {
		t.Errorf("the other nodes' answer is an answer: %v", err)
	}
	if !strings.Contains(said, "node3") {
		t.Errorf("that node3 did not answer is not said: %q", said)
	}
	for _, node := range []string{"node1", "node2"} {
		if !strings.Contains(out, fmt.Sprintf(`"node":%q`, node)) {
			t.Errorf("nothing of %s is in the answer", node)
		}
	}
	s.kubectl(t, "wait", "node/node3", "--for=condition=Ready=Unknown", "--timeout=90s")
	up()
	up = nil
	s.kubectl(t, "wait", "node/node3", "--for=condition=Ready", "--timeout=90s")
	s.waitForAnswers(t)
	// The pod keeps its name and its UID, and has another sandbox.
	old := server.ip
	eventually(t, time.Minute, func() []string {
		server = s.ready(s.ns, "server", workload{"StatefulSet", "server"})
		ctx, stop := short()
		defer stop()
		if out, err := s.script(ctx, "", "kc", "-n", s.ns, "exec", client.name, "--", "/bin/traffic", "shake", "-to", server.ip+":7000"); err != nil {
			return []string{out, err.Error()}
		}
		return nil
	})
	t.Logf("%s had the address %s, and has %s", server.name, old, server.ip)
	made := s.traffic(client, "main", "send", "-to", server.ip+":7000", "-bytes", "8000")
	here, there := s.between(made, client, server, "main")
	s.checkConnection(t, made, here, there)
}
