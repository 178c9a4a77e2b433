// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/bpftest"
)

// world is a machine within the machine: processes, mounts and a network
// namespace of its own, so that an agent that taps every namespace leaves those
// of other tests alone.
type world struct {
	t    *testing.T
	init *exec.Cmd
	pid  int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	bpftest.RequireKernel(t, bpftest.BPF)
	w := &world{t: t}
	w.init = exec.Command("unshare", "--pid", "--mount", "--net", "--fork", "--kill-child", "--mount-proc", "--propagation", "private",
		"sh", "-c", "mount -t tmpfs none /run && mkdir /run/netns && ip link set lo up && echo ready && exec sleep 600")
	w.init.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	ready, err := w.init.StdoutPipe()
	if err == nil {
		err = w.init.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.init.Process.Kill(); _ = w.init.Wait() })
	if _, err := ready.Read(make([]byte, 16)); err != nil {
		t.Fatalf("no world of its own: %v", err)
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", w.init.Process.Pid, w.init.Process.Pid))
	if err == nil {
		w.pid, err = strconv.Atoi(strings.TrimSpace(string(children)))
	}
	if err != nil {
		t.Fatalf("first process of the world: %v", err)
	}
	return w
}

func (w *world) command(args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"-t", strconv.Itoa(w.pid), "-p", "-m", "-n"}, args...)...)
}

// run runs a script in the world.
func (w *world) run(script string) string {
	w.t.Helper()
	out, err := w.command("sh", "-ec", script).CombinedOutput()
	if err != nil {
		w.t.Fatalf("%v: %s\n%s", err, out, script)
	}
	return string(out)
}

// agent starts one that taps everything in the world.
func (w *world) agent(dir string, env ...string) *running {
	w.t.Helper()
	p := &running{t: w.t, dir: dir, exited: make(chan struct{})}
	prepared, out := command(dir, append([]string{"ORB8_NETNS=all"}, env...))
	p.output = out
	p.cmd = w.command(prepared.Args...)
	p.cmd.Env = append(prepared.Env, "PATH="+os.Getenv("PATH"))
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	w.t.Cleanup(func() {
		p.signal(syscall.SIGKILL)
		<-p.exited
		if w.t.Failed() {
			w.t.Logf("the agent said, at last:\n%s", tail(out.String(), 4000))
		}
	})
	return p
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

func (p *running) listens() {
	p.t.Helper()
	bpftest.Eventually(p.t, "the agent to listen", func() bool {
		return strings.Contains(p.output.String(), "agent.sock") || p.done()
	})
}

// pid of the agent itself: nsenter forks it.
func (p *running) pid() (pid int) {
	p.t.Helper()
	parent := strconv.Itoa(p.cmd.Process.Pid)
	bpftest.Eventually(p.t, "nsenter to fork", func() bool {
		children, _ := os.ReadFile("/proc/" + parent + "/task/" + parent + "/children")
		_, err := fmt.Sscan(string(children), &pid)
		return err == nil || p.done()
	})
	return pid
}

// signal reaches the agent itself, also where it has just begun.
func (p *running) signal(sig syscall.Signal) {
	if p.done() {
		return
	}
	if pid := p.pid(); pid > 1 {
		_ = syscall.Kill(pid, sig)
	}
}

// exits waits for the agent to end.
func (p *running) exits() {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(20 * time.Second):
		p.t.Fatal("the agent does not end")
	}
}

// holds counts the agent's open descriptors, and its memory in KiB.
func (p *running) holds() (descriptors, memory int) {
	p.t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.pid()))
	if err != nil {
		p.t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid()))
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			_, _ = fmt.Sscan(rest, &memory)
		}
	}
	return len(fds), memory
}

