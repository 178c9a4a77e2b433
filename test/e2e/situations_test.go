// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// situation is a row that takes more than a client and a server.
type situation struct {
	name string
	run  func(*testing.T, *scene)
	core bool
}

func situations() []situation {
	return []situation{
		{name: "hairpin to itself through a Service", run: hairpin, core: true},
		{name: "two hostNetwork pods to one pod", run: twoHostPods, core: true},
		{name: "two containers of one pod", run: twoContainers},
		{name: "pod to the API server", run: podToAPIServer, core: true},
		{name: "the agent to the API server", run: agentToAPIServer, core: true},
		{name: "kubelet probes", run: kubeletProbes},
		{name: "ICMP between pods", run: ping, core: true},
		{name: "DNS to CoreDNS", run: toCoreDNS, core: true},
		{name: "DNS by three resolvers", run: threeResolvers, core: true},
		{name: "DNS from upstream and from the cache", run: upstreamAndCache},
		{name: "names of the outside", run: namesOfTheOutside, core: true},
		{name: "two names of one address", run: twoNames},
		{name: "a pod that lives 2 s", run: shortLived},
		{name: "a pod in CrashLoop", run: crashLoop},
		{name: "owners to the top", run: owners},
		{name: "filters", run: filters},
		{name: "what a policy drops", run: policyDrops},
		{name: "loss between two nodes", run: lossBetweenNodes},
		{name: "NFS", run: nfs},
	}
}

// pair makes a Deployment and a StatefulSet, as the rows of connections have.
func (s *scene) pair(client, server place, port int, more ...object) (pod, pod) {
	t := s.t
	t.Helper()
	s.apply(t, append(more,
		s.owned("Deployment", "client", podSpec(client, container("main", "sleep", "1000000"))),
		s.owned("StatefulSet", "server", podSpec(server, container("main", "/bin/traffic", "serve", "-port", fmt.Sprint(port)))),
	)...)
	there := s.ready(s.ns, "server", workload{"StatefulSet", "server"})
	return s.ready(s.ns, "client", workload{"Deployment", "client"}), there
}

// between are the views of a connection from pod to pod by address.
func (s *scene) between(made sent, client, server pod, container string) (*view, *view) {
	t := s.t
	t.Helper()
	here := &view{
		node: client.node, protocol: made.Protocol, openedBy: "local",
		local: parseAddress(t, made.Local), remote: parseAddress(t, made.Remote),
		localAs: s.podAs(client, container, ""), remoteAs: s.podAs(server, "", ""),
	}
	there := &view{
		node: server.node, protocol: made.Protocol, openedBy: "remote",
		local: here.remote, remote: here.local,
		localAs: s.podAs(server, "main", ""), remoteAs: s.podAs(client, "", ""),
	}
	if client.host {
		there.remoteAs = s.nodeAs(client.node)
	}
	return here, there
}

// hairpin: a pod that asks its own Service is answered by itself. Its node
// masquerades, so the server sees the node, or itself, and never another pod.
func hairpin(t *testing.T, s *scene) {
	s.apply(t, s.service("door", "server", 7200, nil),
		s.owned("StatefulSet", "server", podSpec(place{node: 3}, container("main", "/bin/traffic", "serve", "-port", "7200"))))
	p := s.ready(s.ns, "server", workload{"StatefulSet", "server"})
	made := s.traffic(p, "main", "send", "-to", s.serviceIP("door")+":7200", "-bytes", "50000", "-back", "3000")
	client := &view{
		node: p.node, protocol: "TCP", openedBy: "local",
		local: parseAddress(t, made.Local), remote: parseAddress(t, made.Remote),
		localAs: s.podAs(p, "main", ""), remoteAs: s.podAs(p, "", s.ns+"/door"),
		translated: &[2]address{{}, {p.ip, 7200}},
	}
	server := &view{
		node: p.node, protocol: "TCP", openedBy: "remote", local: address{p.ip, 7200},
		localAs: s.podAs(p, "main", ""), remoteAs: s.nodeAs(p.node),
	}
	if there, _ := s.look(server); there != nil && there.Remote.IP == p.ip {
		server.remoteAs = s.podAs(p, "", "")
	}
	s.checkConnection(t, made, client, server)
}

func twoHostPods(t *testing.T, s *scene) {
	host := place{1, true}
	s.apply(t,
		s.owned("Deployment", "left", podSpec(host, container("main", "sleep", "1000000"))),
		s.owned("DaemonSet", "right", object{
			"hostNetwork": true, "containers": []object{container("main", "sleep", "1000000")}, "terminationGracePeriodSeconds": 1,
			"nodeSelector": object{"kubernetes.io/hostname": "node1"}, "automountServiceAccountToken": false,
		}),
		s.owned("StatefulSet", "server", podSpec(place{node: 2}, container("main", "/bin/traffic", "serve", "-port", "7000"))))
	server := s.ready(s.ns, "server", workload{"StatefulSet", "server"})
	left := s.ready(s.ns, "left", workload{"Deployment", "left"})
	right := s.ready(s.ns, "right", workload{"DaemonSet", "right"})
	for _, client := range []pod{left, right} {
		made := s.traffic(client, "main", "send", "-to", server.ip+":7000", "-bytes", "5000", "-back", "500")
		here, there := s.between(made, client, server, "main")
		s.checkConnection(t, made, here, there)
	}
}

