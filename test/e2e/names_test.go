// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"
)

// names follows every event that any agent tells during the run, and what the
// API server says of pods meanwhile.
type names struct {
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu     sync.Mutex
	events []record
	// By address: who had it, oldest first.
	holders map[string][]*holding
	// What of it ended by itself: from then on nothing was followed.
	ended []string
}

// holding is a pod's time with an address.
type holding struct {
	uid, name string
	// When the API server said that it runs, and that it is to end or has.
	from, to time.Time
}

// followNames begins to follow; judge ends it.
func followNames(t *testing.T, c *cluster) *names {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	chatter(newScene(t, c, "chatter"))
	n := &names{stop: stop, holders: map[string][]*holding{}}
	t.Cleanup(stop)
	watch := exec.CommandContext(ctx, c.scripts+"/kc", "get", "pods", "-A", "--watch", "--output-watch-events", "-o", "json")
	trace := exec.CommandContext(ctx, "nsenter", "--net=/run/netns/"+c.settings["P"]+"-cp", c.orb8, "trace", "network", "-o", "json")
	for cmd, read := range map[*exec.Cmd]func(io.Reader) error{watch: n.readPods, trace: n.readEvents} {
		cmd.Env = append(os.Environ(), "P="+c.settings["P"], "RUN="+c.run, "KUBECONFIG="+c.run+"/pki/admin.conf")
		cmd.Stderr = os.Stderr
		cmd.WaitDelay = 5 * time.Second
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		n.wg.Go(func() {
			err := read(out)
			// For judge to say: rows that are chosen alone may end it.
			if waitErr := cmd.Wait(); ctx.Err() == nil {
				n.mu.Lock()
				n.ended = append(n.ended, fmt.Sprintf("%v ended early: %v, %v", cmd.Args, err, waitErr))
				n.mu.Unlock()
			}
		})
	}
	return n
}

// chatter is traffic that goes on all the time: from each node to each, by
// address, and by a Service.
func chatter(s *scene) {
	var objects []object
	for i := range 3 {
		app := fmt.Sprintf("server%d", i+1)
		objects = append(objects,
			s.service(app, app, 7000, nil),
			s.owned("StatefulSet", app, podSpec(place{node: i + 1}, container("main", "/bin/traffic", "serve", "-port", "7000"))))
	}
	s.apply(s.t, objects...)
	objects = nil
	for i := range 3 {
		app := fmt.Sprintf("server%d", i+1)
		server := s.ready(s.ns, app, workload{"StatefulSet", app})
		for at, to := range []string{server.ip, s.serviceIP(app)} {
			talk := fmt.Sprintf("while true; do /bin/traffic send -to %s:7000 -times 20 -every 500ms; done", to)
			client := s.owned("Deployment", fmt.Sprintf("client%d", len(objects)+1), podSpec(place{node: (i+at)%3 + 1}, container("main", "sh", "-c", talk)))
			objects = append(objects, client)
		}
	}
	s.apply(s.t, objects...)
}

func (n *names) readPods(in io.Reader) error {
	for decoder := json.NewDecoder(in); ; {
		var e struct {
			Type   string
			Object object
		}
		if err := decoder.Decode(&e); err != nil {
			return err
		}
		n.mu.Lock()
		n.pod(e.Type == "DELETED", e.Object)
		n.mu.Unlock()
	}
}

func (n *names) pod(deleted bool, o object) {
	ip, uid, phase := o.text("status", "podIP"), o.text("metadata", "uid"), o.text("status", "phase")
	if host, _ := o["spec"].(map[string]any)["hostNetwork"].(bool); host || ip == "" {
		return
	}
	all := n.holders[ip]
	i := slices.IndexFunc(all, func(h *holding) bool { return h.uid == uid })
	if i < 0 {
		all = append(all, &holding{uid: uid, name: o.text("metadata", "namespace") + "/" + o.text("metadata", "name")})
		n.holders[ip], i = all, len(all)
	}
	h := n.holders[ip][min(i, len(n.holders[ip])-1)]
	if h.from.IsZero() && phase == "Running" {
		h.from = time.Now()
	}
	if h.to.IsZero() && (deleted || phase == "Succeeded" || phase == "Failed" || o.text("metadata", "deletionTimestamp") != "") {
		h.to = time.Now()
	}
}

func (n *names) readEvents(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return fmt.Errorf("%q: %w", lines.Text(), err)
		}
		r.text = lines.Text()
		if isPodIP(r.Local.IP) && (isPodIP(r.Remote.IP) || r.Translated != nil && isPodIP(r.Translated.Remote.IP)) {
			n.mu.Lock()
			n.events = append(n.events, r)
			n.mu.Unlock()
		}
	}
	return lines.Err()
}

// holder is who had an address for at least a second before a moment, and has
// it still; "" where that is not certain.
func (n *names) holder(ip string, at time.Time) string {
	found := ""
	for _, h := range n.holders[ip] {
		if h.from.IsZero() || h.from.Add(time.Second).After(at) {
			continue
		}
		if h.to.IsZero() || h.to.After(at) {
			found = h.name
		}
	}
	return found
}

// judge compares each event between two pods that had both been up for a second
// with what the API server said: none may lack a name, and none may have a
// wrong one.
func (n *names) judge(t *testing.T) {
	// The last epoch's events are on their way.
	time.Sleep(2 * time.Second)
	n.stop()
	n.wg.Wait()
	for _, what := range n.ended {
		t.Error(what)
	}
	judged, unknown, wrong := 0, 0, 0
	for i := range n.events {
		e := &n.events[i]
		at, remote := time.Unix(0, e.TimeNS), e.Remote.IP
		if e.Translated != nil && !isPodIP(remote) {
			remote = e.Translated.Remote.IP
		}
		local, far := n.holder(e.Local.IP, at), n.holder(remote, at)
		if local == "" || far == "" {
			continue
		}
		judged++
		gotLocal, gotFar := e.Local.Namespace+"/"+e.Local.Pod, e.Remote.Namespace+"/"+e.Remote.Pod
		switch {
		case e.Local.Pod == "" || e.Remote.Pod == "":
			unknown++
		case gotLocal != local || gotFar != far:
			wrong++
		default:
			continue
		}
		if unknown+wrong <= 10 {
			t.Logf("want %s and %s, got %s", local, far, e.text)
		}
	}
	t.Logf("%d events between pods up for a second: %d without a name, %d with a wrong one", judged, unknown, wrong)
	// The bar is none of either. Where many more run than there are processors a
	// pod may speak before its agent has had a turn to find it: one in 500.
	if wrong > 0 || unknown*500 > judged {
		t.Error("see above")
	}
	if judged < 100 {
		t.Errorf("only %d events could be judged of %d: the run does not prove anything", judged, len(n.events))
	}
}
