// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Service rewrites what the namespace sends to an address and port, itself and
// for others, to another address and port, as kube-proxy does.
func (n *Netns) Service(at, to netip.AddrPort) {
	n.t.Helper()
	offset := uint32(16)
	if at.Addr().Is6() {
		offset = 24
	}
	for _, protocol := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		rule := append(matchPort(protocol, at.Port(), at.Addr().Is6()),
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(at.Addr().BitLen() / 8)},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: at.Addr().AsSlice()},
		)
		rule = append(rule, rewrite(to)...)
		n.nat(nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, rule)
		n.nft(&nftables.Chain{Name: "own", Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest}, rule)
	}
}

// publishService gives each server of a topology a Service of the host.
func (h *Host) publishService(server netip.AddrPort) netip.AddrPort {
	at := netip.AddrPortFrom(netip.MustParseAddr("10.96.0.1"), server.Port()^1) // another than the server's
	if server.Addr().Is6() {
		at = netip.AddrPortFrom(netip.MustParseAddr("fd96::1"), at.Port())
		// Without a way there nothing is sent that could be rewritten.
		h.route(netip.PrefixFrom(at.Addr(), 128), h.Name, netip.MustParseAddr("fd88::254"))
	}
	h.Service(at, server)
	return at
}

// serviceLayouts: a host and its pods ask for Services, of which the pods are
// beside them or on another host.
func serviceLayouts() (all []Layout) {
	for _, m := range []struct {
		name string
		how  *expr.Masq
	}{
		{"", nil},
		{", masqueraded", &expr.Masq{}},
		{", masqueraded to any port", &expr.Masq{Random: true, FullyRandom: true}},
	} {
		masquerade := func(h *Host, outgoing string) Role {
			if m.how == nil {
				return Forwarded
			}
			h.masquerade(outgoing, m.how)
			return Carried
		}
		all = append(all, Layout{Name: "host to Service of a pod of another host" + m.name, Build: func(w *Wire) *Topology {
			a, b := w.Host(), w.Host()
			p := b.RoutedPod()
			masquerade(a, a.Name)
			t := path(&a.End, &p.End, p.places(Forwarded)...)
			t.Publish, t.Translates = a.publishService, true
			return t
		}}, Layout{Name: "host to Service of its own pod" + m.name, Build: func(w *Wire) *Topology {
			h := w.Host()
			p := h.RoutedPod()
			masquerade(h, p.HostEnd)
			t := path(&h.End, &p.End)
			// The host's address is that of its uplink, its interface is the pod's.
			t.Places[0] = Place{h.Netns, p.HostEnd, Own}
			t.Publish, t.Translates = h.publishService, true
			return t
		}}, Layout{Name: "routed pod to Service of a pod of another host" + m.name, Build: func(w *Wire) *Topology {
			a, b := w.Host(), w.Host()
			p, q := a.RoutedPod(), b.RoutedPod()
			t := path(&p.End, &q.End, append(p.places(masquerade(a, a.Name)), q.places(Forwarded)...)...)
			t.Publish = a.publishService
			return t
		}})
	}
	return all
}
