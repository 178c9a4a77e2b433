// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strconv"
	"testing"
)

// route is how a client addresses its server.
type route int

const (
	byAddress route = iota
	byClusterIP
	// By the name of a headless Service, which resolves to the pod.
	byHeadless
	// By the address of a node and a port of its own.
	byNodePort
)

// seesAs is what one end is to know of the other.
type seesAs int

const (
	// The pod itself.
	aPod seesAs = iota
	// The node it is on, or that translated.
	aNode
	// The Service: who serves it is decided elsewhere.
	aService
)

// connection is a row: one client, one server, TCP and UDP.
type connection struct {
	name           string
	client, server place
	by             route
	// The node whose NodePort is asked.
	through int
	// What the client's record says of the server, and the server's of the client.
	clientSees, serverSees seesAs
	// Every configuration must pass it.
	core bool
	// Its own on hosts, where ports are shared.
	port int
}

func connections() []connection {
	pod1, pod2, pod3 := place{node: 1}, place{node: 2}, place{node: 3}
	host1, host2 := place{1, true}, place{2, true}
	return []connection{
		{name: "pod to pod on one node", client: pod1, server: pod1, core: true},
		{name: "pod to pod across nodes", client: pod1, server: pod2, core: true},
		{name: "ClusterIP to a pod across nodes", client: pod1, server: pod2, by: byClusterIP, core: true},
		{name: "ClusterIP to a pod on the same node", client: pod2, server: pod2, by: byClusterIP},
		{name: "headless Service", client: pod2, server: pod3, by: byHeadless},
		{name: "NodePort of another node", client: pod3, server: pod1, by: byNodePort, through: 2, clientSees: aService, serverSees: aNode, core: true},
		{name: "NodePort of another node from a host", client: host1, server: pod3, by: byNodePort, through: 2, clientSees: aService, serverSees: aNode},
		{name: "NodePort of the own node", client: pod2, server: pod1, by: byNodePort, through: 2, serverSees: aNode},
		{name: "hostNetwork pod to pod across nodes", client: host1, server: pod2, serverSees: aNode, core: true},
		{name: "hostNetwork pod to pod on the same node", client: host2, server: pod2, serverSees: aNode},
		{name: "pod to hostNetwork pod across nodes", client: pod3, server: host1, clientSees: aNode},
		{name: "pod to hostNetwork pod on the same node", client: pod2, server: host2, clientSees: aNode},
		{name: "hostNetwork pod to ClusterIP across nodes", client: host2, server: pod3, by: byClusterIP, serverSees: aNode},
		{name: "hostNetwork pod to ClusterIP on the same node", client: host1, server: pod1, by: byClusterIP, serverSees: aNode, core: true},
	}
}

// run makes the row's client and server and checks one connection of each
// protocol.
func (r *connection) run(t *testing.T, s *scene) {
	port := strconv.Itoa(r.port)
	objects := []object{
		s.owned("Deployment", "client", podSpec(r.client, container("main", "sleep", "1000000"))),
		s.owned("StatefulSet", "server", podSpec(r.server, container("main", "/bin/traffic", "serve", "-port", port))),
	}
	switch r.by {
	case byClusterIP:
		objects = append(objects, s.service("door", "server", r.port, nil))
	case byHeadless:
		objects = append(objects, s.service("door", "server", r.port, object{"clusterIP": "None"}))
	case byNodePort:
		objects = append(objects, s.service("door", "server", r.port, object{"type": "NodePort"}))
	}
	s.apply(t, objects...)
	server := s.ready(s.ns, "server", workload{"StatefulSet", "server"})
	client := s.ready(s.ns, "client", workload{"Deployment", "client"})
	for _, protocol := range []string{"TCP", "UDP"} {
		to := r.target(s, server, protocol)
		args := []string{"send", "-to", to, "-bytes", "100000", "-back", "70000", "-times", "3"}
		if protocol == "UDP" {
			args = []string{"send", "-udp", "-to", to, "-bytes", "1000", "-back", "10", "-times", "5"}
		}
		made := s.traffic(client, "main", args...)
		s.checkConnection(t, made, r.clientView(s, made, client, server), r.serverView(s, made, client, server))
	}
}

// target is what the client is told to reach.
func (r *connection) target(s *scene, server pod, protocol string) string {
	switch r.by {
	case byClusterIP:
		return fmt.Sprintf("%s:%d", s.serviceIP("door"), r.port)
	case byHeadless:
		return fmt.Sprintf("door.%s.svc.cluster.local:%d", s.ns, r.port)
	case byNodePort:
		return fmt.Sprintf("%s:%d", nodeIP(r.through), s.nodePort("door", protocol))
	}
	return fmt.Sprintf("%s:%d", server.ip, r.port)
}

func (r *connection) clientView(s *scene, made sent, client, server pod) *view {
	v := &view{
		node: client.node, protocol: made.Protocol, openedBy: "local",
		local: parseAddress(s.t, made.Local), remote: parseAddress(s.t, made.Remote),
		localAs: s.podAs(client, "main", ""),
	}
	service := ""
	if r.by != byAddress {
		service = s.ns + "/door"
	}
	switch r.clientSees {
	case aPod:
		v.remoteAs = s.podAs(server, "", service)
	case aNode:
		v.remoteAs = s.nodeAs(server.node)
	case aService:
		v.remoteAs = who{Class: "service", Service: service, Namespace: whatever, Node: whatever, Zone: whatever}
	}
	// The client's own node translates what is addressed to a Service, unless
	// that is another node's port.
	if (r.by == byClusterIP || r.by == byNodePort) && r.clientSees == aPod {
		v.translated = &[2]address{v.local, {server.ip, uint16(r.port)}}
		if r.serverSees == aNode {
			v.translated[0] = address{} // an address of the node, any port
		}
	}
	return v
}

func (r *connection) serverView(s *scene, made sent, client, server pod) *view {
	v := &view{
		node: server.node, protocol: made.Protocol, openedBy: "remote",
		local: address{server.ip, uint16(r.port)}, remote: parseAddress(s.t, made.Local),
		localAs: s.podAs(server, "main", ""), apart: r.clientSees == aService,
	}
	switch r.serverSees {
	case aPod:
		v.remoteAs = s.podAs(client, "", "")
	case aNode:
		by := client.node
		if r.by == byNodePort {
			by = nodeName(r.through)
		}
		v.remoteAs = s.nodeAs(by)
		// Masquerade chooses another port, and the address of the way out.
		if r.by != byAddress {
			v.remote = address{}
		}
	}
	return v
}
