// SPDX-License-Identifier: Apache-2.0

// Package reachtest is a Kubernetes API server for tests: it lists pods and
// forwards their port, and does nothing else. Tests read it.
package reachtest

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"

	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// Namespace of all pods.
const Namespace = "orb8-system"

// Pod is a pod of the server.
type Pod struct {
	Name, Node string
	// HOST:PORT of what listens in it.
	Address string
	// Its container runs when empty, and is ready.
	Waiting string
	// It runs and is not ready.
	Unready bool
	// To end.
	Ending bool
}

// Server serves pods. It may be changed while it serves.
type Server struct {
	*httptest.Server

	mu   sync.Mutex
	pods []Pod
	// Verbs that are forbidden: list, create.
	forbidden []string
	lists     int
}

// New starts a server.
func New(pods ...Pod) *Server {
	s := &Server{pods: pods}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	return s
}

// Set replaces the pods.
func (s *Server) Set(pods ...Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pods = pods
}

// Forbid refuses verbs from now on.
func (s *Server) Forbid(verbs ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forbidden = verbs
}

// Lists is how often the pods were listed.
func (s *Server) Lists() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lists
}

// Kubeconfig writes one that leads to the server.
func (s *Server) Kubeconfig(path string) error {
	return os.WriteFile(path, fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: test
clusters: [{name: c, cluster: {server: %q}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: test, context: {cluster: c, user: u}}]
`, s.URL), 0o600)
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/api/v1/namespaces/"+Namespace+"/pods")
	switch {
	case path == r.URL.Path:
		refuse(w, http.StatusNotFound, "no such path")
	case path == "" && s.allows("list"):
		s.list(w)
	case path == "" || !s.allows("create"):
		refuse(w, http.StatusForbidden, "no")
	default:
		s.forward(w, r, strings.TrimSuffix(strings.TrimPrefix(path, "/"), "/portforward"))
	}
}

func (s *Server) allows(verb string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.forbidden {
		if v == verb {
			return false
		}
	}
	return true
}

func refuse(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":%q,"code":%d}`, message, code)
}

func (s *Server) list(w http.ResponseWriter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists++
	items := []any{}
	for _, p := range s.pods {
		ready := map[bool]string{true: "True", false: "False"}[p.Waiting == "" && !p.Unready]
		meta := map[string]any{"name": p.Name, "creationTimestamp": "2026-03-04T12:00:00Z"}
		if p.Ending {
			meta["deletionTimestamp"] = "2026-03-04T12:00:00Z"
		}
		status := map[string]any{"phase": "Running", "conditions": []any{map[string]any{"type": "Ready", "status": ready}}}
		if p.Waiting != "" {
			status["containerStatuses"] = []any{map[string]any{"state": map[string]any{"waiting": map[string]any{"reason": p.Waiting}}}}
		}
		items = append(items, map[string]any{"metadata": meta, "spec": map[string]any{"nodeName": p.Node}, "status": status})
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "PodList", "apiVersion": "v1", "items": items})
}

// forward serves the older of the two protocols.
func (s *Server) forward(w http.ResponseWriter, r *http.Request, name string) {
	s.mu.Lock()
	var pod *Pod
	for i := range s.pods {
		if s.pods[i].Name == name {
			found := s.pods[i]
			pod = &found
		}
	}
	s.mu.Unlock()
	if pod == nil {
		refuse(w, http.StatusNotFound, fmt.Sprintf("pods %q not found", name))
		return
	}
	if r.Method != http.MethodPost {
		refuse(w, http.StatusBadRequest, "upgrade request required")
		return
	}
	if _, err := httpstream.Handshake(r, w, []string{"portforward.k8s.io"}); err != nil {
		return
	}
	streams := make(chan httpstream.Stream, 2)
	session := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(stream httpstream.Stream, answered <-chan struct{}) error {
		go func() { // one that is reset before is an error of another kind
			<-answered
			streams <- stream
		}()
		return nil
	})
	if session == nil {
		return
	}
	defer session.Close()
	var faults, data httpstream.Stream
	for range 2 {
		select {
		case <-session.CloseChan():
			return
		case stream := <-streams:
			if stream.Headers().Get("streamType") == "error" {
				faults = stream
			} else {
				data = stream
			}
		}
	}
	pipe(pod.Address, faults, data)
}

// pipe joins the data stream to an address until one of them ends.
func pipe(address string, faults, data httpstream.Stream) {
	defer data.Reset()
	defer faults.Close()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		fmt.Fprintf(faults, "error forwarding port 9090 to pod 0123, uid : %v", err)
		return
	}
	defer conn.Close()
	done := make(chan struct{}, 2)
	go func() {
		_, _ = io.Copy(conn, data)
		done <- struct{}{}
	}()
	go func() {
		_, _ = io.Copy(data, conn)
		done <- struct{}{}
	}()
	<-done
}
