// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// tryLogs are what a pod has said.
func (s *scene) tryLogs(ns, name string, more ...string) (string, error) {
	ctx, stop := short()
	defer stop()
	return s.script(ctx, "", append([]string{"kc", "-n", ns, "logs", name}, more...)...)
}

// said waits until a pod has told of a connection.
func (s *scene) said(ns, name string, more ...string) sent {
	t := s.t
	t.Helper()
	var all []sent
	eventually(t, time.Minute, func() []string {
		out, err := s.tryLogs(ns, name, more...)
		if err != nil {
			return []string{err.Error()}
		}
		if all = parseSent(t, out); len(all) == 0 {
			return []string{fmt.Sprintf("%s/%s has said nothing: %q", ns, name, out)}
		}
		return nil
	})
	return all[0]
}

// saidByAll is what the pods of a label have said so far, by name.
func (s *scene) saidByAll(label string, most int) map[string]sent {
	ctx, stop := short()
	defer stop()
	// It fails while one of them has no logs yet, and gives those of the others.
	out, _ := s.script(ctx, "", "kc", "-n", s.ns, "logs", "-l", label, "--prefix", "--tail=-1", "--ignore-errors", fmt.Sprintf("--max-log-requests=%d", most))
	all := map[string]sent{}
	for line := range strings.Lines(out) {
		// [pod/NAME/CONTAINER] {...}
		from, text, _ := strings.Cut(line, " ")
		if made := parseSent(s.t, text); len(made) == 1 {
			name, _, _ := strings.Cut(strings.TrimPrefix(from, "[pod/"), "/")
			all[name] = made[0]
		}
	}
	return all
}

// find waits for a pod by name, in any state but before it has an address.
func (s *scene) find(ns, name string, owner workload) pod {
	t := s.t
	t.Helper()
	var o object
	eventually(t, time.Minute, func() []string {
		o = nil
		s.get(t, &o, "-n", ns, "pod", name)
		if o.text("status", "podIP") == "" {
			return []string{fmt.Sprintf("%s/%s has no address: %v", ns, name, o["status"])}
		}
		return nil
	})
	return s.pod(o, owner)
}

// alone is the owner that is told of a pod without one.
func alone(name string) workload { return workload{"Pod", name} }