func twoContainers(t *testing.T, s *scene) {
	s.apply(t,
		s.owned("Deployment", "client", podSpec(place{node: 1}, container("first", "sleep", "1000000"), container("second", "sleep", "1000000"))),
		s.owned("StatefulSet", "server", podSpec(place{node: 3}, container("main", "/bin/traffic", "serve", "-port", "7000"))))
	server := s.ready(s.ns, "server", workload{"StatefulSet", "server"})
	client := s.ready(s.ns, "client", workload{"Deployment", "client"})
	for _, name := range []string{"first", "second"} {
		made := s.traffic(client, name, "send", "-to", server.ip+":7000", "-bytes", "5000", "-back", "500")
		here, there := s.between(made, client, server, name)
		s.checkConnection(t, made, here, there)
	}
}

// podToAPIServer: by the Service that every pod is given, and by address. What
// the API server counts nobody knows; the program stops at the first byte.
func podToAPIServer(t *testing.T, s *scene) {
	s.apply(t, s.owned("Deployment", "client", podSpec(place{node: 2}, container("main", "sleep", "1000000"))))
	client := s.ready(s.ns, "client", workload{"Deployment", "client"})
	for _, to := range []address{{"10.96.0.1", 443}, {"172.30.0.1", 6443}} {
		local := s.shake(client, to)
		v := &view{
			node: client.node, protocol: "TCP", openedBy: "local", local: local, remote: to,
			localAs: s.podAs(client, "main", ""), remoteAs: who{Class: "apiserver", Namespace: whatever},
		}
		if to.Port == 443 {
			v.remoteAs.Service = "default/kubernetes"
			v.translated = &[2]address{local, {"172.30.0.1", 6443}}
		}
		eventually(t, 20*time.Second, func() []string {
			r, complaints := s.look(v)
			if r != nil && (r.TxPackets < 3 || r.RxPackets < 2) {
				complaints = append(complaints, "packets are missing: "+r.text)
			}
			return complaints
		})
	}
}

// shake opens and closes a connection, and gives its own end.
func (s *scene) shake(client pod, to address) address {
	t := s.t
	t.Helper()
	return parseAddress(t, s.traffic(client, "main", "shake", "-to", to.String()).Local)
}

// agentToAPIServer: the agents watch through the Service, from the hosts'
// network; each agent names itself.
func agentToAPIServer(t *testing.T, s *scene) {
	var pods struct{ Items []object }
	s.get(t, &pods, "-n", "orb8-system", "pods", "-l", "app=orb8-agent")
	for _, o := range pods.Items {
		agent := s.pod(o, workload{"DaemonSet", "orb8-agent"})
		eventually(t, 20*time.Second, func() []string {
			all, err := s.flows(agent.node)
			if err != nil {
				return []string{err.Error()}
			}
			complaints := []string{"no connection of " + agent.name + " to the API server"}
			for _, r := range all {
				if r.Local.IP != agent.ip || r.Local.Process != "orb8-agent" || (r.Remote.Port != 443 && r.Remote.Port != 6443) {
					continue
				}
				// The connection is older than the agent's listing of itself.
				v := &view{node: agent.node, localAs: s.podAs(agent, "agent", ""), remoteAs: who{Class: "apiserver", Service: "default/kubernetes", Namespace: whatever}}
				v.translated = &[2]address{{}, {"172.30.0.1", 6443}}
				if complaints = v.differs(&r); len(complaints) == 0 {
					return nil
				}
			}
			return complaints
		})
	}
}

// kubeletProbes: the node asks its own pods.
func kubeletProbes(t *testing.T, s *scene) {
	// For a while nothing listens, as where the machine is slow: probes are refused.
	main := container("main", "sh", "-c", "sleep 2; exec /bin/traffic serve -port 7000")
	main["readinessProbe"] = object{"tcpSocket": object{"port": 7000}, "periodSeconds": 1}
	s.apply(t, s.owned("Deployment", "server", podSpec(place{node: 1}, main)))
	p := s.ready(s.ns, "server", workload{"Deployment", "server"})
	eventually(t, 20*time.Second, func() []string {
		all, err := s.flows(p.node)
		if err != nil {
			return []string{err.Error()}
		}
		complaints, probes, kubelets := []string{}, 0, 0
		for _, r := range all {
			switch {
			case r.Local.address == (address{p.ip, 7000}):
				v := &view{node: p.node, localAs: s.podAs(p, "main", ""), remoteAs: s.nodeAs(p.node)}
				if r.Failure == "refused" { // by the kernel: it is nobody's container that refuses
					v.localAs.Container = ""
				}
				complaints = append(complaints, v.differs(&r)...)
				probes++
			case r.Remote.address == (address{p.ip, 7000}) && r.Local.Process == "kubelet":
				if d := s.podAs(p, "", "").differs("remote", r.Remote.who); len(d) > 0 || r.Local.Class != "host" {
					complaints = append(append(complaints, "kubelet's end must be class host: "+r.text), d...)
				}
				kubelets++
			}
		}
		if probes == 0 || kubelets == 0 {
			complaints = append(complaints, fmt.Sprintf("%d probes at the pod, %d of kubelet; want both", probes, kubelets))
		}
		return complaints
	})
}

