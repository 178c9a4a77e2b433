// SPDX-License-Identifier: Apache-2.0

package rdma

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sysfs is a tree as the kernel lays it out.
type sysfs struct {
	tb  testing.TB
	dir string
}

func newSysfs(tb testing.TB) *sysfs {
	s := &sysfs{tb, filepath.Join(tb.TempDir(), "sys")}
	s.mkdir("class/infiniband")
	s.mkdir("bus/pci/devices")
	return s
}

func (s *sysfs) ok(err error) {
	s.tb.Helper()
	if err != nil {
		s.tb.Fatal(err)
	}
}

func (s *sysfs) mkdir(path string) {
	s.tb.Helper()
	s.ok(os.MkdirAll(filepath.Join(s.dir, path), 0o755))
}

func (s *sysfs) write(path string, value any) {
	s.tb.Helper()
	path = filepath.Join(s.dir, path)
	s.ok(os.MkdirAll(filepath.Dir(path), 0o755))
	s.ok(os.WriteFile(path, fmt.Appendln(nil, value), 0o644))
}

func (s *sysfs) link(to, path string) {
	s.tb.Helper()
	s.ok(os.MkdirAll(filepath.Dir(filepath.Join(s.dir, path)), 0o755))
	s.ok(os.Symlink(to, filepath.Join(s.dir, path)))
}

// pci adds a device of a bus by its way: pci0000:00/0000:00:01.0/0000:1b:00.0.
func (s *sysfs) pci(way string, numa int) {
	s.tb.Helper()
	s.write("devices/"+way+"/numa_node", numa)
	if link := filepath.Join(s.dir, "bus/pci/devices", filepath.Base(way)); !exists(link) {
		s.link("../../../devices/"+way, "bus/pci/devices/"+filepath.Base(way))
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// hca adds a device with one port on a PCI device, and returns where its port is.
func (s *sysfs) hca(name, way string) string {
	s.tb.Helper()
	s.pci(way, 1)
	dir := "devices/" + way + "/infiniband/" + name
	s.mkdir(dir)
	s.link("../../"+dir, "class/infiniband/"+name)
	s.link("../../../"+filepath.Base(way), dir+"/device")
	s.mkdir("devices/" + way + "/net/eth" + name)
	port := dir + "/ports/1"
	s.port(port)
	return port
}

func (s *sysfs) port(port string) {
	s.tb.Helper()
	s.write(port+"/state", "4: ACTIVE")
	s.write(port+"/phys_state", "5: LinkUp")
	s.write(port+"/rate", "400 Gb/sec (4X NDR)")
	s.write(port+"/link_layer", "Ethernet")
	s.write(port+"/gid_attrs/ndevs/0", "rdma0")
	s.write(port+"/gid_attrs/ndevs/1", "rdma0.7")
	s.write(port+"/hw_counters/lifespan", 10)
	for name, v := range counts() {
		s.write(port+"/"+name, v)
	}
}

// counts are those of mlx5.
func counts() map[string]uint64 {
	all := map[string]uint64{
		"counters/port_xmit_data": 1000, "counters/port_rcv_data": 2000,
		"counters/port_xmit_packets": 10, "counters/port_rcv_packets": 20,
	}
	for _, name := range []string{
		"excessive_buffer_overrun_errors", "link_downed", "link_error_recovery", "local_link_integrity_errors",
		"multicast_rcv_packets", "multicast_xmit_packets", "port_rcv_constraint_errors", "port_rcv_errors",
		"port_rcv_remote_physical_errors", "port_rcv_switch_relay_errors", "port_xmit_constraint_errors",
		"port_xmit_discards", "port_xmit_wait", "symbol_error", "unicast_rcv_packets", "unicast_xmit_packets",
		"VL15_dropped",
	} {
		all["counters/"+name] = 0
	}
	for _, name := range []string{
		"duplicate_request", "implied_nak_seq_err", "local_ack_timeout_err", "np_cnp_sent",
		"np_ecn_marked_roce_packets", "out_of_buffer", "out_of_sequence", "packet_seq_err", "req_cqe_error",
		"req_cqe_flush_error", "req_remote_access_errors", "req_remote_invalid_request", "resp_cqe_error",
		"resp_cqe_flush_error", "resp_local_length_error", "resp_remote_access_errors", "rnr_nak_retry_err",
		"roce_adp_retrans", "roce_adp_retrans_to", "roce_slow_restart", "roce_slow_restart_cnps",
		"roce_slow_restart_trans", "rp_cnp_handled", "rp_cnp_ignored", "rx_atomic_requests", "rx_dct_connect",
		"rx_icrc_encapsulated", "rx_read_requests", "rx_write_requests",
	} {
		all["hw_counters/"+name] = 0
	}
	return maps.Clone(all)
}

// unplug takes a device away.
func (s *sysfs) unplug(name string) {
	s.tb.Helper()
	link := filepath.Join(s.dir, "class/infiniband", name)
	dir, err := filepath.EvalSymlinks(link)
	s.ok(err)
	s.ok(os.Remove(link))
	s.ok(os.RemoveAll(dir))
}

// fifo has a file of a port replaced by one whose reading hangs until it is
// written to.
func (s *sysfs) fifo(path string) string {
	s.tb.Helper()
	path = filepath.Join(s.dir, path)
	s.ok(os.RemoveAll(path))
	s.ok(unix.Mkfifo(path, 0o600))
	return path
}

// clock stands still until it is moved.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

// bench is a round on trees, with a clock and a kernel of the test's.
type bench struct {
	*round
	clock *clock
	proc  string
	roots []Root
}

func newBench(tb testing.TB, host *sysfs) *bench {
	tb.Helper()
	b := &bench{clock: &clock{time.Unix(1000, 0)}, proc: tb.TempDir()}
	b.round = newRound(Settings{
		Sysfs: host.dir, Proc: b.proc, Plain: true, Deadline: 20 * time.Second,
		Roots: func() []Root { return b.roots },
	}.filled())
	b.now = b.clock.now
	b.ask = func(string) ([]uint32, error) { return nil, nil }
	tb.Cleanup(b.close)
	return b
}

// next is a round after some time.
func (b *bench) next(after time.Duration) *Snapshot {
	b.clock.at = b.clock.at.Add(after)
	return b.sample()
}

// pod adds a process whose root has a sysfs of its own.
func (b *bench) pod(tb testing.TB, root Root) *sysfs {
	tb.Helper()
	s := &sysfs{tb, filepath.Join(b.proc, strconv.Itoa(int(root.PID)), "root/sys")}
	s.mkdir("class/infiniband")
	b.roots = append(b.roots, root)
	return s
}

func listed(s *Snapshot) (list []string) {
	for _, d := range s.Devices {
		list = append(list, fmt.Sprintf("%d/%s", d.Netns, d.Name))
	}
	return list
}

func counted(tb testing.TB, p *event.RDMAPort, name string) event.RDMACounter {
	tb.Helper()
	for _, c := range p.Counters {
		if c.Name == name {
			return c
		}
	}
	tb.Fatalf("no %s in %v", name, p.Counters)
	return event.RDMACounter{}
}
