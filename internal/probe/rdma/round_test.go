// SPDX-License-Identifier: Apache-2.0

package rdma

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

const slot1 = "pci0000:00/0000:00:01.0/0000:1b:00.0"

func slot(i int) string { return fmt.Sprintf("pci0000:00/0000:00:%02x.0/0000:%02x:00.0", i+1, 0x1b+i) }

func TestADeviceIsTold(t *testing.T) {
	host := newSysfs(t)
	port := host.hca("mlx5_0", slot1)
	b := newBench(t, host)
	b.ask = func(string) ([]uint32, error) { return []uint32{7, 9}, nil }
	b.next(time.Second)
	bpftest.Eventually(t, "queue pairs", func() bool { return b.next(0).Devices[0].QueuePairsKnown })
	host.write(port+"/counters/port_xmit_data", 1250)
	host.write(port+"/counters/port_xmit_packets", 11)
	host.write(port+"/counters/port_rcv_data", 2001)
	host.write(port+"/hw_counters/np_cnp_sent", 5)
	host.write(port+"/counters/symbol_error", 3)
	s := b.next(time.Second)
	d := s.Devices[0]
	if len(s.Problems) > 0 || s.Lost != 0 {
		t.Errorf("%q, %d", s.Problems, s.Lost)
	}
	p := d.Ports[0]
	for name, want := range map[string]event.RDMACounter{
		"np_cnp_sent":           {Kind: event.RDMACongestion, Count: 5, Seen: 5, Minute: 5},
		"symbol_error":          {Kind: event.RDMAError, Count: 3, Seen: 3, Minute: 3},
		"unicast_rcv_packets":   {Kind: event.RDMAOther},
		"req_cqe_flush_error":   {Kind: event.RDMAOther},
		"rx_write_requests":     {Kind: event.RDMAOther},
		"roce_adp_retrans_to":   {Kind: event.RDMACongestion},
		"resp_cqe_error":        {Kind: event.RDMAError},
		"VL15_dropped":          {Kind: event.RDMAError},
		"local_ack_timeout_err": {Kind: event.RDMACongestion},
	} {
		want.Name = name
		if got := counted(t, &p, name); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	if n := len(counts()) - 4; len(p.Counters) != n {
		t.Errorf("%d counters, want %d", len(p.Counters), n)
	}
	p.Counters = nil
	want := event.RDMADevice{
		Name: "mlx5_0", PCI: "0000:1b:00.0", NUMA: 1, Netdevs: []string{"ethmlx5_0", "rdma0", "rdma0.7"},
		PIDs: []uint32{7, 9}, QueuePairsKnown: true, Shared: true,
		Ports: []event.RDMAPort{{
			Number: 1, LinkLayer: "Ethernet", State: "ACTIVE", Physical: "LinkUp", Rate: 400e9,
			Total:      event.Traffic{TxBytes: 5000, TxPackets: 11, RxBytes: 8004, RxPackets: 20},
			Moved:      event.Traffic{TxBytes: 1000, TxPackets: 1, RxBytes: 4},
			TotalKnown: true, MovedKnown: true,
		}},
	}
	d.Ports = []event.RDMAPort{p}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Error(diff)
	}
}

func TestCountersBeginAnewWithTheDriver(t *testing.T) {
	host := newSysfs(t)
	port := host.hca("mlx5_0", slot1)
	host.write(port+"/counters/port_xmit_data", uint64(1)<<50)
	host.write(port+"/hw_counters/out_of_sequence", 1<<32-2)
	b := newBench(t, host)
	if p := b.next(time.Second).Devices[0].Ports[0]; p.MovedKnown {
		t.Errorf("moved in the first round: %+v", p.Moved)
	}
	host.write(port+"/counters/port_xmit_data", 100)
	host.write(port+"/hw_counters/out_of_sequence", 3)
	p := b.next(time.Second).Devices[0].Ports[0]
	if p.MovedKnown || p.Total.TxBytes != 400 {
		t.Errorf("after a reset: %+v, %+v", p.Moved, p.Total)
	}
	if c := counted(t, &p, "out_of_sequence"); c.Seen != 5 {
		t.Errorf("32 bits that have gone round: %+v", c)
	}
	host.write(port+"/counters/port_xmit_data", 101)
	host.write(port+"/hw_counters/out_of_sequence", 1)
	p = b.next(time.Second).Devices[0].Ports[0]
	if !p.MovedKnown || p.Moved.TxBytes != 4 {
		t.Errorf("after it: %v %+v", p.MovedKnown, p.Moved)
	}
	if c := counted(t, &p, "out_of_sequence"); c.Seen != 5 || c.Count != 1 {
		t.Errorf("a reset counts: %+v", c)
	}
	host.write(port+"/counters/port_xmit_data", uint64(1)<<40)
	if p = b.next(time.Second).Devices[0].Ports[0]; p.MovedKnown {
		t.Errorf("4 TiB in a second at 400 Gbit/s: %+v", p.Moved)
	}
}