func ping(t *testing.T, s *scene) {
	client, server := s.pair(place{node: 1}, place{node: 2}, 7000)
	s.kubectl(t, "-n", s.ns, "exec", client.name, "--", "ping", "-c", "3", "-i", "0.2", "-s", "56", server.ip)
	made := sent{Protocol: "ICMP", Local: client.ip + ":0", Remote: server.ip + ":0"}
	here, there := s.between(made, client, server, "main")
	// The kernel answers a ping: nobody's container does.
	there.localAs.Container = ""
	s.checkConnection(t, made, here, there)
	r, _ := s.look(here)
	if r == nil || r.TxPackets != 3 || r.RxPackets != 3 || r.TxBytes != 3*98 || r.RxBytes != 3*98 {
		t.Errorf("three echoes of 98 bytes each way, got %+v", r)
	}
}

func toCoreDNS(t *testing.T, s *scene) {
	s.apply(t, s.owned("Deployment", "client", podSpec(place{node: 3}, container("main", "sleep", "1000000"))))
	client := s.ready(s.ns, "client", workload{"Deployment", "client"})
	server := s.coreDNS()
	made := s.traffic(client, "main", "resolve", "-to", "10.96.0.10:53", "-name", "kube-dns.kube-system.svc.cluster.local")
	here, there := s.between(made, client, server, "main")
	here.remoteAs.Service = "kube-system/kube-dns"
	here.translated = &[2]address{here.local, {server.ip, 53}}
	there.local, there.localAs.Container = address{server.ip, 53}, "coredns"
	s.checkConnection(t, made, here, there)
}

// filters: what is asked for is all that comes.
func filters(t *testing.T, s *scene) {
	client, server := s.pair(place{node: 2}, place{node: 1}, 7000, s.service("door", "server", 7000, nil))
	made := s.traffic(client, "main", "send", "-to", s.serviceIP("door")+":7000")
	ours := func(r *record) bool {
		return r.Local.Namespace == s.ns && r.Local.address == parseAddress(t, made.Local)
	}
	for _, args := range [][]string{
		{"--namespace", s.ns},
		{"--pod", client.name},
		{"--workload", "Deployment/client", "-n", s.ns},
		{"--service", s.ns + "/door"},
		{"--from-namespace", s.ns, "--from-pod", client.name},
		{"--to-pod", server.name, "--to-workload", "server", "--to-service", "door"},
		{"--from-node", client.node, "--to-node", server.node, "-n", s.ns},
		{"--ip", server.ip, "--port", "7000"},
	} {
		eventually(t, 20*time.Second, func() []string {
			out, _, err := s.ask(append([]string{"flows", "-o", "json", "--node", client.node}, args...)...)
			if err != nil {
				return []string{err.Error()}
			}
			all, err := parseRecords(out)
			if err != nil {
				return []string{err.Error()}
			}
			if !slices.ContainsFunc(all, func(r record) bool { return ours(&r) }) {
				return []string{fmt.Sprintf("%v: the connection is not among %d", args, len(all))}
			}
			for _, r := range all {
				if r.Node != client.node {
					return []string{fmt.Sprintf("%v: a record of %s: %s", args, r.Node, r.text)}
				}
			}
			return nil
		})
	}
	for _, args := range [][]string{
		{"--namespace", s.ns, "--not-pod", client.name + "," + server.name},
		{"--from-pod", server.name, "-n", s.ns, "--protocol", "tcp"},
		{"--pod", "nobody"},
	} {
		out, _, err := s.ask(append([]string{"flows", "-o", "json"}, args...)...)
		if err != nil || strings.TrimSpace(out) != "" {
			t.Errorf("%v: %v, got %s; want nothing", args, err, out)
		}
	}
	out, _, err := s.ask("pods", "-o", "json", "--namespace", s.ns)
	if err != nil || !strings.Contains(out, client.name) || !strings.Contains(out, server.name) {
		t.Errorf("orb8 pods: %v, got %s; want %s and %s", err, out, client.name, server.name)
	}
}

// nfs says who covers a kernel's own sockets where this kernel has none.
func nfs(t *testing.T, _ *scene) {
	_ = exec.Command("modprobe", "nfsv4").Run()
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(known), "\tnfs4\n") {
		t.Log("this kernel has no NFS: that the kernel's own sockets are class kernel:nfs, and nobody's, is covered by the tests of internal/enrich and internal/probe/socket")
		return
	}
	t.Error("this kernel has NFS, and no row mounts it yet: add one")
}
