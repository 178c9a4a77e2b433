// SPDX-License-Identifier: Apache-2.0

package render

import (
	"io"
	"slices"
	"strings"
	"time"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// PodTable shows pods, one a row.
type PodTable struct {
	table   *Table
	columns []podColumn
	style   Style
}

type podColumn struct {
	column
	wide bool
	cell func(*PodTable, *orb8v1.PodRecord) cell
}

func podText(text func(*orb8v1.PodRecord) string) func(*PodTable, *orb8v1.PodRecord) cell {
	return func(_ *PodTable, p *orb8v1.PodRecord) cell { return cell{text: text(p)} }
}

func podTime(ns func(*orb8v1.PodRecord) int64) func(*PodTable, *orb8v1.PodRecord) cell {
	return func(t *PodTable, p *orb8v1.PodRecord) cell { return cell{text: t.style.date(ns(p))} }
}

// podColumns are all there are, in their order.
func podColumns() []podColumn {
	return []podColumn{
		{column{title: "NAMESPACE"}, false, podText((*orb8v1.PodRecord).GetNamespace)},
		{column{title: "NAME", fit: true}, false, podText((*orb8v1.PodRecord).GetName)},
		{column{title: "STATUS"}, false, podStatus},
		{column{title: "NODE", drop: 2}, false, podText((*orb8v1.PodRecord).GetNode)},
		{column{title: "IP"}, false, podText(func(p *orb8v1.PodRecord) string { return strings.Join(p.GetIps(), ",") })},
		{column{title: "WORKLOAD", fit: true, drop: 3}, false, podText(func(p *orb8v1.PodRecord) string { return workloadName(p.GetWorkload()) })},
		{column{title: "CREATED", drop: 1}, false, podTime((*orb8v1.PodRecord).GetCreatedNs)},
		{column{title: "FLOWS", right: true}, false, func(t *PodTable, p *orb8v1.PodRecord) cell { return t.style.count(p.GetFlows()) }},
		{column{title: "STARTED"}, true, podTime((*orb8v1.PodRecord).GetStartedNs)},
		{column{title: "ENDED"}, true, podTime((*orb8v1.PodRecord).GetEndedNs)},
		{column{title: "DELETED"}, true, podTime((*orb8v1.PodRecord).GetDeletedNs)},
		{column{title: "ZONE"}, true, podText((*orb8v1.PodRecord).GetZone)},
		{column{title: "HOSTNET"}, true, podText(func(p *orb8v1.PodRecord) string { return map[bool]string{true: "yes", false: "no"}[p.GetHostNetwork()] })},
		{column{title: "NETNS", right: true}, true, func(_ *PodTable, p *orb8v1.PodRecord) cell { return numberCell(p.GetNetns()) }},
		{column{title: "UID"}, true, podText((*orb8v1.PodRecord).GetUid)},
		{column{title: "CONTAINERS"}, true, podText(containerNames)},
		{column{title: "LABELS"}, true, podText(func(p *orb8v1.PodRecord) string { return labelList(p.GetLabels()) })},
		{column{title: "SEEN_BY"}, true, podText((*orb8v1.PodRecord).GetSeenBy)},
	}
}

// NewPodTable makes a table.
func NewPodTable(style Style) *PodTable {
	t := &PodTable{style: style}
	var columns []column
	for _, c := range podColumns() {
		if !c.wide || style.Wide {
			t.columns = append(t.columns, c)
			columns = append(columns, c.column)
		}
	}
	t.table = newTable(style, columns)
	return t
}

// Add takes a pod.
func (t *PodTable) Add(p *orb8v1.PodRecord) {
	cells := make([]cell, len(t.columns))
	for i, c := range t.columns {
		cells[i] = c.cell(t, p)
	}
	t.table.add(cells)
}

// Flush writes what was added.
func (t *PodTable) Flush(w io.Writer) error { return t.table.Flush(w) }

func podStatus(_ *PodTable, p *orb8v1.PodRecord) cell {
	switch {
	case p.GetDeletedNs() != 0:
		return cell{"Deleted", dim}
	case p.GetDeletingNs() != 0:
		return cell{"Terminating", yellow}
	case p.GetPhase() == "Failed":
		return cell{p.GetPhase(), red}
	}
	return cell{text: p.GetPhase()}
}

func workloadName(w *orb8v1.Workload) string {
	if w.GetKind() == "" {
		return w.GetName()
	}
	return w.GetKind() + "/" + w.GetName()
}

// containerNames leaves out those before a restart.
func containerNames(p *orb8v1.PodRecord) string {
	var names []string
	for _, c := range p.GetContainers() {
		if !slices.Contains(names, c.GetName()) {
			names = append(names, c.GetName())
		}
	}
	return strings.Join(names, ",")
}

func labelList(labels map[string]string) string {
	var list []string
	for k, v := range labels {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}

// date is a time to the second for people, else for programs; 0 is not known.
func (s Style) date(ns int64) string {
	switch {
	case ns == 0:
		return ""
	case s.Human:
		return time.Unix(0, ns).Format(time.DateTime)
	}
	return stamp(ns)
}

// podJSON is a pod as programs read it. Unknown fields are absent.
type podJSON struct {
	Namespace   string             `json:"namespace"`
	Name        string             `json:"name"`
	UID         string             `json:"uid,omitempty"`
	Node        string             `json:"node,omitempty"`
	Zone        string             `json:"zone,omitempty"`
	Workload    *workloadJSON      `json:"workload,omitempty"`
	Labels      map[string]string  `json:"labels,omitempty"`
	IPs         []string           `json:"ips"`
	HostNetwork bool               `json:"host_network"`
	Phase       string             `json:"phase,omitempty"`
	Containers  []podContainerJSON `json:"containers"`
	Netns       uint64             `json:"netns,omitempty"`
	CreatedNS   int64              `json:"created_ns,omitempty"`
	StartedNS   int64              `json:"started_ns,omitempty"`
	EndedNS     int64              `json:"ended_ns,omitempty"`
	DeletingNS  int64              `json:"deleting_ns,omitempty"`
	DeletedNS   int64              `json:"deleted_ns,omitempty"`
	Flows       uint64             `json:"flows"`
	SeenBy      string             `json:"seen_by,omitempty"`
}

type podContainerJSON struct {
	Name string `json:"name"`
	ID   string `json:"id,omitempty"`
}

// PodJSON writes a pod as one line.
func PodJSON(w io.Writer, p *orb8v1.PodRecord) error {
	j := podJSON{
		Namespace:   p.GetNamespace(),
		Name:        p.GetName(),
		UID:         p.GetUid(),
		Node:        p.GetNode(),
		Zone:        p.GetZone(),
		Workload:    newWorkloadJSON(p.GetWorkload()),
		Labels:      p.GetLabels(),
		IPs:         append([]string{}, p.GetIps()...),
		HostNetwork: p.GetHostNetwork(),
		Phase:       p.GetPhase(),
		Containers:  []podContainerJSON{},
		Netns:       p.GetNetns(),
		CreatedNS:   p.GetCreatedNs(),
		StartedNS:   p.GetStartedNs(),
		EndedNS:     p.GetEndedNs(),
		DeletingNS:  p.GetDeletingNs(),
		DeletedNS:   p.GetDeletedNs(),
		Flows:       p.GetFlows(),
		SeenBy:      p.GetSeenBy(),
	}
	for _, c := range p.GetContainers() {
		j.Containers = append(j.Containers, podContainerJSON{c.GetName(), c.GetId()})
	}
	return JSON(w, j)
}
