// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/bpftest"
)

// captured is the answer to a capture, as it comes.
type capturedAnswer struct {
	t          *testing.T
	stream     pb.Observer_CaptureClient
	interfaces []*pb.CaptureInterface
	packets    []*pb.CapturedPacket
	notes      []string
	summary    *pb.CaptureSummary
}

func (p *running) capture(ctx context.Context, q *pb.CaptureRequest) *capturedAnswer {
	p.t.Helper()
	stream, err := pb.NewObserverClient(p.dial()).Capture(ctx, q)
	if err != nil {
		p.t.Fatal(err)
	}
	return &capturedAnswer{t: p.t, stream: stream}
}

// next takes messages until done says so, or the end.
func (c *capturedAnswer) next(done func() bool) error {
	for !done() {
		m, err := c.stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case m.GetInterface() != nil:
			c.interfaces = append(c.interfaces, m.GetInterface())
		case m.GetPackets() != nil:
			c.packets = append(c.packets, m.GetPackets().GetPackets()...)
		case m.GetNote() != nil:
			c.notes = append(c.notes, m.GetNote().GetText())
		case m.GetSummary() != nil:
			c.summary = m.GetSummary()
		}
	}
	return nil
}

func (c *capturedAnswer) must(done func() bool) {
	c.t.Helper()
	if err := c.next(done); err != nil {
		c.t.Fatal(err)
	}
}

func never() bool { return false }

// joined makes namespaces on veths to the world, numbered from first.
func (w *world) joined(first, last int) {
	w.run(fmt.Sprintf(`
		for i in $(seq %d %d); do
			ip netns add pod$i
			ip link add v$i type veth peer name eth0 netns pod$i
			ip addr add 10.9.$i.1/24 dev v$i; ip link set v$i up
			ip -n pod$i addr add 10.9.$i.2/24 dev eth0; ip -n pod$i link set eth0 up
		done`, first, last))
}

// send sends a datagram to port 99 from a namespace.
func (w *world) send(pod, times int) {
	w.run(fmt.Sprintf(`for n in $(seq %d); do ip netns exec pod%d bash -c "echo hello >/dev/udp/10.9.%d.1/99"; done`, times, pod, pod))
}

// TestCaptureInAWorld: packets of namespaces that are there, that come and that
// go, by either way to attach, and nothing of it stays.
func TestCaptureInAWorld(t *testing.T) {
	for _, attach := range []string{"auto", "clsact"} {
		t.Run(attach, func(t *testing.T) {
			w := newWorld(t)
			w.joined(1, 2)
			a := w.agent(t.TempDir(), "ORB8_ALLOW_CAPTURE=true", "ORB8_KUBERNETES=off", "ORB8_ATTACH="+attach)
			a.listens()
			bpftest.Eventually(t, "all to be tapped", func() bool { return tapped(a.status()) == 3 })
			descriptors, _ := a.holds()
			c := a.capture(t.Context(), &pb.CaptureRequest{
				Include: &pb.Filter{DstPorts: []uint32{99}, Directions: []string{"egress"}}, Packets: 6, DurationNs: int64(5 * time.Minute),
			})
			c.must(func() bool { return len(c.interfaces) == 4 })
			w.send(1, 2)
			c.must(func() bool { return len(c.packets) == 2 })
			in := c.interfaces[c.packets[0].GetInterface()]
			if in.GetTap().GetNamespace() != "pod1" || in.GetTap().GetInterface() != "eth0" || in.GetLinkType() != 1 || !c.packets[0].GetEgress() {
				t.Errorf("captured at %v", in)
			}
			if d := c.packets[0].GetData(); len(d) != 14+20+8+6 || string(d[42:]) != "hello\n" {
				t.Errorf("captured %q", d)
			}
			w.joined(3, 3)
			c.must(func() bool { return len(c.interfaces) == 6 })
			w.send(3, 1)
			c.must(func() bool { return len(c.packets) == 3 })
			w.run("ip netns del pod1")
			c.must(func() bool { return strings.Contains(strings.Join(c.notes, "\n"), "pod1 eth0 is gone") })
			bpftest.Eventually(t, "the namespace to die", func() bool { return !strings.Contains(w.run("ip -o link"), " v1@") })
			w.send(2, 5)
			c.must(never)
			if s := c.summary; s.GetEndedBy() != "packets" || len(c.packets) != 6 || len(s.GetAmounts()) != 6 {
				t.Errorf("%d packets, %v", len(c.packets), s)
			}
			for _, line := range []string{`msg="Capture begins" who="uid 0, process `, `dstPorts`, `msg="Capture ended"`, "by=packets"} {
				bpftest.Eventually(t, "the log to say "+line, func() bool { return strings.Contains(a.output.String(), line) })
			}
			bpftest.Eventually(t, "the capture to let go", func() bool {
				now, _ := a.holds()
				return now <= descriptors+1
			})
		})
	}
}

