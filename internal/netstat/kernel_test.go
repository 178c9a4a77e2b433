// SPDX-License-Identifier: Apache-2.0

package netstat

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
)

// lab is a namespace whose sockets are made to suffer.
type lab struct {
	t      *testing.T
	ns     *bpftest.Netns
	s      *Sampler
	closed map[int]bool
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, ns: bpftest.NewNetns(t), closed: map[int]bool{}}
	l.ns.Command("ip", "link", "set", "lo", "up")
	l.s = New(Config{Enter: func(_ uint32, fn func() error) (err error) {
		l.ns.Do(func() { err = fn() })
		return err
	}})
	return l
}

func (l *lab) read() Report {
	l.t.Helper()
	r, err := l.s.Read(l.ns.Inode())
	if err != nil {
		l.t.Fatal(err)
	}
	return r
}

func (l *lab) buffers() Buffers {
	l.t.Helper()
	r := l.read()
	b, err := l.s.Buffers(l.t.Context(), l.ns.Inode(), &r)
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

// count is what orb8 tells of a counter. It must lie between what nstat tells
// before and after.
func (l *lab) count(name string) uint64 {
	l.t.Helper()
	before := l.nstat(name)
	r := l.read()
	after := l.nstat(name)
	var got uint64
	for _, c := range r.Counters {
		if c.Name == name {
			got = c.Total
		}
	}
	if got < before || got > after {
		l.t.Errorf("%s is %d, nstat says %d, then %d", name, got, before, after)
	}
	return got
}

func (l *lab) nstat(name string) (n uint64) {
	l.t.Helper()
	for row := range strings.Lines(l.ns.Command("nstat", "-asz", name)) {
		if f := strings.Fields(row); len(f) > 1 && f[0] == name {
			n, _ = strconv.ParseUint(f[1], 10, 64)
			return n
		}
	}
	l.t.Fatalf("nstat does not know %s", name)
	return 0
}

// finds expects a finding, and gives it.
func (l *lab) finds(counter, words string) Finding {
	l.t.Helper()
	r := l.read()
	b := l.buffers()
	r.Hold(&b)
	for _, f := range r.Findings {
		if f.Counter == counter {
			if !strings.Contains(f.Meaning, words) {
				l.t.Errorf("%s means %q, without %q", counter, f.Meaning, words)
			}
			l.t.Log(f.Meaning)
			return f
		}
	}
	l.t.Errorf("%s is not found: %+v", counter, r.Findings)
	return Finding{}
}

// socket makes one in the namespace; it is closed with the test.
func (l *lab) socket(kind int) int {
	l.t.Helper()
	fd, err := -1, error(nil)
	l.ns.Do(func() { fd, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0) })
	if err != nil {
		l.t.Fatal(err)
	}
	delete(l.closed, fd)
	l.t.Cleanup(func() { l.close(fd) })
	return fd
}

func (l *lab) close(fd int) {
	if !l.closed[fd] {
		l.closed[fd] = true
		_ = unix.Close(fd)
	}
}

func at(port int) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
}

func (l *lab) listener(port, backlog int) int {
	l.t.Helper()
	fd := l.socket(unix.SOCK_STREAM)
	err := unix.Bind(fd, at(port))
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return fd
}

// connection makes one, and accepts it.
func (l *lab) connection(listener, port int) (client, server int) {
	l.t.Helper()
	client = l.socket(unix.SOCK_STREAM)
	_ = unix.Connect(client, at(port)) // in progress
	bpftest.Eventually(l.t, "a connection to be accepted", func() bool {
		var err error
		server, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		return err == nil
	})
	return client, server
}

// TestNobodyAccepts: with a backlog of one, two connections wait.
func TestNobodyAccepts(t *testing.T) {
	l := newLab(t)
	l.listener(8080, 1)
	for range 10 {
		_ = unix.Connect(l.socket(unix.SOCK_STREAM), at(8080))
	}
	bpftest.Eventually(t, "the queue to overflow", func() bool { return l.nstat("TcpExtListenOverflows") >= 8 })
	l.count("TcpExtListenOverflows")
	l.count("TcpExtListenDrops")
	l.finds("TcpExtListenOverflows", "; port 8080 is full now: 2 wait, its backlog is 1")
}

// TestNobodyReads: datagrams beyond the buffer are dropped, bytes of a stream
// wait.
func TestNobodyReads(t *testing.T) {
	l := newLab(t)
	reader := l.socket(unix.SOCK_DGRAM)
	if err := unix.SetsockoptInt(reader, unix.SOL_SOCKET, unix.SO_RCVBUF, 4096); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(reader, at(9999)); err != nil {
		t.Fatal(err)
	}
	writer := l.socket(unix.SOCK_DGRAM)
	for range 100 {
		if err := unix.Sendto(writer, make([]byte, 1000), 0, at(9999)); err != nil {
			t.Fatal(err)
		}
	}
	if n := l.count("UdpRcvbufErrors"); n == 0 || n >= 100 {
		t.Errorf("%d of 100 datagrams dropped", n)
	}
	f := l.finds("UdpRcvbufErrors", "; most of them on port 9999")
	if b := l.buffers(); uint64(b.Lossy.Drops) != f.Total {
		t.Errorf("%d dropped in all, %d by the socket", f.Total, b.Lossy.Drops)
	}
	_ = unix.Sendto(writer, []byte{1}, 0, at(9)) // where nobody listens
	if n := l.count("UdpNoPorts"); n != 1 {
		t.Errorf("%d datagrams to nobody", n)
	}

	client, server := l.connection(l.listener(8080, 5), 8080)
	defer unix.Close(server)
	sent := 0
	bpftest.Eventually(t, "the writer to wait", func() bool {
		for {
			n, err := unix.Write(client, make([]byte, 64<<10))
			if err != nil {
				break
			}
			sent += n
		}
		return l.nstat("TcpExtTCPToZeroWindowAdv") > 0
	})
	l.count("TcpExtTCPToZeroWindowAdv")
	l.finds("TcpExtTCPToZeroWindowAdv", "does not read fast enough")
	// Window probes move what is there a little.
	bpftest.Eventually(t, "ss and orb8 to agree", func() bool {
		before, got, after := l.ss(), l.buffers().Bytes, l.ss()
		if before == after && got == before {
			t.Logf("%d bytes sent and not read are %d of memory", sent, got)
			return got > uint64(sent)
		}
		return false
	})
	// The listener and both ends; of UDP, what sends, too, once it has a port.
	if r := l.read(); r.TCP != 3 || r.UDP != 2 {
		t.Errorf("%d TCP and %d UDP sockets", r.TCP, r.UDP)
	}
}

