// SPDX-License-Identifier: Apache-2.0

package prom

import (
	"slices"
	"strconv"

	dto "github.com/prometheus/client_model/go"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/export/meter"
)

// port is a port of an RDMA device, and the only one who is known to use it.
type port struct{ device, port, namespace, pod, mode string }

func (p *port) labels(more ...string) []*dto.LabelPair {
	return labels(append(more, "device", p.device, "port", p.port, "namespace", p.namespace, "pod", p.pod, "mode", p.mode)...)
}

func ofPort(d *event.RDMADevice, number uint32) port {
	p := port{device: meter.Clean(d.Name), port: strconv.FormatUint(uint64(number), 10), mode: "exclusive"}
	if d.Shared {
		p.mode = "shared"
	}
	if len(d.Holders) == 1 && d.Holders[0].Class == event.ClassPod {
		p.namespace, p.pod = meter.Clean(d.Holders[0].Namespace), meter.Clean(d.Holders[0].Pod)
	}
	return p
}

// wire tells a port's counter from others, whoever uses the port.
type wire struct {
	device        string
	netns, port   uint32
	name          string
	packets, sent bool
}

// told is what was counted when it was last told, and in which round.
type told struct{ n, round uint64 }

// away is for how many rounds a device may not answer, and what it has counted is
// not counted once more.
const away = 240

// rdma tells of RDMA devices. What a port moved falls to who uses it when that is
// told: the kernel counts by port.
func (x *exposition) rdma(v *event.GPUView) {
	r := &rdmaFamilies{
		exposition: x,
		bytes:      &rising{family: x.counter("orb8_rdma_bytes_total", "Bytes that the port sent (egress) and received (ingress), since the agent first told of it.")},
		packets:    &rising{family: x.counter("orb8_rdma_packets_total", "Packets that the port sent (egress) and received (ingress), since the agent first told of it.")},
		congestion: &rising{family: x.counter("orb8_rdma_congestion_total", "What tells that the net is full, or loses, by the kernel's name of the counter.")},
		errors:     &rising{family: x.counter("orb8_rdma_errors_total", "What tells that something is broken, by the kernel's name of the counter.")},
		up:         x.gauge("orb8_rdma_link_up", "1: the port is active."),
		rate:       x.gauge("orb8_rdma_link_rate_bytes_per_second", "What the port's link can carry, in each direction."),
		info:       x.gauge("orb8_rdma_info", "1, with what the device is as labels. Gpu_uuid is of the nearest GPU, and distance how near."),
	}
	for i := range v.RDMA {
		d := &v.RDMA[i]
		for j := range d.Ports {
			r.port(d, &d.Ports[j])
		}
	}
	for at, was := range x.wires {
		if was.round+away < x.round {
			delete(x.wires, at)
		}
	}
	for _, f := range [...]*rising{r.bytes, r.packets, r.congestion, r.errors} {
		f.done()
	}
}

type rdmaFamilies struct {
	*exposition
	bytes, packets, congestion, errors *rising
	up, rate, info                     *family
}

func (r *rdmaFamilies) port(d *event.RDMADevice, p *event.RDMAPort) {
	w := ofPort(d, p.Number)
	r.describe(d, p, w)
	at := wire{device: d.Name, netns: d.Netns, port: p.Number}
	if p.TotalKnown {
		for _, c := range [...]struct {
			to            *rising
			kind          kind
			packets, sent bool
			n             uint64
		}{
			{r.bytes, rdmaBytes, false, true, p.Total.TxBytes},
			{r.bytes, rdmaBytes, false, false, p.Total.RxBytes},
			{r.packets, rdmaPackets, true, true, p.Total.TxPackets},
			{r.packets, rdmaPackets, true, false, p.Total.RxPackets},
		} {
			at.packets, at.sent = c.packets, c.sent
			direction := "ingress"
			if c.sent {
				direction = "egress"
			}
			r.rise(c.to, key{w, c.kind, direction}, r.moved(at, c.n), func() []*dto.LabelPair { return w.labels("direction", direction) })
		}
	}
	for _, c := range p.Counters {
		to := r.errors
		switch c.Kind {
		case event.RDMAError:
		case event.RDMACongestion:
			to = r.congestion
		default:
			continue
		}
		one := wire{device: d.Name, netns: d.Netns, port: p.Number, name: c.Name}
		was := r.wires[one].n
		r.wires[one] = told{c.Seen, r.round}
		name := meter.Clean(c.Name)
		r.rise(to, key{w, rdmaCounter, name}, since(float64(was), float64(c.Seen)), func() []*dto.LabelPair { return w.labels("counter", name) })
	}
}

// moved is what a total has grown by. Of one that is heard of for the first time
// nobody knows whose it was.
func (r *rdmaFamilies) moved(at wire, n uint64) float64 {
	was, known := r.wires[at]
	r.wires[at] = told{n, r.round}
	if !known || was.round+1 < r.round {
		return 0
	}
	return since(float64(was.n), float64(n))
}

func (r *rdmaFamilies) describe(d *event.RDMADevice, p *event.RDMAPort, w port) {
	plain := port{device: w.device, port: w.port}
	r.up.set(bit(p.State == "ACTIVE"), plain.labels()...)
	if p.Rate > 0 {
		r.rate.set(float64(p.Rate)/8, plain.labels()...)
	}
	netdev, gpu := "", ""
	if len(d.Netdevs) > 0 {
		netdev = slices.Min(d.Netdevs)
	}
	if len(d.Nearest) > 0 {
		gpu = slices.Min(d.Nearest)
	}
	r.info.set(1, plain.labels("pci", meter.Clean(d.PCI), "netdev", meter.Clean(netdev), "link_layer", meter.Clean(p.LinkLayer),
		"gpu_uuid", meter.Clean(gpu), "distance", d.Distance.String())...)
}
