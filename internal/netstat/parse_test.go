// SPDX-License-Identifier: Apache-2.0

package netstat

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func words(parse func([]byte, func([]byte, uint64)), text string) string {
	var got []string
	parse([]byte(text), func(name []byte, n uint64) { got = append(got, fmt.Sprintf("%s=%d", name, n)) })
	return strings.Join(got, " ")
}

func TestTable(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"two protocols", "Ip: Forwarding InHdrErrors\nIp: 1 7\nTcp: MaxConn OutRsts\nTcp: -1 3\n", "IpForwarding=1 IpInHdrErrors=7 TcpOutRsts=3"},
		{"more names than numbers", "TcpExt: A B\nTcpExt: 5\nIpExt: C\nIpExt: 6\n", "TcpExtA=5 IpExtC=6"},
		{"more numbers than names", "TcpExt: A\nTcpExt: 5 6\n", "TcpExtA=5"},
		{"no numbers", "TcpExt: A B\n", ""},
		{"of another protocol", "TcpExt: A\nIpExt: 5\n", ""},
		{"another file", "hello\nworld\n", ""},
		{"empty", "", ""},
		{"too large", "X: A B\nX: 18446744073709551616 18446744073709551615\n", fmt.Sprint("XB=", uint64(math.MaxUint64))},
	} {
		if got := words(table, c.text); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestList(t *testing.T) {
	text := "Ip6InReceives                   \t5\nUdp6InErrors\t 7\nIp6OutOctets\n\nBad x\n"
	if got := words(list, text); got != "Ip6InReceives=5 Udp6InErrors=7" {
		t.Error(got)
	}
}

func TestGauges(t *testing.T) {
	var u inUse
	for _, text := range []string{
		"sockets: used 14\nTCP: inuse 3 orphan 4 tw 9 alloc 458 mem 5\nUDP: inuse 2 mem 1\nRAW: inuse 8\n",
		"TCP6: inuse 10\nUDP6: inuse 20\nFRAG6: inuse 0 memory 0\n", "TCP: inuse", "TCP:", "x",
	} {
		gauges([]byte(text), u.add)
	}
	if u != (inUse{TCP: 13, TimeWait: 9, UDP: 22}) {
		t.Error(u)
	}
}

// The kernel that runs has all that the catalogue has, but for what came later
// than the oldest kernel that orb8 runs on.
func TestRunningKernelCountsThese(t *testing.T) {
	later := map[string]bool{"UdpMemErrors": true, "Udp6MemErrors": true}
	s := New(Config{})
	seen := map[string]bool{}
	for _, f := range []string{"snmp", "netstat", "snmp6"} {
		text, err := os.ReadFile("/proc/thread-self/net/" + f)
		if os.IsNotExist(err) && f == "snmp6" {
			t.Skip("no IPv6")
		}
		if err != nil {
			t.Fatal(err)
		}
		parse := table
		if f == "snmp6" {
			parse = list
		}
		parse(text, func(name []byte, _ uint64) { seen[string(name)] = true })
	}
	for name := range s.columns {
		if !seen[name] && !later[name] {
			t.Errorf("%s is not counted here", name)
		}
	}
	if len(s.columns) != len(s.counters) {
		t.Error("a counter is in the catalogue twice")
	}
	for _, c := range s.counters {
		for _, name := range c.less {
			if _, ok := s.columns[name]; !ok {
				t.Errorf("%s is less %s, which is not in the catalogue", c.name, name)
			}
		}
	}
}

// socketMessage is what the kernel says of one socket.
func socketMessage(state byte, port uint16, queues [2]uint32, mem [9]uint32) []byte {
	order := binary.NativeEndian
	b := make([]byte, unix.SizeofNlMsghdr+sizeofSocket)
	b[17] = state
	binary.BigEndian.PutUint16(b[20:], port)
	order.PutUint32(b[16+56:], queues[0])
	order.PutUint32(b[16+60:], queues[1])
	b = append(b, 8, 0, 99, 0, 1, 2, 3, 4) // another attribute first
	b = order.AppendUint16(b, unix.SizeofRtAttr+sizeofMemory)
	b = order.AppendUint16(b, attrMemory)
	for _, v := range mem {
		b = order.AppendUint32(b, v)
	}
	order.PutUint32(b, uint32(len(b)))
	order.PutUint16(b[4:], byFamily)
	return b
}

func TestSockets(t *testing.T) {
	var tcp []byte
	tcp = append(tcp, socketMessage(stateListen, 80, [2]uint32{2, 1}, [9]uint32{})...)
	tcp = append(tcp, socketMessage(stateListen, 443, [2]uint32{129, 128}, [9]uint32{})...)
	tcp = append(tcp, socketMessage(stateListen, 22, [2]uint32{1000, 4096}, [9]uint32{})...)
	tcp = append(tcp, socketMessage(1, 80, [2]uint32{}, [9]uint32{100, 1, 2, 3, 4, 30, 6, 5, 8})...)
	tcp = append(tcp, socketMessage(stateFinWait1, 80, [2]uint32{}, [9]uint32{})...)
	tcp = append(tcp, socketMessage(1, 80, [2]uint32{}, [9]uint32{})...) // to be accepted: no orphan
	udp := append(socketMessage(7, 53, [2]uint32{}, [9]uint32{1000, 0, 200, 0, 0, 0, 0, 0, 7}), socketMessage(7, 54, [2]uint32{}, [9]uint32{8: 9})...)
	var b Buffers
	for protocol, text := range map[byte][]byte{unix.IPPROTO_TCP: tcp, unix.IPPROTO_UDP: udp} {
		if done, err := answer(text, func(s []byte) { b.add(protocol, s) }); done || err != nil {
			t.Error(done, err)
		}
	}
	if want := (Buffers{Bytes: 1335, Orphans: 1, Full: Listener{443, 129, 128}, Lossy: Receiver{54, 9}}); b != want {
		t.Errorf("%+v, want %+v", b, want)
	}
	r := Report{Findings: []Finding{{Counter: "TcpExtListenOverflows", Meaning: "a"}, {Counter: "UdpRcvbufErrors", Meaning: "b"}, {Counter: "IpOutNoRoutes", Meaning: "c"}}}
	r.Hold(&b)
	if f := r.Findings; f[0].Meaning != "a; port 443 is full now: 129 wait, its backlog is 128" || f[1].Meaning != "b; most of them on port 54" || f[2].Meaning != "c" {
		t.Error(f)
	}
}

func TestAnswerEnds(t *testing.T) {
	order := binary.NativeEndian
	message := func(kind uint16, body ...byte) []byte {
		b := make([]byte, unix.SizeofNlMsghdr, 64)
		b = append(b, body...)
		order.PutUint32(b, uint32(len(b)))
		order.PutUint16(b[4:], kind)
		return b
	}
	none := func([]byte) {}
	if done, err := answer(message(unix.NLMSG_DONE, 0, 0, 0, 0), none); !done || err != nil {
		t.Error(done, err)
	}
	if _, err := answer(message(unix.NLMSG_ERROR, 0xfe, 0xff, 0xff, 0xff), none); err != unix.ENOENT {
		t.Error(err)
	}
	if _, err := answer(message(unix.NLMSG_ERROR), none); err != errGarbled {
		t.Error(err)
	}
	if _, err := answer([]byte{200, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, none); err != errGarbled {
		t.Error(err)
	}
}

func FuzzTable(f *testing.F) {
	f.Add([]byte("Ip: A B\nIp: 1 2\nTcp: C\nTcp: -3\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		table(text, func(name []byte, _ uint64) {
			if len(name) == 0 {
				t.Error("a number without a name")
			}
		})
	})
}

func FuzzList(f *testing.F) {
	f.Add([]byte("Ip6InReceives  \t5\nX\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		list(text, func(name []byte, _ uint64) {
			if len(name) == 0 {
				t.Error("a number without a name")
			}
		})
	})
}

func FuzzGauges(f *testing.F) {
	f.Add([]byte("TCP: inuse 3 orphan 4 tw 9\nUDP6: inuse 1\n"))
	f.Fuzz(func(_ *testing.T, text []byte) {
		var u inUse
		gauges(text, u.add)
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add(socketMessage(stateListen, 80, [2]uint32{2, 1}, [9]uint32{1}))
	f.Add(socketMessage(1, 80, [2]uint32{}, [9]uint32{1})[:100])
	f.Fuzz(func(_ *testing.T, b []byte) {
		var bufs Buffers
		_, _ = answer(b, func(s []byte) { bufs.add(unix.IPPROTO_TCP, s); bufs.add(unix.IPPROTO_UDP, s) })
	})
}

func BenchmarkTable(b *testing.B) {
	r := newReader(New(Config{}))
	values := make([]uint64, len(r.columns))
	b.ReportAllocs()
	for b.Loop() {
		if err := r.counters(values); err != nil {
			b.Fatal(err)
		}
	}
}
