// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/bpftest"
)

// The agent taps the namespace of its process, so these tests run it as one:
// this test binary, started inside a private namespace, is the agent.
const asAgent = "ORB8_TEST_AS_AGENT"

func TestMain(m *testing.M) {
	if os.Getenv(asAgent) == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	if os.Getenv(asAgent) == "hasty" {
		os.Stdout.WriteString("begun\n") // signals are heard from here on
	}
	code := Main(ctx, Process{Args: os.Args[1:], Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.LookupEnv, Version: "test"})
	stop()
	os.Exit(code)
}

// running is an agent.
type running struct {
	t      *testing.T
	cmd    *exec.Cmd
	dir    string
	output *buffer
	exited chan struct{}
	conn   *grpc.ClientConn
}

// buffer is written by the process and read by the test.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// command prepares an agent that keeps its files in dir.
func command(dir string, env []string, args ...string) (*exec.Cmd, *buffer) {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append([]string{
		asAgent + "=1",
		"ORB8_NODE_NAME=n1",
		"ORB8_CGROUP=none",
		"ORB8_NETNS=own", // others are their own tests
		"ORB8_SOCKET=" + filepath.Join(dir, "agent.sock"),
		"ORB8_STATE_DIR=" + dir,
	}, env...)
	out := &buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	return cmd, out
}

// start runs an agent in the namespace until the test ends.
func start(t *testing.T, ns *bpftest.Netns, env ...string) *running {
	t.Helper()
	return startIn(t, ns, t.TempDir(), env...)
}

func startIn(t *testing.T, ns *bpftest.Netns, dir string, env ...string) *running {
	t.Helper()
	p := &running{t: t, dir: dir, exited: make(chan struct{})}
	p.cmd, p.output = command(dir, env)
	ns.Do(func() {
		if err := p.cmd.Start(); err != nil {
			t.Fatal(err)
		}
	})
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("the agent said:\n%s", p.output)
		}
	})
	bpftest.Eventually(t, "the agent to listen", func() bool {
		return strings.Contains(p.output.String(), "agent.sock") || p.done()
	})
	return p
}

func (p *running) done() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// end sends sig and returns the exit code.
func (p *running) end(sig os.Signal) int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-p.exited:
	case <-time.After(20 * time.Second):
		p.t.Fatal("the agent does not end")
	}
	return p.cmd.ProcessState.ExitCode()
}

// dial connects by the unix socket, which knows no network namespaces.
func (p *running) dial() *grpc.ClientConn {
	p.t.Helper()
	if p.conn != nil {
		return p.conn
	}
	conn, err := grpc.NewClient("unix://"+filepath.Join(p.dir, "agent.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.Close() })
	p.conn = conn
	return conn
}

func (p *running) status() *pb.NodeStatus {
	p.t.Helper()
	st, err := pb.NewObserverClient(p.dial()).Status(p.t.Context(), &pb.StatusRequest{})
	if err != nil {
		p.t.Fatal(err)
	}
	return st.Nodes[0]
}

func (p *running) flows(req *pb.FlowsRequest) (flows []*pb.FlowRecord, sum *pb.Summary) {
	p.t.Helper()
	stream, err := pb.NewObserverClient(p.dial()).Flows(p.t.Context(), req)
	for err == nil {
		var m *pb.FlowsResponse
		if m, err = stream.Recv(); m.GetFlow() != nil {
			flows = append(flows, m.GetFlow())
		}
		if s := m.GetSummary(); s != nil {
			sum = s
		}
	}
	if !errors.Is(err, io.EOF) {
		p.t.Fatal(err)
	}
	return flows, sum
}
