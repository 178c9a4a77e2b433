// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// From linux/wireguard.h.
const (
	wgSetDevice = 1

	wgDeviceIfindex    = 1
	wgDevicePrivateKey = 3
	wgDeviceListenPort = 6
	wgDevicePeers      = 8

	wgPeerPublicKey  = 1
	wgPeerEndpoint   = 4
	wgPeerAllowedIPs = 9

	wgAllowedFamily = 1
	wgAllowedIP     = 2
	wgAllowedBits   = 3
)

const wireGuardPort = 51820

// WireGuard joins two ends by an encrypted tunnel over IPv4. The first packet
// is preceded by a handshake, two packets on the wire.
func WireGuard(a, b *End) (x, y *End) {
	a.t.Helper()
	ends, under := [2]*End{}, [2]*End{a, b}
	keys := [2]*ecdh.PrivateKey{}
	for i, e := range under {
		var err error
		keys[i], err = ecdh.X25519().GenerateKey(rand.Reader)
		e.check(err)
		ends[i] = e.stack(&netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: "wg0"}}, 23)
	}
	for i, e := range ends {
		e.Do(func() {
			peer := nl.NewRtAttr(unix.NLA_F_NESTED, nil)
			peer.AddRtAttr(wgPeerPublicKey, keys[1-i].PublicKey().Bytes())
			peer.AddRtAttr(wgPeerEndpoint, sockaddr(under[1-i].IP4.AsSlice(), wireGuardPort))
			allowed := peer.AddRtAttr(wgPeerAllowedIPs|unix.NLA_F_NESTED, nil)
			for _, family := range []uint16{unix.AF_INET, unix.AF_INET6} {
				everything := make([]byte, 4)
				if family == unix.AF_INET6 {
					everything = make([]byte, 16)
				}
				ip := allowed.AddRtAttr(unix.NLA_F_NESTED, nil)
				ip.AddRtAttr(wgAllowedFamily, nl.Uint16Attr(family))
				ip.AddRtAttr(wgAllowedIP, everything)
				ip.AddRtAttr(wgAllowedBits, nl.Uint8Attr(0))
			}
			e.check(setWireGuard(e.Index, keys[i].Bytes(), peer))
		})
	}
	return ends[0], ends[1]
}

func setWireGuard(index int, key []byte, peer *nl.RtAttr) error {
	family, err := netlink.GenlFamilyGet("wireguard")
	if err != nil {
		return err
	}
	req := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_ACK)
	req.AddData(&nl.Genlmsg{Command: wgSetDevice, Version: 1})
	req.AddData(nl.NewRtAttr(wgDeviceIfindex, nl.Uint32Attr(uint32(index))))
	req.AddData(nl.NewRtAttr(wgDevicePrivateKey, key))
	req.AddData(nl.NewRtAttr(wgDeviceListenPort, nl.Uint16Attr(wireGuardPort)))
	peers := nl.NewRtAttr(wgDevicePeers|unix.NLA_F_NESTED, nil)
	peers.AddChild(peer)
	req.AddData(peers)
	_, err = req.Execute(unix.NETLINK_GENERIC, 0)
	return err
}

// sockaddr is a struct sockaddr_in.
func sockaddr(ip net.IP, port uint16) []byte {
	var b bytes.Buffer
	b.Write(nl.Uint16Attr(unix.AF_INET))
	_ = binary.Write(&b, binary.BigEndian, port)
	b.Write(ip)
	b.Write(make([]byte, 8))
	return b.Bytes()
}