// shortLived: its first packet leaves as soon as it runs, and it is gone before
// anybody asks.
func shortLived(t *testing.T, s *scene) {
	s.apply(t, s.owned("StatefulSet", "server", podSpec(place{node: 1}, container("main", "/bin/traffic", "serve", "-port", "7000"))))
	server := s.ready(s.ns, "server", workload{"StatefulSet", "server"})
	s.apply(t, bare(s.ns, "brief", podSpec(place{node: 2}, container("main", "/bin/traffic", "send", "-to", server.ip+":7000", "-bytes", "9000", "-linger", "2s"))))
	made := s.said(s.ns, "brief")
	client := s.find(s.ns, "brief", alone("brief"))
	s.kubectl(t, "-n", s.ns, "wait", "pod/brief", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
	s.kubectl(t, "-n", s.ns, "delete", "pod/brief", "--grace-period=1")
	here, there := s.between(made, client, server, "main")
	s.checkConnection(t, made, here, there)
}

// manyAtOnce: twenty pods start together and each is told apart from its first
// packet on. That is more than two cores can start at once: a connection is let
// pass, and logged, that was over before its pod's interface was tapped.
func manyAtOnce(t *testing.T, s *scene) {
	const n, late = 20, 1
	s.apply(t, s.owned("StatefulSet", "server", podSpec(place{node: 2}, container("main", "/bin/traffic", "serve", "-port", "7000"))))
	server := s.ready(s.ns, "server", workload{"StatefulSet", "server"})
	spec := podSpec(place{}, container("main", "/bin/traffic", "send", "-to", server.ip+":7000", "-bytes", "20000", "-back", "2000"))
	delete(spec, "nodeName")
	spec["restartPolicy"] = "Never"
	s.apply(t, object{
		"apiVersion": "batch/v1", "kind": "Job", "metadata": object{"name": "many", "namespace": s.ns},
		"spec": object{"completions": n, "parallelism": n, "backoffLimit": 0, "template": object{"spec": spec}},
	})
	checked, wrong := map[string]bool{}, 0
	// As they go: a flow is forgotten 30 s after its last packet.
	eventually(t, 90*time.Second, func() []string {
		said := s.saidByAll("job-name=many", n)
		var pods struct{ Items []object }
		s.get(t, &pods, "-n", s.ns, "pods", "-l", "job-name=many")
		var talked []pair
		for _, o := range pods.Items {
			p := s.pod(o, workload{"Job", "many"})
			if made, has := said[p.name]; has && !checked[p.name] && p.ip != "" {
				checked[p.name] = true
				here, there := s.between(made, p, server, "main")
				talked = append(talked, pair{made, here, there})
			}
		}
		wrong += s.checkBut(t, talked, late-wrong)
		if len(checked) < n {
			return []string{fmt.Sprintf("%d of %d pods have talked: %v", len(checked), n, states(pods.Items))}
		}
		return nil
	})
}

// crashLoop: each life is another container of one pod.
func crashLoop(t *testing.T, s *scene) {
	s.apply(t, s.owned("StatefulSet", "server", podSpec(place{node: 3}, container("main", "/bin/traffic", "serve", "-port", "7000"))))
	server := s.ready(s.ns, "server", workload{"StatefulSet", "server"})
	s.apply(t, s.owned("Deployment", "client", podSpec(place{node: 1}, container("main", "sh", "-c", "/bin/traffic send -to "+server.ip+":7000 -bytes 4000; exit 1"))))
	var name string
	eventually(t, 30*time.Second, func() []string {
		name = s.kubectl(t, "-n", s.ns, "get", "pods", "-l", "app=client", "-o", "jsonpath={.items[*].metadata.name}")
		if name == "" {
			return []string{"no pod"}
		}
		return nil
	})
	first := s.said(s.ns, name)
	client := s.find(s.ns, name, workload{"Deployment", "client"})
	here, there := s.between(first, client, server, "main")
	s.checkConnection(t, first, here, there)
	var second sent
	eventually(t, time.Minute, func() []string {
		out, err := s.tryLogs(s.ns, name)
		if err != nil {
			return []string{err.Error()}
		}
		for _, made := range parseSent(t, out) {
			if made.Local != first.Local {
				second = made
				return nil
			}
		}
		return []string{"no second life: " + out}
	})
	here, there = s.between(second, client, server, "main")
	s.checkConnection(t, second, here, there)
}

// owners: what a user made is named, not what controllers made of it.
func owners(t *testing.T, s *scene) {
	s.apply(t, s.owned("StatefulSet", "server", podSpec(place{node: 1}, container("main", "/bin/traffic", "serve", "-port", "7000"))), jobSetKind())
	server := s.ready(s.ns, "server", workload{"StatefulSet", "server"})
	s.kubectl(t, "wait", "--for=condition=Established", "crd/jobsets.jobset.x-k8s.io", "--timeout=30s")
	s.apply(t, object{"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "metadata": object{"name": "training", "namespace": s.ns}})
	job := func(at int) object {
		spec := podSpec(place{node: at}, container("main", "/bin/traffic", "send", "-to", server.ip+":7000"))
		spec["restartPolicy"] = "Never"
		return object{"template": object{"spec": spec}}
	}
	uid := s.kubectl(t, "-n", s.ns, "get", "jobset", "training", "-o", "jsonpath={.metadata.uid}")
	s.apply(t,
		object{"apiVersion": "batch/v1", "kind": "Job", "metadata": object{
			"name": "training-worker-0", "namespace": s.ns,
			"ownerReferences": []object{{"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "name": "training", "uid": uid, "controller": true}},
		}, "spec": job(2)},
		object{"apiVersion": "batch/v1", "kind": "CronJob", "metadata": object{"name": "nightly", "namespace": s.ns}, "spec": object{
			"schedule": "0 0 1 1 *", "jobTemplate": object{"spec": job(3)},
		}})
	s.kubectl(t, "-n", s.ns, "create", "job", "nightly-1", "--from=cronjob/nightly")
	for _, row := range []struct {
		job   string
		owner workload
	}{
		{"training-worker-0", workload{"JobSet", "training"}},
		{"nightly-1", workload{"CronJob", "nightly"}},
	} {
		var name string
		eventually(t, time.Minute, func() []string {
			name = s.kubectl(t, "-n", s.ns, "get", "pods", "-l", "job-name="+row.job, "-o", "jsonpath={.items[*].metadata.name}")
			if name == "" {
				return []string{"no pod of " + row.job}
			}
			return nil
		})
		made := s.said(s.ns, name)
		here, there := s.between(made, s.find(s.ns, name, row.owner), server, "main")
		s.checkConnection(t, made, here, there)
	}
}

// jobSetKind makes the API server know JobSets; nobody acts on them.
func jobSetKind() object {
	return object{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": object{"name": "jobsets.jobset.x-k8s.io"},
		"spec": object{
			"group": "jobset.x-k8s.io", "scope": "Namespaced",
			"names": object{"plural": "jobsets", "singular": "jobset", "kind": "JobSet", "listKind": "JobSetList"},
			"versions": []object{{
				"name": "v1alpha2", "served": true, "storage": true,
				"schema": object{"openAPIV3Schema": object{"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
			}},
		},
	}
}

// addressReused: a pod ends, and within 5 s a pod of another namespace has its
// address. Each keeps its own name, at both ends.
func addressReused(t *testing.T, s *scene) {
	other := s.ns + "-other"
	s.namespace(other)
	s.apply(t, s.owned("StatefulSet", "server", podSpec(place{node: 1}, container("main", "/bin/traffic", "serve", "-port", "7000"))))
	server := s.ready(s.ns, "server", workload{"StatefulSet", "server"})
	client := func(ns, name string) object {
		return bare(ns, name, podSpec(place{node: 3}, container("main", "/bin/traffic", "send", "-to", server.ip+":7000", "-bytes", "6000", "-linger", "1h")))
	}
	s.apply(t, client(s.ns, "before"))
	madeBefore := s.said(s.ns, "before")
	before := s.find(s.ns, "before", alone("before"))
	// The node's address management hands out the one after the last.
	last := before.ip[:strings.LastIndexByte(before.ip, '.')+1]
	var n int
	if _, err := fmt.Sscanf(before.ip[len(last):], "%d", &n); err != nil {
		t.Fatal(err)
	}
	s.kubectl(t, "-n", s.ns, "delete", "pod", "before", "--grace-period=1")
	gone := time.Now()
	s.do(t, "node", "3", "sh", "-c", fmt.Sprintf("printf %%s %s%d >/run/cni-ipam/kc/last_reserved_ip.0", last, n-1))
	s.apply(t, client(other, "after"))
	madeAfter := s.said(other, "after")
	took := time.Since(gone)
	after := s.find(other, "after", alone("after"))
	t.Logf("%s went from %s/%s to %s/%s within %v", before.ip, before.ns, before.name, after.ns, after.name, took.Round(time.Millisecond))
	if after.ip != before.ip || took > 5*time.Second {
		t.Fatalf("the address was to be reused within 5 s: %s, then %s after %v", before.ip, after.ip, took)
	}
	here, there := s.between(madeAfter, after, server, "main")
	s.checkConnection(t, madeAfter, here, there)
	here, there = s.between(madeBefore, before, server, "main")
	s.checkConnection(t, madeBefore, here, there)
}