// TestChurn: 500 namespaces with a veth come and go while the agent runs. What
// they did is counted, and nothing of them stays.
func TestChurn(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	a := w.agent(dir)
	a.listens()
	const rounds, batch = 10, 50
	round := func(n int) {
		w.run(fmt.Sprintf(`
			for i in $(seq %d %d); do
				ip netns add c$i
				ip link add v$i type veth peer name eth0 netns c$i
				ip addr add 10.$((i / 250)).$((i %% 250)).1/30 dev v$i; ip link set v$i up
				ip -n c$i addr add 10.$((i / 250)).$((i %% 250)).2/30 dev eth0; ip -n c$i link set eth0 up
			done`, n*batch, (n+1)*batch-1))
		w.run(fmt.Sprintf(`for i in $(seq %d %d); do ip netns exec c$i bash -c "echo hello >/dev/udp/10.$((i / 250)).$((i %% 250)).1/9"; done`, n*batch, (n+1)*batch-1))
		if n == 0 { // once is enough: all are tapped while they are there
			bpftest.Eventually(t, "all to be tapped", func() bool { return tapped(a.status()) == batch+1 })
		}
		w.run(fmt.Sprintf(`for i in $(seq %d %d); do ip netns del c$i; done`, n*batch, (n+1)*batch-1))
	}
	round(0)
	bpftest.Eventually(t, "the first to be forgotten", func() bool { return tapped(a.status()) == 1 })
	descriptors, memory := a.holds()
	for n := 1; n < rounds; n++ {
		round(n)
	}
	bpftest.Eventually(t, "all to be forgotten", func() bool { return tapped(a.status()) == 1 })
	st := a.status()
	after, memoryAfter := a.holds()
	t.Logf("descriptors %d, then %d; memory %d KiB, then %d KiB; CPU %.2f s", descriptors, after, memory, memoryAfter, st.Cost.CpuSeconds)
	if after > descriptors+5 {
		t.Errorf("descriptors: %d after %d namespaces, %d after %d", descriptors, batch, after, rounds*batch)
	}
	if memoryAfter > memory+16<<10 {
		t.Errorf("memory: %d KiB, then %d KiB", memory, memoryAfter)
	}
	var sent uint64
	wrong := 0
	for _, i := range st.Interfaces {
		sent += i.Egress.Counted.Packets
		if i.Ingress.UnaccountedPackets != 0 || i.Egress.UnaccountedPackets != 0 {
			if wrong++; wrong < 4 {
				t.Logf("does not add up: %v", i)
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%d of %d interfaces do not add up", wrong, len(st.Interfaces))
	}
	if sent < rounds*batch {
		t.Errorf("%d packets counted of %d namespaces that sent one each", sent, rounds*batch)
	}
	if left := w.run("ip netns list; ip -o link | grep -v ': lo:' || true"); strings.TrimSpace(left) != "" {
		t.Errorf("left behind: %s", left)
	}
	goroutines(t, a)
}

// goroutines has the agent end with the stacks of all.
func goroutines(t *testing.T, a *running) {
	t.Helper()
	a.signal(syscall.SIGQUIT)
	a.exits()
	if n := strings.Count(a.output.String(), "\ngoroutine "); n == 0 || n > 60 {
		t.Errorf("%d goroutines", n)
	}
}

func tapped(st *pb.NodeStatus) (n int) {
	for _, ns := range st.Namespaces {
		if ns.TappedSinceNs != 0 {
			n++
		}
	}
	return n
}

// TestKilledAtAnyMoment: fifty agents are killed while they start, attach or
// work. The next one, or cleanup, leaves nothing of them in any namespace.
func TestKilledAtAnyMoment(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	w.run(`for i in 1 2 3 4 5 6 7 8; do
		ip netns add c$i; ip link add v$i type veth peer name eth0 netns c$i; ip link set v$i up; ip -n c$i link set eth0 up
	done`)
	env := []string{"ORB8_ATTACH=clsact"} // what a killed process leaves
	// As long as it takes until all is tapped, whatever else the machine does.
	start := time.Now()
	first := w.agent(dir, env...)
	first.listens()
	bpftest.Eventually(t, "all to be tapped", func() bool { return tapped(first.status()) == 9 })
	whole := time.Since(start)
	first.signal(syscall.SIGKILL)
	first.exits()
	for range 40 {
		a := w.agent(dir, env...)
		time.Sleep(rand.N(whole))
		a.signal(syscall.SIGKILL)
		a.exits()
	}
	hooks := func() string {
		return w.run(`tc qdisc show | grep clsact || true; for i in 1 2 3 4 5 6 7 8; do ip netns exec c$i tc qdisc show | grep clsact || true; done`)
	}
	if hooks() == "" {
		t.Error("a weak test: nothing was left to clean up")
	}
	// One that ends well leaves nothing, of others either.
	a := w.agent(dir, env...)
	a.listens()
	bpftest.Eventually(t, "all to be tapped", func() bool { return tapped(a.status()) == 9 })
	w.run(`for i in 1 2 3 4 5 6 7 8; do
		test "$(ip netns exec c$i tc filter show dev eth0 ingress | grep -c orb8-)" = 1
	done`)
	a.signal(syscall.SIGTERM)
	a.exits()
	if code := a.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	cleanup, out := command(dir, []string{"ORB8_NETNS=all"}, "cleanup")
	inside := w.command(cleanup.Args...)
	inside.Env, inside.Stdout, inside.Stderr = append(cleanup.Env, "PATH="+os.Getenv("PATH")), out, out
	if err := inside.Run(); err != nil {
		t.Errorf("cleanup: %v: %s", err, out)
	}
	if left := hooks(); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "clsact-*")); len(files) > 0 {
		t.Errorf("left behind: %v", files)
	}
}
