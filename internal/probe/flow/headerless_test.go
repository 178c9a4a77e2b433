// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	. "github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

const vnetHeader = 10 // struct virtio_net_hdr

// tun is a device whose packets begin with IP, and the other side of it: each
// packet that is written comes in by the device, each that is sent is read.
type tun struct {
	End
	file *os.File
	read chan int // length of each packet that was sent
}

func newTun(t *testing.T) *tun {
	t.Helper()
	RequireKernel(t, BPF)
	u := &tun{read: make(chan int, 1000)}
	u.End = End{Netns: NewNetns(t), Name: "tun0", IP4: netip.MustParseAddr("10.70.0.1"), IP6: netip.MustParseAddr("fd70::1")}
	u.Do(func() {
		fd, err := unix.Open(tunPath(t), unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		req, err := unix.NewIfreq(u.Name)
		if err != nil {
			t.Fatal(err)
		}
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			t.Fatal(err)
		}
		// Not before: what is no device yet cannot be polled.
		u.file = os.NewFile(uintptr(fd), "tun")
	})
	u.quiet()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 1<<16+vnetHeader); ; {
			n, err := u.file.Read(b)
			if err != nil {
				return
			}
			u.read <- n - vnetHeader
		}
	}()
	t.Cleanup(func() {
		_ = u.file.Close()
		<-done
	})
	return u
}

// tunPath is the device's node; without udev it may have to be made.
func tunPath(t *testing.T) string {
	const known = "/dev/net/tun"
	if _, err := os.Stat(known); !errors.Is(err, fs.ErrNotExist) {
		return known
	}
	path := filepath.Join(t.TempDir(), "tun")
	if err := unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(10, 200))); err != nil {
		t.Fatal(err)
	}
	return path
}

// quiet gives the device its addresses and keeps it from talking by itself.
func (u *tun) quiet() {
	for name, value := range map[string]string{
		"addr_gen_mode": "1", "accept_ra": "0", "router_solicitations": "0", "dad_transmits": "0", "mldv2_unsolicited_report_interval": "3600000",
	} {
		u.Sysctl("ipv6/conf/"+u.Name+"/"+name, value)
	}
	u.Command("ip", "link", "set", u.Name, "up", "mtu", "9000")
	u.Command("ip", "addr", "add", u.IP4.String()+"/24", "dev", u.Name)
	u.Command("ip", "addr", "add", u.IP6.String()+"/64", "dev", u.Name, "nodad")
	u.Index = u.Link(u.Name).Attrs().Index
}

// write has a packet come in; it tells whether the device took it.
func (u *tun) write(packet []byte, vnet ...byte) bool {
	_, err := u.file.Write(append(append(make([]byte, 0, vnetHeader+len(packet)), append(vnet, make([]byte, vnetHeader-len(vnet))...)...), packet...))
	return err == nil
}

// A device without a link-layer header: what is odd is read from its first byte
// on, what is sent has its connection, and both add up with the device.
func TestTun(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		u := newTun(t)
		l := tapQuiet(t, &u.End, fromOutside(u.Netns, Config{Attach: how}))
		var want event.Counter
		classes := map[uint8]uint64{}
		for _, s := range samples() {
			packet := s.frame[etherHeader:]
			// The device takes the ethertype from the first byte.
			if len(packet) == 0 || packet[0]>>4 != 4 && packet[0]>>4 != 6 {
				continue
			}
			ethertype := map[byte]uint16{4: 0x0800, 6: 0x86dd}[packet[0]>>4]
			if r := read(packet, 0, ethertype); u.write(packet) {
				classes[r.class]++
				want.Add(event.Counter{Bytes: uint64(len(packet)), Packets: 1})
			}
		}
		// Headers beyond the linear part, which the sender chooses.
		large := Packet(v6, Extension{Protocol: 60, Extra: 255}, Extension{Protocol: 60, Extra: 255}, udp, Zeros(4000))
		for _, linear := range []uint16{0, 1, 39, 40, 41} {
			if u.write(large, binary.NativeEndian.AppendUint16([]byte{0, 0}, linear)...) {
				want.Add(event.Counter{Bytes: uint64(len(large)), Packets: 1})
				classes[0]++
			}
		}
		// A super-packet that nobody has counted.
		super := Packet(v4, TCP{Src: 77, Dst: 78}, Zeros(10_000))
		vnet := []byte{1, 1}
		for _, v := range []uint16{40, 1000, 20, 16} {
			vnet = binary.NativeEndian.AppendUint16(vnet, v)
		}
		if !u.write(super, vnet...) {
			t.Error("no super-packet")
		}
		want.Add(event.Counter{Bytes: 10_000 + 10*40, Packets: 10})
		classes[0] += 10
		sent := u.send(t)
		l.settle()
		rx, tx := l.checkConserved(&u.End)
		if rx.wire() != want || tx.wire() != sent {
			t.Errorf("received %+v, want %+v; sent %+v, want %+v", rx.wire(), want, tx.wire(), sent)
		}
		malformed := classes[classBadIP] + classes[classBadTransport] + classes[classBadExtension]
		if rx.other.Malformed.Packets != malformed || rx.flows.Packets != classes[0] || malformed < 100 {
			t.Errorf("received %+v, want by class %v", rx, classes)
		}
	})
}

