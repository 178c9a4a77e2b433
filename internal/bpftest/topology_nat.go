// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Masquerade rewrites the source of all that leaves by an interface to the
// interface's address.
func (n *Netns) Masquerade(outgoing string) {
	n.t.Helper()
	n.masquerade(outgoing, &expr.Masq{})
}

func (n *Netns) masquerade(outgoing string, how *expr.Masq) {
	n.t.Helper()
	n.nat(nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource,
		append(matchInterface(expr.MetaKeyOIFNAME, outgoing), how))
}

// NodePort rewrites what comes to a port of the namespace, over TCP or UDP, to
// another address and port. It does so in the family of that address.
func (n *Netns) NodePort(port uint16, to netip.AddrPort) {
	n.t.Helper()
	for _, protocol := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		n.nat(nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, append(matchPort(protocol, port, to.Addr().Is6()), rewrite(to)...))
	}
}

// matchPort matches the packets of a family to a port.
func matchPort(protocol byte, port uint16, v6 bool) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{familyOf(v6)}},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, port)},
	}
}

// rewrite gives what matched another destination.
func rewrite(to netip.AddrPort) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: to.Addr().AsSlice()},
		&expr.Immediate{Register: 2, Data: binary.BigEndian.AppendUint16(nil, to.Port())},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(familyOf(to.Addr().Is6())), RegAddrMin: 1, RegProtoMin: 2},
	}
}

func familyOf(v6 bool) byte {
	if v6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

// LoseOneIn drops every n-th large TCP packet on its way up from the
// interfaces of the namespace, behind the tap.
func (n *Netns) LoseOneIn(every uint32) {
	n.t.Helper()
	policy := nftables.ChainPolicyAccept
	n.nft(&nftables.Chain{
		Name: "loss", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter, Policy: &policy,
	}, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Meta{Key: expr.MetaKeyLEN, Register: 1},
		&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Cmp{Op: expr.CmpOpGt, Register: 1, Data: binary.BigEndian.AppendUint32(nil, 1000)},
		&expr.Numgen{Register: 1, Modulus: every, Type: unix.NFT_NG_INCREMENTAL},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.NativeEndian.AppendUint32(nil, every/2)},
		&expr.Verdict{Kind: expr.VerdictDrop},
	})
}

// withoutReports keeps the namespace from reporting multicast groups (MLDv2),
// which it does when addresses come up and again at random. Only packets of its
// own are looked at.
func (n *Netns) withoutReports() {
	n.t.Helper()
	policy := nftables.ChainPolicyAccept
	n.nft(&nftables.Chain{
		Name: "reports", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter, Policy: &policy,
	}, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_ICMPV6}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{143}},
		&expr.Verdict{Kind: expr.VerdictDrop},
	})
}

func (n *Netns) nat(hook *nftables.ChainHook, priority *nftables.ChainPriority, rule []expr.Any) {
	n.t.Helper()
	name := "dst"
	if hook == nftables.ChainHookPostrouting {
		name = "src"
	}
	n.nft(&nftables.Chain{Name: name, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: priority}, rule)
}

// nft adds a rule to a chain of the table "test", both of which it makes.
func (n *Netns) nft(chain *nftables.Chain, rule []expr.Any) {
	n.t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(int(n.handle)))
	n.check(err)
	chain.Table = c.AddTable(&nftables.Table{Name: "test", Family: nftables.TableFamilyINet})
	c.AddRule(&nftables.Rule{Table: chain.Table, Chain: c.AddChain(chain), Exprs: rule})
	n.check(c.Flush())
}

func matchInterface(key expr.MetaKey, name string) []expr.Any {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: b},
	}
}
