// SPDX-License-Identifier: Apache-2.0

package enrich

import "github.com/orb8/orb8/internal/event"

// service is what the kernel does over the network for others, by the port of
// its server: storage first, then tunnels.
type service struct {
	name     string
	tcp, udp bool
	low      uint16
	high     uint16 // 0: low is the only one
}

var services = [...]service{
	{name: "nfs", tcp: true, udp: true, low: 2049},
	{name: "nfsrdma", tcp: true, low: 20049},
	{name: "ceph", tcp: true, low: 3300},
	{name: "ceph", tcp: true, low: 6789},
	{name: "ceph", tcp: true, low: 6800, high: 7568},
	{name: "nvme", tcp: true, low: 4420},
	{name: "nvme", tcp: true, low: 8009},
	{name: "iscsi", tcp: true, low: 3260},
	{name: "smb", tcp: true, low: 445},
	{name: "lustre", tcp: true, low: 988},
	{name: "beegfs", tcp: true, udp: true, low: 8003},
	{name: "beegfs", tcp: true, udp: true, low: 8005},
	{name: "beegfs", tcp: true, udp: true, low: 8008},
	{name: "glusterfs", tcp: true, low: 24007},
	{name: "vxlan", udp: true, low: 4789},
	{name: "vxlan", udp: true, low: 8472},
	{name: "geneve", udp: true, low: 6081},
	{name: "wireguard", udp: true, low: 51820},
}

func servicePort(protocol event.Protocol, port uint16) string {
	for i := range services {
		s := &services[i]
		if (protocol == event.TCP && s.tcp || protocol == event.UDP && s.udp) &&
			(port == s.low || port > s.low && port <= s.high) {
			return s.name
		}
	}
	return ""
}

// kernelService names what a connection of the kernel's is for. The port that
// counts is the server's: a client of NFS may well have 988, which is Lustre's,
// on its own side. Tunnels have no server, so there the other port counts too.
func kernelService(f *event.Flow) string {
	c := &f.Conn
	server, client := c.RemotePort, c.LocalPort
	if f.OpenedBy == event.OpenerRemote {
		server, client = client, server
	}
	name := servicePort(c.Protocol, server)
	if name == "" && (c.Protocol == event.UDP || f.OpenedBy == event.OpenerUnknown) {
		name = servicePort(c.Protocol, client)
	}
	return name
}

func (e *Enricher) kernelParty(service string) *event.Identity {
	id := e.kernel[service]
	if id == nil {
		id = &event.Identity{Class: event.KernelService(service), Node: e.cfg.Node}
		e.kernel[service] = id
	}
	return id
}

// mayBeKernel: a socket of the kernel carries the cgroup of whoever happened to
// run when it was made. Until a listing has told, nobody gets the blame.
func (e *Enricher) mayBeKernel(f *event.Flow) bool {
	return e.cfg.Sockets != nil && f.Conn.Kind == event.ConnPlain && kernelService(f) != ""
}
