// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/bpftest"
)

// TestAnswers: real packets, asked for over every listener and service.
func TestAnswers(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p := bpftest.NewPair(t)
	a := start(t, p.A.Netns)
	to := p.B.ListenTCP(false, bpftest.ServeDiscard)
	c := p.A.DialTCP(to)
	if _, err := c.Write(make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	var flows []*pb.FlowRecord
	bpftest.Eventually(t, "the connection", func() bool {
		flows, _ = a.flows(&pb.FlowsRequest{Include: &pb.Filter{DstPorts: []uint32{uint32(to.Port())}}})
		return len(flows) == 1 && flows[0].GetTotal().GetTxBytes() > 100_000
	})
	f := flows[0]
	if f.Node != "n1" || f.Tap.Interface != "veth0" || f.Tap.Netns != uint64(p.A.Inode()) || f.OpenedBy != pb.Opener_OPENER_LOCAL ||
		f.Local.Ip != "10.88.0.1" || f.Remote.Ip != "10.88.0.2" || f.State != "established" || f.Health.GetRttUs() == 0 ||
		f.Local.CgroupId == 0 || f.Local.SocketCookie != p.A.Cookie(c) || f.Local.Class != "host" {
		t.Errorf("record: %v", f)
	}
	st := a.status()
	if !st.Healthy || st.Version != "test" || st.EventsProcessed == 0 || len(st.Interfaces) != 1 || st.Cost.KernelMapBytes == 0 {
		t.Errorf("status: %v", st)
	}
	if !strings.Contains(a.output.String(), "Attached flow probe") {
		t.Error("the log does not say what was attached")
	}
	checkServices(t, a)
	// HTTP listens inside the namespace.
	for path, want := range map[string]string{"healthz": "200", "readyz": "200", "metrics": "200", "": "404"} {
		var got string
		p.A.Do(func() { got = get("127.0.0.1:9091", path) })
		if got != want {
			t.Errorf("/%s answers %s, want %s", path, got, want)
		}
	}
}

// get asks over a connection that is made on the calling thread, as an HTTP
// client's is not.
func get(addr, path string) string {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /%s HTTP/1.0\r\n\r\n", path)
	b := make([]byte, 12)
	if _, err := c.Read(b); err != nil {
		return err.Error()
	}
	return string(b[9:])
}

func checkServices(t *testing.T, a *running) {
	t.Helper()
	conn := a.dial()
	for _, service := range []string{"orb8.v1.Observer", "orb8.v1.OrbitAgentService"} {
		h, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil || h.Status != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("health of %s: %v, %v", service, h, err)
		}
	}
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.Recv()
	if err != nil || !strings.Contains(m.String(), "orb8.v1.Observer") {
		t.Errorf("reflection: %v, %v", m, err)
	}
}

