// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// lookup is a look-up in the DNS as the command line writes it.
type lookup struct {
	Node, Side, Name, Type, RCode string
	Client, Server                party
	LatencyNS                     *int64 `json:"latency_ns"`
	Answers                       []struct{ Type, Data string }
	AnswerCount                   int `json:"answer_count"`
	Tries                         int
	Protocol                      string
	Truncated                     bool
	TCPRetry                      bool `json:"tcp_retry"`
	Upstream                      *bool
	SearchMisses                  int      `json:"search_misses"`
	SearchDomains                 []string `json:"search_domains"`

	text string
}

// line is what came of a look-up, in one line.
func (l *lookup) line() string {
	var answers []string
	for _, a := range l.Answers {
		answers = append(answers, a.Data)
	}
	return fmt.Sprintf("%s %s %s %v, %d missed %v", l.Type, l.Name, l.RCode, answers, l.SearchMisses, l.SearchDomains)
}

// lookupTrace is what `orb8 trace dns` has told so far.
type lookupTrace struct {
	mu  sync.Mutex
	all []lookup
}

// traceLookups follows the look-ups of the row's pods at both sides, until the row
// ends. It is heard, once a client's question has been told at both.
func (s *scene) traceLookups(client pod) *lookupTrace {
	t := s.t
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	tr := &lookupTrace{}
	var wg sync.WaitGroup
	t.Cleanup(func() { stop(); wg.Wait() })
	for _, side := range []string{"client", "server"} {
		cmd := exec.CommandContext(ctx, "nsenter", "--net=/run/netns/"+s.settings["P"]+"-cp", s.orb8, "trace", "dns", "-o", "json", "--side", side, "-n", s.ns)
		cmd.Env = append(os.Environ(), "KUBECONFIG="+s.run+"/pki/admin.conf")
		cmd.WaitDelay = 5 * time.Second
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for in := bufio.NewScanner(out); in.Scan(); {
				l := lookup{text: in.Text()}
				if err := json.Unmarshal(in.Bytes(), &l); err != nil {
					t.Errorf("%q: %v", in.Text(), err)
				}
				tr.mu.Lock()
				tr.all = append(tr.all, l)
				tr.mu.Unlock()
			}
			_ = cmd.Wait()
		})
	}
	eventually(t, time.Minute, func() []string {
		s.traffic(client, "main", "resolve", "-name", listening)
		for _, side := range []string{"client", "server"} {
			if len(tr.of(func(l *lookup) bool { return l.Side == side && l.Name == listening })) == 0 {
				return []string{"a look-up is not told at the side of the " + side}
			}
		}
		return nil
	})
	return tr
}

// listening is asked for only to know that somebody listens.
const listening = "kubernetes.default.svc.cluster.local"

// of are those that have been told, in their order.
func (tr *lookupTrace) of(which func(*lookup) bool) (found []lookup) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, l := range tr.all {
		if which(&l) {
			found = append(found, l)
		}
	}
	return found
}

// by are the look-ups of a pod's at one side.
func (tr *lookupTrace) by(p pod, side string) []lookup {
	return tr.of(func(l *lookup) bool { return l.Client.Pod == p.name && l.Side == side && l.Name != listening })
}

// told waits until these are the look-ups of a pod's, in any order, and all.
func (tr *lookupTrace) told(t *testing.T, p pod, side string, want []string) []lookup {
	t.Helper()
	slices.Sort(want)
	var found []lookup
	eventually(t, 20*time.Second, func() []string {
		var got []string
		found = tr.by(p, side)
		for _, l := range found {
			got = append(got, l.line())
		}
		if slices.Sort(got); slices.Equal(got, want) {
			return nil
		}
		return []string{fmt.Sprintf("look-ups of %s, side %s: got\n  %s\nwant\n  %s", p.name, side, strings.Join(got, "\n  "), strings.Join(want, "\n  "))}
	})
	return found
}

// coreDNS is the pod behind the Service that pods ask.
func (s *scene) coreDNS() pod {
	return s.readyBy("kube-system", "k8s-app=kube-dns", workload{"Deployment", "coredns"})
}

// throughService says what is wrong with how a look-up's ends are called at the
// client's side: it asked the Service, and CoreDNS answered.
func (s *scene) throughService(l *lookup, client, server pod) []string {
	all := s.podAs(client, "", "").differs("client", l.Client.who)
	all = append(all, s.podAs(server, "", "kube-system/kube-dns").differs("server", l.Server.who)...)
	// What is over at once may be gone before anybody can ask for its cgroup.
	if l.Client.Container != "" && l.Client.Container != "main" {
		all = append(all, fmt.Sprintf("client.container: got %q, want main or none", l.Client.Container))
	}
	if l.Node != client.node || l.Client.IP != client.ip || l.Server.address != (address{"10.96.0.10", 53}) {
		all = append(all, fmt.Sprintf("want node %s, client %s, server 10.96.0.10:53", client.node, client.ip))
	}
	return all
}

// atServer says what is wrong with them at the server's side.
func (s *scene) atServer(l *lookup, client, server pod) []string {
	all := s.podAs(client, "", "").differs("client", l.Client.who)
	all = append(all, s.podAs(server, "coredns", "").differs("server", l.Server.who)...)
	if l.Node != server.node || l.Client.IP != client.ip || l.Server.address != (address{server.ip, 53}) {
		all = append(all, fmt.Sprintf("want node %s, client %s, server %s:53", server.node, client.ip, server.ip))
	}
	return all
}

// processOf is a process of a pod's, as this machine numbers it: any, or one with a
// name.
func (s *scene) processOf(p pod, name string) int {
	t := s.t
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		at := filepath.Dir(file)
		if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), "/pod"+p.uid) {
			continue
		}
		comm, err := os.ReadFile(at + "/comm")
		if err != nil || name != "" && strings.TrimSpace(string(comm)) != name {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(at)); err == nil {
			return pid
		}
	}
	t.Fatalf("no process %s of %s/%s", name, p.ns, p.name)
	return 0
}

// getent asks with glibc in a pod's network, which the tests' image does not have,
// by a resolv.conf. What it makes of the answer is not the question.
func (s *scene) getent(p pod, config string, names ...string) {
	t := s.t
	t.Helper()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, stop := short()
	defer stop()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{
		fmt.Sprintf("--net=/proc/%d/ns/net", s.processOf(p, "")), "unshare", "--mount", "sh", "-ec",
		`mount --bind "$0" /etc/resolv.conf; for name; do getent ahosts "$name" || true; done`, file,
	}, names...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("getent: %v: %s", err, out)
	}
}
