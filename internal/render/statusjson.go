// SPDX-License-Identifier: Apache-2.0

package render

import (
	"io"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// statusJSON is the state of a node as programs read it. A node that did not
// answer has only its name and the error.
type statusJSON struct {
	Node  string `json:"node"`
	Error string `json:"error,omitempty"`
	*answeredJSON
}

type answeredJSON struct {
	Version         string          `json:"version"`
	Healthy         bool            `json:"healthy"`
	HealthMessage   string          `json:"health_message,omitempty"`
	UptimeNS        int64           `json:"uptime_ns"`
	AgentInstance   string          `json:"agent_instance,omitempty"`
	Epoch           uint64          `json:"epoch"`
	EventsProcessed uint64          `json:"events_processed"`
	EventsDropped   uint64          `json:"events_dropped"`
	PodsTracked     uint32          `json:"pods_tracked"`
	ActiveFlows     uint32          `json:"active_flows"`
	MaxFlows        uint32          `json:"max_flows"`
	Namespaces      []namespaceJSON `json:"namespaces"`
	Interfaces      []interfaceJSON `json:"interfaces"`
	Losses          []lossJSON      `json:"losses"`
	Notes           []string        `json:"notes"`
	GPU             *gpuStatusJSON  `json:"gpu,omitempty"`
	Cost            *costJSON       `json:"cost,omitempty"`
}

type namespaceJSON struct {
	Netns      uint64 `json:"netns"`
	Name       string `json:"name,omitempty"`
	Own        bool   `json:"own"`
	Tapped     bool   `json:"tapped"`
	UntappedNS int64  `json:"untapped_ns"`
	Problem    string `json:"problem,omitempty"`
}

type interfaceJSON struct {
	Interface string     `json:"interface"`
	Namespace string     `json:"namespace,omitempty"`
	Ifindex   uint32     `json:"ifindex,omitempty"`
	Netns     uint64     `json:"netns,omitempty"`
	Attached  string     `json:"attached"`
	State     string     `json:"state"`
	Note      string     `json:"note,omitempty"`
	Ingress   *auditJSON `json:"ingress,omitempty"`
	Egress    *auditJSON `json:"egress,omitempty"`
}

type auditJSON struct {
	Flows              counterJSON `json:"flows"`
	Remainder          counterJSON `json:"remainder"`
	Overflow           counterJSON `json:"overflow"`
	Forwarded          counterJSON `json:"forwarded"`
	Carried            counterJSON `json:"carried"`
	NotIP              counterJSON `json:"not_ip"`
	Malformed          counterJSON `json:"malformed"`
	Counted            counterJSON `json:"counted"`
	Segmentation       counterJSON `json:"segmentation"`
	Interface          counterJSON `json:"interface"`
	DroppedPackets     uint64      `json:"dropped_packets"`
	UnaccountedBytes   int64       `json:"unaccounted_bytes"`
	UnaccountedPackets int64       `json:"unaccounted_packets"`
}

type counterJSON struct {
	Bytes   uint64 `json:"bytes"`
	Packets uint64 `json:"packets"`
}

type lossJSON struct {
	Stage string `json:"stage"`
	Count uint64 `json:"count"`
	Hint  string `json:"hint,omitempty"`
}

type costJSON struct {
	CPUSeconds     float64 `json:"cpu_seconds"`
	ResidentBytes  uint64  `json:"resident_bytes"`
	KernelMapBytes uint64  `json:"kernel_map_bytes"`
}

// StatusJSON writes the state of one node as one line.
func StatusJSON(w io.Writer, n *orb8v1.NodeStatus) error {
	line := statusJSON{Node: n.GetNode(), Error: n.GetError()}
	if n.GetError() == "" {
		line.answeredJSON = newAnsweredJSON(n)
	}
	return JSON(w, line)
}

func newAnsweredJSON(n *orb8v1.NodeStatus) *answeredJSON {
	j := &answeredJSON{
		Version:         n.GetVersion(),
		Healthy:         n.GetHealthy(),
		HealthMessage:   n.GetHealthMessage(),
		UptimeNS:        n.GetUptimeNs(),
		AgentInstance:   hexID(n.GetAgentInstance()),
		Epoch:           n.GetEpoch(),
		EventsProcessed: n.GetEventsProcessed(),
		EventsDropped:   n.GetEventsDropped(),
		PodsTracked:     n.GetPodsTracked(),
		ActiveFlows:     n.GetActiveFlows(),
		MaxFlows:        n.GetMaxFlows(),
		// Lists are lists, also when empty.
		Namespaces: []namespaceJSON{},
		Interfaces: []interfaceJSON{},
		Losses:     []lossJSON{},
		Notes:      append([]string{}, n.GetNotes()...),
		GPU:        newGPUStatusJSON(n.GetGpu()),
	}
	for _, s := range n.GetNamespaces() {
		j.Namespaces = append(j.Namespaces, namespaceJSON{
			s.GetNetns(), s.GetName(), s.GetOwn(), s.GetTappedSinceNs() != 0, s.GetUntappedNs(), s.GetProblem(),
		})
	}
	for _, i := range n.GetInterfaces() {
		j.Interfaces = append(j.Interfaces, interfaceJSON{
			i.GetTap().GetInterface(), i.GetNamespace(), i.GetTap().GetIfindex(), i.GetTap().GetNetns(),
			i.GetAttached(), i.GetState(), i.GetNote(), newAuditJSON(i.GetIngress()), newAuditJSON(i.GetEgress()),
		})
	}
	for _, l := range n.GetLosses() {
		j.Losses = append(j.Losses, lossJSON{l.GetStage(), l.GetCount(), l.GetHint()})
	}
	if c := n.GetCost(); c != nil {
		j.Cost = &costJSON{c.GetCpuSeconds(), c.GetResidentBytes(), c.GetKernelMapBytes()}
	}
	return j
}

func newAuditJSON(a *orb8v1.Audit) *auditJSON {
	if a == nil {
		return nil
	}
	counter := func(c *orb8v1.Counter) counterJSON { return counterJSON{c.GetBytes(), c.GetPackets()} }
	return &auditJSON{
		counter(a.GetFlows()), counter(a.GetRemainder()), counter(a.GetOverflow()),
		counter(a.GetForwarded()), counter(a.GetCarried()), counter(a.GetNotIp()), counter(a.GetMalformed()), counter(a.GetCounted()), counter(a.GetSegmentation()), counter(a.GetInterface()),
		a.GetDroppedPackets(), a.GetUnaccountedBytes(), a.GetUnaccountedPackets(),
	}
}