func TestAMinute(t *testing.T) {
	host := newSysfs(t)
	port := host.hca("mlx5_0", slot1)
	b := newBench(t, host)
	b.next(time.Second)
	host.write(port+"/hw_counters/np_cnp_sent", 5)
	minute := func() uint64 {
		return counted(t, &b.next(time.Second).Devices[0].Ports[0], "np_cnp_sent").Minute
	}
	for i := range 54 {
		if n := minute(); n != 5 {
			t.Fatalf("%d after %d s", n, i)
		}
	}
	for range 8 {
		minute()
	}
	host.write(port+"/hw_counters/np_cnp_sent", 7)
	if n := minute(); n != 2 {
		t.Errorf("%d after a minute", n)
	}
	b.next(time.Hour)
	if n := minute(); n != 0 {
		t.Errorf("%d after an hour", n)
	}
}

func TestWhatCannotBeRead(t *testing.T) {
	host := newSysfs(t)
	port := host.hca("bnxt_re0", slot1)
	for _, name := range []string{"xmit_data", "rcv_data", "xmit_packets", "rcv_packets"} {
		host.write(port+"/counters/port_"+name, "N/A (no PMA)")
	}
	host.write(port+"/counters/link_downed", "-1")
	host.write(port+"/hw_counters/tx_bytes", 10)
	host.write(port+"/hw_counters/rx_bytes", 20)
	host.write(port+"/rate", "a lot")
	host.write(port+"/phys_state", strings.Repeat("x", 200))
	host.ok(os.Remove(filepath.Join(host.dir, port, "link_layer")))
	host.ok(os.Remove(filepath.Join(host.dir, "devices", slot1, "numa_node")))
	host.ok(os.RemoveAll(filepath.Join(host.dir, port, "counters/symbol_error")))
	host.mkdir(port + "/counters/symbol_error") // to read it is an error
	b := newBench(t, host)
	b.next(time.Second)
	host.write(port+"/hw_counters/rx_bytes", 25)
	d := b.next(time.Second).Devices[0]
	p := d.Ports[0]
	if p.LinkLayer != "" || p.Physical != "" || p.Rate != 0 || d.NUMA != -1 || p.State != "ACTIVE" {
		t.Errorf("%+v", d)
	}
	if !p.TotalKnown || p.Total != (event.Traffic{TxBytes: 10, RxBytes: 25}) || p.Moved.RxBytes != 5 {
		t.Errorf("its driver's bytes: %+v, %+v", p.Total, p.Moved)
	}
	for _, c := range p.Counters {
		if c.Name == "link_downed" || c.Name == "symbol_error" || strings.HasPrefix(c.Name, "port_xmit_d") && c.Name != "port_xmit_discards" {
			t.Errorf("%+v is told", c)
		}
	}
}

