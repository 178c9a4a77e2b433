// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/filter"
)

// The lists of the kernel's filter.
const (
	maxProtocols = 16
	maxPorts     = 64
	maxPrefixes  = 64
	maxWide      = 16 // of them; each is compared
)

// ports, prefix, prefixes, ends and fields are the kernel's, byte by byte.
type ports struct {
	Bits  bits
	Count uint64
	Port  [maxPorts][2]byte
}

// bits tell that a number is in no list by one look.
type bits [16]uint64

func (b *bits) set(number uint16) { b[number/64%16] |= 1 << (number % 64) }

type prefix struct{ Address, Mask [16]byte }

type prefixes struct {
	Bits bits
	// Wide are those that are no whole addresses, and come first.
	Wide, Count uint32
	Prefix      [maxPrefixes]prefix
}

type ends struct {
	Set, Local uint32
	Remote     prefixes
}

type fields struct {
	Protocols                uint32
	Protocol                 [maxProtocols]event.Protocol
	Directions               uint32
	Ports, SrcPorts, DstPort ports
	IPs, SrcIPs, DstIPs      prefixes
	From, To                 ends
}

var _ = [1]struct{}{}[unsafe.Sizeof(fields{})-unsafe.Sizeof(kernelCaptureFields{})]

// check refuses a filter that is not for packets, or too long.
func check(f *filter.Filter) error {
	for _, in := range []*filter.Fields{&f.Include, &f.Exclude} {
		if len(in.Services)+len(in.From.Services)+len(in.To.Services) > 0 {
			return errors.New("a packet does not tell which Service was asked for: capture by the Service's address and port")
		}
		if len(in.FQDNs)+len(in.From.FQDNs)+len(in.To.FQDNs) > 0 {
			return errors.New("a packet does not tell by which name its address was found: capture by the address")
		}
		for _, l := range []struct {
			what  string
			n, of int
		}{
			{"protocols", len(in.Protocols), maxProtocols},
			{"ports", max(len(in.Ports), len(in.SrcPorts), len(in.DstPorts)), maxPorts},
			{"addresses", max(len(in.IPs), len(in.SrcIPs), len(in.DstIPs)), maxPrefixes},
			{"CIDR prefixes", max(wide(in.IPs), wide(in.SrcIPs), wide(in.DstIPs)), maxWide},
		} {
			if l.n > l.of {
				return fmt.Errorf("a filter of packets has at most %d %s in a list, not %d", l.of, l.what, l.n)
			}
		}
	}
	return nil
}

func wide(list []netip.Prefix) (n int) {
	for _, p := range list {
		if !p.IsSingleIP() {
			n++
		}
	}
	return n
}

// asks tells whether any of the fields does.
func (f *fields) asks() bool {
	return f.Protocols+f.Directions+f.From.Set+f.To.Set > 0 ||
		f.Ports.Count+f.SrcPorts.Count+f.DstPort.Count > 0 || f.IPs.Count+f.SrcIPs.Count+f.DstIPs.Count > 0
}

func newFields(in *filter.Fields, of *Ends) (f fields, err error) {
	f.Protocols = uint32(copy(f.Protocol[:], in.Protocols))
	f.Ports, f.SrcPorts, f.DstPort = newPorts(in.Ports), newPorts(in.SrcPorts), newPorts(in.DstPorts)
	f.IPs, f.SrcIPs, f.DstIPs = newPrefixes(in.IPs), newPrefixes(in.SrcIPs), newPrefixes(in.DstIPs)
	for _, d := range in.Directions {
		if d == event.OpenerRemote {
			f.Directions |= 1 << 0 // INGRESS
		} else {
			f.Directions |= 1 << 1 // EGRESS
		}
	}
	if f.From, err = newEnds(&of.From); err == nil {
		f.To, err = newEnds(&of.To)
	}
	return f, err
}

func newPorts(list []uint16) (p ports) {
	for _, n := range list {
		p.Port[p.Count] = [2]byte{byte(n >> 8), byte(n)}
		p.Bits.set(n<<8 | n>>8)
		p.Count++
	}
	return p
}

func newPrefixes(list []netip.Prefix) (p prefixes) {
	for _, wide := range []bool{true, false} {
		for _, in := range list {
			if in.IsSingleIP() != wide {
				p.add(in)
			}
		}
	}
	return p
}

func (p *prefixes) add(in netip.Prefix) {
	bits := in.Bits()
	if in.Addr().Is4() {
		bits += 96
	}
	to := &p.Prefix[p.Count]
	to.Address = in.Masked().Addr().As16()
	for i := range bits {
		to.Mask[i/8] |= 0x80 >> (i % 8)
	}
	p.Count++
	if in.IsSingleIP() {
		p.Bits.set(hash(&to.Address))
	} else {
		p.Wide++
	}
}

// hash is the kernel's.
func hash(ip *[16]byte) uint16 {
	return uint16((binary.NativeEndian.Uint64(ip[:]) ^ binary.NativeEndian.Uint64(ip[8:])) * 0x9e3779b97f4a7c15 >> 54)
}

func newEnds(of *Pods) (e ends, err error) {
	if !of.Set {
		return e, nil
	}
	if len(of.Remote) > maxPrefixes {
		return e, fmt.Errorf("the pods at one end have %d addresses, a filter of packets has room for %d: narrow it", len(of.Remote), maxPrefixes)
	}
	e.Set = 1
	if of.Local {
		e.Local = 1
	}
	for _, ip := range of.Remote {
		a := ip.Addr()
		e.Remote.add(netip.PrefixFrom(a, a.BitLen()))
	}
	return e, nil
}

// instance is the programs with the filter of one interface in them.
func (c *Capture) instance(t *Target, i Interface) (*ebpf.CollectionSpec, error) {
	include, err := newFields(&c.cfg.Filter.Include, &t.Include)
	if err != nil {
		return nil, err
	}
	exclude, err := newFields(&c.cfg.Filter.Exclude, &t.Exclude)
	if err != nil {
		return nil, err
	}
	everything, raw := uint32(0), uint32(0)
	if !include.asks() && !exclude.asks() {
		everything = 1
	}
	if i.LinkType == LinkRaw {
		raw = 1
	}
	spec := c.spec.Copy()
	for name, value := range map[string]any{
		kernelVarInclude: include, kernelVarExclude: exclude, kernelVarEverything: everything,
		kernelVarInterface: i.Number, kernelVarSnaplen: c.cfg.Snaplen, kernelVarRaw: raw,
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	return spec, nil
}

func (c *Capture) options() *ebpf.CollectionOptions {
	return &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{
		kernelMapCaptureRing: c.ring, kernelMapCaptureCounts: c.counts,
	}}
}
