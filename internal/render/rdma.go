// SPDX-License-Identifier: Apache-2.0

package render

import (
	"strconv"
	"strings"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// rdmaColumns are all there are of ports, in their order.
func rdmaColumns() []gpuColumn {
	port := func(show func(Style, *orb8v1.RdmaPort) cell) func(gpuRow) cell {
		return func(r gpuRow) cell {
			if r.port == nil {
				return cell{}
			}
			return show(r.style, r.port)
		}
	}
	device := func(of func(*orb8v1.RdmaDevice) string) func(gpuRow) cell {
		return func(r gpuRow) cell { return cell{text: of(r.rdma)} }
	}
	traffic := func(traffic func(*orb8v1.RdmaPort) *orb8v1.Traffic, show func(Style, uint64) cell, of func(*orb8v1.Traffic) uint64) func(gpuRow) cell {
		return port(func(s Style, p *orb8v1.RdmaPort) cell {
			if traffic(p) == nil {
				return cell{}
			}
			return show(s, of(traffic(p)))
		})
	}
	moved, total := (*orb8v1.RdmaPort).GetMoved, (*orb8v1.RdmaPort).GetTotal
	return []gpuColumn{
		{false, column{title: "NODE", drop: 4}, func(r gpuRow) cell { return cell{text: r.node} }},
		{false, column{title: "DEVICE", fit: true}, device((*orb8v1.RdmaDevice).GetName)},
		{false, gpuNumber("PORT", "", 2), port(func(_ Style, p *orb8v1.RdmaPort) cell { return numberCell(uint64(p.GetPort())) })},
		{false, column{title: "NETDEV", drop: 3}, device(func(d *orb8v1.RdmaDevice) string { return words(d.GetNetdevs()) })},
		{true, column{title: "PCI"}, device((*orb8v1.RdmaDevice).GetPci)},
		{true, gpuNumber("NUMA", "", 0), func(r gpuRow) cell { return optional(r.rdma.NumaNode) }},
		{true, gpuNumber("NETNS", "", 0), func(r gpuRow) cell { return numberCell(r.rdma.GetNetns()) }},
		{true, column{title: "LINK"}, port(func(_ Style, p *orb8v1.RdmaPort) cell { return cell{text: p.GetLinkLayer()} })},
		{false, column{title: "STATE"}, port(portState)},
		{false, gpuNumber("RATE", "RATE_BITS/S", 5), port(Style.portRate)},
		{false, gpuNumber("TX/S", "TX_BYTES/S", 0), traffic(moved, Style.bytes, (*orb8v1.Traffic).GetTxBytes)},
		{false, gpuNumber("RX/S", "RX_BYTES/S", 0), traffic(moved, Style.bytes, (*orb8v1.Traffic).GetRxBytes)},
		{true, gpuNumber("TX_PKTS/S", "TX_PACKETS/S", 0), traffic(moved, Style.count, (*orb8v1.Traffic).GetTxPackets)},
		{true, gpuNumber("RX_PKTS/S", "RX_PACKETS/S", 0), traffic(moved, Style.count, (*orb8v1.Traffic).GetRxPackets)},
		{true, gpuNumber("TX", "TX_BYTES", 0), traffic(total, Style.bytes, (*orb8v1.Traffic).GetTxBytes)},
		{true, gpuNumber("RX", "RX_BYTES", 0), traffic(total, Style.bytes, (*orb8v1.Traffic).GetRxBytes)},
		{false, gpuNumber("CONGESTION", "", 6), port(func(s Style, p *orb8v1.RdmaPort) cell { return s.lastMinute(p, "congestion", yellow) })},
		{false, gpuNumber("ERRORS", "", 7), port(func(s Style, p *orb8v1.RdmaPort) cell { return s.lastMinute(p, "error", red) })},
		{true, column{title: "COUNTERS"}, port(func(_ Style, p *orb8v1.RdmaPort) cell { return cell{text: countersNow(p)} })},
		{false, column{title: "GPUS", fit: true, drop: 8}, gpuRow.nearest},
		{false, column{title: "NEAR", drop: 1}, device((*orb8v1.RdmaDevice).GetDistance)},
		{true, column{title: "SHARED"}, device(func(d *orb8v1.RdmaDevice) string { return yes(d.GetShared()) })},
		{false, column{title: "HOLDERS", fit: true}, func(r gpuRow) cell { return cell{text: r.style.holderNames(r.rdma.GetHolders())} }},
	}
}

// portState: what is not up says how far it is.
func portState(_ Style, p *orb8v1.RdmaPort) cell {
	if p.GetState() == "ACTIVE" {
		return cell{p.GetState(), green}
	}
	text := p.GetState()
	if p.GetPhysicalState() != "" {
		text += "/" + p.GetPhysicalState()
	}
	return cell{text, yellow}
}

func (s Style) portRate(p *orb8v1.RdmaPort) cell {
	switch {
	case p.GetRate() == 0:
		return cell{}
	case s.Human:
		return cell{text: strconv.FormatFloat(float64(p.GetRate())/1e9, 'g', 4, 64) + "Gb/s"}
	}
	return cell{text: strconv.FormatUint(p.GetRate(), 10)}
}

// lastMinute is the sum of the counters of a kind; "-" where the port has none.
func (s Style) lastMinute(p *orb8v1.RdmaPort, kind string, t tone) cell {
	has, sum := false, uint64(0)
	for _, c := range p.GetCounters() {
		if c.GetKind() == kind {
			has, sum = true, sum+c.GetLastMinute()
		}
	}
	if !has {
		return cell{}
	}
	c := s.count(sum)
	if sum > 0 {
		c.tone = t
	}
	return c
}

// countersNow are those that grew in the last minute.
func countersNow(p *orb8v1.RdmaPort) string {
	var list []string
	for _, c := range p.GetCounters() {
		if c.GetLastMinute() > 0 {
			list = append(list, c.GetName()+"="+strconv.FormatUint(c.GetLastMinute(), 10))
		}
	}
	return words(list)
}

// nearest are the GPUs next to it, by index where they are known.
func (r gpuRow) nearest() cell {
	var list []string
	for _, uuid := range r.rdma.GetNearestGpus() {
		switch d := r.known[uuid]; {
		case d != nil && !r.style.Wide:
			list = append(list, gpuLabel(d))
		case r.style.Human && !r.style.Wide:
			list = append(list, shortUUID(uuid))
		default:
			list = append(list, uuid)
		}
	}
	return cell{text: words(list)}
}

// shortUUID tells devices of a cluster apart: GPU-8c4f2d1a.
func shortUUID(uuid string) string {
	if i := strings.IndexByte(uuid, '-'); i >= 0 {
		if j := strings.IndexByte(uuid[i+1:], '-'); j >= 0 {
			return uuid[:i+1+j]
		}
	}
	return uuid
}