// ss is what waits in the buffers of all sockets, as ss tells it.
func (l *lab) ss() (sum uint64) {
	l.t.Helper()
	rows := l.ns.Command("ss", "-tuanmH")
	for rest := rows; ; {
		_, after, ok := strings.Cut(rest, "skmem:(")
		if !ok {
			return sum
		}
		var r, rb, t, tb, f, w, o, bl, d uint64
		if _, err := fmt.Sscanf(after, "r%d,rb%d,t%d,tb%d,f%d,w%d,o%d,bl%d,d%d", &r, &rb, &t, &tb, &f, &w, &o, &bl, &d); err != nil {
			l.t.Fatalf("ss says %q: %v", after[:min(80, len(after))], err)
		}
		sum += r + w + bl
		rest = after
	}
}

// TestTooManyInTimeWait: of ten connections that are closed, three may wait.
func TestTooManyInTimeWait(t *testing.T) {
	l := newLab(t)
	l.ns.Sysctl("ipv4/tcp_max_tw_buckets", "3")
	listener := l.listener(8080, 5)
	for range 10 {
		client, server := l.connection(listener, 8080)
		_ = unix.Shutdown(client, unix.SHUT_RDWR)
		_ = unix.Close(server)
	}
	bpftest.Eventually(t, "too many in TIME_WAIT", func() bool { return l.nstat("TcpExtTCPTimeWaitOverflow") >= 5 })
	l.count("TcpExtTCPTimeWaitOverflow")
	l.finds("TcpExtTCPTimeWaitOverflow", "closed without TIME_WAIT")
	if r := l.read(); r.TimeWait == 0 || r.TimeWait > 4 {
		t.Errorf("%d in TIME_WAIT", r.TimeWait)
	}
}

// TestOrphans: a connection that its process has left with bytes that nobody
// reads. The kernel's own number is of all namespaces.
func TestOrphans(t *testing.T) {
	l := newLab(t)
	other := newLab(t)
	client, server := l.connection(l.listener(8080, 5), 8080)
	defer unix.Close(server)
	for {
		if _, err := unix.Write(client, make([]byte, 64<<10)); err != nil {
			break
		}
	}
	if n := l.buffers().Orphans; n != 0 {
		t.Errorf("%d orphans, and nobody left", n)
	}
	l.close(client)
	bpftest.Eventually(t, "an orphan", func() bool { return l.buffers().Orphans == 1 })
	if b := other.buffers(); b.Orphans != 0 || b.Bytes != 0 {
		t.Errorf("another namespace: %+v", b)
	}
}

func TestNoRoute(t *testing.T) {
	l := newLab(t)
	fd := l.socket(unix.SOCK_DGRAM)
	for range 7 {
		if err := unix.Sendto(fd, []byte{1}, 0, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{192, 0, 2, 1}}); err == nil {
			t.Fatal("sent without a route")
		}
	}
	if n := l.count("IpOutNoRoutes"); n != 7 {
		t.Errorf("%d of 7", n)
	}
	l.finds("IpOutNoRoutes", "7 packets not sent, there was no route")
}

// TestCost tells what a pass over a node of 110 pods costs.
func TestCost(t *testing.T) {
	bpftest.RequireKernel(t)
	spaces := make([]*bpftest.Netns, 110)
	for i := range spaces {
		spaces[i] = bpftest.NewNetns(t)
	}
	s := New(Config{Interval: time.Millisecond, Enter: func(i uint32, fn func() error) (err error) {
		spaces[i].Do(func() { err = fn() })
		return err
	}})
	r := newReader(s)
	var inodes []uint32
	for i := range spaces {
		s.Add(uint32(i))
		inodes = append(inodes, uint32(i))
	}
	best := time.Hour
	for range 10 {
		began := time.Now()
		if failed := s.sample(t.Context(), r, inodes); failed > 0 {
			t.Fatalf("%d not read", failed)
		}
		best = min(best, time.Since(began))
	}
	t.Logf("%d namespaces in %v: %.3f %% of a core", len(spaces), best, 100*best.Seconds()/10)
	began := time.Now()
	for i := range inodes {
		if _, err := s.Buffers(t.Context(), uint32(i), &Report{TCP: 1, UDP: 1}); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("and their buffers in %v", time.Since(began))
}
