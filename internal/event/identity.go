// SPDX-License-Identifier: Apache-2.0

package event

// Class says what sort of party an end is.
type Class string

// The classes so far. Kubernetes and kernel sockets bring more.
const (
	// ClassHost is a process of the machine, or the machine itself.
	ClassHost Class = "host"
	// ClassExternal is an address outside of what orb8 knows.
	ClassExternal Class = "external"
	// ClassUnknown is never a guess: it was not possible to tell.
	ClassUnknown Class = "unknown"
)

// Identity is who an end of a connection is. It is immutable and shared: the
// flow table keeps pointers. Unknown fields are empty.
type Identity struct {
	Class                  Class
	Namespace, Pod, PodUID string
	Container              string
	Workload               Workload
	Node, Zone             string
	Labels                 map[string]string
	// Outside Kubernetes.
	Unit, Process string
	PID           uint32
	Service, FQDN string
}

// Workload is the top-level owner of a pod.
type Workload struct{ Kind, Name string }