// send sends datagrams of each family and expects their connections.
func (u *tun) send(t *testing.T) (sum event.Counter) {
	t.Helper()
	for _, to := range []string{"10.70.0.2", "fd70::2"} {
		peer := netip.AddrPortFrom(netip.MustParseAddr(to), 9)
		s := u.UDP(peer.Addr().Is6())
		for _, n := range []int{0, 100, 8000} {
			if _, err := s.WriteToUDPAddrPort(make([]byte, n), peer); err != nil {
				t.Fatal(err)
			}
			length := <-u.read
			if headers := map[bool]int{false: 20 + 8, true: 40 + 8}[peer.Addr().Is6()]; length != n+headers {
				t.Errorf("%d bytes were sent, want %d", length, n+headers)
			}
			sum.Add(event.Counter{Bytes: uint64(length), Packets: 1})
		}
	}
	return sum
}

// tunnelEnds joins a pair by a tunnel as well.
func tunnelEnds(t *testing.T, p *Pair, kind string) [2]*End {
	t.Helper()
	switch kind {
	case "wireguard":
		a, b := WireGuard(&p.A, &p.B)
		return [2]*End{a, b}
	case "ipip", "sit", "gre":
		a, b := IPTunnel(&p.A, &p.B, kind)
		return [2]*End{a, b}
	}
	under := [2]*End{&p.A, &p.B}
	var ends [2]*End
	for i, e := range under {
		peer := under[1-i]
		x := &End{Netns: e.Netns, Name: "tunnel1", IP4: netip.AddrFrom4([4]byte{10, 97, 0, byte(1 + i)}), IP6: netip.MustParseAddr([]string{"fd97::1", "fd97::2"}[i])}
		args := []string{"link", "add", x.Name, "type"}
		switch kind {
		case "gre to anybody":
			args = append(args, "gre", "local", e.IP4.String(), "key", "7")
		case "ip6tnl":
			args = append(args, kind, "mode", "any", "local", e.IP6.String(), "remote", peer.IP6.String())
		default:
			args = append(args, kind, "local", e.IP6.String(), "remote", peer.IP6.String())
		}
		x.Command("ip", args...)
		x.Sysctl("ipv6/conf/"+x.Name+"/addr_gen_mode", "1")
		x.Sysctl("ipv6/conf/"+x.Name+"/router_solicitations", "0")
		x.Command("ip", "link", "set", x.Name, "up")
		x.Command("ip", "addr", "add", x.IP4.String()+"/24", "dev", x.Name)
		x.Command("ip", "addr", "add", x.IP6.String()+"/64", "dev", x.Name, "nodad")
		x.Index = x.Link(x.Name).Attrs().Index
		ends[i] = x
	}
	if kind == "gre to anybody" {
		for i, x := range ends {
			x.Command("ip", "neigh", "add", ends[1-i].IP4.String(), "lladdr", under[1-i].IP4.String(), "dev", x.Name)
		}
	}
	return ends
}

// Packets of a tunnel begin with the inner IP header where the tap sees them,
// and add up with the tunnel's device: exactly, but for WireGuard, which counts
// its own messages.
func TestTunnelsWithoutEthernet(t *testing.T) {
	for _, c := range []struct {
		kind, device string // the module that has it, where the matrix names another
		v4, v6       bool
	}{
		{"ipip", "ipip", true, false},
		{"sit", "sit", false, true},
		{"gre", "gre", true, true},
		{"gre to anybody", "gre", true, false},
		{"ip6gre", "gre", true, true},
		{"ip6tnl", "sit", true, true},
		{"wireguard", "wireguard", true, true},
	} {
		t.Run(c.kind, func(t *testing.T) {
			RequireDevice(t, c.device)
			amount := 1 << 20
			if Emulated() {
				amount >>= 3
			}
			ends := tunnelEnds(t, NewPair(t), c.kind)
			a, b := tapQuiet(t, ends[0], fromOutside(ends[0].Netns, Config{})), tapQuiet(t, ends[1], fromOutside(ends[1].Netns, Config{}))
			for _, v6 := range []bool{false, true} {
				if v6 && !c.v6 || !v6 && !c.v4 {
					continue
				}
				if _, err := ends[0].UDP(v6).WriteToUDPAddrPort(make([]byte, 100), ends[1].DrainUDP(v6)); err != nil {
					t.Fatal(err)
				}
				bulk(t, ends[0].DialTCP(ends[1].ListenTCP(v6, ServeDiscard)), amount)
			}
			for i, l := range []*live{a, b} {
				l.settle()
				rx, tx := l.accounts(ends[i].Name)
				for name, x := range map[string]account{"received": rx, "sent": tx} {
					checkTunnel(t, c.kind, name, &x)
				}
			}
		})
	}
}

func checkTunnel(t *testing.T, kind, name string, a *account) {
	t.Helper()
	wire, device := a.wire(), a.device
	if a.rest.Packets > 0 || a.flows.Packets < 5 {
		t.Errorf("%s: %+v", name, a)
	}
	if kind != "wireguard" {
		if a.tapped() != device {
			t.Errorf("%s: tapped %+v, the device counted %+v", name, a.tapped(), device)
		}
		return
	}
	// A message has 32 bytes more, what it carries is padded to 16, and there
	// are handshakes and keepalives.
	more := device.Packets - wire.Packets
	if more > 20 || device.Bytes < wire.Bytes+32*wire.Packets || device.Bytes > wire.Bytes+48*wire.Packets+148*more {
		t.Errorf("%s: on the wire %+v, the device counted %+v", name, wire, device)
	}
}
