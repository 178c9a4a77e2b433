// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// object is one of Kubernetes, as its JSON.
type object map[string]any

// text follows a path; "" where it does not lead to a text.
func (o object) text(path ...string) string {
	var at any = map[string]any(o)
	for _, name := range path {
		m, ok := at.(map[string]any)
		if !ok {
			return ""
		}
		at = m[name]
	}
	s, _ := at.(string)
	return s
}

// list follows a path to a list of objects.
func (o object) list(path ...string) (all []object) {
	var at any = map[string]any(o)
	for _, name := range path {
		m, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = m[name]
	}
	items, _ := at.([]any)
	for _, item := range items {
		if m, ok := item.(map[string]any); ok {
			all = append(all, m)
		}
	}
	return all
}

// ready tells whether a pod serves; one that is to end does not.
func (o object) ready() bool {
	if o.text("metadata", "deletionTimestamp") != "" {
		return false
	}
	for _, condition := range o.list("status", "conditions") {
		if condition.text("type") == "Ready" {
			return condition.text("status") == "True"
		}
	}
	return false
}

// scene is a namespace of its own for one row.
type scene struct {
	*cluster
	t  *testing.T
	ns string
}

// newScene makes a namespace named after the row; it goes with the row.
func newScene(t *testing.T, c *cluster, name string) *scene {
	t.Helper()
	ns := strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(name), "-"), "-")
	// What is left of an earlier run on this cluster may be on its way out.
	s := &scene{c, t, fmt.Sprintf("%s-%x", ns[:min(len(ns), 50)], time.Now().Unix()%0x10000)}
	s.namespace(s.ns)
	return s
}

func (s *scene) namespace(name string) {
	t := s.t
	t.Helper()
	s.apply(t, object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{"name": name}})
	t.Cleanup(func() { s.kubectl(t, "delete", "namespace", name, "--wait=false") })
}

// place is where a pod runs.
type place struct {
	node int
	host bool
}

func (p place) String() string {
	if p.host {
		return "host of " + nodeName(p.node)
	}
	return "pod on " + nodeName(p.node)
}

// container runs the test's image.
func container(name string, args ...string) object {
	return object{"name": name, "image": "registry.local/traffic:1", "imagePullPolicy": "Never", "command": args}
}

// podSpec pins a pod to its place.
func podSpec(at place, containers ...object) object {
	return object{
		"nodeName": nodeName(at.node), "hostNetwork": at.host, "containers": containers,
		"terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false, "enableServiceLinks": false,
		"tolerations": []object{{"operator": "Exists"}},
	}
}

// owned is a pod below a Deployment, a StatefulSet or a DaemonSet.
func (s *scene) owned(kind, name string, spec object) object {
	labels := object{"app": name}
	o := object{
		"apiVersion": "apps/v1", "kind": kind, "metadata": object{"name": name, "namespace": s.ns, "labels": labels},
		"spec": object{
			"selector": object{"matchLabels": labels},
			"template": object{"metadata": object{"labels": labels}, "spec": spec},
		},
	}
	if kind == "StatefulSet" {
		o["spec"].(object)["serviceName"] = name
	}
	return o
}

// bare is a pod without an owner.
func bare(ns, name string, spec object) object {
	spec["restartPolicy"] = "Never"
	return object{"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": name, "namespace": ns, "labels": object{"app": name}}, "spec": spec}
}

// service leads to the pods of an app.
func (s *scene) service(name, app string, port int, more object) object {
	spec := object{
		"selector": object{"app": app},
		"ports": []object{
			{"name": "tcp", "protocol": "TCP", "port": port},
			{"name": "udp", "protocol": "UDP", "port": port},
		},
	}
	for k, v := range more {
		spec[k] = v
	}
	return object{"apiVersion": "v1", "kind": "Service", "metadata": object{"name": name, "namespace": s.ns}, "spec": spec}
}

// pod is a pod as it came to be.
type pod struct {
	ns, name, uid, ip, node string
	host                    bool
	workload                workload
}

// ready waits for the one pod of an app.
func (s *scene) ready(ns, app string, owner workload) pod {
	s.t.Helper()
	return s.readyBy(ns, "app="+app, owner)
}

func (s *scene) readyBy(ns, label string, owner workload) pod {
	t := s.t
	t.Helper()
	var found object
	eventually(t, time.Minute, func() []string {
		var pods struct{ Items []object }
		s.get(t, &pods, "-n", ns, "pods", "-l", label)
		for _, p := range pods.Items {
			if p.ready() && p.text("status", "podIP") != "" {
				found = p
				return nil
			}
		}
		return []string{fmt.Sprintf("no pod of %s with %s is ready: %v", ns, label, states(pods.Items))}
	})
	return s.pod(found, owner)
}

func states(pods []object) (all []string) {
	for _, p := range pods {
		state, _ := json.Marshal(p["status"])
		all = append(all, string(state))
	}
	return all
}

func (s *scene) pod(o object, owner workload) pod {
	host, _ := o["spec"].(map[string]any)["hostNetwork"].(bool)
	return pod{
		ns: o.text("metadata", "namespace"), name: o.text("metadata", "name"), uid: o.text("metadata", "uid"),
		ip: o.text("status", "podIP"), node: o.text("spec", "nodeName"), host: host, workload: owner,
	}
}

// serviceIP is a Service's own address.
func (s *scene) serviceIP(name string) string {
	t := s.t
	t.Helper()
	return s.kubectl(t, "-n", s.ns, "get", "service", name, "-o", "jsonpath={.spec.clusterIP}")
}

// nodePort is the port of a Service on every node.
func (s *scene) nodePort(name, protocol string) int {
	t := s.t
	t.Helper()
	var port int
	text := s.kubectl(t, "-n", s.ns, "get", "service", name, "-o", fmt.Sprintf(`jsonpath={.spec.ports[?(@.protocol=="%s")].nodePort}`, protocol))
	if _, err := fmt.Sscan(text, &port); err != nil {
		t.Fatalf("node port of %s: %q: %v", name, text, err)
	}
	return port
}

// sent is what the traffic program says of one connection.
type sent struct {
	Protocol, Local, Remote string
	Sent, Received          uint64
	Frames                  uint64
	StartedNS               int64 `json:"started_ns"`
}

// traffic runs the program in a container and reads what it made.
func (s *scene) traffic(in pod, container string, args ...string) sent {
	t := s.t
	t.Helper()
	command := append([]string{"kc", "-n", in.ns, "exec", in.name, "-c", container, "--", "/bin/traffic"}, args...)
	ctx, stop := context.WithTimeout(context.Background(), 90*time.Second)
	defer stop()
	out, err := s.script(ctx, "", command...)
	if err != nil {
		t.Fatal(err)
	}
	all := parseSent(t, out)
	if len(all) != 1 {
		t.Fatalf("traffic said %q", out)
	}
	return all[0]
}

// parseSent reads the lines of results among others.
func parseSent(t testing.TB, text string) (all []sent) {
	t.Helper()
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "{") {
			continue
		}
		var r sent
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, r)
	}
	return all
}