// TestTotalsNeverShrink: what expired is in the remainder, what found no room
// in the table is overflow, and all of it together is what the interface saw.
func TestTotalsNeverShrink(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p := bpftest.NewPair(t)
	a := start(t, p.A.Netns, "ORB8_FLOW_TIMEOUT_SECS=1", "ORB8_EXPIRATION_INTERVAL_SECS=1", "ORB8_EPOCH=100ms", "ORB8_TABLE_ENTRIES=100", "ORB8_MAX_FLOWS=80")
	before := a.status().Interfaces[0].Egress
	const sent = 2000
	to := net.UDPAddrFromAddrPort(p.B.DrainUDP(false))
	c := p.A.UDP(false)
	for range sent / 500 {
		for i := range 500 { // 500 connections
			to.Port = 20000 + i
			if _, err := c.WriteTo(make([]byte, 100), to); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(150 * time.Millisecond)
	}
	var e *pb.Audit
	bpftest.Eventually(t, "the flows to expire", func() bool {
		st := a.status()
		e = st.Interfaces[0].Egress
		return st.ActiveFlows == 0
	})
	if got := e.Counted.Packets - before.Counted.Packets; got != sent {
		t.Errorf("counted %d packets, sent %d", got, sent)
	}
	if e.Overflow.Packets == 0 || e.Remainder.Packets == 0 || e.Flows.Packets != 0 {
		t.Errorf("overflow %v, remainder %v, flows %v", e.Overflow, e.Remainder, e.Flows)
	}
	if e.UnaccountedBytes != 0 || e.UnaccountedPackets != 0 || e.Counted.Bytes == 0 {
		t.Errorf("does not add up: %v", e)
	}
	_, sum := a.flows(&pb.FlowsRequest{})
	losses := map[string]uint64{}
	for _, l := range sum.Losses {
		losses[l.Stage] = l.Count
	}
	if losses["table_full"] == 0 || losses["flows_evicted"] == 0 || sum.Remainder.TxPackets != e.Remainder.Packets {
		t.Errorf("an answer must say what it misses: %v", sum)
	}
}

// TestInterfacesThatAreGone: their accounts are summed in one, which adds up.
func TestInterfacesThatAreGone(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p := bpftest.NewPair(t)
	a := start(t, p.A.Netns, "ORB8_FLOW_TIMEOUT_SECS=1", "ORB8_EXPIRATION_INTERVAL_SECS=1")
	p.A.Ping(p.B.IP4, 3)
	egress := func(name string) *pb.Audit {
		for _, i := range a.status().Interfaces {
			if i.Tap.Interface == name {
				return i.Egress
			}
		}
		return nil
	}
	var before *pb.Counter
	bpftest.Eventually(t, "the pings to be counted", func() bool {
		before = egress("veth0").Counted
		return before.Packets >= 3
	})
	p.A.Command("ip", "link", "del", "veth0")
	bpftest.Eventually(t, "the account to be folded", func() bool { return egress("(gone)") != nil && egress("veth0") == nil })
	after := egress("(gone)")
	if after.Counted.Packets < before.Packets || after.UnaccountedPackets != 0 || after.Flows.Packets != 0 {
		t.Errorf("before %v, after %v", before, after)
	}
}

// TestEndsWithOpenStreams: SIGTERM ends followers, exits 0, leaves no socket.
func TestEndsWithOpenStreams(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p := bpftest.NewPair(t)
	a := start(t, p.A.Netns, "ORB8_SHUTDOWN_TIMEOUT_SECS=5")
	stream, err := pb.NewObserverClient(a.dial()).Events(t.Context(), &pb.EventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if code := a.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("an idle follower held the agent up for %v", took)
	}
	for err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the follower was told %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(a.dir, "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestKilledAgentIsCleanedUp: clsact outlives its process; the next start, and
// the command, take away what a dead one left, and only that.
func TestKilledAgentIsCleanedUp(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p := bpftest.NewPair(t)
	dir := t.TempDir()
	filters := func() string { return p.A.Command("tc", "filter", "show", "dev", "veth0", "ingress") }
	a := startIn(t, p.A.Netns, dir, "ORB8_ATTACH=clsact")
	if !strings.Contains(filters(), "orb8-") {
		t.Fatalf("no filter of ours:\n%s", filters())
	}
	cleanup := func() string {
		cmd, out := command(dir, nil, "cleanup")
		p.A.Do(func() {
			if err := cmd.Run(); err != nil {
				t.Errorf("cleanup: %v: %s", err, out)
			}
		})
		return out.String()
	}
	if out := cleanup(); !strings.Contains(out, "nothing was left") || !strings.Contains(filters(), "orb8-") {
		t.Errorf("a living agent's filters are not to be touched: %s", out)
	}
	a.end(syscall.SIGKILL)
	if !strings.Contains(filters(), "orb8-") {
		t.Fatal("the test should find a left filter")
	}
	if out := cleanup(); !strings.Contains(out, "removed veth0") {
		t.Errorf("cleanup says %s", out)
	}
	if f := filters(); strings.Contains(f, "orb8-") {
		t.Errorf("still there:\n%s", f)
	}
	startIn(t, p.A.Netns, dir, "ORB8_ATTACH=clsact").end(syscall.SIGKILL)
	b := startIn(t, p.A.Netns, dir, "ORB8_ATTACH=tcx")
	if !strings.Contains(b.output.String(), "removed what an earlier agent left") || strings.Contains(filters(), "orb8-") {
		t.Errorf("the next start does not clean up:\n%s", b.output)
	}
	if code := b.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestRefuses: one line that says what is wrong and what to try.
func TestRefuses(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p := bpftest.NewPair(t)
	start(t, p.A.Netns)
	for _, c := range []struct {
		name, want string
		env, args  []string
		code       int
		nobody     bool
	}{
		{"port in use", "port 9090 is in use", nil, nil, 1, false},
		{"other port in use", "port 9091 is in use", []string{"ORB8_GRPC_PORT=9190"}, nil, 1, false},
		{"not root", "needs root", nil, nil, 1, true},
		{"unknown flag", "unknown flag: --gprc-port", nil, []string{"--gprc-port=1"}, 2, false},
		{"number that is none", "ORB8_MAX_FLOWS=\"many\"", []string{"ORB8_MAX_FLOWS=many"}, nil, 2, false},
		{"out of range", "--epoch (ORB8_EPOCH): must be from 100ms to 1m", nil, []string{"--epoch=1ms"}, 2, false},
		{"not an argument", "unknown command", nil, []string{"now"}, 2, false},
	} {
		cmd, out := command(t.TempDir(), c.env, c.args...)
		if c.nobody {
			// Root of a user namespace has no rights over the kernel.
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
		}
		p.A.Do(func() { _ = cmd.Run() })
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		last := lines[len(lines)-1]
		if cmd.ProcessState.ExitCode() != c.code || !strings.HasPrefix(last, "orb8-agent: ") || !strings.Contains(last, c.want) {
			t.Errorf("%s: exit %d: %s", c.name, cmd.ProcessState.ExitCode(), out)
		}
	}
}

// TestSocketOfADeadAgent is taken over; a living one's is left alone.
func TestSocketOfADeadAgent(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a", "agent.sock")
	first, err := listenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket is open to others: %v, %v", st.Mode(), err)
	}
	if _, err := listenUnix(path); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a living agent's socket: %v", err)
	}
	file := filepath.Join(dir, "precious")
	if err := os.WriteFile(file, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(file); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file: %v", err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(link); err == nil {
		t.Error("a link was taken over")
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "data" {
		t.Errorf("the file was touched: %q, %v", b, err)
	}
	first.(unixListener).Listener.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = first.Close()
	second, err := listenUnix(path)
	if err != nil {
		t.Fatalf("a dead agent's socket: %v", err)
	}
	_ = second.Close()
}
