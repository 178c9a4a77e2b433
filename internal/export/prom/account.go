// SPDX-License-Identifier: Apache-2.0

package prom

import (
	"strconv"

	dto "github.com/prometheus/client_model/go"

	"github.com/orb8/orb8/internal/event"
)

// account tells accounts of a view apart, as who makes views does. Several may be
// one series: of all who are no pods, and of a pod that was made anew under its
// name. How a device is given may change, and the account stays.
type account struct {
	uuid, container string
	class           event.Class
	// Of a pod its UID, where it has one; of the rest what there is that names it.
	uid, namespace, name string
	pid                  uint32
}

func accountOf(a *event.GPUAccount) account {
	k, w := account{uuid: a.GPU.UUID, container: a.Container, class: a.Who.Class}, a.Who
	switch {
	case w.PodUID != "":
		k.uid = w.PodUID
	case w.Pod != "":
		k.namespace, k.name = w.Namespace, w.Pod
	case w.Container != "":
		k.name = w.Container
	case w.Unit != "":
		k.name = w.Unit
	default:
		k.name, k.pid = w.Process, w.PID
	}
	return k
}

// rising are the series of a counter that several sources may feed. What a
// source counted stays when it is gone: a counter does not go back.
type rising struct {
	*family
	all []*series
}

// rise adds to a series what a source has counted since it was last told of.
func (x *exposition) rise(f *rising, k key, by float64, label func() []*dto.LabelPair) {
	before := x.shown[k]
	first := before == nil || before.round != x.round
	one := x.series(k, label)
	one.total += max(by, 0)
	if first {
		f.all = append(f.all, one)
	}
}

func (f *rising) done() {
	for _, one := range f.all {
		total := one.total
		if one.fresh {
			total = 0
		}
		f.set(total, one.labels...)
	}
}

// since is what a counter has grown by; one that is less has begun again.
func since(was, now float64) float64 {
	if now < was {
		return now
	}
	return now - was
}

// accounts tells what the agent has counted of holders.
func (x *exposition) accounts(v *event.GPUView) {
	energy := &rising{family: x.counter("orb8_gpu_energy_joules_total", "Energy that the device took, as it falls to the holder.")}
	nvlink := &rising{family: x.counter("orb8_gpu_nvlink_bytes_total", "Bytes over all NVLinks of the device, as they fall to the holder.")}
	slow := &rising{family: x.counter("orb8_gpu_throttle_seconds_total", "Time in which the device's clocks were held down, by reason, while the holder had it.")}
	xids := &rising{family: x.counter("orb8_gpu_xid_total", "Errors that the driver told of the device, by their Xid.")}
	now := make(map[account]*event.GPUAccount, len(v.Accounts))
	for i := range v.Accounts {
		a := &v.Accounts[i]
		k := accountOf(a)
		was := x.told[k]
		if was == nil {
			was = &event.GPUAccount{}
		}
		now[k] = a
		w := ofHolder(a.GPU, a.Who, a.Container, a.Mode)
		rise := func(f *rising, kind kind, by float64, name, value string) {
			x.rise(f, key{w, kind, value}, by, func() []*dto.LabelPair { return w.labels(name, value) })
		}
		if a.EnergyKnown {
			joules := since(was.Energy, a.Energy)
			rise(energy, joule, joules, "", "")
			x.dcgmEnergy(a.GPU, w, joules)
		}
		if a.NVLinkKnown {
			rise(nvlink, linked, since(float64(was.NVLinkSent), float64(a.NVLinkSent)), "direction", "egress")
			rise(nvlink, linked, since(float64(was.NVLinkReceived), float64(a.NVLinkReceived)), "direction", "ingress")
		}
		for i, seconds := range a.Throttled {
			if seconds > 0 && event.GPUThrottle(1<<i) != event.ThrottleIdle {
				rise(slow, throttled, since(was.Throttled[i], seconds), "reason", event.ThrottleName(i))
			}
		}
		for code, n := range a.Xids {
			more := since(float64(was.Xids[code]), float64(n))
			x.hear(a.GPU, code, more)
			rise(xids, xid, more, "xid", strconv.FormatUint(uint64(code), 10))
		}
	}
	x.told = now
	for _, f := range [...]*rising{energy, nvlink, slow, xids} {
		f.done()
	}
}
