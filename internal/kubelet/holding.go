// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"cmp"
	"slices"

	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// maxHoldings are kept of an answer.
const maxHoldings = 16384

// holdings makes one of each device, and counts those that find no room.
func holdings(answer *podresources.ListPodResourcesResponse) (list []Holding, lost uint64) {
	add := func(h Holding) {
		if len(list) < maxHoldings {
			list = append(list, h)
		} else {
			lost++
		}
	}
	for _, pod := range answer.GetPodResources() {
		for _, c := range pod.GetContainers() {
			h := Holding{Namespace: pod.GetNamespace(), Pod: pod.GetName(), Container: c.GetName()}
			for _, d := range c.GetDevices() {
				h.Resource, h.NUMA = d.GetResourceName(), node(d.GetTopology())
				for _, h.ID = range d.GetDeviceIds() {
					add(h)
				}
			}
			h.Resource, h.NUMA = "", -1
			for _, r := range c.GetDynamicResources() {
				for _, d := range r.GetClaimResources() {
					h.ID, h.Claim = d.GetDeviceName(), claim(r, d)
					add(h)
				}
			}
		}
	}
	slices.SortFunc(list, Holding.compare)
	return list, lost
}

func node(t *podresources.TopologyInfo) int {
	if nodes := t.GetNodes(); len(nodes) == 1 {
		return int(nodes[0].GetID())
	}
	return -1
}

func claim(r *podresources.DynamicResource, d *podresources.ClaimResource) *Claim {
	c := &Claim{
		Namespace: r.GetClaimNamespace(), Name: r.GetClaimName(),
		Driver: d.GetDriverName(), Pool: d.GetPoolName(), Device: d.GetDeviceName(),
	}
	for _, cdi := range d.GetCdiDevices() {
		c.CDI = append(c.CDI, cdi.GetName())
	}
	return c
}

func (h Holding) compare(o Holding) int {
	return cmp.Or(
		cmp.Compare(h.Namespace, o.Namespace), cmp.Compare(h.Pod, o.Pod), cmp.Compare(h.Container, o.Container),
		cmp.Compare(h.Resource, o.Resource), cmp.Compare(h.ID, o.ID), h.Claim.compare(o.Claim))
}

func (h Holding) equal(o Holding) bool { return h.compare(o) == 0 && h.NUMA == o.NUMA }

func (c *Claim) compare(o *Claim) int {
	switch {
	case c == nil && o == nil:
		return 0
	case c == nil:
		return -1
	case o == nil:
		return 1
	}
	return cmp.Or(
		cmp.Compare(c.Namespace, o.Namespace), cmp.Compare(c.Name, o.Name), cmp.Compare(c.Driver, o.Driver),
		cmp.Compare(c.Pool, o.Pool), cmp.Compare(c.Device, o.Device), slices.Compare(c.CDI, o.CDI))
}
