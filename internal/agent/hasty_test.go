// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/bpftest"
)

// TestEndedAtAnyMoment: an agent that is told to end while it starts does so
// without a complaint.
func TestEndedAtAnyMoment(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p := bpftest.NewPair(t)
	for range 20 {
		cmd, out := command(t.TempDir(), []string{asAgent + "=hasty"})
		cmd.Stdout = nil
		begun, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		p.A.Do(func() { err = cmd.Start() })
		if err != nil {
			t.Fatal(err)
		}
		cut := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		_, err = io.ReadFull(begun, make([]byte, len("begun\n")))
		delay := time.Duration(rand.IntN(600)) * time.Millisecond
		time.Sleep(delay)
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		cut.Stop()
		if err != nil || cmd.ProcessState.ExitCode() != 0 || strings.Contains(out.String(), "orb8-agent: ") || strings.Contains(out.String(), "level=ERROR") {
			t.Errorf("told to end after %v: %v, %v, and said\n%s", delay, err, cmd.ProcessState, out)
		}
	}
}

// TestReaderOfTheLogGoesAway: the agent works on, and detaches at its end.
func TestReaderOfTheLogGoesAway(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p := bpftest.NewPair(t)
	dir := t.TempDir()
	cmd, _ := command(dir, []string{"ORB8_ATTACH=clsact"})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	_ = r.Close() // before the first word
	p.A.Do(func() { err = cmd.Start() })
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	a := &running{t: t, cmd: cmd, dir: dir, exited: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(a.exited)
	}()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-a.exited })
	bpftest.Eventually(t, "the agent to listen", func() bool {
		st, err := os.Stat(filepath.Join(dir, "agent.sock"))
		return a.done() || err == nil && st.Mode()&os.ModeSocket != 0
	})
	if a.done() {
		t.Fatalf("the agent ended: %v", cmd.ProcessState)
	}
	if st := a.status(); !st.Healthy {
		t.Errorf("status: %v", st)
	}
	if code := a.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if left := p.A.Command("tc", "qdisc", "show"); strings.Contains(left, "clsact") {
		t.Errorf("left behind: %s", left)
	}
}

// TestTooFewDescriptors: the agent ends and says so, or answers.
func TestTooFewDescriptors(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p := bpftest.NewPair(t)
	for _, limit := range []string{"16", "64", "100", "128"} {
		agent, out := command(t.TempDir(), nil)
		cmd := exec.Command("sh", "-c", `ulimit -n $0; exec "$@"`, limit, agent.Path)
		cmd.Env, cmd.Stdout, cmd.Stderr = append(agent.Env, "PATH="+os.Getenv("PATH")), out, out
		var err error
		p.A.Do(func() { err = cmd.Start() })
		if err != nil {
			t.Fatal(err)
		}
		cut := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		cut.Stop()
		said := out.String()
		if cmd.ProcessState.ExitCode() != 1 || strings.Count(said, "\n") != 1 || !strings.Contains(said, "out of file descriptors") || !strings.Contains(said, "limit "+limit+": raise it (ulimit -n, LimitNOFILE=)") {
			t.Errorf("with %s: %v, and said\n%s", limit, cmd.ProcessState, said)
		}
	}
	if err := checkDescriptors(); err != nil {
		t.Error(err)
	}
}