func TestCountersOfTheDevice(t *testing.T) {
	host := newSysfs(t)
	port := host.hca("erdma_0", slot1)
	host.ok(os.RemoveAll(filepath.Join(host.dir, port, "counters")))
	host.ok(os.RemoveAll(filepath.Join(host.dir, port, "hw_counters")))
	dev := filepath.Dir(filepath.Dir(port))
	host.write(dev+"/hw_counters/hw_tx_bytes_cnt", 3)
	host.write(dev+"/hw_counters/hw_rx_bytes_cnt", 4)
	host.write(dev+"/hw_counters/hw_bps_limit_drop_cnt", 5)
	host.port(dev + "/ports/2")
	p := newBench(t, host).next(time.Second).Devices[0].Ports
	if len(p) != 2 || p[0].Total != (event.Traffic{TxBytes: 3, RxBytes: 4}) || len(p[0].Counters) != 1 || !p[1].TotalKnown {
		t.Errorf("%+v", p)
	}
}

func TestHostileNames(t *testing.T) {
	host := newSysfs(t)
	for i, name := range []string{"\x1b[31mred", "...", "mlx5\n0", "\xff\xfe", strings.Repeat("m", 100)} {
		port := host.hca(name, slot(i))
		host.write(port+"/hw_counters/"+strings.Repeat("c", 100), 1)
		host.write(port+"/hw_counters/\xff", 1)
		for i := range 300 {
			host.write(fmt.Sprintf("%s/hw_counters/n%d", port, i), 1)
		}
		host.mkdir(filepath.Dir(port) + "/none")
	}
	host.link("../../../../../../../../../etc", "class/infiniband/escape")
	host.write("class/infiniband/file", 1)
	b := newBench(t, host)
	s := b.next(time.Second)
	want := []string{"0/\uFFFD", "0/...", "0/mlx5\n0", "0/\x1b[31mred"}
	if diff := cmp.Diff(want, listed(s)); diff != "" {
		t.Error(diff)
	}
	if n := len(s.Devices[0].Ports[0].Counters); n > mostCounters {
		t.Errorf("%d counters", n)
	}
	if s.Lost < 5 {
		t.Errorf("%d are lost", s.Lost)
	}
}

func TestBounds(t *testing.T) {
	host := newSysfs(t)
	for i := range mostDevices + 3 {
		host.hca(fmt.Sprintf("mlx5_%d", i), slot(i))
	}
	s := newBench(t, host).next(time.Second)
	if len(s.Devices) != mostDevices || s.Lost != 3 {
		t.Errorf("%d devices, %d lost", len(s.Devices), s.Lost)
	}
}

func TestUnplug(t *testing.T) {
	host := newSysfs(t)
	host.hca("mlx5_0", slot(0))
	host.hca("mlx5_10", slot(1))
	host.hca("mlx5_2", slot(2))
	b := newBench(t, host)
	if diff := cmp.Diff([]string{"0/mlx5_0", "0/mlx5_2", "0/mlx5_10"}, listed(b.next(time.Second))); diff != "" {
		t.Error(diff)
	}
	host.unplug("mlx5_2")
	if diff := cmp.Diff([]string{"0/mlx5_0", "0/mlx5_10"}, listed(b.next(time.Second))); diff != "" {
		t.Error(diff)
	}
	// Another in its place between two rounds: it counts from its own beginning.
	host.unplug("mlx5_0")
	host.mkdir("devices/other") // takes the inode
	port := host.hca("mlx5_0", slot(3))
	host.write(port+"/counters/port_xmit_data", 5)
	p := b.next(time.Second).Devices[0].Ports[0]
	if p.MovedKnown || p.Total.TxBytes != 20 {
		t.Errorf("%+v", p)
	}
	host.ok(os.RemoveAll(filepath.Join(host.dir, "class/infiniband")))
	if s := b.next(time.Second); len(s.Devices) > 0 || len(s.Problems) > 0 {
		t.Errorf("without the class: %+v", s)
	}
}

