// SPDX-License-Identifier: Apache-2.0

package event

// Class says what sort of party an end is.
type Class string

// The classes.
const (
	// ClassPod is a pod, with its container where that is known.
	ClassPod Class = "pod"
	// ClassService is a Service of which it is not known who serves it.
	ClassService Class = "service"
	// ClassNode is a node of the cluster: some process there, or one behind the
	// node's address translation.
	ClassNode Class = "node"
	// ClassAPIServer is the cluster's API server.
	ClassAPIServer Class = "apiserver"
	// ClassHost is a process of the machine, or the machine itself.
	ClassHost Class = "host"
	// ClassContainer is a container that Kubernetes does not know.
	ClassContainer Class = "container"
	// ClassKernel is the kernel itself: no process has such a socket. Where the
	// port tells what it is for, the class is "kernel:SERVICE".
	ClassKernel Class = "kernel"
	// ClassExternal is an address outside of what orb8 knows.
	ClassExternal Class = "external"
	// ClassUnknown is never a guess: it was not possible to tell.
	ClassUnknown Class = "unknown"
)

// KernelService is the class of the kernel's sockets of a service; "" is not
// known.
func KernelService(service string) Class {
	if service == "" {
		return ClassKernel
	}
	return ClassKernel + ":" + Class(service)
}

// Identity is who an end of a connection is. It is immutable and shared: the
// flow table keeps pointers. Unknown fields are empty.
type Identity struct {
	Class                  Class
	Namespace, Pod, PodUID string
	// In a pod the container's name; else, and until that is known, the whole id
	// that its runtime gave it.
	Container  string
	Workload   Workload
	Node, Zone string
	Labels     map[string]string
	// Outside Kubernetes.
	Unit, Process string
	PID           uint32
	// Namespace/name of the Service that the other end asked for.
	Service string
	// Of an address outside, and where that name is from.
	FQDN       string
	FQDNSource NameSource
}

// NameSource is where the name of an address outside is from.
type NameSource string

// NameDNS: the local end asked for it and was answered with the address. NameSNI:
// the local end said it as it began to speak TLS. NameCIDR: the list of names that
// the agent was given.
const (
	NameDNS  NameSource = "dns"
	NameSNI  NameSource = "sni"
	NameCIDR NameSource = "cidr"
)

// Workload is the top-level owner of a pod.
type Workload struct{ Kind, Name string }