// TestCaptureEnds: by its time, when nothing is left, when the reader leaves and
// when the agent ends.
func TestCaptureEnds(t *testing.T) {
	w := newWorld(t)
	w.joined(1, 1)
	a := w.agent(t.TempDir(), "ORB8_ALLOW_CAPTURE=true", "ORB8_KUBERNETES=off")
	a.listens()
	bpftest.Eventually(t, "all to be tapped", func() bool { return tapped(a.status()) == 2 })
	short := a.capture(t.Context(), &pb.CaptureRequest{DurationNs: int64(100 * time.Millisecond)})
	if short.must(never); short.summary.GetEndedBy() != "duration" {
		t.Errorf("ended by %v", short.summary)
	}
	ctx, leave := context.WithCancel(t.Context())
	left := a.capture(ctx, &pb.CaptureRequest{})
	left.must(func() bool { return len(left.interfaces) > 0 })
	leave()
	bpftest.Eventually(t, "the agent to notice", func() bool { return strings.Contains(a.output.String(), "its reader, who left") })
	gone := a.capture(t.Context(), &pb.CaptureRequest{})
	gone.must(func() bool { return len(gone.interfaces) > 0 })
	w.run("ip netns del pod1")
	if gone.must(never); gone.summary.GetEndedBy() != "gone" {
		t.Errorf("ended by %v", gone.summary)
	}
	none := a.capture(t.Context(), &pb.CaptureRequest{})
	if none.must(never); none.summary.GetEndedBy() != "no match" {
		t.Errorf("ended by %v", none.summary)
	}
	w.joined(2, 2)
	bpftest.Eventually(t, "it to be tapped", func() bool { return tapped(a.status()) == 2 })
	last := a.capture(t.Context(), &pb.CaptureRequest{})
	last.must(func() bool { return len(last.interfaces) > 0 })
	a.signal(syscall.SIGINT)
	if err := last.next(never); status.Code(err) != codes.Unavailable {
		t.Errorf("ended with %v", err)
	}
	a.exits()
}

// TestCaptureWhoseReaderStops: it ends in its time, and lets go.
func TestCaptureWhoseReaderStops(t *testing.T) {
	w := newWorld(t)
	w.joined(1, 1)
	a := w.agent(t.TempDir(), "ORB8_ALLOW_CAPTURE=true", "ORB8_KUBERNETES=off")
	a.listens()
	bpftest.Eventually(t, "all to be tapped", func() bool { return tapped(a.status()) == 2 })
	// More than gRPC and the socket hold back.
	talk := w.command("ip", "netns", "exec", "pod1", "bash", "-c", "while true; do head -c 20000 /dev/zero; sleep 0.002; done >/dev/udp/10.9.1.1/9 2>/dev/null")
	talk.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := talk.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = talk.Process.Kill(); _ = talk.Wait() })
	c := a.capture(t.Context(), &pb.CaptureRequest{DurationNs: int64(2 * time.Second), Snaplen: 65536, Bytes: 1 << 30})
	c.must(func() bool { return len(c.packets) > 0 })
	bpftest.Eventually(t, "the agent to end it", func() bool { return strings.Contains(a.output.String(), `msg="Capture ended"`) })
	if said := a.output.String(); !strings.Contains(said, "its reader, who left") {
		t.Error(tail(said, 400))
	}
}