func TestADeviceThatHangs(t *testing.T) {
	host := newSysfs(t)
	host.hca("mlx5_0", slot(0))
	port := host.hca("mlx5_1", slot(1))
	b := newBench(t, host)
	b.next(time.Second)
	b.Deadline = 50 * time.Millisecond
	pipe := host.fifo(port + "/hw_counters/out_of_buffer")
	// One that is late is as it was, but moves nothing twice.
	s := b.next(time.Second)
	if diff := cmp.Diff([]string{"0/mlx5_0", "0/mlx5_1"}, listed(s)); diff != "" || len(s.Problems) > 0 {
		t.Fatalf("%s %q", diff, s.Problems)
	}
	if p := s.Devices[1].Ports[0]; p.MovedKnown || !p.TotalKnown {
		t.Errorf("%+v", p)
	}
	b.next(time.Second)
	for range 3 {
		b.next(time.Second)
		bpftest.Eventually(t, "the other alone", func() bool {
			s = b.next(0)
			return cmp.Equal([]string{"0/mlx5_0"}, listed(s)) && len(s.Problems) == 1
		})
		if !strings.Contains(s.Problems[0], `"mlx5_1"`) {
			t.Errorf("%q", s.Problems)
		}
	}
	bpftest.Eventually(t, "one job is under way", func() bool { b.crew.settle(); return b.crew.out == 1 })
	host.ok(os.WriteFile(pipe, []byte("7\n"), 0))
	host.ok(os.Remove(pipe))
	host.write(port+"/hw_counters/out_of_buffer", 7)
	b.Deadline = 20 * time.Second
	bpftest.Eventually(t, "the device is back", func() bool {
		s := b.next(time.Second)
		return len(s.Devices) == 2 && len(s.Problems) == 0
	})
}

func TestADeviceThatHangsIsUnplugged(t *testing.T) {
	host := newSysfs(t)
	port := host.hca("mlx5_1", slot(1))
	b := newBench(t, host)
	b.next(time.Second)
	pipe := host.fifo(port + "/state")
	held, err := os.OpenFile(pipe, os.O_RDWR, 0) // opening it does not hang, reading does
	host.ok(err)
	b.Deadline = 20 * time.Millisecond
	b.next(time.Second)
	b.next(time.Second)
	b.next(time.Second)
	host.unplug("mlx5_1")
	bpftest.Eventually(t, "it is gone", func() bool {
		s := b.next(time.Second)
		return len(s.Problems) == 0 && len(s.Devices) == 0
	})
	if b.limbo != 1 {
		t.Errorf("%d in limbo", b.limbo)
	}
	_, err = held.WriteString("4: ACTIVE\n")
	host.ok(err)
	bpftest.Eventually(t, "it has come back", func() bool { b.next(time.Second); return b.limbo == 0 })
	held.Close()
}

func TestQueuePairs(t *testing.T) {
	host := newSysfs(t)
	host.hca("mlx5_0", slot(0))
	b := newBench(t, host)
	b.ask = func(string) ([]uint32, error) { return nil, errors.New("this kernel has no RDMA") }
	bpftest.Eventually(t, "the problem", func() bool {
		s := b.next(0)
		return len(s.Problems) == 1 && strings.Contains(s.Problems[0], "this kernel has no RDMA")
	})
	if d := b.next(0).Devices[0]; d.QueuePairsKnown {
		t.Error("they are known")
	}
	stop := make(chan struct{})
	b.ask = func(string) ([]uint32, error) { <-stop; return []uint32{3}, nil }
	b.next(2 * pairsRetry)
	s := b.next(2 * pairsLate)
	if len(s.Problems) == 0 || s.Devices[0].QueuePairsKnown {
		t.Errorf("while it hangs: %q", s.Problems)
	}
	close(stop)
	bpftest.Eventually(t, "the answer", func() bool {
		s := b.next(0)
		return s.Devices[0].QueuePairsKnown && len(s.Problems) == 0 && len(s.Devices[0].PIDs) == 1
	})
	host.unplug("mlx5_0")
	if s := b.next(time.Second); len(s.Problems) > 0 {
		t.Errorf("%q", s.Problems)
	}
}

// Who asks for rounds has them when it wants, and what moved is of between two.
func TestNext(t *testing.T) {
	s := Start(Settings{Sysfs: t.TempDir(), Plain: true, Every: time.Hour})
	before := s.Next(t.Context())
	if now := s.Next(t.Context()); now.At <= before.At {
		t.Error("no new round")
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if s.Next(over) == nil {
		t.Error("who does not wait is told nothing")
	}
	s.Close()
	if s.Next(t.Context()) == nil {
		t.Error("after the end there is nothing")
	}
}
